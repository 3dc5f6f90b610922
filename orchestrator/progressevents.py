"""A run's progress from one process to another: a line of JSON for each happening.

The process that measures writes (`EventProgress`), the one that the user sees passes it on to a
view of its own (`forward`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TextIO

from orchestrator.progress import Progress
from results.record import TrialRecord

NAMES: Final = frozenset(
    {"step", "done", "warn", "trials", "trial_started", "snapshot", "trial_finished", "left_ns"}
)


class EventProgress:
    """Writes what happens."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _write(self, name: str, *arguments: Any) -> None:
        self._out.write(json.dumps([name, *arguments]) + "\n")
        self._out.flush()

    def step(self, text: str) -> None:
        """A piece of preparation begins."""
        self._write("step", text)

    def done(self, text: str) -> None:
        """It is over."""
        self._write("done", text)

    def warn(self, text: str) -> None:
        """A warning."""
        self._write("warn", text)

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Trials begin."""
        self._write("trials", total, done, estimate_ns)

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """A trial was handed to a node."""
        self._write("trial_started", trial_id, node_id)

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """What a running trial is doing now."""
        self._write("snapshot", trial_id, dict(snapshot))

    def trial_finished(self, record: TrialRecord) -> None:
        """A trial is over: the whole record, as in `trial.json`."""
        self._write("trial_finished", record.to_json())

    def left_ns(self, left_ns: int) -> None:
        """A better estimate of the time that is left."""
        self._write("left_ns", left_ns)


def forward(lines: Iterable[str], progress: Progress) -> None:
    """Pass on everything that was written, until there is no more."""
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, list) or not told or told[0] not in NAMES:
            continue  # a library's own word, or a line that was cut off by the end of its process
        name, *arguments = told
        if name == "trial_finished":
            progress.trial_finished(TrialRecord.from_json(arguments[0]))
        else:
            getattr(progress, name)(*arguments)
