"""Standard output: a pipe whose reader goes away, and the terminal."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from results.errors import ReaderGone


class OutputConsole(Console):
    """Rich's console, but a reader that has gone stops the run like an interrupt does."""

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
