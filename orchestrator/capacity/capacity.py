"""`bench capacity`: the largest rate at which a configuration still holds its objectives.

Configurations take turns, a trial each, so that what else the machine does meets all alike. Each
trial is a run in the archive, marked with what it was made for: the same search, asked for again,
goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console

from orchestrator.capacity.trialmatrix import OVERLOAD, Asked, Question
from orchestrator.capacity.view import View, show_view
from orchestrator.capacity.words import said_of, said_of_overload
from orchestrator.progress import format_seconds
from orchestrator.runseries import RunSeries, resumable
from orchestrator.systems import require_linux
from results.archive.archive import RunEntry
from results.capacity.course import CONFIRMING, Course, Purpose, Purse, Step, Tried, written_rate
from results.capacity.holds import Held, held
from results.capacity.overload import read_overload
from results.errors import UserError
from results.record import TrialRecord
from results.signoff.objectives import Objective

START_NS: Final = 2_000_000_000
"""Of a run's process, before its document says that it began."""

LATELY: Final = 3
"""Trials whose median says how long the next one takes: the first may have had to build."""


def find_capacity(matrix_path: Path, asked: Asked, archive: Path, console: Console) -> list[Course]:
    """Search for every configuration's capacity. Raises UserError for what can't be meant,
    Interrupted when the user stops it.
    """
    require_linux("a search of the capacity")
    question = Question(matrix_path, asked)
    with (
        resumable(matrix_path, archive, console) as series,
        show_view(console, question.bounds) as view,
    ):
        return _Capacity(question, series, view).found()


class _Capacity:
    """One search while it goes on."""

    def __init__(self, question: Question, series: RunSeries, view: View) -> None:
        self._question = question
        self._series = series
        self._archive = series.archive
        self._view = view
        self._courses = [
            Course(
                name,
                question.bounds,
                question.first_rps,
                with_overload=question.asked.with_overload,
            )
            for name in question.matrix.configurations
        ]

    def found(self) -> list[Course]:
        """Try in turns until nothing more is to be learned."""
        self._check_budget()
        for course in self._courses:
            for run in self._runs(course):
                self._take(course, run)
            course.forgive()
        self._view.begin(self._courses, self._most())
        while left := self._going_on():
            for course in left:
                self._go_on(course)
        return self._courses

    def _check_budget(self) -> None:
        """Raises UserError when there is no time for even the shortest search."""
        least_ns = len(self._courses) * (2 + CONFIRMING) * self._question.trial_ns
        budget_ns = self._question.asked.budget_ns
        if budget_ns is not None and budget_ns < least_ns:
            one, least = self._question.trial_ns / 1e9, least_ns / 1e9
            raise UserError(
                f"a trial takes about {format_seconds(one)}, so that a search needs at least "
                f"{format_seconds(least)}: raise --budget, or shorten `measure`"
            )

    def _most(self) -> str:
        """What the search may take at most, in words."""
        question = self._question
        trials, overloads = question.bounds.trials_max, int(question.asked.with_overload)
        kept = f"{CONFIRMING} of them to confirm" + (", 1 of overload" if overloads else "")
        needed_ns = (trials - overloads) * question.trial_ns + overloads * question.overload_ns
        needed_ns *= len(self._courses)
        budget_ns = question.asked.budget_ns
        whole = f"about {format_seconds(needed_ns / 1e9)} if all are needed"
        if budget_ns is not None and budget_ns < needed_ns:
            whole = f"{format_seconds(budget_ns / 1e9)} in all: what would not fit is not begun"
        return (
            f"{question.workload}, {question.bounds.lowest_rps:,.0f} to "
            f"{question.bounds.highest_rps:,.0f}/s; at most {trials} trials of each configuration "
            f"({kept}), {whole}"
        )

    def _going_on(self) -> list[Course]:
        return [course for course in self._courses if course.next_step(self._purse(course))]

    def _purse(self, course: Course) -> Purse:
        """What is left for a configuration: its own trials, and its share of the time."""
        question, budget_ns = self._question, self._question.asked.budget_ns
        lately_ns = [t.took_ns for t in course.tried[-LATELY:]]
        trial_ns = max(question.trial_ns, int(median(lately_ns)) if lately_ns else 0)
        return Purse(
            trials=question.bounds.trials_max - course.trials,
            time_ns=math.inf
            if budget_ns is None
            else budget_ns / len(self._courses) - course.spent_ns,
            trial_ns=trial_ns,
            overload_ns=trial_ns + question.overload_ns - question.trial_ns,
        )

    def _go_on(self, course: Course) -> None:
        self._series.stop.check()
        step = course.next_step(self._purse(course))
        if step is None:
            return
        self._view.trying(course, step, self._left_ns())
        before = {run.run_id for run in self._runs(course)}
        self._measure(course, step)
        for run in self._runs(course):
            if run.run_id not in before:
                self._view.answered(course, self._take(course, run), self._left_ns())

    def _left_ns(self) -> float:
        """How long it may still take if all that is left is needed."""
        pairs = [(course, self._purse(course)) for course in self._courses]
        left = [purse for course, purse in pairs if course.next_step(purse) is not None]
        return sum(min(purse.trials * purse.trial_ns, purse.time_ns) for purse in left)

    def _take(self, course: Course, run: RunEntry) -> str:
        """Take in what a run said; a sentence of it."""
        took_ns = int(run.document["finished_ns"]) - int(run.document["started_ns"]) + START_NS
        if told := run.document.get("overload"):
            overload = self._read_overload(course, run.run_id, took_ns)
            if overload is None:
                return f"an overload from {told['rate_rps']:,.0f}/s says nothing"
            course.take_overload(overload)
            return said_of_overload(overload)
        told = run.document["capacity"]
        rate_rps, purpose = float(told["rate_rps"]), Purpose(told.get("purpose", "search"))
        record, values = self._read(run.run_id)
        if record is None:
            said, disturbed = Held(None, "no trial has ended"), False
        else:
            said = held(record, values, self._limits(course), rate_rps)
            disturbed = any(finding.code == "node_noisy" for finding in record.findings)
        tried = Tried(run.run_id, purpose, rate_rps, said, values, took_ns, disturbed)
        course.take(tried)
        return said_of(course, tried)

    def _read(self, run_id: str) -> tuple[TrialRecord | None, Mapping[str, float | None]]:
        from results.sql.database import open_database

        with open_database(self._archive.path, [run_id]) as database:
            record = _last(database.records)
            return record, {m.metric: m.value for m in database.measurements(run_id)}

    def _read_overload(self, course: Course, run_id: str, took_ns: int) -> Any:
        from results.sql.database import open_database

        with open_database(self._archive.path, [run_id]) as database:
            record = _last(database.records)
            return record and read_overload(database, record, self._limits(course), took_ns)

    def _limits(self, course: Course) -> Sequence[Objective]:
        return self._question.asked_of(course.configuration)

    def _measure(self, course: Course, step: Step) -> None:
        document, marks = self._document(course, step), self._marks(course, step)
        self._series.run(document, marks, self._view.progress)

    def _document(self, course: Course, step: Step) -> dict[str, Any]:
        name, number = course.configuration, course.trials
        if step.purpose != Purpose.overload:
            return self._question.trial(name, step.rate_rps, number)
        peak_rps = written_rate(OVERLOAD * max(step.rate_rps, course.interval.estimate))
        return self._question.overload(name, step.rate_rps, peak_rps, number)

    def _marks(self, course: Course, step: Step) -> dict[str, Any]:
        """What a run's document says of it; an overload is no answer at a rate."""
        own = self._mark(course) | {"rate_rps": step.rate_rps}
        if step.purpose == Purpose.overload:
            return {"overload": own}
        return {"capacity": own | {"purpose": step.purpose.value}}

    def _runs(self, course: Course) -> list[RunEntry]:
        """The archived runs of a configuration that are this search's, the oldest first."""
        mark = self._mark(course)
        own = [
            run
            for run in self._archive.runs()
            if (told := run.document.get("capacity") or run.document.get("overload"))
            and {k: told.get(k) for k in mark} == mark
            and run.status in ("complete", "incomplete")
        ]
        return sorted(own, key=lambda run: int(run.document["started_ns"]))

    def _mark(self, course: Course) -> dict[str, Any]:
        return {"key": self._question.key, "configuration": course.configuration}


def _last(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial of a run that counts: the valid one, else the last that was tried."""
    return max(records, key=lambda r: (r.valid, r.started_ns), default=None)
