"""Ctrl-C: once stops cleanly, twice stops at once. A closed terminal counts as Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from results.errors import Interrupted

INTERRUPTED = 130
_SIGNALS = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    _SIGNALS.append(signal.SIGHUP)


class Stop(threading.Event):
    """Whether the user wants the run to stop."""

    def __init__(self) -> None:
        super().__init__()
        self._waits_for_nothing = False

    @contextlib.contextmanager
    def breaks_off(self) -> Iterator[None]:
        """While nothing is measured: what is going on is broken off with Interrupted at once."""
        self._waits_for_nothing = True
        try:
            self.check()
            yield
        finally:
            self._waits_for_nothing = False

    def ask(self) -> None:
        """The first interrupt."""
        self.set()
        if self._waits_for_nothing:
            _end_children()
            self.check()

    def check(self) -> None:
        """Raise Interrupted when the user wants to stop."""
        if self.is_set():
            raise Interrupted("stopped")


@contextlib.contextmanager
def stop_on_interrupt(
    stop: Stop, abandon: Callable[[], None], kept: str = "what was measured is kept"
) -> Iterator[None]:
    """Ask to stop on the first SIGINT, SIGTERM or SIGHUP; on the second, `abandon` and exit.

    `kept` tells the user what becomes of it.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        _cancel_alarm()
        if stop.is_set():
            _say("\nstopping at once")
            abandon()
            os._exit(INTERRUPTED)
        _say(f"\nstopping: {kept}; press Ctrl-C again to stop at once")
        stop.ask()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        if number != signal.SIGHUP or before[number] != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel_alarm() -> None:
    """Ray's handler of SIGTERM comes first and lets the process abort three seconds later."""
    if sys.platform != "win32":
        signal.alarm(0)


def _end_children() -> None:
    """A compiler or a download that is waited for; a terminal's Ctrl-C would reach it as well."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"{text}\n")
