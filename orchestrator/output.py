"""Standard output: a pipe whose reader goes away, and the terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from results.errors import ReaderGone

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal obeys instead of showing it; lines and tabs are no harm."""


class OutputConsole(Console):
    """Rich's console, but a reader that has gone stops the run like an interrupt does.

    Names come from matrices and archives of anybody: no control sequence in them gets through.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Called by Rich for all that is printed; its own colours and moves are not text yet."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield segment._replace(text=_CONTROL.sub("\N{REPLACEMENT CHARACTER}", segment.text))

    def on_broken_pipe(self) -> None:
        """Called by Rich instead of raising BrokenPipeError."""
        self.quiet = True
        discard_output()
        raise ReaderGone("stopped: nobody reads what is printed any more; go on with: bench resume")


def discard_output() -> None:
    """Send to nowhere what is still to be written, or Python complains when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
