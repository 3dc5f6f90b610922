"""One clock discipline: steady nanoseconds, mapped once per process to UTC.

The steady clock never steps, and all processes of one machine read the same one. On Windows
Python's `time.monotonic_ns` moves in steps of 15.6 ms and so does its `time.time_ns`:
QueryPerformanceCounter and GetSystemTimePreciseAsFileTime are read there instead.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

if sys.platform == "win32":
    import ctypes

    steady_ns = time.perf_counter_ns
    _precise_time = ctypes.WinDLL("kernel32").GetSystemTimePreciseAsFileTime
    _precise_time.argtypes = [ctypes.c_void_p]
    _precise_time.restype = None
    _EPOCH_100NS = 116_444_736_000_000_000
    """1970-01-01 in FILETIME's count of 100 ns since 1601-01-01 (UTC)."""

    def wall_ns() -> int:
        """This machine's UTC as its own clock has it, in nanoseconds since the epoch."""
        now = ctypes.c_uint64()
        _precise_time(ctypes.byref(now))
        return (now.value - _EPOCH_100NS) * 100

else:
    steady_ns = time.monotonic_ns
    wall_ns = time.time_ns


@dataclass(frozen=True, slots=True)
class ClockMap:
    """The offset from this machine's steady clock to UTC, read once.

    `error_ns` bounds the reading: the true offset lies within ± error_ns of `offset_ns`.
    Hand the same map to every process of a trial, so that they all agree.
    """

    offset_ns: int
    error_ns: int

    @classmethod
    def read(cls, rounds: int = 32) -> ClockMap:
        """Read both clocks `rounds` times and keep the reading with the tightest bracket."""
        best: ClockMap | None = None
        for _ in range(rounds):
            before_ns = steady_ns()
            utc_ns = wall_ns()
            after_ns = steady_ns()
            error_ns = (after_ns - before_ns + 1) // 2
            if best is None or error_ns < best.error_ns:
                best = cls(utc_ns - (before_ns + after_ns) // 2, error_ns)
        assert best is not None
        return best

    def utc_ns(self, instant_ns: int) -> int:
        """Nanoseconds since the epoch for a reading of `steady_ns()`."""
        return instant_ns + self.offset_ns

    def now_ns(self) -> int:
        """Now, in nanoseconds since the epoch."""
        return steady_ns() + self.offset_ns
