"""Instants of the steady clock, told to gevent's loop more exactly than its own timers can.

Those have a resolution of a millisecond, which would be added to every latency. Linux has timers
that are files (timerfd_create(2)), which the loop waits for as it does for sockets: no thread, and
a few microseconds. Elsewhere a thread of the operating system sleeps until each instant.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from collections.abc import Callable
from typing import Any, Final

from results.clock import steady_ns

_READ: Final = 1
_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1
_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class FileAlarm:
    """A timer that is a file; calls `ring` in the loop at the instant that was set last."""

    def __init__(self, loop: Any, ring: Callable[[], None]) -> None:
        """Raises OSError where there are none."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._setting = _Setting()
        self._by_reference = ctypes.byref(self._setting)
        self._ring = ring
        self._watcher = loop.io(self._file, _READ)
        self._watcher.start(self._rung)

    def _rung(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return  # it was set anew meanwhile
        self._ring()

    def set(self, instant_ns: int) -> None:
        """Ring at this instant; at once if it is over."""
        value = self._setting.value
        # 0 would mean never.
        value.seconds, value.nanoseconds = divmod(max(1, instant_ns), 1_000_000_000)
        self._libc.timerfd_settime(self._file, _ABSOLUTE, self._by_reference, None)


def keep_time(
    loop: Any,
    instants_ns: array[int],
    ring: Callable[[], None],
    next_ns: Callable[[], int | None],
    native: Callable[[str, str], Any],
) -> None:
    """Call `ring` in the loop at each of the instants, which ascend.

    `next_ns` is the first of them that `ring` has not dealt with. `native` gives a function of a
    module as it was before gevent changed it.
    """
    if sys.platform == "linux":

        def rung() -> None:
            ring()
            if (due_ns := next_ns()) is not None:
                alarm.set(due_ns)

        alarm = FileAlarm(loop, rung)
        # Users may only be switched to from the loop: what is due already rings at once, but there.
        alarm.set(steady_ns())
        return
    sleep = native("time", "sleep")
    wake = loop.async_()
    wake.start(ring)

    def tick() -> None:
        for due_ns in instants_ns:
            while (left_ns := due_ns - steady_ns()) > 0:
                sleep(left_ns / 1e9)
            wake.send()

    # The thread must get the interpreter at once when it wakes.
    sys.setswitchinterval(2e-4)
    native("_thread", "start_new_thread")(tick, ())
