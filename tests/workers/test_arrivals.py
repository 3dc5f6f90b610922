"""The schedule of an open loop: exact when constant, memoryless when Poisson, the same by seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workers.load.arrivals import schedule
from workers.spec import ArrivalsSpec

SECOND_NS = 1_000_000_000

rates = st.floats(min_value=0.5, max_value=5_000, allow_nan=False)
durations = st.integers(min_value=1_000_000, max_value=3 * SECOND_NS)
seeds = st.integers(min_value=0, max_value=2**63 - 1)


def constant(rate_rps: float) -> ArrivalsSpec:
    return ArrivalsSpec(kind="constant", rate_rps=rate_rps)


def poisson(rate_rps: float) -> ArrivalsSpec:
    return ArrivalsSpec(kind="poisson", rate_rps=rate_rps)


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
