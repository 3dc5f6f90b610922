"""One sample of the service's process tree on Linux, from /proc and from its control group.

A sample is taken in two steps. `look` copies what the kernel's files say and nothing more: between
two samples the service has had the processor's caches to itself, and each line of code that runs
then is slow. `parse` makes numbers of many looks in one go.

Per process two files are read, each kept open and read with one system call:
`/proc/PID/status` (one consistent set of memory counters, the kernel's peak and the threads) and
`/proc/PID/stat` (faults and CPU time). Both cost the kernel a walk over counters, not over pages.
CPU times are printed in clock ticks (10 ms), though their sum is exact to that resolution.
Formats: proc_pid_status(5), proc_pid_stat(5).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from results.clock import steady_ns
from results.record import PhasePeak
from workers.limits.limiter import GroupCounters, GroupLook, Limiter

DESCENDANTS_EVERY_NS = 1_000_000_000
"""How old the list of processes in the tree may be."""

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_RESET_PEAK_RSS = b"5"
_READ_BYTES = 8192
_NO_GROUP = GroupCounters()
_HAS_MEMORY = b"\nRssAnon:"
"""What the status of a zombie lacks."""

_STATUS = re.compile(
    rb"\nVmSize:\s+(\d+) kB\n(?:.*\n)*?VmHWM:\s+(\d+) kB\nVmRSS:\s+(\d+) kB\n"
    rb"RssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB\n(?:.*\n)*?VmSwap:\s+(\d+) kB\n"
    rb"(?:.*\n)*?Threads:\t(\d+)\n"
)

Texts = tuple[bytes, bytes]
"""`status` and `stat` of one process."""


class MemorySample(NamedTuple):
    """One row of the memory table without its time and phase: the same names, in that order."""

    processes: int
    threads: int
    rss_bytes: int
    rss_anon_bytes: int
    rss_file_bytes: int
    swap_bytes: int
    virtual_bytes: int
    peak_rss_bytes: int | None
    cpu_user_ns: int
    cpu_system_ns: int
    minor_faults: int
    major_faults: int
    cgroup_usage_bytes: int | None
    cgroup_peak_bytes: int | None
    cgroup_anon_bytes: int | None
    cgroup_file_bytes: int | None
    cgroup_limit_hits: int | None
    cgroup_oom_kills: int | None
    pressure_some_ns: int | None
    pressure_full_ns: int | None

    @property
    def resident_bytes(self) -> int:
        """What is resident, by this system's own measure."""
        return self.rss_bytes


class ProcessReading(NamedTuple):
    """Counters of one process: sizes in KiB, CPU in clock ticks."""

    virtual_kib: int
    peak_rss_kib: int
    rss_kib: int
    rss_anon_kib: int
    rss_file_kib: int
    swap_kib: int
    threads: int
    minor_faults: int
    major_faults: int
    user_ticks: int
    system_ticks: int


def parse_process(status: bytes, stat: bytes) -> ProcessReading | None:
    """The counters from the texts of both files; None for a process without memory (a zombie)."""
    found = _STATUS.search(status)
    if found is None:
        return None
    # The name in brackets may hold blanks and brackets itself: count from the last one.
    fields = stat[stat.rfind(b")") + 2 :].split(None, 13)
    if len(fields) < 13:
        return None
    virtual, peak, rss, anon, file, swap, threads = map(int, found.groups())
    return ProcessReading(
        virtual, peak, rss, anon, file, swap, threads,
        int(fields[7]), int(fields[9]), int(fields[11]), int(fields[12]),
    )  # fmt: skip


def _reading(texts: Texts) -> ProcessReading:
    reading = parse_process(*texts)
    if reading is None:
        raise RuntimeError("this kernel's /proc/PID/status or stat has a form that is not known")
    return reading


class TreeLook(NamedTuple):
    """What the kernel said at one instant, not yet parsed."""

    main: Texts
    others: tuple[Texts, ...]
    ended: tuple[int, ...]
    """Minor and major faults, user and system ticks of the processes that have ended."""
    group: GroupLook


class ProcessFiles:
    """The two files of one process, kept open. They stay bound to this process: a later one with
    the same id is never read by mistake.
    """

    __slots__ = ("_stat", "_status", "last")

    def __init__(self, pid: int) -> None:
        """Open the files. Raises OSError when there is no such process."""
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._status)
            raise
        self.last: Texts | None = None

    def look(self) -> Texts | None:
        """What both files say now; None when the process has ended."""
        try:
            status = os.pread(self._status, _READ_BYTES, 0)
            stat = os.pread(self._stat, _READ_BYTES, 0)
        except OSError:
            return None
        if _HAS_MEMORY not in status:
            return None
        self.last = (status, stat)
        return self.last

    def close(self) -> None:
        """Close both files."""
        os.close(self._status)
        os.close(self._stat)


class ProcessSampler:
    """Reads the tree of `main_pid` and the group of `limiter`. Used by one thread at a time."""

    def __init__(self, main_pid: int, limiter: Limiter) -> None:
        """Open the main process. Its end, before or later, shows as `sample` giving None."""
        self.main_pid = main_pid
        self._limiter = limiter
        self._others: dict[int, ProcessFiles] = {}
        self._ended: tuple[int, ...] = (0, 0, 0, 0)
        self._listed_ns = -DESCENDANTS_EVERY_NS
        self._strangers: frozenset[int] = frozenset()
        self.others_rss_bytes = 0
        self._main: ProcessFiles | None = None
        with contextlib.suppress(OSError):
            self._main = ProcessFiles(main_pid)
            self._strangers = frozenset({main_pid, _parent_of(main_pid)})

    def sample(self) -> MemorySample | None:
        """Read everything once; None when the main process has ended."""
        look = self.look()
        return self.parse(look) if look else None

    def look(self) -> TreeLook | None:
        """See everything once; None when the main process has ended."""
        main = self._main.look() if self._main else None
        if main is None:
            return None
        now_ns = steady_ns()
        if now_ns - self._listed_ns >= DESCENDANTS_EVERY_NS:
            self._listed_ns = now_ns
            self._refresh()
        others = self._look_at_others() if self._others else ()
        return TreeLook(main, others, self._ended, self._limiter.look())

    def parse(self, look: TreeLook) -> MemorySample:
        """Make numbers of what was seen, `others_rss_bytes` among them."""
        main = total = _reading(look.main)
        if look.others or any(look.ended):
            total = _sum([main, *map(_reading, look.others)], look.ended)
        self.others_rss_bytes = (total.rss_kib - main.rss_kib) * 1024
        group = self._limiter.counters(look.group) or _NO_GROUP
        return _row(1 + len(look.others), main, total, group)

    def list_again(self) -> None:
        """Let the next sample look for processes that are new, however old its list is."""
        self._listed_ns = -DESCENDANTS_EVERY_NS

    def reset_peak(self) -> bool:
        """Begin a new kernel peak of resident memory; False when that is not permitted."""
        try:
            Path(f"/proc/{self.main_pid}/clear_refs").write_bytes(_RESET_PEAK_RSS)
        except OSError:
            return False
        return True

    def peak_rss_bytes(self) -> int | None:
        """The kernel's peak of the main process; None when it has ended."""
        main = self._main.look() if self._main else None
        return _reading(main).peak_rss_kib * 1024 if main else None

    def close(self) -> None:
        """Close all files. `sample` gives None from then on."""
        for files in self._others.values():
            files.close()
        self._others.clear()
        if self._main:
            self._main.close()
            self._main = None

    def _look_at_others(self) -> tuple[Texts, ...]:
        seen = []
        for pid in list(self._others):
            texts = self._others[pid].look()
            if texts:
                seen.append(texts)
            else:
                self._forget(pid)
        return tuple(seen)

    def _forget(self, pid: int) -> None:
        files = self._others.pop(pid)
        if files.last:
            used = _reading(files.last)[7:]
            self._ended = tuple(map(sum, zip(self._ended, used, strict=True)))
        files.close()

    def _refresh(self) -> None:
        wanted = set(self._tree()) - self._strangers
        for pid in self._others.keys() - wanted:
            self._forget(pid)
        for pid in wanted - self._others.keys():
            with contextlib.suppress(OSError):
                self._others[pid] = ProcessFiles(pid)

    def _tree(self) -> Iterable[int]:
        """All processes of the service but the main one, as far as the system can tell.

        The members of its group, or its descendants: without a group a process that outlived its
        parent is not found.
        """
        return self._limiter.processes() or descendants(self.main_pid)


def _row(
    processes: int, main: ProcessReading, total: ProcessReading, group: GroupCounters
) -> MemorySample:
    return MemorySample(
        processes,
        total.threads,
        total.rss_kib * 1024,
        total.rss_anon_kib * 1024,
        total.rss_file_kib * 1024,
        total.swap_kib * 1024,
        total.virtual_kib * 1024,
        main.peak_rss_kib * 1024,
        total.user_ticks * _TICK_NS,
        total.system_ticks * _TICK_NS,
        total.minor_faults,
        total.major_faults,
        *group,
    )


def _sum(readings: list[ProcessReading], ended: tuple[int, ...]) -> ProcessReading:
    """Sums over the tree. What an ended process used stays in its counters since start."""
    sums = [sum(column) for column in zip(*readings, strict=True)]
    sums[7:] = map(sum, zip(sums[7:], ended, strict=True))
    return ProcessReading(*sums)


class PhasePeaks:
    """The kernel's peaks by phase: each is reset when a phase begins.

    Until a reset fails, they are those of the phase; the first one began with the process and its
    group. A peak that could not be reset at the phase's start is None.
    """

    def __init__(self, sampler: ProcessSampler, limiter: Limiter) -> None:
        self._sampler = sampler
        self._limiter = limiter
        self._rss_is_phase = self._group_is_phase = True
        self._sampled_bytes = self._others_bytes = 0

    def seen(self, sample: MemorySample, begun: bool) -> MemorySample:
        """Note a sample; gives it without the peaks that are not those of its phase.

        Between the phase's change and the reset (not `begun`) both are still the old phase's.
        """
        if not begun:
            return sample._replace(peak_rss_bytes=None, cgroup_peak_bytes=None)
        self._sampled_bytes = max(self._sampled_bytes, sample.rss_bytes)
        self._others_bytes = max(self._others_bytes, self._sampler.others_rss_bytes)
        return sample if self._rss_is_phase else sample._replace(peak_rss_bytes=None)

    def begin(self, previous: str) -> PhasePeak:
        """The peaks of the phase that has ended; begins new ones."""
        group = self._limiter.read()
        rss = self._sampler.peak_rss_bytes()
        peak = PhasePeak(
            previous,
            rss if self._rss_is_phase else None,
            group.peak_bytes if group and self._group_is_phase else None,
            self._sampled_bytes or None,
            self._others_bytes or None,
        )
        self._sampled_bytes = self._others_bytes = 0
        self._rss_is_phase = self._sampler.reset_peak()
        self._group_is_phase = self._limiter.reset_peak()
        return peak


def _parent_of(pid: int) -> int:
    """Parent's id; the launcher, which is a member of the group but not of the service."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat[stat.rfind(b")") + 2 :].split(None, 2)[1])


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants of a process."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return _descendants_by_scan(pid)
    found: list[int] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop())
        found += children
        queue += children
    return found


def _children(pid: int) -> list[int]:
    """Children of all threads of a process, from /proc/PID/task/TID/children (proc(5))."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - half the cost of Path
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_bytes()
                children += map(int, text.split())
    return children


def _descendants_by_scan(pid: int) -> list[int]:
    """For kernels built without CONFIG_PROC_CHILDREN: look at every process's parent."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []
