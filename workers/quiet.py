"""Is this machine quiet enough to measure on, and if not, what is busy?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil

BUSY_SHARE_MAX = 0.15
"""Of all cores; beyond it intervals get wide for a reason that lies outside of the service."""

_NAMED_SHARE_MIN = 0.05
_NAMES_MAX = 3


@dataclass(frozen=True, slots=True)
class Quiet:
    """`busy_share` of all cores since the look before; `busy_with` is empty when it is quiet."""

    busy_share: float
    busy_with: str


class QuietWatch:
    """Looks at the whole machine; each look covers the time since the one before."""

    def __init__(self) -> None:
        self._cores = psutil.cpu_count() or 1
        self._own = {psutil.Process()}
        self._processes: dict[int, psutil.Process] = {}
        psutil.cpu_percent()
        self._shares()

    def look(self) -> Quiet:
        """What other programs do, in shares of all cores. Costs a few milliseconds."""
        busy_share = psutil.cpu_percent() / 100
        shares = self._shares()
        if busy_share <= BUSY_SHARE_MAX:
            return Quiet(busy_share, "")
        named = sorted(shares.items(), key=lambda item: -item[1])[:_NAMES_MAX]
        told = [f"{name} {share:.0%}" for name, share in named if share >= _NAMED_SHARE_MIN]
        return Quiet(busy_share, ", ".join(told) or "no program stands out")

    def _shares(self) -> dict[str, float]:
        """Share of all cores by program, since the look before."""
        found: dict[str, float] = {}
        here = {process.pid: process for process in psutil.process_iter()}
        # The objects are kept: each remembers what it had used at the look before.
        self._processes = {pid: self._processes.get(pid, process) for pid, process in here.items()}
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error, OSError):
                share = process.cpu_percent() / 100 / self._cores
                if share > 0 and process not in self._own:
                    name = process.name()
                    found[name] = found.get(name, 0.0) + share
        return found
