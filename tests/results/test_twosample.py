"""Known answers, and SciPy where it answers the same question."""

from __future__ import annotations

import itertools
import math
import random
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics.twosample import EXACT_MAX, shift_between, smallest_p, within

# Permeability of the human chorioamnion at term and between 12 and 26 weeks (Hollander and Wolfe,
# table 4.1; also the example of R's wilcox.test).
TERM = (0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46)
EARLY = (1.15, 0.88, 0.90, 0.74, 1.21)

values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=6)


def test_the_published_example() -> None:
    found = shift_between(EARLY, TERM, 0.95)
    assert found.p == pytest.approx(0.2544, abs=1e-4)
    assert found.shift.estimate == pytest.approx(0.305)
    assert (found.shift.low, found.shift.high) == (pytest.approx(-0.15), pytest.approx(0.76))


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=20, unique=True), st.data())
def test_p_is_scipys_where_there_are_no_ties(mixed: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(mixed) - 1))
    expected = stats.mannwhitneyu(mixed[:cut], mixed[cut:], method="exact").pvalue
    assert shift_between(mixed[:cut], mixed[cut:], 0.95).p == pytest.approx(expected)


@given(values, values)
def test_p_with_ties_is_that_of_every_deal(first: list[float], second: list[float]) -> None:
    mixed = [*first, *second]
    ranks = stats.rankdata(mixed)
    observed = sum(ranks[len(first) :])
    sums = [sum(deal) for deal in itertools.combinations(ranks, len(second))]
    low = sum(total <= observed + 1e-9 for total in sums)
    high = sum(total >= observed - 1e-9 for total in sums)
    expected = min(1.0, 2 * min(low, high) / len(sums))
    assert shift_between(first, second, 0.95).p == pytest.approx(expected)


@given(values, values)
def test_the_estimate_is_the_median_of_all_differences(a: list[float], b: list[float]) -> None:
    found = shift_between(a, b, 0.95)
    assert found.shift.estimate == median(y - x for x in a for y in b)
    turned = shift_between(b, a, 0.95)
    assert turned.shift.estimate == -found.shift.estimate
    assert (turned.shift.low, turned.shift.high) == (-found.shift.high, -found.shift.low)
    assert turned.p == pytest.approx(found.p)


def test_many_values_are_as_scipys_normal_answer() -> None:
    draw = random.Random(1)
    first = [round(draw.gauss(0, 1), 1) for _ in range(60)]
    second = [round(draw.gauss(0.3, 1), 1) for _ in range(50)]
    assert len(first) + len(second) > EXACT_MAX
    plain = stats.mannwhitneyu(first, second, method="asymptotic", use_continuity=False)
    assert shift_between(first, second, 0.95).p == pytest.approx(plain.pvalue)


def test_too_few_values_have_no_bounds() -> None:
    found = shift_between([1, 2, 3], [7, 8, 9], 0.95)
    assert found.p == pytest.approx(0.1) == smallest_p(3, 3)
    assert not math.isfinite(found.shift.low)
    assert shift_between([1, 2, 3, 4], [7, 8, 9, 10], 0.95).shift.low == 3


def test_within_a_margin() -> None:
    same = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
    assert within(same, same, -0.05, 0.05, 0.95)
    assert not within(same, same, -0.005, 0.005, 0.95)
    assert not within([1.0], [1.0], -5.0, 5.0, 0.95), "too few to show anything"


def test_the_interval_holds_as_often_as_it_says() -> None:
    draw = random.Random(7)
    held = alarms = 0
    for _ in range(2_000):
        found = shift_between(
            [draw.gauss(0, 1) for _ in range(6)], [draw.gauss(1, 1) for _ in range(7)], 0.95
        )
        held += found.shift.low <= 1 <= found.shift.high
        a, b = [draw.random() for _ in range(6)], [draw.random() for _ in range(7)]
        alarms += shift_between(a, b, 0.95).p <= 0.05
    assert held / 2_000 >= 0.945
    assert alarms / 2_000 <= 0.055


def test_the_largest_exact_samples_are_counted_out() -> None:
    half = EXACT_MAX // 2
    found = shift_between(range(half), range(half, EXACT_MAX), 0.95)
    assert found.p == pytest.approx(smallest_p(half, half))


@pytest.mark.parametrize(("first", "second"), [(3, 5), (6, 6), (4, 20), (30, 40)])
def test_the_shift_of_two_samples_is_bounded_where_scipys_test_begins_to_doubt(
    first: int, second: int
) -> None:
    source = np.random.default_rng(first)
    before, after = source.normal(0, 1, first), source.normal(1, 1, second)
    found = shift_between(before.tolist(), after.tolist(), 0.95).shift
    method = "exact" if first + second <= 40 else "asymptotic"

    def p(shift: float) -> float:
        moved = after - shift
        return float(stats.mannwhitneyu(before, moved, method=method).pvalue)

    hair = 1e-9
    assert found.low < found.estimate < found.high
    # Just inside a bound the shift is not rejected, just outside it is.
    slack = 0.001 if method == "asymptotic" else 0.0  # SciPy corrects for continuity
    assert p(found.low + hair) + slack > 0.05 >= p(found.low - hair)
    assert p(found.high - hair) + slack > 0.05 >= p(found.high + hair)
