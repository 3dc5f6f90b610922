"""Lines that scroll up, above lines that stay at the bottom of a terminal and are drawn anew.

Rich moves up by the height that was drawn last. Its own thread may draw another height between this
move and the line that scrolls up, and the uppermost lines stay for ever: so drawing is done by a
thread of ours, and one lock is held for each of the two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

DRAW_S: Final = 1 / 8
"""Between two drawings."""


class LiveView:
    """What `drawn` gives stays at the bottom; what is printed scrolls up."""

    def __init__(self, console: Console, drawn: Callable[[], RenderableType]) -> None:
        self._console = console
        self._drawn = drawn
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw, daemon=True)
        self._live: Live | None = None

    def start(self) -> None:
        """Begin drawing."""
        self._live = Live(
            console=self._console,
            get_renderable=self._shown,
            auto_refresh=False,
            transient=True,
            redirect_stderr=False,
        )
        self._live.start()
        self._drawer.start()

    def stop(self) -> None:
        """Stop drawing; what scrolled up stays."""
        self._over.set()
        self._drawer.join()
        if self._live:
            self._live.stop()

    def redraw(self) -> None:
        """Draw what stays as it is now."""
        with self._lock:
            if self._live:
                self._live.refresh()

    def print(self, text: str) -> None:
        """Print a line, with Rich's markup, above what stays."""
        with self._lock:
            self._console.print(text, highlight=False)

    def _draw(self) -> None:
        while not self._over.wait(DRAW_S):
            self.redraw()

    def _shown(self) -> RenderableType:
        # At its end Rich draws once more, however high, and could not take back what scrolled off.
        return "" if self._over.is_set() else self._drawn()
