"""A run that ends when its sign-off is decided, whatever the trials that are left would show.

Asked after every block; blocks that are under way then are measured whole, no new one is begun.
What decides is `results/signoff/curtail.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from orchestrator.blocks import blocks_of
from orchestrator.matrix.matrix import Matrix
from orchestrator.ongoing import Run
from orchestrator.progress import Progress
from results.errors import HeapgateError, UserError
from results.metrics import counted
from results.record import planned_id
from results.signoff.curtail import LOST, Outcome, counts, settled
from results.signoff.objectives import Evidence, Objective
from results.sql.database import open_database
from results.statistics.paired import blocks_at_least

NAMED_MAX: Final = 3


class EarlyStop:
    """Whether a run is decided. Used by one thread for each node."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] | None = None
        self._gave_up = False

    @property
    def decided(self) -> bool:
        """Whether no block need be begun any more."""
        return self._outcomes is not None

    def look(self) -> None:
        """Look at what is archived, while blocks are left that might be saved."""
        with self._lock:
            if self.decided or self._gave_up or not self._is_begun_and_left:
                return
            try:
                self._outcomes = self._settled()
            except (HeapgateError, OSError) as error:
                self._gave_up = True
                self._progress.warn(f"the run goes on to its end, whatever comes of it: {error}")

    def told(self) -> dict[str, Any] | None:
        """For the run's document: why it ended, and what that saved; None when it did not."""
        if self._outcomes is None or not self._is_begun_and_left:
            return None
        planned, tried = self._run.plan.trials, self._tried
        told = {
            "blocks": len({trial.block_key for trial in planned if trial.trial_id in tried}),
            "blocks_planned": len({trial.block_key for trial in planned}),
            "trials_saved": sum(trial.trial_id not in tried for trial in planned),
            "trials_planned": len(planned),
            "why": why(self._outcomes),
            "outcomes": [outcome.to_plain() for outcome in self._outcomes],
        }
        self._progress.done(sentence(told))
        return told

    @property
    def _tried(self) -> set[str]:
        """The planned trials that were measured, whatever came of it."""
        return {planned_id(name) for name in self._run.archive.trial_names(self._run.run_id)}

    @property
    def _is_begun_and_left(self) -> bool:
        blocks = blocks_of(self._run.plan, self._run.archive.records(self._run.run_id))
        begun = any(block.valid for block in blocks)
        return begun and not all(block.complete for block in blocks)

    def _settled(self) -> list[Outcome] | None:
        run = self._run
        with open_database(run.archive.path, [run.run_id]) as database:
            comparison = database.comparison()
            measured = database.measurements(run.run_id)
            evidence = Evidence.of(comparison, database.records, measured, [run.document])
        return settled(run.matrix.policy.objectives, evidence)


def why(outcomes: Sequence[Outcome]) -> str:
    """What became of the objectives, in words; those that can't be met first."""
    lost = [outcome.objective for outcome in outcomes if outcome.outlook == LOST]
    met = [outcome.objective for outcome in outcomes if outcome.outlook != LOST]
    parts = [f"{_named(lost)} can't be met any more"] if lost else []
    parts += [f"{_named(met)} {'is' if len(set(met)) == 1 else 'are'} surely met"] if met else []
    return "; ".join(parts)


def _named(texts: Sequence[str]) -> str:
    different = list(Counter(texts))
    shown = ", ".join(different[:NAMED_MAX])
    return (
        shown if len(different) <= NAMED_MAX else f"{shown} and {len(different) - NAMED_MAX} more"
    )


def sentence(told: dict[str, Any]) -> str:
    """When and why a run was ended, and what that saved."""
    return (
        f"decided after {told['blocks']} of {counted(told['blocks_planned'], 'block')}, "
        f"{counted(told['trials_saved'], 'trial')} saved: {told['why']}"
    )


def check_early_stop(matrix: Matrix) -> None:
    """Raises UserError, with its place, where no run could ever be decided before its end."""
    at = ("stop_early",)
    blocking = [o for o in matrix.policy.objectives if o.severity == "block"]
    if not any(map(counts, blocking)):
        text = "there is no objective that blocks: a run is decided when all of them are"
        if blocking:
            text = "no objective blocks but a capacity, and other runs decide that: bench capacity"
        raise _error(matrix, at, text)
    least = blocks_at_least(matrix.document.comparison.confidence, 1)
    if matrix.trials < least:
        raise _error(
            matrix, at, f"with {counted(matrix.trials, 'block')} nothing is ever decided: plan "
            f"{least} or more",
        )  # fmt: skip


def _error(matrix: Matrix, at: tuple[str, ...], text: str) -> UserError:
    """At the key where it is written; else it was the command that asked."""
    if matrix.document.stop_early:
        return matrix.error(at, text)
    return UserError(f"--stop-early: {text}")


def holding_up(objectives: Sequence[Objective]) -> Iterator[str]:
    """What to know before a run: that it will end early only if a leak is found, say."""
    for objective in objectives:
        if counts(objective) and objective.kind == "no_leak":
            yield (
                f"{objective.text} is only decided early where a leak is found: without one the "
                "run goes on to its end"
            )
