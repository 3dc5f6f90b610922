"""A search of the capacity made again from its archived runs: each is one answer at one rate.

`bench capacity` marks its runs: `capacity` in a run's document has the search's key, the
configuration and the rate. All else is made from what was measured, so that whoever has the archive
comes to the same interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

from results.archive.archive import Archive, RunEntry
from results.archive.intact import damaged_trials, digest_of_run
from results.capacity.course import Course, Purpose, Tried
from results.capacity.holds import held
from results.capacity.search import Answer, Bounds, Search
from results.errors import UserError
from results.judging.traffic import traffic_of_run
from results.record import TrialRecord
from results.signoff.language import objective_from_plain
from results.signoff.objectives import Cell, Objective
from results.sql.database import open_database
from results.statistics.interval import Interval

SPAN: Final = 32.0
"""The capacity is looked for so many times below the least rate that was tried and above the
greatest: bounds of the user's own could only make the interval narrower."""

HAIR: Final = 1e-12
"""So much beyond the rates that were tried lie the ends of what was searched: they must differ."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One run of a search; `holds` is None when it says nothing of the service."""

    run_id: str
    sha256: str
    rate_rps: float
    holds: bool | None


OfRun = tuple[RunEntry, TrialRecord, Tried]
"""A run of a search, its trial that counts, and what that said."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found in one cell, in requests per second.

    `interval` ends at infinity when no rate failed, and begins at zero when none held. `subjects`
    are the builds and settings that were tried, as `subject_of` tells them; `limits` are what a
    rate had to hold. `doubts` are why it can't be relied on; `confirmed_rps` is the rate at which a
    fresh process held, `unconfirmed` why none did; `ended` is false for a search that never came to
    be confirmed.
    """

    key: str
    cell: Cell
    subjects: frozenset[str]
    limits: tuple[Objective, ...]
    answered: tuple[Answered, ...]
    interval: Interval
    finished_ns: int
    doubts: tuple[str, ...] = ()
    confirmed_rps: float = 0.0
    unconfirmed: str = ""
    ended: bool = True

    @property
    def whole(self) -> bool:
        """Whether it was not broken off, and nothing speaks against it."""
        return self.ended and not self.doubts

    @property
    def answers(self) -> int:
        """Trials that said something."""
        return sum(a.holds is not None for a in self.answered)

    def to_plain(self) -> dict[str, Any]:
        """As JSON, for a record."""
        return {
            "key": self.key,
            "os": self.cell.os,
            "node_class": self.cell.node_class,
            "workload": self.cell.workload,
            "configuration": self.cell.configuration,
            "limits": [limit.text for limit in self.limits],
            "interval": {
                "estimate": self.interval.estimate,
                "low": self.interval.low,
                "high": self.interval.high,
            },
            "runs": [
                {"run_id": a.run_id, "sha256": a.sha256, "rate_rps": a.rate_rps, "holds": a.holds}
                for a in self.answered
            ],
        }


def searches_in(
    archive: Path, service: str, configurations: Iterable[str], until_ns: float = inf
) -> list[Searched]:
    """The searches of these configurations of a service whose runs ended by then, newest first."""
    names = set(configurations)
    groups: dict[tuple[str, str], list[RunEntry]] = defaultdict(list)
    for run in Archive(archive).runs():
        mark, ended_ns = _mark_of(run), run.document.get("finished_ns")
        if mark is None or not isinstance(ended_ns, int) or ended_ns > until_ns:
            continue
        if run.document.get("service") == service and mark["configuration"] in names:
            groups[mark["key"], mark["configuration"]].append(run)
    found = [searched for runs in groups.values() for searched in _searched(archive, runs)]
    return sorted(found, key=lambda searched: (-searched.finished_ns, searched.key, searched.cell))


def _mark_of(run: RunEntry) -> dict[str, Any] | None:
    """What a run was made for; None when it is no trial of a search, or that can't be read."""
    mark = run.document.get("capacity")
    if not isinstance(mark, dict) or not isinstance(mark.get("rate_rps"), (int, float)):
        return None
    named = all(isinstance(mark.get(name), str) for name in ("key", "configuration"))
    return mark if named and 0 < mark["rate_rps"] < inf else None


def _searched(archive: Path, runs: Sequence[RunEntry]) -> Iterator[Searched]:
    """One search, in each cell that its trials were in."""
    with open_database(archive, [run.run_id for run in runs]) as database:
        doubts = [*database.damage, *_damage(runs)]
        by_cell: dict[Cell, list[OfRun]] = defaultdict(list)
        for run in runs:
            own = [record for record in database.records if record.run_id == run.run_id]
            if not own:
                continue  # It ended before its trial did.
            record = max(own, key=lambda r: (r.valid, r.started_ns))
            values = {m.metric: m.value for m in database.measurements(run.run_id)}
            rate_rps = float(run.document["capacity"]["rate_rps"])
            said = held(record, values, _limits(run), rate_rps)
            tried = Tried(run.run_id, _purpose_of(run), rate_rps, said)
            cell = Cell(record.os, record.node_class, record.workload, record.configuration)
            by_cell[cell].append((run, record, tried))
    for cell, found in by_cell.items():
        yield _of_cell(cell, found, doubts)


def _purpose_of(run: RunEntry) -> Purpose:
    """What a trial was made for; one that does not say so confirms nothing."""
    told = str(run.document["capacity"].get("purpose"))
    return next((purpose for purpose in Purpose if purpose.value == told), Purpose.search)


def _damage(runs: Sequence[RunEntry]) -> Iterator[str]:
    """What has changed since it was sealed: a trial that no longer counts might have failed."""
    for run in runs:
        for folder, wrong in damaged_trials(sorted((run.path / "trials").glob("*/"))).items():
            name, why = next(iter(wrong.items()))
            yield f"{run.run_id}: {folder.name}: {name} {why}"


def _of_cell(cell: Cell, tried: Sequence[OfRun], doubts: Sequence[str]) -> Searched:
    runs = [run for run, _, _ in tried]
    answered = tuple(
        Answered(run.run_id, digest_of_run(run.path), t.rate_rps, t.held.holds)
        for run, _, t in tried
    )
    course = _course(tried)
    confirmed = course.confirmation
    limits = {tuple(limit.text for limit in _limits(run)): _limits(run) for run in runs}
    confidence = max(float(run.document["comparison"]["confidence"]) for run in runs)
    interval, contradicts = _interval(answered, confidence)
    found = list(doubts)
    if len(limits) > 1:
        found.append("its trials did not all have to hold the same limits")
    if contradicts:
        found.append("it held at higher rates and not at lower ones")
    return Searched(
        key=str(runs[0].document["capacity"]["key"]),
        cell=cell,
        subjects=frozenset(subject_of(run.document, record) for run, record, _ in tried),
        limits=next(iter(limits.values())),
        answered=answered,
        interval=interval,
        finished_ns=max(int(run.document["finished_ns"]) for run in runs),
        doubts=tuple(found),
        confirmed_rps=confirmed.rate_rps if confirmed else 0.0,
        unconfirmed="" if confirmed else course.unconfirmed or course.stuck or "no rate held",
        ended=bool(confirmed or course.refuted) or course.end == "below",
    )


def _course(tried: Sequence[OfRun]) -> Course:
    """The search as it went; the outermost rates that were tried stand for its bounds."""
    order = sorted(tried, key=lambda of_run: of_run[1].started_ns)
    rates = [t.rate_rps for _, _, t in order]
    bounds = Bounds(min(rates) * (1 - HAIR), max(rates) * (1 + HAIR), len(rates))
    course = Course(order[0][1].configuration, bounds, rates[0], with_overload=False)
    for _, _, t in order:
        course.take(t)
    return course


def _limits(run: RunEntry) -> tuple[Objective, ...]:
    """What the run's trial had to hold. Raises UserError when that can't be read."""
    try:
        return tuple(map(objective_from_plain, run.document["objectives"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"run {run.run_id}: its objectives can't be read: {error}") from error


def _interval(answered: Iterable[Answered], confidence: float) -> tuple[Interval, bool]:
    """Where the capacity lies by these answers, and whether they contradict each other.

    No bound lies beyond what was tried: of rates above all that held, say, nobody knows anything.
    """
    answers = [Answer(a.rate_rps, a.holds) for a in answered if a.holds is not None]
    if not answers:
        return Interval(0.0, 0.0, inf), False
    rates = [answer.rate_rps for answer in answers]
    held_rps = max((a.rate_rps for a in answers if a.holds), default=0.0)
    failed_rps = min((a.rate_rps for a in answers if not a.holds), default=inf)
    bounds = Bounds(
        min(rates) / (SPAN if held_rps else 1.01),
        max(rates) * (SPAN if failed_rps < inf else 1.01),
        len(answers),
        confidence=confidence,
    )
    search = Search(bounds, rates[0], answers)
    found = search.interval()
    low = min(found.low, held_rps)
    high = max(found.high, failed_rps)
    return Interval(found.estimate, low, high), search.contradicts_itself


def subject_of(document: Mapping[str, Any], record: TrialRecord) -> str:
    """What was measured, in words that are equal where it was the same: build, settings, scenario.

    The rate is not of it: that is what a search changes.
    """
    service = record.spec["service"]
    environment = [f"{k}={v}" for k, v in service["environment"] if not k.startswith("HEAPGATE_")]
    limits = [f"{k} {v:.15g}" for k, v in record.spec["limits"].items() if v is not None]
    traffic = traffic_of_run(document, [record])[record.workload]
    scenario = [str(traffic.get(name)) for name in ("scenario", "text of the scenario")]
    parts = (service["binary"]["sha256"], *service["arguments"], *environment, *limits, *scenario)
    return "\n".join(map(str, parts))
