"""A service over all its runs: for each cell and metric the level of every run, and its shifts.

A cell is a configuration under a workload on a node class; two cells are never pooled. A run is one
observation: its trials share its hour and the state of its machines. Its value is the median of its
valid trials. How shifts are found is in `results/statistics/changepoints.py`; by how much a level
shifted is told by all runs of the two segments, with the interval of two independent samples
(`results/statistics/twosample.py`).
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, stdev
from typing import Any, Final

from results.archive.archive import Archive, RunEntry
from results.archive.fragments import read_trials
from results.comparing.comparison import traffic_of
from results.errors import UserError
from results.metrics import METRICS, SYSTEMS, Metric, named_on
from results.record import TrialRecord
from results.sql.database import Database
from results.statistics.changepoints import Split, find_changes
from results.statistics.interval import Interval
from results.statistics.paired import median_interval
from results.statistics.twosample import shift_between

CONFIDENCE: Final = 0.95
MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Standard error of a median by that of a mean, of normal values."""

CellKey = tuple[str, str, str]
"""Configuration, workload, node class."""


@dataclass(frozen=True, slots=True)
class RunPoint:
    """One run of a cell: the median of its valid trials, None bounds when those are too few.

    `interval` is that of the median at 95 %; `error` its standard error, 0 for a single trial.
    """

    run_id: str
    started_ns: int
    value: float
    interval: tuple[float, float] | None
    error: float
    trials: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that was not the same in the runs before and after a change."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """A shift of level between two runs that follow each other.

    `size` is a fraction of the level before when `relative`, else a difference in the metric's
    unit; `bounds` is its interval at 95 %, None when the runs are too few for one. `verdict` is
    better, worse, or empty for a metric without a direction. A change that is not `settled` has
    few runs after it: the next ones may move or refute it.
    """

    index: int
    run_before: str
    run_after: str
    before: float
    after: float
    relative: bool
    size: float
    bounds: tuple[float, float] | None
    p: float
    verdict: str
    settled: bool
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class MetricHistory:
    """One metric of a cell, its runs in the order in which they began, and its changes."""

    metric: Metric
    points: tuple[RunPoint, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class CellHistory:
    """One cell and its metrics, in the order of the registry."""

    configuration: str
    workload: str
    node_class: str
    os: str
    metrics: tuple[MetricHistory, ...]


@dataclass(frozen=True, slots=True)
class History:
    """A service over the runs of an archive. `notes` are what a reader should know beside it."""

    service: str
    runs: int
    cells: tuple[CellHistory, ...]
    notes: tuple[str, ...]

    @property
    def series(self) -> int:
        """How many histories of a metric were asked for changes."""
        return sum(len(cell.metrics) for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a history; nothing named means all. `node_class` is a part of its name."""

    metrics: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    node_class: str = ""

    def cell(self, key: CellKey) -> bool:
        """Whether a cell is meant."""
        configuration, workload, node_class = key
        return (
            (not self.configurations or configuration in self.configurations)
            and (not self.workloads or workload in self.workloads)
            and self.node_class.lower() in node_class.lower()
        )


def known_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Metrics by their names, each with its counterparts on other systems. Raises UserError."""
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METRICS)}"
            raise UserError(f"there is no metric {name!r}; {hint}")
    return tuple(dict.fromkeys(n for system in SYSTEMS for n in named_on(system, names)))


def read_history(archive_path: Path, service: str | None, wanted: Wanted | None = None) -> History:
    """The history of a service, None being that of the latest run.

    Runs of a bisection are left out: their configurations are commits. Raises UserError for an
    archive without runs, or without those that are meant.
    """
    archive = Archive(archive_path)
    archive.run("latest")
    entries = [run for run in archive.runs() if "bisect" not in run.document]
    runs = _runs_of(entries, service)
    with Database(read_trials(archive, runs)) as database:
        cells = tuple(_cells(database, wanted or Wanted()))
        notes = tuple(database.notes)
    if not cells:
        raise UserError(f"no valid trial fits: {_there_are(archive, runs)}")
    return History(str(runs[-1].document["service"]), len(runs), cells, notes)


def _runs_of(entries: Sequence[RunEntry], service: str | None) -> list[RunEntry]:
    services = sorted({str(run.document["service"]) for run in entries})
    if not services:
        raise UserError("the archive has no runs but those of bisections")
    if service is None:
        service = str(entries[-1].document["service"])
    found = [run for run in entries if run.document["service"] == service]
    if not found:
        raise UserError(f"there is no run of a service {service!r}; of {', '.join(services)}")
    return found


def _there_are(archive: Archive, runs: Sequence[RunEntry]) -> str:
    """The cells that could have been asked for."""
    records = [record for run in runs for record in archive.records(run.run_id) if record.valid]
    found = sorted({(r.configuration, r.workload, r.node_class) for r in records})
    listed = "; ".join(" × ".join(key) for key in found[:8])
    return f"there are {listed}" if found else "there is none in these runs"


def _cells(database: Database, wanted: Wanted) -> Iterator[CellHistory]:
    records = {(r.run_id, r.trial_id): r for r in database.records}
    trials: dict[CellKey, dict[str, dict[str, list[float]]]] = {}
    answer = database.query(
        "select run_id, trial_id, metric, value from trial_metrics where value is not null"
    )
    of_cell: dict[CellKey, dict[str, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
    for row in answer.to_pylist():
        record = records[row["run_id"], row["trial_id"]]
        key = record.configuration, record.workload, record.node_class
        if wanted.cell(key):
            by_metric = trials.setdefault(key, {}).setdefault(row["metric"], {})
            by_metric.setdefault(row["run_id"], []).append(row["value"])
            of_cell[key][row["run_id"]].append(record)
    started = {run.run_id: int(run.document["started_ns"]) for run in database.runs}
    for key, measured in sorted(trials.items()):
        facts = {run_id: facts_of(own) for run_id, own in of_cell[key].items()}
        metrics = tuple(
            metric_history(metric, measured[name], started, facts)
            for name, metric in METRICS.items()
            if name in measured and (not wanted.metrics or name in wanted.metrics)
        )
        if metrics:
            first = next(iter(of_cell[key].values()))[0]
            yield CellHistory(*key, first.os, metrics)


def metric_history(
    metric: Metric,
    trials: Mapping[str, Sequence[float]],
    started_ns: Mapping[str, int],
    facts: Mapping[str, Mapping[str, str]],
) -> MetricHistory:
    """The history of one metric from run → the values of its valid trials."""
    order = sorted(trials, key=lambda run_id: (started_ns[run_id], run_id))
    points = tuple(_point(run_id, started_ns[run_id], trials[run_id]) for run_id in order)
    splits = find_changes([p.value for p in points], [p.error for p in points])
    changes = tuple(_changes(metric, points, splits, facts))
    return MetricHistory(metric, points, changes)


def _point(run_id: str, started_ns: int, values: Sequence[float]) -> RunPoint:
    found = median_interval(values, CONFIDENCE)
    bounds = (found.low, found.high) if math.isfinite(found.low) else None
    return RunPoint(run_id, started_ns, found.estimate, bounds, standard_error(values), len(values))


def standard_error(values: Sequence[float]) -> float:
    """About how uncertain the median of a run's trials is; 0 when one trial can't tell."""
    return MEDIAN_ERROR * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _changes(
    metric: Metric,
    points: Sequence[RunPoint],
    splits: Sequence[Split],
    facts: Mapping[str, Mapping[str, str]],
) -> Iterator[Change]:
    bounds = [0, *(split.index for split in splits), len(points)]
    for split, begin, end in zip(splits, bounds, bounds[2:], strict=False):
        before, after = points[begin : split.index], points[split.index : end]
        old, new = before[-1].run_id, after[0].run_id
        levels = [[p.value for p in side] for side in (before, after)]
        relative = all(value > 0 for side in levels for value in side)
        shift = _shift(levels, relative=relative)
        yield Change(
            index=split.index,
            run_before=old,
            run_after=new,
            before=median(levels[0]),
            after=median(levels[1]),
            relative=relative,
            size=shift.estimate,
            bounds=(shift.low, shift.high) if math.isfinite(shift.high) else None,
            p=split.p,
            verdict=_verdict(metric, shift.estimate),
            settled=split.settled,
            differences=tuple(differences(facts.get(old, {}), facts.get(new, {}))),
        )


def _shift(levels: Sequence[Sequence[float]], *, relative: bool) -> Interval:
    if not relative:
        return shift_between(levels[0], levels[1], CONFIDENCE).shift
    logs = [[math.log(value) for value in side] for side in levels]
    found = shift_between(logs[0], logs[1], CONFIDENCE).shift
    return Interval(*(math.expm1(v) for v in (found.estimate, found.low, found.high)))


def _verdict(metric: Metric, size: float) -> str:
    if metric.direction == "none":
        return ""
    return "better" if (size > 0) == (metric.direction == "higher") else "worse"


FACTS: Final[dict[str, Callable[[TrialRecord], Any]]] = {
    "build": lambda r: _binary(r).get("sha256", "")[:12],
    "commit": lambda r: _binary(r).get("commit") or "",
    "Go": lambda r: _binary(r).get("go_version") or "",
    "build flags": lambda r: " ".join(_binary(r).get("build_flags") or ()),
    "arguments": lambda r: " ".join(r.spec["service"].get("arguments") or ()),
    "limits": lambda r: ", ".join(f"{k} {v:g}" for k, v in r.spec["limits"].items() if v),
    "traffic": traffic_of,
    "Heapgate": lambda r: r.versions.get("heapgate") or "",
    "kernel": lambda r: r.node.get("kernel") or "",
    "node": lambda r: r.node_id,
}
"""What may be the cause of a shift, by the word under which it is told."""

_OWN_VARIABLES: Final = "HEAPGATE_"


def _binary(record: TrialRecord) -> dict[str, Any]:
    return dict(record.spec["service"]["binary"])


def _facts(record: TrialRecord) -> Iterator[tuple[str, str]]:
    for what, of in FACTS.items():
        yield what, str(of(record))
    for name, value in record.spec["service"].get("environment") or ():
        if not name.startswith(_OWN_VARIABLES):
            yield name, str(value)


def facts_of(records: Iterable[TrialRecord]) -> dict[str, str]:
    """What the trials of a run were measured with; several values with a comma between them.

    The variables of the service are among them, by their names.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for what, value in _facts(record):
            found[what].add(value)
    return {what: ", ".join(sorted(values - {""})) for what, values in found.items()}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    """What two runs differ in."""
    for what in dict.fromkeys((*before, *after)):
        old, new = before.get(what, ""), after.get(what, "")
        if old != new:
            yield Difference(what, old, new)


def plain_history(history: History) -> dict[str, Any]:
    """As JSON; metrics by their names, with their units."""
    return {
        "service": history.service,
        "runs": history.runs,
        "notes": list(history.notes),
        "cells": [_plain_cell(cell) for cell in history.cells],
    }


def _plain_cell(cell: CellHistory) -> dict[str, Any]:
    return {
        "configuration": cell.configuration,
        "workload": cell.workload,
        "node_class": cell.node_class,
        "os": cell.os,
        "metrics": [
            {
                "metric": own.metric.name,
                "unit": own.metric.unit,
                "direction": own.metric.direction,
                "points": [asdict(point) for point in own.points],
                "changes": [asdict(change) for change in own.changes],
            }
            for own in cell.metrics
        ],
    }


def since(history: History, started_ns: int) -> History:
    """The same history from a time on; its changes are still those of the whole."""
    cells = [
        replace(cell, metrics=tuple(_from(cell.metrics, started_ns))) for cell in history.cells
    ]
    return replace(history, cells=tuple(cell for cell in cells if cell.metrics))


def _from(metrics: Iterable[MetricHistory], started_ns: int) -> Iterator[MetricHistory]:
    for own in metrics:
        left_out = sum(point.started_ns < started_ns for point in own.points)
        changes = [
            replace(change, index=change.index - left_out)
            for change in own.changes
            if change.index >= left_out
        ]
        if left_out < len(own.points):
            yield replace(own, points=own.points[left_out:], changes=tuple(changes))
