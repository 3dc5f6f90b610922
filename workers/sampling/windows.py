"""One sample of the service's process tree on Windows, by a few calls into open handles.

Per process: GetProcessMemoryInfo and GetProcessTimes. For the tree: the job object's members and
its peak of commit. For the whole system: GetPerformanceInfo and EnumPageFiles. Windows' own peaks
count from a process's start and can't be reset. CPU times move in steps of the system's clock
(15.6 ms). Source: learn.microsoft.com, "Process Status API".

What a system does not tell is None, never 0. It is asked once, on this very process: whether it
knows the private working set (Windows 10 22H2 and later do), whether its peak of commit is one, and
whether it tells the CPU times of other processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any, NamedTuple

from results.clock import steady_ns
from results.record import PhasePeak
from workers import win32
from workers.limits.job_object import own_processes
from workers.limits.limiter import Limiter

SLOW_EVERY_NS = 1_000_000_000
"""How old the list of processes in the tree may be, and how often the system's figures are read."""

THREADS_EVERY_NS = 5_000_000_000
"""A snapshot of all processes, which tells their threads, costs as much as 20 samples."""

_UNTOLD = 2**64 - 1
_UNIT_NS = 100
_PROBE_BYTES = 16 * 2**20
_ACCESS = win32.PROCESS_QUERY_LIMITED_INFORMATION | win32.SYNCHRONIZE


class MemorySample(NamedTuple):
    """One row of the memory table without its time and phase: the same names.

    The threads are read when processes come or go and every five seconds, the figures of the whole
    system every second; in between they are None.
    """

    processes: int
    threads: int | None
    cpu_user_ns: int | None
    cpu_system_ns: int | None
    working_set_bytes: int
    private_working_set_bytes: int | None
    peak_working_set_bytes: int
    commit_bytes: int
    peak_commit_bytes: int | None
    job_peak_bytes: int | None
    page_faults: int | None
    pagefile_used_bytes: int | None
    system_commit_bytes: int | None
    system_commit_limit_bytes: int | None

    @property
    def resident_bytes(self) -> int:
        """What is resident, by this system's own measure."""
        return self.working_set_bytes


TreeLook = MemorySample
"""What is seen of the tree at one instant."""


class Marks(NamedTuple):
    """The system's high-water marks since the process, or its job, began."""

    working_set_bytes: int | None
    commit_bytes: int | None
    job_bytes: int | None


class Told(NamedTuple):
    """What this system tells of a process."""

    memory_size: int
    private_working_set: bool
    peak_commit: bool
    cpu_times: bool


@functools.cache
def told() -> Told:
    """Ask the system what it tells, by looking at this process."""
    memory = win32.ProcessMemory()
    own = win32.current_process()
    size = ctypes.sizeof(memory)
    memory.private_working_set = _UNTOLD
    try:
        win32.process_memory(own, ctypes.byref(memory), size)
    except OSError:
        size = win32.PROCESS_MEMORY_SIZE
    private = memory.private_working_set != _UNTOLD
    held = b"x" * _PROBE_BYTES
    del held
    win32.process_memory(own, ctypes.byref(memory), size)
    # Wine's peak is the commit of now.
    peak_commit = memory.peak_commit >= memory.commit + _PROBE_BYTES // 2
    # Wine answers with the caller's own times, whichever process is asked for.
    return Told(size, private, peak_commit, cpu_times=win32.wine_version() is None)


class ProcessCounters:
    """The counters of one process, read into the same memory each time.

    The open handle stays bound to this process: a later one with its id is never read by mistake.
    """

    __slots__ = ("_handle", "_memory_call", "_times_call", "memory", "times")

    def __init__(self, pid: int) -> None:
        """Open the process. Raises OSError when there is none."""
        self._handle = win32.open_process(_ACCESS, False, pid)
        self.memory = win32.ProcessMemory()
        self.memory.private_working_set = _UNTOLD
        self.times = (ctypes.c_uint64 * 4)()  # creation, exit, kernel, user
        self._memory_call = (self._handle, ctypes.byref(self.memory), told().memory_size)
        self._times_call = (self._handle, *(ctypes.byref(self.times, 8 * i) for i in range(4)))

    def read(self) -> bool:
        """Read all counters; False when the process has ended (they still are its last ones)."""
        try:
            win32.process_times(*self._times_call)
            if win32.wait(self._handle, 0) != win32.WAIT_TIMEOUT:
                return False
            win32.process_memory(*self._memory_call)
        except OSError:
            return False
        return True

    def read_marks(self) -> bool:
        """Read the memory counters, of a process that has ended too where the system can."""
        try:
            win32.process_memory(*self._memory_call)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the handle."""
        win32.close_handle(self._handle)


class SystemReading(NamedTuple):
    """The whole system: page files in use, commit and its limit; None where it does not tell."""

    pagefile_used_bytes: int | None = None
    commit_bytes: int | None = None
    commit_limit_bytes: int | None = None


_NOT_NOW = SystemReading()


class SystemCounters:
    """Reads the commit of the whole system, and its page files."""

    def __init__(self) -> None:
        self._performance = win32.SystemPerformance()
        self._call = (ctypes.byref(self._performance), ctypes.sizeof(self._performance))
        self._pages = 0
        self._add = win32.PageFileCallback(self._add_file)
        self._has_page_files = True
        self.memory_bytes: int | None = None

    def _add_file(self, _context: Any, file: Any, _name: Any) -> int:
        self._pages += file.contents.in_use
        return 1

    def read(self) -> SystemReading:
        """Read all of it."""
        now = self._performance
        try:
            win32.performance(*self._call)
        except OSError:
            return _NOT_NOW
        self.memory_bytes = now.physical_total * now.page_size
        return SystemReading(
            self._page_files(now.page_size),
            now.commit_total * now.page_size,
            now.commit_limit * now.page_size,
        )

    def _page_files(self, page_bytes: int) -> int | None:
        """Bytes in use in all page files; None where the system does not tell (Wine)."""
        if not self._has_page_files:
            return None
        self._pages = 0
        try:
            win32.enum_page_files(self._add, None)
        except OSError:
            self._has_page_files = False
            return None
        return self._pages * page_bytes


class ProcessSampler:
    """Reads the tree of `main_pid` and the job of `limiter`. Used by one thread at a time."""

    def __init__(self, main_pid: int, limiter: Limiter) -> None:
        """Open the main process. Its end, before or later, shows as `sample` giving None."""
        self.main_pid = main_pid
        self._limiter = limiter
        self._others: dict[int, ProcessCounters] = {}
        self._ended = [0, 0, 0]  # user and kernel time in 100 ns, page faults
        self._listed_ns = -SLOW_EVERY_NS
        self._members: set[int] = set()
        self._threads_ns = 0
        self._system = SystemCounters()
        self._main: ProcessCounters | None = None
        with contextlib.suppress(OSError):
            self._main = ProcessCounters(main_pid)

    def look(self) -> MemorySample | None:
        """A sample: the calls give numbers, so there is nothing to leave for later."""
        return self.sample()

    def parse(self, look: MemorySample) -> MemorySample:
        """What was seen."""
        return look

    def sample(self) -> MemorySample | None:
        """Read everything once; None when the main process has ended."""
        if self._main is None or not self._main.read():
            return None
        threads, system, now_ns = None, _NOT_NOW, steady_ns()
        if now_ns - self._listed_ns >= SLOW_EVERY_NS:
            self._listed_ns = now_ns
            threads = self._refresh(now_ns)
            system = self._system.read()
        for pid in list(self._others):
            if not self._others[pid].read():
                self._forget(pid)
        return self._row(self._main, threads, system)

    def _row(
        self, main: ProcessCounters, threads: int | None, system: SystemReading
    ) -> MemorySample:
        user, kernel, faults = self._ended
        working_set = private = commit = 0
        for process in (main, *self._others.values()):
            memory, times = process.memory, process.times
            user += times[3]
            kernel += times[2]
            faults += memory.page_faults
            working_set += memory.working_set
            private += memory.private_working_set
            commit += memory.commit
        group = self._limiter.read()
        return MemorySample(
            1 + len(self._others),
            threads,
            user * _UNIT_NS if told().cpu_times else None,
            kernel * _UNIT_NS if told().cpu_times else None,
            working_set,
            private if told().private_working_set else None,
            main.memory.peak_working_set,
            commit,
            main.memory.peak_commit if told().peak_commit else None,
            group.peak_bytes if group else None,
            faults or None,
            *system,
        )

    def list_again(self) -> None:
        """Let the next sample look for processes that are new, however old its list is."""
        self._listed_ns = -SLOW_EVERY_NS

    def marks(self) -> Marks:
        """The high-water marks now; None where the system does not tell one."""
        group = self._limiter.read()
        job_bytes = group.peak_bytes if group else None
        if self._main is None or not self._main.read_marks():
            return Marks(None, None, job_bytes)
        memory = self._main.memory
        commit = memory.peak_commit if told().peak_commit else None
        return Marks(memory.peak_working_set, commit, job_bytes)

    def close(self) -> None:
        """Close all handles. `sample` gives None from then on."""
        for process in self._others.values():
            process.close()
        self._others.clear()
        if self._main:
            self._main.close()
            self._main = None

    def _forget(self, pid: int) -> None:
        """What an ended process used stays in the sums since start."""
        process = self._others.pop(pid)
        used = (process.times[3], process.times[2], process.memory.page_faults)
        self._ended = [before + own for before, own in zip(self._ended, used, strict=True)]
        process.close()

    def _refresh(self, now_ns: int) -> int | None:
        """Make the list of processes anew; their threads, when they are told this time."""
        members = {self.main_pid, *self._limiter.processes()}
        if members == self._members and now_ns - self._threads_ns < THREADS_EVERY_NS:
            return None
        self._members, self._threads_ns = members, now_ns
        threads = own_processes(members)
        for pid in threads.keys() - self._others.keys() - {self.main_pid}:
            with contextlib.suppress(OSError):
                self._others[pid] = ProcessCounters(pid)
        return sum(threads.values()) or None


class PhasePeaks:
    """Peaks by phase, from marks that can't be reset: only one that rose in a phase is its peak."""

    def __init__(self, sampler: ProcessSampler, limiter: Limiter) -> None:
        self._sampler = sampler
        # The first phase began with the process and its job.
        self._before = Marks(0, 0, 0)
        self._working_set_bytes = self._commit_bytes = 0

    def seen(self, sample: MemorySample, begun: bool) -> MemorySample:
        """Note a sample of the phase, once it has `begun` here. A row's peaks count from start."""
        if begun:
            self._working_set_bytes = max(self._working_set_bytes, sample.working_set_bytes)
            self._commit_bytes = max(self._commit_bytes, sample.commit_bytes)
        return sample

    def begin(self, previous: str) -> PhasePeak:
        """The peaks of the phase that has ended; a new one begins."""
        marks = self._sampler.marks()
        working_set, commit, job = (
            mark if mark is not None and before is not None and mark > before else None
            for mark, before in zip(marks, self._before, strict=True)
        )
        peak = PhasePeak(
            previous,
            None,
            None,
            working_set_bytes=working_set,
            commit_bytes=commit,
            job_bytes=job,
            sampled_working_set_bytes=self._working_set_bytes or None,
            sampled_commit_bytes=self._commit_bytes or None,
        )
        self._before = marks
        self._working_set_bytes = self._commit_bytes = 0
        return peak
