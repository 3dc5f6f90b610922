"""What the user sees of a tuning while it goes on: on a terminal the front as it grows, elsewhere a
line for each trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.progress import Progress, format_bytes, format_seconds
from orchestrator.seriesview import LiveSeries, PlainSeries, RunWithin
from orchestrator.tune.trialmatrix import Question
from results.metrics import counted, format_time
from results.record import TrialRecord
from results.tuning.budget import Budget
from results.tuning.front import front
from results.tuning.outcomes import Outcome, shortfalls

STAGES: Final = {
    "first": "where to begin",
    "search": "search",
    "spiral": "death spiral",
    "longer": "longer trials",
    "confirm": "confirmation",
}
FRONT_ROWS: Final = 10
OTHER_LINES: Final = 6
"""Of a terminal's height: heading, how many more, what is measured now, and a line that scrolls."""


class View(Protocol):
    """What a tuning tells while it goes on; `progress` is told what each run does."""

    progress: Progress

    def begin(self, text: str, budget: Budget) -> None:
        """The tuning begins, or goes on."""

    def measuring(self, stage: str, settings: int, blocks: int) -> None:
        """A run begins."""

    def say(self, text: str) -> None:
        """Something to know."""

    def so_far(self, outcomes: Sequence[Outcome], found: Sequence[Outcome]) -> None:
        """What all runs showed, and the last one."""


class _Words:
    """How an outcome is told; the first outcome is that of the configuration as it is written."""

    def __init__(self, question: Question) -> None:
        self._objectives = question.objectives

    def of(self, outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
        """As in `GOGC=50: 251 MiB, p99 8.4 ms, GC CPU 24 %; misses p99 <= 8ms`."""
        if outcome.unusable:
            return f"{outcome.setting.text}: no figures: {outcome.unusable}"
        parts = ", ".join(
            (
                format_bytes(outcome.memory_bytes),
                f"p99 {'–' if outcome.p99_ns is None else format_time(outcome.p99_ns)}",
                f"GC CPU {_percent(outcome.gc_share)}",
            )
        )
        missed = self.missed(outcome, outcomes)
        more = [outcome.spiral] if outcome.spiral else []
        more += [f"misses {text}" for text in missed]
        return f"{outcome.setting.text}: {parts}" + "".join(f"; {text}" for text in more)

    def missed(self, outcome: Outcome, outcomes: Sequence[Outcome]) -> list[str]:
        """The objectives that a trial does not keep."""
        written = outcomes[0].values
        asked = shortfalls(self._objectives, outcome.values, written)
        return [text for text, shortfall in asked.items() if shortfall > 0]


def front_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The front so far, without those whose collector has taken over."""
    return front((o for o in outcomes if not o.spiral), lambda o: o.point)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


class PlainView:
    """One line for each trial, between the lines of the runs themselves."""

    def __init__(self, console: Console, question: Question) -> None:
        self._lines = PlainSeries(console)
        self.progress: Progress = self._lines
        self._words = _Words(question)
        self._budget: Budget | None = None

    def begin(self, text: str, budget: Budget) -> None:
        """Tell what the tuning may take."""
        self._budget = budget
        self.say(text)

    def measuring(self, stage: str, settings: int, blocks: int) -> None:
        """Tell what is measured now."""
        left = f", {_left(self._budget)}" if self._budget else ""
        self.say(f"{STAGES[stage]}: {counted(settings * blocks, 'trial')}{left}")

    def say(self, text: str) -> None:
        """Tell it."""
        self._lines.say(f"tune: {text}")

    def so_far(self, outcomes: Sequence[Outcome], found: Sequence[Outcome]) -> None:
        """Tell what the last run showed, and the front in a line."""
        for outcome in found:
            self.say(self._words.of(outcome, outcomes))
        best = front_of(outcomes)
        self.say(f"front so far: {counted(len(best), 'setting')} of {len(outcomes)}")


class TerminalView(LiveSeries):
    """Trials scroll up; the front so far stays at the bottom, and what is measured now."""

    def __init__(self, console: Console, question: Question) -> None:
        super().__init__(console)
        self.progress: Progress = _Runs(self)
        self._words = _Words(question)
        self._outcomes: Sequence[Outcome] = ()
        self._budget: Budget | None = None
        self._stage = ""

    def begin(self, text: str, budget: Budget) -> None:
        """Tell what the tuning may take, and draw."""
        self._budget = budget
        self.say(text)

    def measuring(self, stage: str, settings: int, blocks: int) -> None:
        """Show what is measured now."""
        self._stage = f"{STAGES[stage]}, {counted(settings * blocks, 'trial')}"
        self._doing = "starting"

    def say(self, text: str) -> None:
        """Scroll it up."""
        self.scroll("✓", "green", escape(text))

    def so_far(self, outcomes: Sequence[Outcome], found: Sequence[Outcome]) -> None:
        """Scroll up what the last run showed; the front is drawn."""
        self._outcomes = tuple(outcomes)
        for outcome in found:
            good = outcome.point and not outcome.spiral
            mark, style = ("✓", "green") if good else ("!", "yellow")
            self.scroll(mark, style, f"[dim]{escape(self._words.of(outcome, outcomes))}[/]")

    def drawn(self) -> RenderableType:
        """The front so far, and what is measured now."""
        return Group(*([self._front()] if self._outcomes else []), self._last_line())

    def _front(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2), title_justify="left")
        table.add_column(f"front so far, of {counted(len(self._outcomes), 'trial')}", no_wrap=True)
        for name in ("memory", "p99", "GC CPU"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis")
        best = front_of(self._outcomes)
        rows = max(1, min(FRONT_ROWS, self._console.size.height - OTHER_LINES))
        for outcome in best[:rows]:
            missed = self._words.missed(outcome, self._outcomes)
            table.add_row(
                Text(outcome.setting.text, "dim" if missed else "bold"),
                format_bytes(outcome.memory_bytes),
                format_time(outcome.p99_ns or 0),
                _percent(outcome.gc_share),
                Text(f"misses {', '.join(missed)}" if missed else "", "yellow"),
            )
        if len(best) > rows:
            table.add_row(Text(f"and {len(best) - rows} more", "dim"))
        return table

    def _last_line(self) -> RenderableType:
        left = f"  {_left(self._budget)}" if self._budget else ""
        self._spinner.update(
            text=Text.assemble(
                f" {self._stage or 'preparing'}  ", (self._doing, "cyan"), (left, "dim")
            )
        )
        return self._spinner


def _left(budget: Budget) -> str:
    return f"at most {format_seconds(max(0.0, budget.total_s - budget.used_s))} left"


class _Runs(RunWithin):
    """Runs of several trials: what spoiled one is told at once."""

    def trial_finished(self, record: TrialRecord) -> None:
        """What it said is told when all of the run is read."""
        if not record.valid:
            first = next(f.text for f in record.findings if f.level == "invalid")
            self._view.warn(f"{record.configuration}: {first}")


@contextmanager
def show_view(console: Console, question: Question) -> Iterator[View]:
    """The view that fits where `console` writes to."""
    if console.is_terminal:
        with TerminalView(console, question) as view:
            yield view
    else:
        yield PlainView(console, question)
