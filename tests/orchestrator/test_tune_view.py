"""What a terminal shows while a tuning goes on, and that nothing of it stays."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import matrices
import pyte
import pytest
from rich.console import Console, RenderableType

from orchestrator.seriesview import LiveSeries
from orchestrator.tune.trialmatrix import Question, Wanted
from orchestrator.tune.view import TerminalView
from results.tuning.outcomes import Outcome
from results.tuning.settings import MIB, Setting

WAIT_S = 0.1


class Interrupted(Console):
    """A console in which another thread draws in the midst of each line that is printed."""

    view: TerminalView | None = None
    _inside = False

    def render(self, renderable: Any, options: Any = None) -> Any:
        """Called by Rich after it has decided how far to move up."""
        if self.view and not self._inside and threading.current_thread() is MAIN:
            self._inside = True
            other = threading.Thread(target=self.view.redraw, daemon=True)
            other.start()
            other.join(WAIT_S)
            yield from list(super().render(renderable, options))
            self._inside = False
        else:
            yield from super().render(renderable, options)


MAIN = threading.main_thread()


def outcome(number: int) -> Outcome:
    """One of a front: the more memory, the less time."""
    return Outcome(
        setting=Setting(10.0 * (number + 1)),
        memory_bytes=(100.0 + number) * MIB,
        p99_ns=5e7 / (number + 1),
        gc_share=0.4 / (number + 1),
    )


def console_of(kind: type[Console], height: int) -> Any:
    return kind(file=io.StringIO(), force_terminal=True, width=100, height=height)


def screen_of(console: Console, height: int) -> list[str]:
    """Every line that a terminal of that height shows, and what scrolled off."""
    assert isinstance(console.file, io.StringIO)
    screen = pyte.HistoryScreen(100, height, history=1_000)
    pyte.Stream(screen).feed(console.file.getvalue().replace("\n", "\r\n"))
    rows = [*screen.history.top, *(screen.buffer[n] for n in range(height))]
    lines = ["".join(row[n].data for n in range(100)).rstrip() for row in rows]
    return [line for line in lines if line]


@pytest.fixture
def question(tmp_path: Path) -> Question:
    return Question(matrices.write(tmp_path, matrices.CLOSED), Wanted())


@pytest.mark.parametrize("height", [24, 9])
def test_the_front_grows_and_leaves_nothing_behind(question: Question, height: int) -> None:
    console = console_of(Console, height)
    with TerminalView(console, question) as view:
        known: list[Outcome] = []
        for number in range(14):
            known.append(outcome(number))
            view.so_far(known, known[-1:])
            view.redraw()
        during = screen_of(console, height)
    assert during[-1].lstrip().startswith("⠋") or "preparing" in during[-1]
    assert sum("front so far" in line for line in during) == 1
    assert all(line.startswith("✓ GOGC=") for line in screen_of(console, height))
    assert len(screen_of(console, height)) == 14


def test_what_is_drawn_between_leaves_no_heading_behind(question: Question) -> None:
    console = console_of(Interrupted, 24)
    with TerminalView(console, question) as view:
        console.view = view
        known: list[Outcome] = []
        for number in range(4):
            known.append(outcome(number))
            view.so_far(known, known[-1:])
        console.view = None
    lines = screen_of(console, 24)
    assert not [line for line in lines if "front so far" in line]
    assert len(lines) == 4


class Tall(LiveSeries):
    """More lines than a terminal has."""

    def drawn(self) -> RenderableType:
        """Lines with numbers."""
        return "\n".join(f"line {n}" for n in range(40))


def test_nothing_stays_of_what_was_higher_than_the_terminal() -> None:
    console = console_of(Console, 24)
    with Tall(console) as view:
        view.redraw()
        view.scroll("✓", "green", "one")
        view.redraw()
    assert screen_of(console, 24) == ["✓ one"]
