"""One clock discipline: monotonic nanoseconds, mapped once per process to UTC."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockMap:
    """The offset from this machine's monotonic clock to UTC, read once.

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
            before_ns = time.monotonic_ns()
            utc_ns = time.time_ns()
            after_ns = time.monotonic_ns()
            error_ns = (after_ns - before_ns + 1) // 2
            if best is None or error_ns < best.error_ns:
                best = cls(utc_ns - (before_ns + after_ns) // 2, error_ns)
        assert best is not None
        return best

    def utc_ns(self, monotonic_ns: int) -> int:
        """Nanoseconds since the epoch for a reading of `time.monotonic_ns()`."""
        return monotonic_ns + self.offset_ns

    def now_ns(self) -> int:
        """Now, in nanoseconds since the epoch."""
        return time.monotonic_ns() + self.offset_ns
