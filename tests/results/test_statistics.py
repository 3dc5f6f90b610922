"""Known answers, properties, and the rate of false alarms."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from results.statistics.paired import (
    blocks_at_least,
    blocks_for,
    equivalent,
    holm,
    median_interval,
    paired_shift,
    sign_flip_p,
    signed_rank_counts,
    walsh_averages,
)

# Hamilton depression scale factor IV, first and second visit (Hollander and Wolfe, table 3.1;
# also the example of R's wilcox.test).
FIRST_VISIT = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
SECOND_VISIT = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)
DEPRESSION = [a - b for a, b in zip(FIRST_VISIT, SECOND_VISIT, strict=True)]

differences = st.lists(st.floats(-10, 10).map(lambda x: round(x, 6)), min_size=6, max_size=14)


def test_depression_example_gives_the_published_estimate_interval_and_p() -> None:
    found = paired_shift(DEPRESSION, 0.95)
    assert found.shift.estimate == pytest.approx(0.46)
    assert found.shift.low == pytest.approx(0.010)
    assert found.shift.high == pytest.approx(0.786)
    assert found.p == pytest.approx(0.0390625)
    assert found.pairs == 9
    assert found.bounds_hold


@pytest.mark.parametrize("values", [DEPRESSION, [*DEPRESSION[:5], 0.0, -3.0], [0.0, 0.0]])
def test_the_mean_over_all_signs_is_scipys_permutation_test(values: list[float]) -> None:
    theirs = stats.permutation_test(
        [values], lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue)


def test_the_mean_of_many_pairs_is_not_counted_out() -> None:
    assert sign_flip_p([1.0] * 24) == pytest.approx(2 / 2**24)
    assert sign_flip_p([1.0] * 25) is None
    assert sign_flip_p([0.3]) == 1.0
    assert sign_flip_p([]) is None


@pytest.mark.parametrize("n", range(1, 11))
def test_signed_rank_distribution_is_that_of_all_sign_patterns(n: int) -> None:
    counts = [0] * (n * (n + 1) // 2 + 1)
    for signs in range(2**n):
        counts[sum(rank for rank in range(1, n + 1) if signs >> (rank - 1) & 1)] += 1
    assert signed_rank_counts(n) == counts


@given(st.dictionaries(st.integers(1, 10**6), st.booleans(), min_size=6, max_size=14))
def test_p_is_scipys_where_there_are_no_ties_or_zeros(upwards: dict[int, bool]) -> None:
    values = [float(size if up else -size) for size, up in upwards.items()]
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert paired_shift(values, 0.95).p == pytest.approx(expected)


@given(st.lists(st.integers(-3, 3).map(float), min_size=6, max_size=10))
def test_p_with_ties_and_zeros_is_that_of_every_sign_pattern(values: list[float]) -> None:
    assume(any(values))
    ranks = stats.rankdata([abs(v) for v in values])
    kept = [(rank, v > 0) for rank, v in zip(ranks, values, strict=True) if v]
    sums = [
        sum(rank for i, (rank, _) in enumerate(kept) if signs >> i & 1)
        for signs in range(2 ** len(kept))
    ]
    seen = sum(rank for rank, up in kept if up)
    tail = min(sum(s <= seen for s in sums), sum(s >= seen for s in sums)) / len(sums)
    assert paired_shift(values, 0.95).p == pytest.approx(min(1.0, 2 * tail))


def test_many_pairs_use_the_normal_distribution_and_agree_with_scipy() -> None:
    rng = random.Random(7)
    values = [rng.gauss(0.2, 1) for _ in range(60)]
    found = paired_shift(values, 0.95)
    expected = stats.wilcoxon(values, method="asymptotic")
    assert found.p == pytest.approx(float(expected.pvalue))
    assert found.shift.low < found.shift.estimate < found.shift.high


def test_interval_of_fifty_pairs_and_of_fifty_one_join_smoothly() -> None:
    rng = random.Random(11)
    values = [rng.gauss(0, 1) for _ in range(51)]
    exact = paired_shift(values[:50], 0.95).shift
    approximate = paired_shift(values, 0.95).shift
    width = exact.high - exact.low
    assert approximate.high - approximate.low == pytest.approx(width, rel=0.15)


@given(differences)
def test_the_interval_contains_the_estimate_and_grows_with_confidence(values: list[float]) -> None:
    narrow, wide = (paired_shift(values, confidence).shift for confidence in (0.9, 0.95))
    assert narrow.low <= narrow.estimate <= narrow.high
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@given(differences)
def test_swapped_arms_turn_the_shift_around(values: list[float]) -> None:
    there = paired_shift(values, 0.95)
    back = paired_shift([-v for v in values], 0.95)
    assert back.shift.estimate == pytest.approx(-there.shift.estimate)
    assert back.shift.low == pytest.approx(-there.shift.high)
    assert back.shift.high == pytest.approx(-there.shift.low)
    assert back.p == pytest.approx(there.p)


@given(differences, st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_matter(values: list[float], rng: random.Random) -> None:
    mixed = list(values)
    rng.shuffle(mixed)
    assert paired_shift(mixed, 0.95) == paired_shift(values, 0.95)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_pairs_have_an_estimate_and_no_interval(n: int) -> None:
    found = paired_shift([0.1] * n, 0.95)
    assert found.shift.estimate == pytest.approx(0.1)
    assert not found.bounds_hold
    assert found.p > 0.05


def test_six_pairs_are_the_first_that_can_decide() -> None:
    found = paired_shift([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.95)
    assert (found.shift.low, found.shift.high) == (1.0, 6.0)
    assert found.p == pytest.approx(2 / 2**6)


def test_equal_pairs_show_nothing_and_equal_steps_are_sure() -> None:
    assert paired_shift([0.0] * 8, 0.95).p == 1.0
    same_step = paired_shift([-0.5] * 8, 0.95)
    assert same_step.p == pytest.approx(2 / 2**8)
    assert (same_step.shift.low, same_step.shift.high) == (-0.5, -0.5)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_shift([], 0.95)


def test_walsh_averages_of_a_small_example() -> None:
    assert walsh_averages([1.0, 3.0, 8.0]) == [1.0, 2.0, 3.0, 4.5, 5.5, 8.0]


def test_intervals_cover_and_an_a_a_test_seldom_alarms() -> None:
    rng = random.Random(20261)
    trials = 1_500
    alarms = misses = 0
    for _ in range(trials):
        # Skewed, yet symmetric as a difference of two arms that are the same.
        values = [math.log(rng.lognormvariate(0, 1) / rng.lognormvariate(0, 1)) for _ in range(8)]
        found = paired_shift(values, 0.95)
        alarms += found.p <= 0.05
        misses += not found.shift.low <= 0 <= found.shift.high
    # The exact level with eight pairs is 10/256 = 0.039; three standard errors are 0.015.
    assert 0.024 <= alarms / trials <= 0.054
    assert misses == alarms


def test_holm_gives_the_textbook_answer_in_the_order_asked() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-12
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_equivalence_needs_the_ninety_percent_interval_within_the_margin() -> None:
    values = [-0.012, -0.004, 0.003, 0.006, 0.011, 0.001, -0.002, 0.008]
    inner = paired_shift(values, 0.90).shift
    assert equivalent(values, -0.02, 0.02, 0.95)
    assert equivalent(values, inner.low - 1e-9, inner.high + 1e-9, 0.95)
    assert not equivalent(values, inner.low - 1e-9, inner.high - 1e-9, 0.95)
    assert not equivalent(values, inner.low + 1e-9, inner.high + 1e-9, 0.95)


def test_too_few_pairs_are_never_equivalent() -> None:
    assert not equivalent([0.0, 0.0, 0.0], -0.5, 0.5, 0.95)


def test_median_interval_of_six_values_is_their_range() -> None:
    found = median_interval([5, 1, 4, 2, 6, 3], 0.95)
    assert (found.estimate, found.low, found.high) == (3.5, 1, 6)
    assert not math.isfinite(median_interval([1, 2, 3, 4, 5], 0.95).low)


@given(st.lists(st.integers(0, 50).map(float), min_size=1, max_size=30))
def test_median_interval_is_that_of_scipys_quantile_test(values: list[float]) -> None:
    found = median_interval(values, 0.95)
    assert found.estimate == median(values)
    bounds = stats.quantile_test(values, q=median(values)).confidence_interval(0.95)
    if math.isfinite(found.low) and not math.isnan(bounds.low):
        assert (found.low, found.high) == (bounds.low, bounds.high)


@pytest.mark.parametrize(
    ("confidence", "contrasts", "blocks"),
    [(0.95, 0, 6), (0.95, 1, 6), (0.95, 2, 7), (0.95, 10, 9), (0.99, 1, 8), (0.9, 1, 5)],
)
def test_fewest_blocks_for_a_verdict(confidence: float, contrasts: int, blocks: int) -> None:
    assert blocks_at_least(confidence, contrasts) == blocks


@given(st.floats(0.8, 0.999), st.integers(1, 60))
def test_fewest_blocks_is_where_the_smallest_p_can_pass(confidence: float, contrasts: int) -> None:
    blocks = blocks_at_least(confidence, contrasts)
    level = (1 - confidence) / contrasts * (1 + 1e-6)
    assert 2 / 2**blocks <= level
    assert 2 / 2 ** (blocks - 1) > level * (1 - 2e-6)


def test_blocks_for_a_change_of_this_size() -> None:
    noisy = [0.02, -0.03, 0.05, -0.01, 0.04, 0.01]
    needed = blocks_for(noisy, 0.95, 1)
    assert needed is not None
    assert needed > len(noisy)
    tighter = blocks_for(noisy, 0.99, 1)
    assert tighter is not None
    assert tighter > needed
    assert blocks_for([0.5, 0.5, 0.5], 0.95, 1) == 6
    assert blocks_for([0.0, 0.0, 0.0], 0.95, 1) is None
    assert blocks_for([1.0, -1.0, 1.0, -1.0], 0.95, 1) is None
    assert blocks_for([0.5], 0.95, 1) is None


def test_the_number_of_blocks_that_is_told_has_about_the_power_that_is_told() -> None:
    rng = random.Random(5)
    # A sample whose own centre and spread are close to 1 and 1.
    sample = [1 + stats.norm.ppf((i + 0.5) / 20) for i in range(20)]
    needed = blocks_for(sample, 0.95, 1)
    assert needed is not None
    draws = [[rng.gauss(1, 1) for _ in range(needed)] for _ in range(600)]
    power = sum(paired_shift(draw, 0.95).p <= 0.05 for draw in draws) / len(draws)
    assert 0.7 <= power <= 0.92
