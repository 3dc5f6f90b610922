"""The schedule of an open loop: it follows its rate, exactly or at random, the same by seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workers.load.arrivals import CHUNK, schedule
from workers.spec import ArrivalsSpec, RateSpec, from_plain, to_plain

SECOND_NS = 1_000_000_000

rates = st.floats(min_value=0.5, max_value=5_000, allow_nan=False)
durations = st.integers(min_value=1_000_000, max_value=3 * SECOND_NS)
seeds = st.integers(min_value=0, max_value=2**63 - 1)


def constant(rate_rps: float) -> ArrivalsSpec:
    return ArrivalsSpec(kind="constant", rate_rps=rate_rps)


def poisson(rate_rps: float) -> ArrivalsSpec:
    return ArrivalsSpec(kind="poisson", rate_rps=rate_rps)


def shape(*pieces: tuple[int, float, float], spacing: str = "random") -> ArrivalsSpec:
    """Pieces of (nanoseconds, from, to)."""
    made = tuple(RateSpec(for_ns=n, from_rps=a, to_rps=b) for n, a, b in pieces)
    total_ns = sum(piece.for_ns for piece in made)
    return ArrivalsSpec(
        kind="steps",
        rate_rps=sum(piece.arrivals for piece in made) * 1e9 / total_ns,
        spacing=spacing,  # type: ignore[arg-type]
        rates=made,
    )


def length_ns(arrivals: ArrivalsSpec) -> int:
    return sum(piece.for_ns for piece in arrivals.rates)


piece_rates = st.one_of(st.just(0.0), st.floats(0.01, 3_000))
pieces = st.tuples(st.integers(1, SECOND_NS // 2), piece_rates, piece_rates)
shapes = st.builds(
    lambda made, spacing: shape(*made, spacing=spacing),
    st.lists(pieces, min_size=1, max_size=8),
    st.sampled_from(["random", "even"]),
)
warmups = st.integers(0, SECOND_NS)


def expected_until(arrivals: ArrivalsSpec, warmup_ns: int, at_ns: np.ndarray) -> np.ndarray:
    """The integral of the rate until some offsets, added up piece by piece in plain words."""
    start_ns = 0
    all_pieces = [
        RateSpec(for_ns=warmup_ns, from_rps=arrivals.first_rps, to_rps=arrivals.first_rps),
        *arrivals.rates,
    ]
    result = np.zeros(len(at_ns))
    for piece in all_pieces:
        within = np.clip(at_ns - start_ns, 0, piece.for_ns) / 1e9
        slope = (piece.to_rps - piece.from_rps) / max(piece.for_ns / 1e9, 1e-9)
        result += piece.from_rps * within + slope * within**2 / 2
        start_ns += piece.for_ns
    return result


@given(shapes, warmups, seeds)
def test_a_shape_is_in_order_within_its_time_and_the_same_by_seed(arrivals, warmup_ns, seed):
    offsets = schedule(arrivals, seed, length_ns(arrivals), warmup_ns)
    assert offsets.dtype == np.int64
    assert np.all((offsets >= 0) & (offsets < warmup_ns + length_ns(arrivals)))
    assert np.all(np.diff(offsets) >= 0)
    assert np.array_equal(offsets, schedule(arrivals, seed, length_ns(arrivals), warmup_ns))


@given(shapes, warmups, seeds, st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_as_many_arrive_between_two_moments_as_the_integral_of_the_rate_says(
    arrivals, warmup_ns, seed, moments
) -> None:
    total_ns = warmup_ns + length_ns(arrivals)
    at_ns = np.sort(np.array(moments)) * total_ns
    offsets = schedule(arrivals, seed, length_ns(arrivals), warmup_ns)
    counts = np.diff(np.searchsorted(offsets, at_ns))
    expected = np.diff(expected_until(arrivals, warmup_ns, at_ns))
    if arrivals.evenly:
        assert np.all(np.abs(counts - expected) <= 1.001 + 1e-6 * expected)
    else:
        # Poisson: the chance of being this far out is below 1e-12 by Chernoff's bound.
        assert np.all(np.abs(counts - expected) <= 8 * np.sqrt(expected) + 40)


@given(shapes, warmups, seeds, st.integers(1, 7))
def test_stripes_share_a_schedule_without_a_gap_or_a_double(arrivals, warmup_ns, seed, stripes):
    whole = schedule(arrivals, seed, length_ns(arrivals), warmup_ns)
    parts = [
        schedule(arrivals, seed, length_ns(arrivals), warmup_ns)[index::stripes]
        for index in range(stripes)
    ]
    merged = np.empty_like(whole)
    for index, part in enumerate(parts):
        merged[index::stripes] = part
    assert np.array_equal(merged, whole)
    assert sum(map(len, parts)) == len(whole)


def test_a_ramp_is_exact_to_the_nanosecond_however_long() -> None:
    """From 0 to 2 a/s over T the k-th comes at sqrt(k T / a): in 10 hours, no drift."""
    total_ns = 10 * 3600 * SECOND_NS
    ramp = shape((total_ns, 0.0, 200.0), spacing="even")
    offsets = schedule(ramp, 1, total_ns)
    assert len(offsets) == 100 * 36_000
    exact = np.sqrt(np.arange(len(offsets)) * (36_000 / 100)) * 1e9
    assert np.max(np.abs(offsets - exact)) <= 1


def test_even_steps_start_on_time_and_keep_their_spacing() -> None:
    two = shape((SECOND_NS, 4.0, 4.0), (SECOND_NS, 0.0, 0.0), (SECOND_NS, 2.0, 2.0), spacing="even")
    offsets_ms = schedule(two, 1, 3 * SECOND_NS, SECOND_NS) // 1_000_000
    assert offsets_ms.tolist() == [0, 250, 500, 750, 1000, 1250, 1500, 1750, 3000, 3500]


def test_random_arrivals_of_a_ramp_have_its_distribution() -> None:
    """Given their number, arrivals are independent with the density of the rate: here F = t²."""
    total_ns = 20 * SECOND_NS
    offsets = schedule(shape((total_ns, 0.0, 1_000.0)), 3, total_ns)
    assert abs(len(offsets) - 10_000) < 5 * 100
    assert stats.kstest(offsets / total_ns, lambda x: x**2).pvalue > 0.001


def test_a_schedule_longer_than_a_chunk_has_no_seam() -> None:
    rate_rps = 4.2 * CHUNK / 10
    offsets = schedule(poisson(rate_rps), 5, 10 * SECOND_NS)
    for at in range(CHUNK, len(offsets) - 500, CHUNK):
        gaps_s = np.diff(offsets[at - 500 : at + 500]) / SECOND_NS
        assert stats.kstest(gaps_s, "expon", args=(0, 1 / rate_rps)).pvalue > 1e-4
    assert len(schedule(constant(rate_rps), 5, 10 * SECOND_NS)) == 4.2 * CHUNK


def test_a_shape_of_another_length_than_measure_is_a_mistake_and_is_told() -> None:
    with pytest.raises(ValueError, match="planned for 5 ns, measure lasts 6 ns"):
        schedule(shape((5, 1.0, 1.0)), 1, 6)


@given(shapes)
def test_a_shape_travels_as_plain_data(arrivals) -> None:
    assert from_plain(ArrivalsSpec, to_plain(arrivals)) == arrivals


@given(kind=st.sampled_from([constant, poisson]), rate=rates, seed=seeds, duration_ns=durations)
def test_every_arrival_lies_within_the_duration_and_they_are_in_order(
    kind, rate, seed, duration_ns
) -> None:
    offsets = schedule(kind(rate), seed, duration_ns)
    assert offsets.dtype == np.int64
    assert offsets.ndim == 1
    assert np.all((offsets >= 0) & (offsets < duration_ns))
    assert np.all(np.diff(offsets) >= 0)


@given(kind=st.sampled_from([constant, poisson]), rate=rates, seed=seeds, duration_ns=durations)
def test_the_same_seed_gives_the_same_schedule(kind, rate, seed, duration_ns) -> None:
    first = schedule(kind(rate), seed, duration_ns)
    assert np.array_equal(first, schedule(kind(rate), seed, duration_ns))


def test_another_seed_gives_other_poisson_arrivals() -> None:
    one, two = (schedule(poisson(400), seed, SECOND_NS) for seed in (1, 2))
    assert not np.array_equal(one, two)


@given(rate=rates, duration_ns=durations)
def test_constant_arrivals_neither_drift_nor_go_missing(rate, duration_ns) -> None:
    offsets = schedule(constant(rate), 1, duration_ns)
    expected = rate * duration_ns / SECOND_NS
    assert math.floor(expected) <= len(offsets) <= math.ceil(expected) + 1
    if len(offsets) > 1:
        # The k-th lies k periods after the first, to the nanosecond: a running sum would not.
        exact = np.arange(len(offsets)) * (SECOND_NS / rate)
        assert np.max(np.abs((offsets - offsets[0]) - exact)) <= 1


@pytest.mark.parametrize("rate_rps", [100, 333, 1000])
def test_a_whole_number_of_periods_gives_exactly_that_many_arrivals(rate_rps) -> None:
    assert len(schedule(constant(rate_rps), 1, 3 * SECOND_NS)) == 3 * rate_rps


def test_poisson_arrivals_come_at_the_rate_and_remember_nothing() -> None:
    rate_rps, seconds = 1_000, 60
    offsets = schedule(poisson(rate_rps), 7, seconds * SECOND_NS)
    expected = rate_rps * seconds
    # The count is Poisson: its deviation is the root of its mean. Five of them: 1 in 2 million.
    assert abs(len(offsets) - expected) < 5 * math.sqrt(expected)
    gaps_s = np.diff(offsets) / SECOND_NS
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / rate_rps)).pvalue > 0.001
    assert abs(np.corrcoef(gaps_s[:-1], gaps_s[1:])[0, 1]) < 5 / math.sqrt(len(gaps_s))


def test_the_first_poisson_arrival_is_as_random_as_the_others() -> None:
    firsts_s = [schedule(poisson(100), seed, SECOND_NS)[0] / SECOND_NS for seed in range(400)]
    assert stats.kstest(firsts_s, "expon", args=(0, 0.01)).pvalue > 0.001
