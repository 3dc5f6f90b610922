"""Limits by cgroup v2, the unified hierarchy.

Files: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel. Our groups lie in the highest
group that this user may write: the root of the hierarchy for root, the delegated subtree for
others. A group that has members can't give controllers to groups below it (the no-internal-process
rule; the root is exempt), so the subtree's own group must have no members.
"""

from __future__ import annotations

import os
import re
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
from workers.limits.hierarchies import controllers_of
from workers.limits.limiter import GroupCounters, GroupLook, LimitsUnavailable
from workers.limits.records import CPU_PERIOD_US, apply_each
from workers.spec import LimitsSpec

_TOTAL = re.compile(rb"^(some|full) .*?\btotal=(\d+)", re.MULTILINE)
_BASE_FILES = ("", "cgroup.procs", "cgroup.subtree_control")


def writable_base(mount: Path, own: Path) -> Path | None:
    """The highest group, from our own upwards, in which we may make groups and move processes.

    A process can be moved only by who may write `cgroup.procs` of the common ancestor of its old
    and new groups, so the chain from our own group must not break.
    """
    base = None
    folder = own
    while all(os.access(folder / name, os.W_OK) for name in _BASE_FILES):
        base = folder
        if folder == mount:
            break
        folder = folder.parent
    return base


def parse_pressure(text: bytes | None) -> tuple[int | None, int | None]:
    """Total stalled time (some, full) of a pressure file in nanoseconds; the file counts µs."""
    if not text:
        return None, None
    totals = {kind: int(total) * 1000 for kind, total in _TOTAL.findall(text)}
    return totals.get(b"some"), totals.get(b"full")


def parse_cpu_max(text: str) -> float | None:
    """CPUs allowed by `cpu.max` (`quota period` in µs); None for `max`, no limit."""
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def parse_limit(text: str) -> int | None:
    """A memory limit in bytes; None for `max`, no limit."""
    text = text.strip()
    return None if text == "max" else int(text)


class CgroupV2:
    """One group for a trial below `mount`, in the subtree that belongs to this user."""

    mechanism = "cgroup v2"
    reason = ""

    def __init__(self, mount: Path, own: Path, run_id: str, trial_id: str) -> None:
        """Make the group and give it its controllers. Raises LimitsUnavailable."""
        base = writable_base(mount, own)
        if base is None:
            raise LimitsUnavailable(
                f"control group {own} is not delegated to this user; start bench with "
                "`systemd-run --user --scope -p Delegate=yes`, or as root"
            )
        self.folder = group_folder(base, run_id, trial_id)
        make_folder(self.folder)
        try:
            self._cpu_reason = self._enable(base)
        except LimitsUnavailable:
            self._remove_folders()
            raise
        self.join_paths: tuple[str, ...] = (str(self.folder / "cgroup.procs"),)
        usage = CounterFile(self.folder / "memory.current")
        # A peak is reset for the one file description that was written to: so this very file is
        # the one that is read (since kernel 6.12; before, it can't be opened for writing).
        self._peak = self._open_peak()
        stat = CounterFile(self.folder / "memory.stat")
        self._events = CounterFile(self.folder / "memory.events")
        pressure = CounterFile(self.folder / "memory.pressure")
        self._account = (usage, self._peak, stat, self._events, pressure)
        self._oom_kills = 0

    def _enable(self, base: Path) -> str:
        """Give our groups the memory and cpu controllers; the answer says why cpu is missing."""
        levels = (base, self.folder.parent.parent, self.folder.parent)
        reason = _enable_controller(levels, "memory")
        if reason:
            raise LimitsUnavailable(reason)
        return _enable_controller(levels, "cpu")

    def _open_peak(self) -> CounterFile:
        path = self.folder / "memory.peak"
        file = CounterFile(path, writable=True)
        return file if file.opened else CounterFile(path)

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
        limit = self.folder / "memory.max"
        limit.write_text(str(int(asked)))
        read_back = parse_limit(limit.read_text())
        # Without swap, or the limit could be passed by swapping out; the file exists only where
        # swap is accounted for.
        swap = self.folder / "memory.swap.max"
        if swap.exists():
            try:
                swap.write_text("0")
            except OSError as error:
                return read_back, f"swap could not be limited too: {explain(error)}"
        return read_back, ""

    def _set_memory_high(self, asked: float) -> tuple[float | None, str]:
        limit = self.folder / "memory.high"
        limit.write_text(str(int(asked)))
        return parse_limit(limit.read_text()), ""

    def _set_cpus(self, asked: float) -> tuple[float | None, str]:
        if self._cpu_reason:
            return None, self._cpu_reason
        limit = self.folder / "cpu.max"
        limit.write_text(f"{round(asked * CPU_PERIOD_US)} {CPU_PERIOD_US}")
        return parse_cpu_max(limit.read_text()), ""

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
        usage, peak, stat, events, pressure = look
        usage_bytes = number_in(usage)
        if usage_bytes is None:
            return None
        some, full = parse_pressure(pressure)
        return GroupCounters(
            usage_bytes=usage_bytes,
            peak_bytes=number_in(peak),
            anon_bytes=value_of(stat, b"anon"),
            file_bytes=value_of(stat, b"file"),
            limit_hits=value_of(events, b"max"),
            oom_kills=value_of(events, b"oom_kill"),
            pressure_some_ns=some,
            pressure_full_ns=full,
        )

    def reset_peak(self) -> bool:
        """Begin a new peak, where the kernel (6.12 or later) lets it be reset."""
        return self._peak.write(b"0")

    def processes(self) -> list[int]:
        """Process ids of the group's members."""
        return members(self.folder)

    def oom_kills(self) -> int:
        """Processes killed because of the hard limit."""
        self._oom_kills = value_of(self._events.read(), b"oom_kill") or self._oom_kills
        return self._oom_kills

    def remove(self) -> None:
        """Kill what is left in the group and remove it. Raises TimeoutError when it stays."""
        self.oom_kills()
        for file in self._account:
            file.close()
        if not self._remove_folders():
            raise TimeoutError(f"control group is still busy: {self.folder}")

    def _remove_folders(self) -> bool:
        gone = remove_tree(self.folder)
        remove_empty_parents(self.folder)
        return gone


def _enable_controller(levels: tuple[Path, ...], controller: str) -> str:
    """Enable a controller from the top down; the answer is empty, or says why it can't be."""
    for level in levels:
        if controller not in controllers_of(level):
            return f"the {controller} controller is not available in control group {level}"
        control = level / "cgroup.subtree_control"
        try:
            if controller not in control.read_text(encoding="ascii").split():
                control.write_text(f"+{controller}")
        except OSError as error:
            return f"the {controller} controller can't be enabled in {level}: {explain(error)}"
    return ""
