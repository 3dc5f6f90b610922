"""What this process and those that it starts ask of their system, where systems differ."""

from __future__ import annotations

import sys
from typing import TypedDict

from workers import win32

TIMER_PERIOD_MS = 1


class OwnGroup(TypedDict):
    """Arguments of `subprocess.Popen`."""

    start_new_session: bool
    creationflags: int


def own_group() -> OwnGroup:
    """Starts a process that Ctrl-C in the terminal does not reach: its parent ends it in order.

    Where a Windows node has no console, none is made for the process either.
    """
    if sys.platform == "win32":
        flags = win32.CREATE_NEW_PROCESS_GROUP
        if not win32.has_console():
            flags |= win32.DETACHED_PROCESS
        return {"start_new_session": False, "creationflags": flags}
    return {"start_new_session": True, "creationflags": 0}


def sharpen_timers() -> None:
    """Let this process's waits end within a millisecond; Windows' own step is 15.6 ms."""
    if sys.platform == "win32":
        win32.timer_period(TIMER_PERIOD_MS)
