"""How busy chosen processor cores were, and how much of that was not ours: is the node quiet?

Sources: on Linux /proc/stat, one line a core, in clock ticks since boot (proc(5)); on Windows
NtQuerySystemInformation by way of psutil, which knows no time taken by a hypervisor.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CoreUsage:
    """Sums over some cores since boot: time at work, and time taken by the hypervisor.

    Interrupts are not work here: those of the service's own traffic are charged to nobody.
    """

    busy_ns: int
    steal_ns: int

    @classmethod
    def read(cls, cores: tuple[int, ...]) -> CoreUsage:
        """Read the system's account for `cores`."""
        return cls(*_read(cores))

    def since(self, earlier: CoreUsage) -> CoreUsage:
        """What was added since an earlier reading of the same cores."""
        return CoreUsage(self.busy_ns - earlier.busy_ns, self.steal_ns - earlier.steal_ns)


if sys.platform == "win32":

    def _read(cores: tuple[int, ...]) -> tuple[int, int]:
        """Windows counts interrupts and deferred calls as time in the kernel: not as work here."""
        busy_s = 0.0
        for core, times in enumerate(psutil.cpu_times(percpu=True)):
            if core in cores:
                busy_s += times.user + times.system - times.interrupt - times.dpc
        return int(busy_s * _NS_PER_S), 0

else:

    def _read(cores: tuple[int, ...]) -> tuple[int, int]:
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        wanted = {f"cpu{core}" for core in cores}
        busy = steal = 0
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(" ")
            if name in wanted:
                user, nice, system, _idle, _iowait, _irq, _softirq, stolen = map(
                    int, rest.split()[:8]
                )
                busy += user + nice + system
                steal += stolen
        return busy * _NS_PER_S // ticks_per_s, steal * _NS_PER_S // ticks_per_s
