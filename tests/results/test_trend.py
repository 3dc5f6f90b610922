"""Slope and change point: as the libraries have them, and not fooled by dependent values."""

from __future__ import annotations

import numpy as np
import pytest
import ruptures
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.judging.trend import POINTS_MIN, Trend, _t_quantile, theil_sen, trend

VALUES = st.lists(
    st.integers(-1_000, 1_000).map(float), min_size=POINTS_MIN, max_size=40, unique=True
)


def trend_of(values: list[float] | np.ndarray, seed: int = 1) -> Trend:
    array = np.asarray(values, dtype=np.float64)
    return trend(np.arange(len(array), dtype=np.float64), array, 0.995, seed)


@given(VALUES)
def test_the_slope_is_scipys(values: list[float]) -> None:
    times = np.arange(len(values), dtype=np.float64) * 0.5
    want = stats.theilslopes(values, times).slope
    assert theil_sen(times, np.array(values)) == pytest.approx(want)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 32))
def test_a_clear_step_is_where_ruptures_finds_it(seed: int, where: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(40)
    values = np.where(np.arange(40) < where, 0.0, 20.0) + noise
    (want, _) = ruptures.Dynp(model="l2", min_size=4, jump=1).fit(values).predict(n_bkps=1)
    step = trend_of(values).step
    assert step.index == want == where
    assert step.size == pytest.approx(20, abs=3)
    assert step.p < 0.005


@pytest.mark.parametrize("freedom", [5.0, 8.0, 20.0, 58.0])
@pytest.mark.parametrize("p", [0.975, 0.9975])
def test_students_t_is_scipys(freedom: float, p: float) -> None:
    assert _t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=0.01)


def test_the_same_seed_gives_the_same_answer_and_another_one_nearly() -> None:
    values = np.random.default_rng(5).standard_normal(60).cumsum()
    assert trend_of(values, 1) == trend_of(values, 1)
    assert trend_of(values, 1) != trend_of(values, 2)
    assert trend_of(values, 2).slope.high == pytest.approx(trend_of(values, 1).slope.high, rel=0.5)


@pytest.mark.parametrize("value", [0.0, 5.0, 2.0**40])
def test_what_never_changes_has_no_slope_and_no_step(value: float) -> None:
    found = trend_of([value] * 20)
    assert (found.slope.low, found.slope.estimate, found.slope.high) == (0, 0, 0)
    assert found.step.p == 1


def test_a_straight_line_is_found_exactly() -> None:
    found = trend_of([3.0 * i for i in range(30)])
    assert found.slope.estimate == pytest.approx(3)
    assert found.slope.low == pytest.approx(3, abs=1e-6)


def test_one_wild_value_does_not_make_a_trend() -> None:
    values = np.random.default_rng(6).standard_normal(40)
    values[-1] = 1e6
    found = trend_of(values)
    assert found.slope.low < 0 < found.slope.high
    assert found.step.p > 0.005


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend_of([1.0] * (POINTS_MIN - 1))


def test_values_that_hang_together_count_as_few() -> None:
    rng = np.random.default_rng(7)
    loose = rng.standard_normal(60)
    tied = np.convolve(rng.standard_normal(79), np.ones(20), "valid")
    assert trend_of(loose).independent > 30
    assert trend_of(tied).independent < 15
