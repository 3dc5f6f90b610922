"""Ctrl-C: once stops cleanly, twice stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


@contextmanager
def stop_on_interrupt(stop: threading.Event, abandon: Callable[[], None]) -> Iterator[None]:
    """Set `stop` on the first SIGINT or SIGTERM; on the second call `abandon` and exit with 130."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            sys.stderr.write("\nstopping at once\n")
            abandon()
            os._exit(INTERRUPTED)
        stop.set()
        sys.stderr.write(
            "\nstopping: the running trial is ended and kept; press Ctrl-C again to stop at once\n"
        )

    kept = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
