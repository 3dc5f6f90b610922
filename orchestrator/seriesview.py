"""What a series of runs shows, whatever it is for: what each run does, and warnings once.

A search or a tuning makes one run after the other. What all of them tell alike is no news; what
they found is told by the view of the series itself.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.spinner import Spinner

from orchestrator.liveview import LiveView
from orchestrator.progress import PlainProgress, describe_snapshot
from results.record import TrialRecord

NO_VERDICT: Final = "no verdict can be reached"
"""In a run's warning that a comparison needs more blocks: a series compares nothing."""

LOOK_S: Final = 0.2
"""Between two looks at a running trial that are shown: more often nobody can read."""


_FIGURES: Final = re.compile(r"[0-9.,:]+")


class PlainSeries(PlainProgress):
    """Lines, where nothing can be drawn: what an earlier run told is not told again."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._told: set[str] = set()

    def say(self, text: str) -> None:
        """Print what the series itself has to tell."""
        self._line(text)

    def step(self, text: str) -> None:
        """Print that a piece of preparation begins."""
        if self._is_new(text):
            super().step(text)

    def done(self, text: str) -> None:
        """Print that it is over."""
        if self._is_new(text):
            super().done(text)

    def warn(self, text: str) -> None:
        """Print a warning that is about a series too."""
        if NO_VERDICT not in text and self._is_new(text):
            super().warn(text)

    def _is_new(self, text: str) -> bool:
        """Whether nothing alike was told; other figures don't make it news."""
        known = _FIGURES.sub("#", text)
        new = known not in self._told
        self._told.add(known)
        return new


class LiveSeries(ABC):
    """What was found scrolls up; what is known so far and what is done now stay at the bottom."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing = ""
        self._warned: set[str] = set()
        self._spinner = Spinner("dots", style="cyan")
        self._view = LiveView(console, self.drawn)

    def __enter__(self) -> Self:
        """Begin drawing."""
        self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop drawing; what scrolled up stays."""
        self._view.stop()

    def redraw(self) -> None:
        """Draw what stays as it is now."""
        self._view.redraw()

    @abstractmethod
    def drawn(self) -> RenderableType:
        """What stays at the bottom."""

    def doing(self, text: str) -> None:
        """Show what the run does now."""
        self._doing = text

    def scroll(self, mark: str, style: str, text: str) -> None:
        """Print a line above what stays."""
        self._view.print(f"[{style}]{mark}[/] {text}")

    def warn(self, text: str) -> None:
        """Show a warning of a run, once."""
        if text not in self._warned and NO_VERDICT not in text:
            self._warned.add(text)
            self.scroll("!", "yellow", escape(text))


class RunWithin:
    """The progress of one run of the series: a line of it is enough."""

    def __init__(self, view: LiveSeries) -> None:
        self._view = view
        self._told_s = 0.0

    def step(self, text: str) -> None:
        """Preparation is what is done now."""
        self._view.doing(text)

    def done(self, text: str) -> None:
        """Every run prepares the same: that is no news."""

    def warn(self, text: str) -> None:
        """Warnings are told once."""
        self._view.warn(text)

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """The series knows how many there are."""

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """It is handed to a node."""
        self._view.doing(f"{trial_id} on {node_id}")

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """Phase, memory and rate."""
        if snapshot and time.monotonic() - self._told_s > LOOK_S:
            self._told_s = time.monotonic()
            self._view.doing(f"{trial_id}  {describe_snapshot(snapshot)}")

    def trial_finished(self, record: TrialRecord) -> None:
        """What it said is told when all is read."""
        self._view.doing("reading what it said")

    def left_ns(self, left_ns: int) -> None:
        """The series has a countdown of its own."""
