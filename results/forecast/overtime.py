"""Where a metric of a service goes on from its history, if it goes on as it did.

Only the runs after the last change of level count (`results/statistics/changepoints.py`): before
it, it was another service. The runs are taken as evenly spaced, at their median distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as FilePath
from statistics import median
from typing import Any, Final

import numpy as np

from results.archive.archive import Archive
from results.comparing.history import CellHistory, History, MetricHistory, RunPoint
from results.errors import UserError
from results.forecast.smoothing import (
    Path,
    Rolled,
    as_the_last,
    damped_trend,
    require_library,
    rolling_origin,
)
from results.metrics import METRICS, Metric, counted, named_on
from results.record import TrialRecord
from results.statistics.interval import Interval

RUNS_AT_LEAST: Final = 12
"""After the last change: with fewer, intervals were seen to hold too seldom."""

RUNS_MAX: Final = 60
"""The latest ones; earlier ones say little of what comes."""

DAMPED: Final = "damped trend"
NAIVE: Final = "as the last run"
_LIMITED: Final = ("peak_cgroup", "peak_rss", "peak_job", "peak_commit")
"""What a hard limit of memory is held against: the first of them that there is counts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One run to come: when about, and its value."""

    ahead: int
    when_ns: int
    value: Interval


@dataclass(frozen=True, slots=True)
class Meeting:
    """When a bound will be met, in runs from now; None is not within the horizon.

    `about` by the forecast itself, `earliest` and `latest` by the ends of its interval.
    """

    text: str
    bound: float
    at_most: bool
    about: Step | None
    earliest: Step | None
    latest: Step | None
    already: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """A metric of a cell, carried on.

    `method` is the damped trend where it did better than the naive forecast on the history itself,
    else the naive one. `runs` are those it was made of.
    """

    cell: CellHistory
    metric: Metric
    runs: tuple[RunPoint, ...]
    method: str
    damped: Rolled
    naive: Rolled
    steps: tuple[Step, ...]
    meetings: tuple[Meeting, ...]
    confidence: float

    @property
    def rolled(self) -> Rolled:
        """The back-test of the method that was taken."""
        return self.damped if self.method == DAMPED else self.naive

    @property
    def verdict(self) -> str:
        """What the back-test says of the method."""
        if self.method == DAMPED:
            share = 1 - self.damped.error / self.naive.error
            return f"misses by {share * 100:.0f} % less than “as the last run” did"
        return "a trend does no better than “as the last run”: that is given"


@dataclass(frozen=True, slots=True)
class NotContinued:
    """A metric that is not carried on, and why; `too_far` when that is how far was asked for."""

    cell: CellHistory
    metric: Metric
    why: str
    too_far: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that a metric of a configuration should not pass."""

    metric: str
    text: str
    value: float
    at_most: bool
    configurations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()


def continued(
    history: History,
    confidence: float,
    *,
    runs: int | None,
    by_ns: int | None,
    bounds: Sequence[Bound] = (),
) -> Iterator[Continued | NotContinued]:
    """Every metric of a history, carried on by a number of runs or to a date.

    Raises EnvironmentLacks without the library, UserError for a horizon farther out than the
    history is long.
    """
    require_library()
    for cell in history.cells:
        for own in cell.metrics:
            if own.metric.direction != "none":
                own_bounds = [b for b in bounds if _is_about(b, cell, own.metric)]
                yield _continued(cell, own, confidence, runs, by_ns, own_bounds)


def _continued(
    cell: CellHistory,
    own: MetricHistory,
    confidence: float,
    runs: int | None,
    by_ns: int | None,
    bounds: Sequence[Bound],
) -> Continued | NotContinued:
    begin = own.changes[-1].index if own.changes else 0
    points = own.points[begin:][-RUNS_MAX:]
    since = f" since its level changed at {points[0].run_id}" if own.changes else ""
    if len(points) < RUNS_AT_LEAST:
        why = f"it needs {RUNS_AT_LEAST} runs{since}; there are {len(points)}"
        return NotContinued(cell, own.metric, f"{why}: {RUNS_AT_LEAST - len(points)} missing")
    gap_ns = _gap_ns(points)
    ahead = runs if runs is not None else _runs_until(points[-1], gap_ns, by_ns or 0)
    if ahead > len(points):
        return NotContinued(
            cell,
            own.metric,
            f"{counted(ahead, 'run')} ahead is farther than the {len(points)} runs that it would "
            f"be made of{since}; at most {len(points)}, about "
            f"{_day(points[-1], gap_ns, len(points))}",
            too_far=True,
        )
    values = np.array([point.value for point in points])
    damped = rolling_origin(damped_trend, values, ahead, confidence)
    naive = rolling_origin(as_the_last, values, ahead, confidence)
    better = damped.error < naive.error
    path = (damped_trend if better else as_the_last)(values, ahead, confidence)
    steps = tuple(_steps(own.metric, points[-1], gap_ns, path, damped if better else naive))
    return Continued(
        cell=cell,
        metric=own.metric,
        runs=points,
        method=DAMPED if better else NAIVE,
        damped=damped,
        naive=naive,
        steps=steps,
        meetings=tuple(_meeting(bound, steps, points[-1]) for bound in bounds),
        confidence=confidence,
    )


def _gap_ns(points: Sequence[RunPoint]) -> float:
    """The median time between two runs."""
    return median(b.started_ns - a.started_ns for a, b in pairwise(points))


def _runs_until(last: RunPoint, gap_ns: float, by_ns: int) -> int:
    """How many runs until a time, one at least. Raises UserError for one that has passed."""
    if by_ns <= last.started_ns:
        raise UserError("--by must be after the latest run")
    return max(1, math.ceil((by_ns - last.started_ns) / max(gap_ns, 1.0)))


def _day(last: RunPoint, gap_ns: float, ahead: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp((last.started_ns + gap_ns * ahead) / 1e9, UTC):%Y-%m-%d}"


def _steps(
    metric: Metric, last: RunPoint, gap_ns: float, path: Path, rolled: Rolled
) -> Iterator[Step]:
    """No figure is below zero, and no share above one.

    Farther ahead than was tried out, the interval grows in proportion: nothing says how far off the
    method is there.
    """
    top = 1.0 if metric.unit == "fraction" else math.inf
    for index, (value, half) in enumerate(zip(path.values, path.half_widths, strict=True), 1):
        reach = half * rolled.widen * max(1.0, index / rolled.ahead)
        found = (float(value), float(value - reach), float(value + reach))
        low_to_high = Interval(*(min(top, max(0.0, v)) for v in found))
        yield Step(index, round(last.started_ns + index * gap_ns), low_to_high)


def _meeting(bound: Bound, steps: Sequence[Step], last: RunPoint) -> Meeting:
    def first(of: str) -> Step | None:
        return next((s for s in steps if _met(bound, getattr(s.value, of))), None)

    near, far = ("high", "low") if bound.at_most else ("low", "high")
    return Meeting(
        text=bound.text,
        bound=bound.value,
        at_most=bound.at_most,
        about=first("estimate"),
        earliest=first(near),
        latest=first(far),
        already=_met(bound, last.value),
    )


def _met(bound: Bound, value: float) -> bool:
    return value >= bound.value if bound.at_most else value <= bound.value


def _is_about(bound: Bound, cell: CellHistory, metric: Metric) -> bool:
    return (
        bound.metric == metric.name
        and (not bound.configurations or cell.configuration in bound.configurations)
        and (not bound.workloads or cell.workload in bound.workloads)
    )


def bounds_of(archive_path: FilePath, history: History) -> list[Bound]:
    """What the latest run of a service set: hard limits of memory, objectives that are limits."""
    archive = Archive(archive_path)
    runs = [r for r in archive.runs() if r.document["service"] == history.service]
    latest = runs[-1]
    found = [
        bound
        for record in archive.records(latest.run_id)
        if record.valid and (bound := _hard_limit(record, history)) is not None
    ]
    return list(dict.fromkeys([*found, *_objectives(latest.document)]))


def _hard_limit(record: TrialRecord, history: History) -> Bound | None:
    limit = record.spec["limits"].get("memory_max_bytes")
    there = {
        own.metric.name
        for cell in history.cells
        if cell.configuration == record.configuration
        for own in cell.metrics
    }
    metric = next((name for name in _LIMITED if name in there), None)
    if not limit or metric is None:
        return None
    return Bound(metric, "the hard limit", float(limit), True, (record.configuration,))


def _objectives(document: dict[str, Any]) -> Iterator[Bound]:
    from results.signoff.language import objective_from_plain

    for plain in document.get("objectives") or ():
        try:
            own = objective_from_plain(plain)
        except (ValueError, KeyError):
            continue
        if own.kind == "limit" and own.metric in METRICS:
            for system in ("linux", "windows"):
                for name in named_on(system, [METRICS[own.metric].name]):
                    yield Bound(
                        name, own.text, own.bound, own.at_most, own.configurations, own.workloads
                    )
