"""`bench tune`: which GOGC and GOMEMLIMIT give a service the least memory at what price.

The search itself is in `results/tuning`; here its questions become runs and their archives
answers. Each run is in the archive, marked with what it was made for: the same tuning, asked for
again, takes its answers from there, goes on with a run that was broken off, and measures only what
is missing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.progress import format_seconds
from orchestrator.runseries import RunSeries, resumable
from orchestrator.systems import require_linux
from orchestrator.tune.trialmatrix import Question, unasked_text
from orchestrator.tune.view import View, show_view
from results.archive.archive import RunEntry
from results.errors import RunIncomplete, UserError
from results.metrics import counted
from results.record import planned_id
from results.tuning.outcomes import Confirmed, Outcome
from results.tuning.reading import read_confirmed, read_outcomes
from results.tuning.search import Tuned, Tuning
from results.tuning.settings import Setting

DONE = ("complete", "decided")
SHORT = ("first", "search", "spiral")


def tune(question: Question, archive: Path, console: Console) -> tuple[Tuned, list[str]]:
    """Search, and the runs that were made. Raises UserError for what can't be meant, RunIncomplete
    when nothing can be told, Interrupted when the user stops it.
    """
    require_linux("a tuning")
    with (
        resumable(question.matrix_path, archive, console) as series,
        show_view(console, question) as view,
    ):
        made = _Runs(question, series, view)
        budget = question.budget(series.folder)
        if budget.total_s < budget.least_s:
            raise UserError(
                f"--budget {format_seconds(budget.total_s)} is too short: a tuning with "
                f"{counted(budget.finalists, 'finalist')} in {counted(budget.blocks, 'block')} "
                f"needs at least {format_seconds(budget.least_s)}"
            )
        view.begin(
            f"{question.configuration} under {question.workload}: "
            f"{counted(budget.trials, 'short trial')} at most, then "
            f"{counted(budget.finalists, 'finalist')} in {counted(budget.blocks, 'block')}; about "
            f"{format_seconds(budget.most_s)} after building",
            budget,
        )
        for objective in question.unasked:
            view.say(unasked_text(objective))
        return Tuning(question.asked, budget, made, view).result(), made.run_ids


class _Runs:
    """Measures for a tuning: each question is a run, unless the archive has its answer."""

    def __init__(self, question: Question, series: RunSeries, view: View) -> None:
        self._question = question
        self._series = series
        self._archive = series.archive
        self._view = view
        self._key = ""
        self._asked: Counter[str] = Counter()
        self.run_ids: list[str] = []

    def short(self, stage: str, settings: Sequence[Setting]) -> list[Outcome]:
        """A short trial of each, in one run."""
        document = self._question.short(settings, len(self.run_ids))
        return self._outcomes(self._made(stage, settings, document), settings)

    def lengthen(self) -> None:
        """From now on short trials are as long as those of full length."""
        self._question.lengthen()

    def longer(self, settings: Sequence[Setting]) -> list[Outcome]:
        """A trial of full length of each, in one run."""
        document = self._question.longer(settings, len(self.run_ids))
        return self._outcomes(self._made("longer", settings, document), settings)

    def confirm(self, settings: Sequence[Setting]) -> list[Confirmed]:
        """Full blocks of the configuration as it is written, and of each."""
        from results.sql.database import open_database

        question = self._question
        document = question.confirming(settings, len(self.run_ids))
        run_id = self._made("confirm", settings, document)
        arms = {question.configuration: question.asked.written} | {s.name: s for s in settings}
        with open_database(self._archive.path, [run_id]) as database:
            return read_confirmed(
                database, arms, question.memory_metric, question.configuration, question.rate_rps
            )

    def _outcomes(self, run_id: str, settings: Sequence[Setting]) -> list[Outcome]:
        from results.sql.database import open_database

        question = self._question
        with open_database(self._archive.path, [run_id]) as database:
            return read_outcomes(database, settings, question.memory_metric, question.rate_rps)

    def _made(self, stage: str, settings: Sequence[Setting], document: dict[str, Any]) -> str:
        """The run that answers: an archived one, one that is gone on with, or a new one."""
        self._series.stop.check()
        mark = self._mark(stage, settings, document)
        found = self._found(mark)
        if found is None or not self._answers(found):
            self._view.measuring(stage, len(settings) + (stage == "confirm"), document["trials"])
            resume = found.run_id if found else ""
            self._series.run(document, {"tune": mark}, self._view.progress, resume)
            found = self._found(mark)
        if found is None or not self._answers(found):
            raise RunIncomplete("a run of the tuning left no answer")
        self.run_ids.append(found.run_id)
        return found.run_id

    def _mark(
        self, stage: str, settings: Sequence[Setting], document: dict[str, Any]
    ) -> dict[str, Any]:
        self._key = self._key or self._question.key(self._series.folder, self._view.progress)
        mark: dict[str, Any] = {
            "key": self._key,
            "stage": stage,
            "short_ns": self._question.short_ns if stage in SHORT else None,
            "settings": [setting.to_plain() for setting in settings],
            "asked": [self._question.blocks, document["objectives"]] if stage == "confirm" else [],
        }
        # Asked once more, a question wants another answer: a bisection weighs chance.
        text = json.dumps(mark, sort_keys=True)
        self._asked[text] += 1
        return mark if self._asked[text] == 1 else mark | {"again": self._asked[text]}

    def _found(self, mark: dict[str, Any]) -> RunEntry | None:
        """The run with this mark that is furthest; the same question is the same run."""
        own = [r for r in self._archive.runs() if r.document.get("tune") == mark]
        return max(own, key=lambda r: (self._answers(r), r.run_id), default=None)

    def _answers(self, run: RunEntry) -> bool:
        """Whether every trial of a run was tried: a setting may be why one can't be valid."""
        if run.status in DONE:
            return True
        tried = {planned_id(r.trial_id) for r in self._archive.records(run.run_id)}
        planned = {trial["trial_id"] for trial in run.document["planned"]}
        return run.status == "incomplete" and tried == planned
