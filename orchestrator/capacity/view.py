"""What the user sees of a search while it goes on: on a terminal how the brackets close, elsewhere
a line for each answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.capacity.words import FOR, bracket_text
from orchestrator.progress import Progress, describe_snapshot, format_seconds
from orchestrator.seriesview import LiveSeries, PlainSeries, RunWithin
from results.capacity.course import Course, Step, Tried
from results.capacity.search import Bounds

BAR_COLUMNS: Final = 40
_JUSTIFIED: Final[tuple[JustifyMethod, ...]] = ("left", "left", "right", "right")
"""Name, bar, interval and trials; what is left of the line is for the last answer."""

MARKS: Final = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
"""Whether the limits held, and how that is drawn; None: nothing was told."""


class View(Protocol):
    """What a search tells while it goes on; `progress` is told what each run does."""

    progress: Progress

    def begin(self, courses: Sequence[Course], most: str) -> None:
        """The search begins, or goes on; `most` is what it may take."""

    def trying(self, course: Course, step: Step, left_ns: float) -> None:
        """A trial begins; so long may all take that is left."""

    def answered(self, course: Course, text: str, left_ns: float) -> None:
        """A trial has said something."""


class PlainView:
    """A line for each trial and one for its answer."""

    def __init__(self, console: Console) -> None:
        self._lines = _Lines(console)
        self.progress: Progress = self._lines

    def begin(self, courses: Sequence[Course], most: str) -> None:
        """Tell what the search may take."""
        self._lines.say(f"capacity: {most}")

    def trying(self, course: Course, step: Step, left_ns: float) -> None:
        """Tell what is tried."""
        self._lines.say(
            f"capacity: {course.configuration}: trial {_place(course, 1)}, {_tried_rate(step)}; "
            f"up to {format_seconds(left_ns / 1e9)} left"
        )

    def answered(self, course: Course, text: str, left_ns: float) -> None:
        """Tell what came of it."""
        self._lines.say(f"capacity: {course.configuration}: {text}")


class _Lines(PlainSeries):
    """The lines of runs of one trial."""

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Print nothing: there is one."""

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """Print nothing: what is tried was told."""
        self._told_s[trial_id] = time.monotonic()


class TerminalView(LiveSeries):
    """Answers scroll up; the brackets stay at the bottom, and what is measured now."""

    def __init__(self, console: Console, bounds: Bounds) -> None:
        super().__init__(console)
        self.progress: Progress = _Trial(self)
        self._bounds = bounds
        self._courses: Sequence[Course] = ()
        self._now: tuple[Course, Step] | None = None
        self._ends_s = 0.0

    def begin(self, courses: Sequence[Course], most: str) -> None:
        """Tell what the search may take, and draw."""
        self._courses = courses
        self.scroll("✓", "green", escape(most))

    def trying(self, course: Course, step: Step, left_ns: float) -> None:
        """Show what is tried."""
        self._now, self._doing = (course, step), "starting"
        self._ends_s = time.monotonic() + left_ns / 1e9

    def answered(self, course: Course, text: str, left_ns: float) -> None:
        """Scroll an answer up."""
        self._now = None
        self._ends_s = time.monotonic() + left_ns / 1e9
        holds = course.tried[-1].held.holds if course.tried else None
        mark, style = MARKS[holds]
        self.scroll(mark, style, f"{escape(course.configuration)}: [dim]{escape(text)}[/]")

    def drawn(self) -> RenderableType:
        """The brackets, and the trial that runs."""
        if not self._courses:
            return Text("")
        grid = Table.grid(padding=(0, 2), expand=True)
        for justify in _JUSTIFIED:
            grid.add_column(justify=justify, no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for course in self._courses:
            grid.add_row(*self._row(course))
        grid.add_row("", self._axis(), "", "", "")
        return Group(grid, self._last_line())

    def _row(self, course: Course) -> Iterator[RenderableType]:
        step = self._now[1] if self._now and self._now[0] is course else None
        yield Text(course.configuration, style="bold")
        yield bar(course, step.rate_rps if step else None)
        yield bracket_text(course)
        yield _place(course)
        yield _last_answer(course.tried[-1]) if course.tried else Text("")

    def _axis(self) -> Text:
        low, high = (
            f"{rate:,.0f}/s" for rate in (self._bounds.lowest_rps, self._bounds.highest_rps)
        )
        return Text(low + high.rjust(BAR_COLUMNS - len(low)), style="dim")

    def _last_line(self) -> RenderableType:
        left = format_seconds(max(0.0, self._ends_s - time.monotonic()))
        if self._now is None:
            return Text("")
        course, step = self._now
        self._spinner.update(
            text=Text.assemble(
                f" {course.configuration}, {_tried_rate(step)}  ",
                (self._doing, "cyan"),
                (f"  up to {left} left", "dim"),
            )
        )
        return self._spinner


class _Trial(RunWithin):
    """A run of one trial, which is named already."""

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """It is handed to a node."""
        self._view.doing(f"on {node_id}")

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """Phase, memory and rate."""
        if snapshot:
            self._view.doing(describe_snapshot(snapshot))


def bar(course: Course, now_rps: float | None = None) -> Text:
    """Where the capacity lies, on a logarithmic axis of all rates that may be tried.

    A line up to the lower bound, a block from there to the upper one, a thin line beyond; a point
    at the rate that is tried now.
    """
    text = Text()
    low, high = _column(course, course.interval.low), _column(course, course.interval.high)
    now = None if now_rps is None else _column(course, now_rps)
    for column in range(BAR_COLUMNS):
        if column == now:
            text.append("●", "bold cyan")
        elif column < low:
            text.append("━", "green")
        elif column <= high:
            text.append("█", "yellow")
        else:
            text.append("─", "dim")
    return text


def _column(course: Course, rate_rps: float) -> int:
    lowest, highest = course.bounds.lowest_rps, course.bounds.highest_rps
    share = math.log(rate_rps / lowest) / math.log(highest / lowest)
    return min(BAR_COLUMNS - 1, max(0, int(share * BAR_COLUMNS)))


def _place(course: Course, more: int = 0) -> str:
    return f"{course.trials + more}/{course.bounds.trials_max}"


def _tried_rate(step: Step) -> str:
    return f"{FOR[step.purpose]}{step.rate_rps:,.0f}/s"


def _last_answer(tried: Tried) -> Text:
    return Text.assemble(
        MARKS[tried.held.holds], (f" {tried.rate_rps:,.0f}/s {tried.held.reason}", "dim")
    )


@contextmanager
def show_view(console: Console, bounds: Bounds) -> Iterator[View]:
    """The view that fits where `console` writes to."""
    if console.is_terminal:
        with TerminalView(console, bounds) as view:
            yield view
    else:
        yield PlainView(console)
