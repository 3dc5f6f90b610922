"""How busy chosen processor cores were, and how much of that was not ours: is the node quiet?

Source: /proc/stat, one line a core, in clock ticks since boot (proc(5)).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreUsage:
    """Sums over some cores since boot: time at work, and time taken by the hypervisor.

    Interrupts are not work here: those of the service's own traffic are charged to nobody.
    """

    busy_ns: int
    steal_ns: int

    @classmethod
    def read(cls, cores: tuple[int, ...]) -> CoreUsage:
        """Read /proc/stat for `cores`."""
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
        return cls(busy * 1_000_000_000 // _TICKS_PER_S, steal * 1_000_000_000 // _TICKS_PER_S)

    def since(self, earlier: CoreUsage) -> CoreUsage:
        """What was added since an earlier reading of the same cores."""
        return CoreUsage(self.busy_ns - earlier.busy_ns, self.steal_ns - earlier.steal_ns)
