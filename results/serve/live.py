"""A run that goes on: which trial is where, how long it may take, what has been found so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

from results.archive.archive import PARTIAL, RunEntry
from results.metrics import format_bytes, format_time
from results.record import TrialRecord, planned_id
from results.serve.runs import Runs, duration, when
from results.serve.tail import SECOND_NS, TrialTail

QUIET_S: Final = 15.0
"""A trial whose files have not grown for so long is not at work."""

SILENT_S: Final = 120.0
ROWS_MAX: Final = 30
POINTS_MAX: Final = 240
WIDTH: Final = 600
HEIGHT: Final = 90


@dataclass(frozen=True, slots=True)
class Chart:
    """One series over the trial's time, as points of an SVG of `WIDTH` by `HEIGHT`."""

    title: str
    top: str
    points: str
    marks: tuple[tuple[float, str], ...]
    """Where phases begin."""


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """What the page tells of one trial that is at work."""

    trial_id: str
    phase: str
    left: str
    figures: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]
    told: tuple[tuple[str, str], ...]
    problem: str


@dataclass(frozen=True, slots=True)
class SealedTrial:
    """One line of what a finished trial showed."""

    trial_id: str
    valid: bool
    figures: str


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The whole page."""

    run_id: str
    service: str
    status: str
    began: str
    planned: int
    done: int
    valid: int
    left: str
    step: str
    """What goes on when no trial is at work."""

    quiet: str
    """Told when nothing has been written for long."""
    at_work: tuple[OpenTrial, ...]
    sealed: tuple[SealedTrial, ...]
    findings: tuple[tuple[str, str, str, str], ...]
    """Trial, level, text, remedy."""

    @property
    def running(self) -> bool:
        """Whether anything may still change."""
        return self.status == "running"


class Live:
    """What has been read so far of all runs that somebody looks at."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._tails: dict[Path, TrialTail] = {}

    def look(self, run_id: str) -> LiveRun:
        """How far a run is. Raises NotFound."""
        entry = self._runs.entry(run_id)
        records = self._runs.records(entry)
        with self._lock:
            tails = self._tails_of(entry) if entry.status == "running" else []
            at_work = tuple(_open_trial(tail) for tail in tails)
        return _live_run(entry, records, at_work)

    def _tails_of(self, entry: RunEntry) -> list[TrialTail]:
        trials = entry.path / "trials"
        folders = [path for path in trials.glob(f"*{PARTIAL}") if _is_at_work(path)]
        for path in [p for p in self._tails if p.parent == trials and p not in folders]:
            del self._tails[path]
        for path in folders:
            self._tails.setdefault(path, TrialTail(path)).update()
        return [self._tails[path] for path in sorted(folders)]


def _is_at_work(folder: Path) -> bool:
    """Whether its files grew lately; a trial that was cut off stays as it is."""
    try:
        times = [path.stat().st_mtime for path in folder.iterdir()] or [folder.stat().st_mtime]
    except OSError:
        return False
    return max(times) > time.time() - QUIET_S


def _live_run(
    entry: RunEntry, records: list[TrialRecord], at_work: tuple[OpenTrial, ...]
) -> LiveRun:
    document = entry.document
    planned = document["planned"]
    done = {planned_id(record.trial_id) for record in records}
    valid = {planned_id(record.trial_id) for record in records if record.valid}
    running = entry.status == "running"
    left = len(planned) - len(valid)
    return LiveRun(
        run_id=entry.run_id,
        service=str(document["service"]),
        status=entry.status,
        began=when(document["started_ns"]),
        planned=len(planned),
        done=len(done),
        valid=len(valid),
        left=_left(document, records, left, len(at_work)) if running else "",
        step=_step(entry, bool(records)) if running and not at_work else "",
        quiet=_quiet(entry) if running and not at_work else "",
        at_work=at_work,
        sealed=tuple(_sealed(record) for record in reversed(records[-ROWS_MAX:])),
        findings=tuple(_findings(reversed(records))),
    )


def _left(
    document: dict[str, Any], records: list[TrialRecord], trials: int, side_by_side: int
) -> str:
    """How long what is left may take, as trials took until now, or as the plan expects."""
    lasted = [(record.finished_ns - record.started_ns) / 1e9 for record in records]
    planned_ns = document.get("trial_estimate_ns")
    if not lasted and not isinstance(planned_ns, int):
        return ""
    one_s = mean(lasted) if lasted else (planned_ns or 0) / 1e9
    return f"about {duration(one_s * trials / max(1, side_by_side))} left"


def _step(entry: RunEntry, began: bool) -> str:
    if began:
        return "between two trials"
    if not any(entry.path.glob("logs/*")):
        return "building"
    return "starting"


def _quiet(entry: RunEntry) -> str:
    """A run whose driver was killed still says that it is running until somebody looks."""
    files = [entry.path / "run.json", *entry.path.glob("logs/*"), *entry.path.glob("trials/*")]
    silent_s = time.time() - max(map(_written_s, files))
    if silent_s < SILENT_S:
        return ""
    return (
        f"Nothing has been written for {duration(silent_s // 60 * 60)}. A build may take that "
        "long; if its bench was killed, the next bench command marks the run as interrupted."
    )


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _open_trial(tail: TrialTail) -> OpenTrial:
    phase, left_s = tail.phases[-1].name if tail.phases else "starting", tail.phase_left_s
    return OpenTrial(
        trial_id=tail.folder.name.removesuffix(PARTIAL),
        phase=phase,
        left=f"{duration(left_s)} left" if left_s is not None else "",
        figures=tuple(_figures(tail)),
        charts=tuple(_charts(tail)),
        told=tuple(reversed(tail.told)),
        problem=tail.problem,
    )


def _figures(tail: TrialTail) -> Iterable[tuple[str, str]]:
    rate, median, p99 = tail.rate_rps, tail.latency_ns(0.5), tail.latency_ns(0.99)
    yield "live memory", "–" if tail.resident_bytes is None else format_bytes(tail.resident_bytes)
    yield "rate", "–" if rate is None else f"{rate:,.0f}/s"
    yield "latency p50", "–" if median is None else format_time(median)
    yield "latency p99", "–" if p99 is None else format_time(p99)
    yield "requests", f"{tail.sent:,}"
    yield "failed", f"{tail.failed:,}"
    if tail.gc_cycles:
        yield "GC cycles", f"{tail.gc_cycles:,}"
    if tail.heap_live_bytes is not None:
        yield "heap live", format_bytes(tail.heap_live_bytes)


def _charts(tail: TrialTail) -> Iterable[Chart]:
    last = tail.last_ns // SECOND_NS
    seconds = [*tail.resident, *tail.requests]
    if len(tail.resident) < 2:
        return
    first = min(seconds)
    last = max(last, first + 10)
    span_s = last - first
    marks = tuple(
        (round((phase.start_ns / 1e9 - first) / span_s * WIDTH, 1), phase.name)
        for phase in tail.phases
        if phase.start_ns / 1e9 >= first
    )
    top = max(tail.resident.values())
    yield Chart("memory", format_bytes(top), _points(tail.resident, first, span_s, top), marks)
    if tail.requests:
        # The last two seconds are not complete yet.
        whole = {s: tail.requests[s] for s in range(min(tail.requests), max(tail.requests) - 1)}
        if len(whole) > 1:
            top = max(whole.values()) or 1
            yield Chart("requests", f"{top:,}/s", _points(whole, first, span_s, top), marks)


def _points(values: dict[int, int], first: int, span_s: int, top: int) -> str:
    step = max(1, -(-span_s // POINTS_MAX))
    merged: dict[int, int] = {}
    for second, value in values.items():
        place = (second - first) // step
        merged[place] = max(merged.get(place, 0), value)
    return " ".join(
        f"{place * step / span_s * WIDTH:.1f},{HEIGHT - value / max(1, top) * (HEIGHT - 4):.1f}"
        for place, value in sorted(merged.items())
    )


def _sealed(record: TrialRecord) -> SealedTrial:
    return SealedTrial(record.trial_id, record.valid, figures(record))


def figures(record: TrialRecord) -> str:
    """One line of what a finished trial showed."""
    peak = next((peak for peak in record.peaks if peak.phase == "measure"), None)
    if record.os == "windows":
        what, value = "working set", peak.working_set[0] if peak else None
    else:
        what, value = "RSS", peak.rss_bytes if peak else None
    parts = [f"peak {what} {'–' if value is None else format_bytes(value)}"]
    if record.load:
        parts.append(f"{record.load.measured:,} requests")
        if record.load.failed:
            parts.append(f"{record.load.failed:,} failed")
    return ", ".join(parts)


def _findings(records: Iterable[TrialRecord]) -> list[tuple[str, str, str, str]]:
    found: list[tuple[str, str, str, str]] = [
        (record.trial_id, finding.level, finding.text, finding.remedy)
        for record in records
        for finding in record.findings
        if finding.level != "note"
    ]
    return found[:ROWS_MAX]
