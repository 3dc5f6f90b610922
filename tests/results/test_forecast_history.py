"""A history carried on: what archives of many runs make of it, and when it is refused."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import numpy as np
import pytest

from results.comparing.history import Wanted, read_history
from results.errors import EnvironmentLacks, UserError
from results.forecast import smoothing
from results.forecast.overtime import (
    DAMPED,
    NAIVE,
    Bound,
    Continued,
    NotContinued,
    bounds_of,
    continued,
)
from results.forecast.plain import met, plain_continued
from tests.benchmarks.bench_forecast import history
from tests.results.histories import DAY_NS, MIB, clone

WOBBLE = (0.0, 0.4, -0.3, 0.2, -0.5, 0.1, 0.3, -0.2, 0.5, -0.1, 0.0, 0.2, -0.4, 0.3, 0.1, -0.2)
PEAK = Wanted(metrics=("peak_rss",), configurations=("default",))
LIMIT = {
    "text": "peak_rss <= 80MiB",
    "severity": "block",
    "configurations": [],
    "workloads": [],
}


def runs_of(archive: Path, levels_mib, **document) -> Path:
    for number, level in enumerate(levels_mib, 1):
        clone(archive, number, (level - 0.1, level + 0.1), **document)
    return archive


def carried(archive: Path, *, runs=None, by_ns=None, bounds=None) -> Continued | NotContinued:
    found = read_history(archive, "sessioncache", PEAK)
    limits = bounds_of(archive, found) if bounds is None else bounds
    (own,) = continued(found, 0.9, runs=runs, by_ns=by_ns, bounds=limits)
    return own


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MiB more each day, and an objective of 80 MiB."""
    levels = [60 + day + WOBBLE[day] for day in range(14)]
    return runs_of(tmp_path_factory.mktemp("growing"), levels, objectives=[LIMIT])


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A walk that a trend can't tell better than its last value."""
    source, levels = random.Random(5), [60.0]
    while len(levels) < 14:
        levels.append(levels[-1] + source.gauss(0, 0.3))
    return runs_of(tmp_path_factory.mktemp("still"), levels)


def test_a_trend_is_carried_on_and_tells_when_a_limit_is_met(growing: Path) -> None:
    own = carried(growing, runs=10)
    assert isinstance(own, Continued)
    assert plain_continued(own) == plain_continued(carried(growing, runs=10))
    assert own.method == DAMPED
    assert own.damped.error < own.naive.error
    assert [step.ahead for step in own.steps] == list(range(1, 11))
    assert own.steps[1].when_ns - own.steps[0].when_ns == DAY_NS
    # The trend fades, so after some days it lies below a straight line.
    assert 75 * MIB < own.steps[4].value.estimate < 81 * MIB
    widths = [step.value.high - step.value.low for step in own.steps]
    assert widths == sorted(widths)
    hard, objective = met(own)
    assert "reaches the hard limit (1,024.0 MiB) not within the horizon" in hard
    assert "reaches peak_rss <= 80MiB (80.0 MiB)" in objective
    assert not own.meetings[1].already


def test_a_limit_that_was_passed_is_past(growing: Path) -> None:
    own = carried(growing, runs=2, bounds=[Bound("peak_rss", "the limit", 60.0 * MIB, True)])
    assert isinstance(own, Continued)
    assert met(own)[0].endswith("is past the limit (60.0 MiB) already")


def test_a_trend_that_does_no_better_than_the_last_run_is_not_given(still: Path) -> None:
    own = carried(still, runs=4)
    assert isinstance(own, Continued)
    assert own.damped.error >= own.naive.error
    assert own.method == NAIVE
    assert "no better than" in own.verdict
    assert {step.value.estimate for step in own.steps} == {own.runs[-1].value}


def test_only_the_runs_after_the_last_shift_count(tmp_path: Path) -> None:
    levels = [90 + WOBBLE[day] for day in range(8)] + [60 + WOBBLE[day] for day in range(13)]
    own = carried(runs_of(tmp_path, levels), runs=3)
    assert isinstance(own, Continued)
    assert len(own.runs) == 13
    assert all(step.value.high < 75 * MIB for step in own.steps)


def test_too_few_runs_since_a_shift_are_counted(tmp_path: Path) -> None:
    levels = [90 + WOBBLE[day] for day in range(8)] + [60 + WOBBLE[day] for day in range(7)]
    own = carried(runs_of(tmp_path, levels), runs=3)
    assert isinstance(own, NotContinued)
    assert own.why.endswith("there are 7: 5 missing")
    assert "since its level changed at 20261209-" in own.why


def test_no_horizon_is_farther_than_the_history_is_long(growing: Path) -> None:
    own = carried(growing, runs=15)
    assert isinstance(own, NotContinued)
    assert "15 runs ahead is farther than the 14 runs" in own.why
    last_ns = read_history(growing, None, PEAK).cells[0].metrics[0].points[-1].started_ns
    by = carried(growing, by_ns=last_ns + 2 * DAY_NS)
    assert isinstance(by, Continued)
    assert by.steps[-1].ahead == 2
    with pytest.raises(UserError, match="after the latest run"):
        carried(growing, by_ns=last_ns)


def test_without_the_library_it_says_what_to_install(
    growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothing, "NEEDED", "a_library_that_is_not_there")
    with pytest.raises(EnvironmentLacks, match=r"pip install 'heapgate\[forecast\]'"):
        carried(growing, runs=2)


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    source = Path(smoothing.__file__).read_text(encoding="utf-8")
    top = source.partition("\ndef ")[0]
    assert "import statsmodels" not in top
    assert "from statsmodels" not in top
    assert importlib.util.find_spec("statsmodels") is not None


@pytest.mark.parametrize("values", [[5.0] * 12, [0.0] * 12])
def test_a_series_that_never_moved_stays(values: list[float]) -> None:
    series = np.array(values)
    path = smoothing.damped_trend(series, 3, 0.9)
    assert path.values.tolist() == values[:3]
    rolled = smoothing.rolling_origin(smoothing.as_the_last, series, 3, 0.9)
    assert (rolled.error, rolled.widen) == (0.0, 1.0)
    assert rolled.held == rolled.points


def test_widened_intervals_of_few_runs_hold_nearly_as_often_as_they_say() -> None:
    source, hits, points = random.Random(11), 0, 0
    for _ in range(4):
        series = np.array(history(source, "level", 20))
        known, coming = series[:14], series[14:]
        rolled = smoothing.rolling_origin(smoothing.damped_trend, known, 6, 0.9)
        path = smoothing.damped_trend(known, 6, 0.9)
        hits += int((np.abs(coming - path.values) <= path.half_widths * rolled.widen).sum())
        points += 6
    assert hits / points >= 0.75
