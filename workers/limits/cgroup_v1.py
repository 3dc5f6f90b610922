"""Limits by cgroup v1: the memory and cpu hierarchies.

Files: Documentation/admin-guide/cgroup-v1/memory.rst and scheduler/sched-bwc.rst of the Linux
kernel. Pressure is not known per group in v1 (/proc/pressure is the whole machine's), so it
stays None.
"""

from __future__ import annotations

import os
from pathlib import Path

from results.record import LimitRecord
from workers.limits.groupfolder import (
    CounterFile,
    explain,
    group_folder,
    make_folder,
    members,
    number_in,
    remove_empty_parents,
    remove_tree,
    value_of,
)
from workers.limits.limiter import GroupCounters, GroupLook, LimitsUnavailable
from workers.limits.records import CPU_PERIOD_US, apply_each
from workers.spec import LimitsSpec

SWAP_MARGIN_BYTES = 65_536
SOFT_LIMIT_REASON = (
    "cgroup v1 has no throttling limit: its soft limit works only while the whole machine is "
    "short of memory"
)


class CgroupV1:
    """One group in the memory hierarchy and one of the same name in the cpu hierarchy."""

    mechanism = "cgroup v1"
    reason = ""

    def __init__(self, memory_root: Path, cpu_root: Path | None, run_id: str, trial_id: str):
        """Make the groups. Raises LimitsUnavailable."""
        if not os.access(memory_root, os.W_OK):
            why = "mounted read-only" if os.geteuid() == 0 else "writable by root only"
            raise LimitsUnavailable(f"the cgroup v1 memory hierarchy {memory_root} is {why}")
        self.memory = group_folder(memory_root, run_id, trial_id)
        make_folder(self.memory)
        self.cpu, self._cpu_reason = self._make_cpu(cpu_root, run_id, trial_id)
        folders = [folder for folder in (self.memory, self.cpu) if folder]
        self.join_paths = tuple(str(folder / "cgroup.procs") for folder in folders)
        self._folders = folders
        usage = CounterFile(self.memory / "memory.usage_in_bytes")
        self._peak = CounterFile(self.memory / "memory.max_usage_in_bytes", writable=True)
        stat = CounterFile(self.memory / "memory.stat")
        hits = CounterFile(self.memory / "memory.failcnt")
        hits_with_swap = CounterFile(self.memory / "memory.memsw.failcnt")
        self._oom = CounterFile(self.memory / "memory.oom_control")
        self._account = (usage, self._peak, stat, hits, hits_with_swap, self._oom)
        self._oom_kills = 0

    @staticmethod
    def _make_cpu(root: Path | None, run_id: str, trial_id: str) -> tuple[Path | None, str]:
        if root is None:
            return None, "no cgroup v1 cpu hierarchy is mounted"
        folder = group_folder(root, run_id, trial_id)
        try:
            make_folder(folder)
        except LimitsUnavailable as error:
            return None, str(error)
        return folder, ""

    def apply(self, limits: LimitsSpec) -> list[LimitRecord]:
        """Set the limits, read each one back, and tell what is in force."""
        return apply_each(
            limits,
            self.mechanism,
            {
                "memory_max_bytes": self._set_memory_max,
                "memory_high_bytes": self._set_memory_high,
                "cpus": self._set_cpus,
            },
        )

    def _set_memory_max(self, asked: float) -> tuple[float | None, str]:
        limit = self.memory / "memory.limit_in_bytes"
        limit.write_text(str(int(asked)))
        read_back = int(limit.read_text())
        # Memory and swap together, so that the limit can't be passed by swapping out; the file
        # exists only where swap is accounted for. A little above the limit proper: a charge is
        # tried here first, and failures here are not counted by every kernel (6.18 does not).
        with_swap = self.memory / "memory.memsw.limit_in_bytes"
        if with_swap.exists():
            try:
                with_swap.write_text(str(int(asked) + SWAP_MARGIN_BYTES))
            except OSError as error:
                return read_back, f"swap could not be limited too: {explain(error)}"
        return read_back, ""

    def _set_memory_high(self, asked: float) -> tuple[float | None, str]:
        limit = self.memory / "memory.soft_limit_in_bytes"
        limit.write_text(str(int(asked)))
        return int(limit.read_text()), SOFT_LIMIT_REASON

    def _set_cpus(self, asked: float) -> tuple[float | None, str]:
        if self.cpu is None:
            return None, self._cpu_reason
        period, quota = self.cpu / "cpu.cfs_period_us", self.cpu / "cpu.cfs_quota_us"
        period.write_text(str(CPU_PERIOD_US))
        quota.write_text(str(round(asked * CPU_PERIOD_US)))
        return int(quota.read_text()) / int(period.read_text()), ""

    def read(self) -> GroupCounters | None:
        """The counters now; None when the group is gone."""
        return self.counters(self.look())

    def look(self) -> GroupLook:
        """The texts of the group's files now."""
        return tuple([file.read() for file in self._account])

    def counters(self, look: GroupLook) -> GroupCounters | None:
        """What the texts say; None when the group was gone."""
        if look is None:
            return None
        usage, peak, stat, hits, hits_with_swap, oom = look
        usage_bytes = number_in(usage)
        if usage_bytes is None:
            return None
        return GroupCounters(
            usage_bytes=usage_bytes,
            peak_bytes=number_in(peak),
            anon_bytes=value_of(stat, b"total_rss"),
            file_bytes=value_of(stat, b"total_cache"),
            limit_hits=_limit_hits(number_in(hits), number_in(hits_with_swap)),
            oom_kills=value_of(oom, b"oom_kill"),
        )

    def reset_peak(self) -> bool:
        """Begin a new peak: writing 0 sets it to the usage of now."""
        return self._peak.write(b"0")

    def processes(self) -> list[int]:
        """Process ids of the group's members."""
        return members(self.memory)

    def oom_kills(self) -> int:
        """Processes killed because of the hard limit."""
        self._oom_kills = value_of(self._oom.read(), b"oom_kill") or self._oom_kills
        return self._oom_kills

    def remove(self) -> None:
        """Kill what is left in the groups and remove them. Raises TimeoutError when they stay."""
        self.oom_kills()
        for file in self._account:
            file.close()
        left = [folder for folder in self._folders if not remove_tree(folder)]
        for folder in self._folders:
            remove_empty_parents(folder)
        if left:
            raise TimeoutError(f"control groups are still busy: {', '.join(map(str, left))}")


def _limit_hits(hits: int | None, hits_with_swap: int | None) -> int | None:
    """A charge that fails is counted once: at the limit with swap, which is tried first, or at
    the limit without. One was asked for, so the sum of both is the answer.
    """
    return None if hits is None else hits + (hits_with_swap or 0)
