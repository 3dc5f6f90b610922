"""What is known of a run that goes on. The run tells it as it tells the progress display.

The run only ever leaves a fact here; nothing is computed, written or waited for on its threads.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from orchestrator.ongoing import Run
from orchestrator.progress import Progress
from results.record import TrialRecord, planned_id

UNKNOWN = "unknown"


@dataclass(slots=True)
class RunningTrial:
    """A trial that a node has, as its last snapshot told."""

    trial_id: str
    configuration: str
    workload: str
    node: str
    block: int
    snapshot: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, str, str]:
        """The values of `TRIAL_LABELS`."""
        return self.configuration, self.workload, self.node


@dataclass(slots=True)
class Facts:
    """All of it at one moment; times are those of this machine's clock."""

    run_id: str = ""
    service: str = ""
    folder: Path | None = None
    started_s: float = 0.0
    changed_s: float = 0.0
    measuring: bool = False
    planned: int = 0
    done: int = 0
    ends_s: float | None = None
    repeated: int = 0
    warnings: int = 0
    sealed: Counter[str] = field(default_factory=Counter)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    running: dict[str, RunningTrial] = field(default_factory=dict)


class Board:
    """Takes what a run tells (`orchestrator.progress.Progress`) and keeps the last of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts = Facts(started_s=time.time(), changed_s=time.time())
        self._planned: dict[str, tuple[str, str, int]] = {}
        self._over: set[str] = set()
        self._done_before = 0

    def facts(self) -> Facts:
        """A copy that stays as it is."""
        with self._lock:
            now = self._facts
            return replace(
                now,
                sealed=now.sealed.copy(),
                findings=now.findings.copy(),
                running={name: replace(trial) for name, trial in now.running.items()},
            )

    def follow(self, run: Run) -> None:
        """This is the run."""
        with self._lock:
            self._facts.run_id, self._facts.folder = run.run_id, run.folder
            self._facts.service = run.matrix.service.name
            self._facts.planned = len(run.plan.trials)
            self._planned = {
                t.trial_id: (t.configuration, t.workload, t.block) for t in run.plan.trials
            }

    def _moved(self) -> None:
        self._facts.changed_s = time.time()

    # What a run tells

    def step(self, text: str) -> None:
        """A piece of preparation begins."""
        with self._lock:
            self._moved()

    def done(self, text: str) -> None:
        """It is over."""
        with self._lock:
            self._moved()

    def warn(self, text: str) -> None:
        """Count a warning."""
        with self._lock:
            self._facts.warnings += 1
            self._moved()

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Trials begin."""
        with self._lock:
            self._facts.planned, self._facts.done = total, done
            self._facts.measuring, self._done_before = True, done
            self._moved()
        self.left_ns(estimate_ns)

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """A trial was handed to a node."""
        planned = planned_id(trial_id)
        configuration, workload, block = self._planned.get(planned, (UNKNOWN, UNKNOWN, 0))
        with self._lock:
            self._facts.repeated += trial_id != planned
            self._facts.running[trial_id] = RunningTrial(
                trial_id, configuration, workload, node_id, block
            )
            self._moved()

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """What it does now; between two phases a node may have nothing to tell."""
        with self._lock:
            trial = self._facts.running.get(trial_id)
            if trial is None or not snapshot:
                return
            if _moves(snapshot) != _moves(trial.snapshot):
                self._moved()
            trial.snapshot = snapshot

    def trial_finished(self, record: TrialRecord) -> None:
        """It is over."""
        with self._lock:
            facts = self._facts
            facts.running.pop(record.trial_id, None)
            facts.sealed["valid" if record.valid else "invalid"] += 1
            facts.findings.update((finding.level, finding.code) for finding in record.findings)
            self._over.add(planned_id(record.trial_id))
            facts.done = self._done_before + len(self._over)
            self._moved()

    def left_ns(self, left_ns: int) -> None:
        """How long the rest may take."""
        with self._lock:
            self._facts.ends_s = time.time() + left_ns / 1e9


def _moves(snapshot: Mapping[str, Any]) -> tuple[Any, ...]:
    """What changes as long as a trial is alive."""
    return tuple(snapshot.get(name) for name in ("phase", "samples", "sent"))


class _All:
    """Whatever is told, each of several is told, in their order."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*arguments: Any) -> None:
            for listener in self._listeners:
                getattr(listener, name)(*arguments)

        return tell


def watched(display: Progress, board: Board | None, run: Run) -> Progress:
    """What a run tells goes to the display, and to the board where there is one."""
    if board is None:
        return display
    board.follow(run)
    also: Progress = board
    return cast(Progress, _All(display, also))
