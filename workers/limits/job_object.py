"""Limits by a Windows job object: all of a trial's processes are its members, and end with it.

Sources: learn.microsoft.com, "Job Objects", JOBOBJECT_EXTENDED_LIMIT_INFORMATION and
JOBOBJECT_CPU_RATE_CONTROL_INFORMATION. The memory limit is one of commit: beyond it an allocation
fails, nobody is killed. A limit that can't be read back is not in force.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable

from results.record import LimitRecord
from workers import win32
from workers.limits.limiter import GroupCounters, GroupLook
from workers.limits.records import apply_each
from workers.spec import LimitsSpec

RATE_WHOLE = 10_000
"""A CPU rate is given in parts of this, of the time of all processors together."""

WORKING_SET_MIN_BYTES = 50 * 4096
"""Windows' own minimum for a process; a maximum can't be set without one."""

CONSOLE_HOST = "conhost.exe"
WINE_DESKTOP = "explorer.exe"
EXIT_CODE = 1
REMOVE_TIMEOUT_S = 5.0
_REMOVE_POLL_S = 0.005
HIGH_REASON = "Windows has no limit that throttles: only a hard one (memory_max)"


def open_limiter(_run_id: str, _trial_id: str) -> JobObject:
    """Make the job object of a trial: it has no name, its handle is all there is of it.

    Raises OSError when Windows makes none: without one, nothing would end a dead node's service.
    """
    return JobObject()


def run_groups() -> list[str]:
    """No job object outlives the process that made it."""
    return []


def remove_run_groups(_run_id: str) -> list[str]:
    """Nothing can be left to remove."""
    return []


def own_processes(members: Iterable[int]) -> dict[int, int]:
    """Threads by process id of a job's members, without those that the system itself added.

    These are the hosts of consoles and, under Wine, the desktop that its first user starts. One
    snapshot of all processes is taken; where there is none, the threads are 0.
    """
    wanted = set(members)
    helpers = {CONSOLE_HOST, WINE_DESKTOP} if win32.wine_version() else {CONSOLE_HOST}
    try:
        return {
            entry.pid: entry.threads
            for entry in win32.snapshot_processes()
            if entry.pid in wanted and entry.name.lower() not in helpers
        }
    except OSError:
        return dict.fromkeys(wanted, 0)


class JobObject:
    """A job object. Its handle lives in this process, whose death ends every member."""

    mechanism = "job object"
    reason = ""
    join_paths: tuple[str, ...] = ()

    def __init__(self) -> None:
        """Make the job. Raises OSError."""
        self.job = win32.make_job()
        self._asked = win32.JobExtendedLimits()
        self._asked.basic.flags = win32.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        self._told = win32.JobExtendedLimits()
        self._ids = win32.JobProcessIds()

    def apply(self, limits: LimitsSpec) -> list[LimitRecord]:
        """Set the limits, read each one back, and tell what is in force."""
        return apply_each(
            limits,
            self.mechanism,
            {
                "memory_max_bytes": self._set_memory_max,
                "memory_high_bytes": lambda _asked: (None, HIGH_REASON),
                "cpus": self._set_cpus,
                "working_set_max_bytes": self._set_working_set_max,
            },
            cpus_step=_processors() / RATE_WHOLE,
        )

    def _set_memory_max(self, asked: float) -> tuple[float | None, str]:
        self._asked.job_memory_limit = int(asked)
        told = self._set_flag(win32.JOB_OBJECT_LIMIT_JOB_MEMORY)
        return told.job_memory_limit, _not_kept(told, win32.JOB_OBJECT_LIMIT_JOB_MEMORY)

    def _set_working_set_max(self, asked: float) -> tuple[float | None, str]:
        self._asked.basic.working_set_min = min(WORKING_SET_MIN_BYTES, int(asked))
        self._asked.basic.working_set_max = int(asked)
        told = self._set_flag(win32.JOB_OBJECT_LIMIT_WORKINGSET)
        return told.basic.working_set_max, _not_kept(told, win32.JOB_OBJECT_LIMIT_WORKINGSET)

    def _set_flag(self, flag: int) -> win32.JobExtendedLimits:
        self._asked.basic.flags |= flag
        size = ctypes.sizeof(self._asked)
        win32.set_job(self.job, win32.JOB_EXTENDED_LIMITS, ctypes.byref(self._asked), size)
        self._read_limits()
        return self._told

    def _set_cpus(self, asked: float) -> tuple[float | None, str]:
        processors = _processors()
        rate = win32.JobCpuRate(
            win32.JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | win32.JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
            max(1, min(RATE_WHOLE, round(asked / processors * RATE_WHOLE))),
        )
        size = ctypes.sizeof(rate)
        win32.set_job(self.job, win32.JOB_CPU_RATE, ctypes.byref(rate), size)
        told = win32.JobCpuRate()
        win32.query_job(self.job, win32.JOB_CPU_RATE, ctypes.byref(told), size, None)
        if told.flags != rate.flags:
            return None, "the system does not say that the rate is capped"
        return told.rate / RATE_WHOLE * processors, ""

    def look(self) -> GroupLook:
        """The counters: one call gives them, as numbers."""
        return self.read()

    def counters(self, look: GroupLook) -> GroupCounters | None:
        """What was seen."""
        return GroupCounters(*look) if look else None

    def read(self) -> GroupCounters | None:
        """The peak of the job's commit; None when the job is gone.

        A job with a member has a peak: 0 says that this system does not tell it.
        """
        try:
            self._read_limits()
        except OSError:
            return None
        return GroupCounters(peak_bytes=self._told.peak_job_memory or None)

    def _read_limits(self) -> None:
        if not self.job:
            raise OSError("the job object is closed")
        size = ctypes.sizeof(self._told)
        win32.query_job(self.job, win32.JOB_EXTENDED_LIMITS, ctypes.byref(self._told), size, None)

    def reset_peak(self) -> bool:
        """Windows can't begin a new peak."""
        return False

    def processes(self) -> list[int]:
        """Process ids of the job's members."""
        if not self.job:
            return []
        size = ctypes.sizeof(self._ids)
        try:
            win32.query_job(self.job, win32.JOB_PROCESS_IDS, ctypes.byref(self._ids), size, None)
        except OSError as error:
            # More members than there is room for: those that fit are listed all the same.
            if getattr(error, "winerror", None) != win32.ERROR_MORE_DATA:
                return []
        return list(self._ids.ids[: self._ids.listed])

    def oom_kills(self) -> int:
        """Windows kills nobody at a limit: the allocation fails."""
        return 0

    def kill(self) -> None:
        """End every member at once."""
        if self.job:
            win32.terminate_job(self.job, EXIT_CODE)

    def remove(self) -> None:
        """End what is left in the job and close it. Raises TimeoutError when members stay."""
        if not self.job:
            return
        self.kill()
        deadline_s = time.monotonic() + REMOVE_TIMEOUT_S
        while (left := self.processes()) and time.monotonic() < deadline_s:
            time.sleep(_REMOVE_POLL_S)
        job, self.job = self.job, 0
        win32.close_handle(job)
        if left:
            raise TimeoutError(f"processes of the job object do not end: {left}")


def _processors() -> int:
    return os.cpu_count() or 1


def _not_kept(told: win32.JobExtendedLimits, flag: int) -> str:
    """Why a limit does not hold, when the job does not know of it afterwards."""
    if told.basic.flags & flag:
        return ""
    wine = win32.wine_version()
    if wine:
        return f"Wine {wine} accepts it, but does not enforce it: read back, it is not there"
    return "read back, it is not there"
