"""`bench capacity`: the largest rate at which a configuration still holds its objectives.

Configurations take turns, a trial each, so that what else the machine does meets all alike. Each
trial is a run in the archive, marked with what it was made for: the same search, asked for again,
goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console

from orchestrator import axes
from orchestrator.interrupt import Stop
from orchestrator.matrix import Matrix, load_matrix
from orchestrator.model import ARRIVAL_KINDS
from orchestrator.progress import PlainProgress
from orchestrator.runseries import Order, chosen, resumable, run_in_process
from orchestrator.systems import require_linux
from results.archive import Archive, RunEntry
from results.capacity.holds import Held, held, is_asked
from results.capacity.search import Answer, Bounds, Search
from results.errors import UserError
from results.files import file_digest
from results.metrics import counted
from results.signoff.objectives import Objective
from results.statistics import Interval

SPAN: Final = 32.0
"""Without bounds of the user's own, rates from the matrix's rate ÷ this to its × this."""

REQUESTS_FOR: Final = {"p99": 1_000, "p999": 10_000}
"""Requests without which a trial has no such percentile (`results/views/trial_metrics.sql`)."""

SPOILED_MAX: Final = 3
"""A rate at which nothing could be said so often in a row ends the search of a configuration."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; rates in requests per second."""

    workload: str | None = None
    lowest_rps: float | None = None
    highest_rps: float | None = None
    trials: int = 12
    closeness: float = 0.10


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial of the search."""

    run_id: str
    rate_rps: float
    held: Held
    values: dict[str, float | None]


@dataclass(slots=True)
class Sought:
    """A configuration's search.

    `generator_rps` is the most that held, where the load generator could send no more.
    """

    configuration: str
    search: Search
    tried: list[Tried] = field(default_factory=list)
    generator_rps: float | None = None
    stuck: str = ""

    @property
    def going_on(self) -> bool:
        """Whether another trial may tell more."""
        return not self.stuck and self.generator_rps is None and self.search.state == "searching"

    @property
    def interval(self) -> Interval:
        """Where the capacity lies, in requests per second."""
        return self.search.interval()

    def at_capacity(self, metric: str) -> float | None:
        """A metric of the trial that held at the highest rate; None without one."""
        own = [t for t in self.tried if t.held.holds]
        return max(own, key=lambda t: t.rate_rps).values.get(metric) if own else None


def find_capacity(matrix_path: Path, asked: Asked, archive: Path, console: Console) -> list[Sought]:
    """Search for every configuration's capacity. Raises UserError for what can't be meant,
    Interrupted when the user stops it.
    """
    require_linux("a search of the capacity")
    with resumable() as (folder, stop):
        return _Capacity(matrix_path, asked, archive, console, folder, stop).found()


class _Capacity:
    """One search while it goes on."""

    def __init__(
        self,
        matrix_path: Path,
        asked: Asked,
        archive: Path,
        console: Console,
        folder: Path,
        stop: Stop,
    ) -> None:
        self._matrix_path = matrix_path.resolve()
        self._asked = asked
        self._archive = Archive.create(archive)
        self._console = console
        self._folder = folder
        self._stop = stop
        self._progress = PlainProgress(console)
        self._written = load_matrix(matrix_path)
        self._workload = _workload(self._written, asked.workload)
        self._objectives = _objectives(self._written, self._workload)
        self._bounds, self._first_rps = _bounds(self._written, self._workload, asked)
        self._key = self._key_of_all()

    def found(self) -> list[Sought]:
        """Search in turns until nothing more is to be learned."""
        sought = [
            Sought(name, Search(self._bounds, self._first_rps))
            for name in self._written.configurations
        ]
        for own in sought:
            for run in self._runs(own.configuration):
                self._take(own, run)
        trials = counted(self._bounds.trials_max, "trial")
        self._say(
            f"{counted(len(sought), 'configuration')} under {self._workload}, at most {trials} "
            f"each, {self._bounds.lowest_rps:,.0f} to {self._bounds.highest_rps:,.0f}/s"
        )
        while left := [own for own in sought if own.going_on]:
            for own in left:
                self._try(own)
        return sought

    def _say(self, text: str) -> None:
        self._progress.done(f"capacity: {text}")

    def _try(self, own: Sought) -> None:
        self._stop.check()
        rate_rps = _written_rate(own.search.next_rps())
        before = {run.run_id for run in self._runs(own.configuration)}
        self._measure(own.configuration, rate_rps, len(own.tried))
        for run in self._runs(own.configuration):
            if run.run_id not in before:
                self._say(f"{own.configuration}: {self._take(own, run)}")

    def _take(self, own: Sought, run: RunEntry) -> str:
        """Take in what a run said; a sentence of it."""
        rate_rps = float(run.document["capacity"]["rate_rps"])
        said, values = self._said(run.run_id, rate_rps)
        own.tried.append(Tried(run.run_id, rate_rps, said, values))
        if said.holds is None:
            _note_spoiled(own)
            return f"{rate_rps:,.0f}/s says nothing: {said.reason}"
        own.search.tell(Answer(rate_rps, said.holds))
        word = "holds" if said.holds else "does not hold"
        interval = own.interval
        return (
            f"{rate_rps:,.0f}/s {word}: {said.reason}; capacity {interval.low:,.0f} … "
            f"{interval.high:,.0f}/s after {counted(len(own.search.answers), 'trial')}"
        )

    def _said(self, run_id: str, rate_rps: float) -> tuple[Held, dict[str, float | None]]:
        from results.database import open_database

        with open_database(self._archive.path, [run_id]) as database:
            records = sorted(database.records, key=lambda r: (r.valid, r.started_ns))
            if not records:
                return Held(None, "no trial has ended"), {}
            values = {m.metric: m.value for m in database.measurements(run_id)}
            return held(records[-1], values, self._objectives, rate_rps), values

    def _measure(self, configuration: str, rate_rps: float, number: int) -> None:
        path = self._folder / "matrix.yaml"
        document = self._document(configuration, rate_rps, number)
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        order = Order(
            text_path=str(path),
            matrix_path=str(self._matrix_path),
            archive=str(self._archive.path),
            more={"capacity": self._mark(configuration) | {"rate_rps": rate_rps}},
            to_stderr=self._console.stderr,
            columns=None if self._console.is_terminal else self._console.width,
        )
        run_in_process(order, self._folder, self._stop)
        self._stop.check()

    def _document(self, configuration: str, rate_rps: float, number: int) -> dict[str, Any]:
        """The matrix of one trial: one configuration, one block, one rate."""
        written = copy.deepcopy(axes.expand(self._written.source))
        for key in ("axes", "waivers", "policy"):
            written.pop(key, None)
        own = written["configurations"][configuration] or {}
        traffic = written["workloads"][self._workload]
        arrivals = {
            k: v
            for k, v in (traffic.get("arrivals") or {}).items()
            if k not in (*ARRIVAL_KINDS, "spacing")
        }
        kind = "constant" if "constant" in (traffic.get("arrivals") or {}) else "poisson"
        traffic["arrivals"] = arrivals | {kind: f"{rate_rps:g}/s"}
        return written | {
            "configurations": {configuration: own | {"baseline": True}},
            "workloads": {self._workload: traffic},
            "objectives": [
                objective.text
                for objective in self._objectives
                if is_asked(objective, configuration, self._workload)
            ],
            "trials": 1,
            "seed": self._written.seed + number,
        }

    def _runs(self, configuration: str) -> list[RunEntry]:
        """The archived runs of a configuration that are this search's, the oldest first."""
        mark = self._mark(configuration)
        own = [
            run
            for run in self._archive.runs()
            if (told := run.document.get("capacity"))
            and {k: told.get(k) for k in mark} == mark
            and run.status in ("complete", "incomplete")
        ]
        return sorted(own, key=lambda run: int(run.document["started_ns"]))

    def _mark(self, configuration: str) -> dict[str, Any]:
        return {"key": self._key, "configuration": configuration}

    def _key_of_all(self) -> str:
        """What all runs of this search have in common, and no other's."""
        document = axes.expand(self._written.source)
        matrix, bounds = self._written, self._bounds
        parts = [
            {key: value for key, value in document.items() if key not in ("trials", "comparison")},
            [objective.to_plain() for objective in self._objectives],
            [self._workload, bounds.lowest_rps, bounds.highest_rps, self._first_rps],
            file_digest(matrix.scenario(self._workload)),
            version("heapgate"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _note_spoiled(own: Sought) -> None:
    """End a search that gets no answers: the generator is at its end, or something else is."""
    last = own.tried[-SPOILED_MAX:]
    if len(last) < SPOILED_MAX or any(t.held.holds is not None for t in last):
        return
    if all(t.held.generator_at_its_end for t in last):
        rates = [t.rate_rps for t in own.tried if t.held.holds]
        own.generator_rps = max(rates, default=0.0)
    else:
        own.stuck = last[-1].held.reason


def _written_rate(rate_rps: float) -> float:
    """A rate as one writes it: three digits, and what is measured is what is told."""
    return float(f"{rate_rps:.3g}")


def _workload(matrix: Matrix, asked: str | None) -> str:
    """The workload to search under. Raises UserError when it is not clear, or a closed loop."""
    name = chosen("workload", asked, list(matrix.workloads))
    if matrix.workloads[name].arrivals is None:
        raise matrix.error(
            ("workloads", name),
            "a closed loop slows down with the service: it has no capacity; write `arrivals:`",
        )
    return name


def _objectives(matrix: Matrix, workload: str) -> Sequence[Objective]:
    own = matrix.policy.objectives
    for name in matrix.configurations:
        if not any(is_asked(objective, name, workload) for objective in own):
            raise matrix.error(
                ("configurations", name),
                "it has no limit that could be reached; write for example "
                "`objectives: [p99 <= 40ms, errors <= 0.1%]`",
            )
    return own


def _bounds(matrix: Matrix, workload: str, asked: Asked) -> tuple[Bounds, float]:
    """What may be tried, and where to begin: at the matrix's own mean rate."""
    first_rps = matrix.arrivals[workload].rate_rps
    lowest_rps = asked.lowest_rps or max(first_rps / SPAN, _enough_rps(matrix, workload))
    highest_rps = asked.highest_rps or first_rps * SPAN
    if lowest_rps >= highest_rps:
        raise UserError(f"--lowest {lowest_rps:g}/s must be below --highest {highest_rps:g}/s")
    bounds = Bounds(
        lowest_rps,
        highest_rps,
        trials_max=asked.trials,
        closeness=asked.closeness,
        confidence=matrix.document.comparison.confidence,
    )
    return bounds, min(highest_rps, max(lowest_rps, first_rps))


def _enough_rps(matrix: Matrix, workload: str) -> float:
    """The rate below which a trial has too few requests for the percentiles that are asked."""
    asked = {o.metric for o in matrix.policy.objectives if o.kind == "limit"}
    needed = max((REQUESTS_FOR.get(name.rpartition("_")[2], 0) for name in asked), default=0)
    return 1.2 * needed / (matrix.workloads[workload].measure / 1e9)


def told(sought: Sought) -> Iterator[str]:
    """What to know of a configuration's result."""
    search = sought.search
    if sought.generator_rps is not None:
        yield f"at least {sought.generator_rps:,.0f}/s: the load generator could send no more"
    elif sought.stuck:
        yield f"given up: {sought.stuck}"
    elif search.state == "below":
        yield "it does not hold at the lowest rate either"
    elif search.state == "above":
        yield "it holds at the highest rate too"
    elif search.state == "spent":
        yield "the trials were spent before the interval was as narrow as asked for"
    if search.contradicts_itself:
        yield "it held at higher rates and not at lower ones: its behaviour is not monotone"
