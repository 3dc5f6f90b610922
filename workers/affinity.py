"""Which processor cores the service gets and which are left to the load and everything else."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from workers import win32

TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class CoreSplit:
    """Logical cores of the service and of all others; `shared` when they are the same ones.

    `reason` says why they are shared; it is empty when they are not.
    """

    service: tuple[int, ...]
    other: tuple[int, ...]
    shared: bool = False
    reason: str = ""


def allowed_cores() -> set[int]:
    """The logical cores that this process may use."""
    return _cores_of(0)


def split_cores(
    allowed: Iterable[int], cpus_limit: float | None, topology: Path = TOPOLOGY
) -> CoreSplit:
    """Divide the allowed cores.

    The service gets all but one, or only as many as a CPU limit lets it use. Both threads of a
    physical core go to the same side where there are enough physical cores for that.
    Raises ValueError when no core is allowed.
    """
    cores = sorted(set(allowed))
    if not cores:
        raise ValueError("no processor core is allowed")
    if len(cores) == 1:
        only = (cores[0],)
        return CoreSplit(only, only, True, "only one processor core may be used")
    wanted = len(cores) - 1
    if cpus_limit is not None:
        wanted = max(1, min(wanted, math.ceil(cpus_limit)))
    groups = _physical_cores(cores, topology)
    if len(groups) == 1:
        groups = [[core] for core in cores]
    return _divide(groups, wanted)


def _divide(groups: list[list[int]], wanted: int) -> CoreSplit:
    """Whole groups to the service until it has what it wants; the first one is for the others.

    The system's own work mostly runs on the first core, so that one is not the service's.
    """
    service: list[int] = []
    other = list(groups[0])
    for group in reversed(groups[1:]):
        if len(service) < wanted:
            service += group
        else:
            other += group
    return CoreSplit(tuple(sorted(service)), tuple(sorted(other)))


def _physical_cores(cores: list[int], topology: Path) -> list[list[int]]:
    """The allowed logical cores, those of one physical core together; sorted."""
    groups: dict[str, list[int]] = {}
    for core in cores:
        groups.setdefault(_siblings(core, topology), []).append(core)
    return sorted(groups.values())


def _siblings(core: int, topology: Path) -> str:
    """The system's name for a core's physical core; the logical core itself if unknown."""
    if sys.platform == "win32":
        return _windows_siblings().get(core, str(core))
    path = topology / f"cpu{core}" / "topology" / "thread_siblings_list"
    try:
        return path.read_text(encoding="ascii").strip() or str(core)
    except OSError:
        return str(core)


@functools.cache
def _windows_siblings() -> dict[int, str]:
    """Logical core → mask of its physical core; empty when Windows does not tell."""
    size = win32.DWORD()
    win32.logical_processors(None, ctypes.byref(size))
    found = (win32.LogicalProcessor * (size.value // ctypes.sizeof(win32.LogicalProcessor)))()
    if not win32.logical_processors(ctypes.byref(found), ctypes.byref(size)):
        return {}
    masks = [p.mask for p in found if p.relationship == win32.RELATION_PROCESSOR_CORE]
    return {core: hex(mask) for mask in masks for core in range(64) if mask >> core & 1}


def pin(pid: int, cores: Iterable[int]) -> None:
    """Keep a process that was just started to `cores`; a system that refuses is left as it is."""
    _pin(pid, set(cores))


@contextmanager
def pin_process(cores: Iterable[int]) -> Iterator[None]:
    """Keep this process, with all its threads, to `cores`; restored afterwards.

    Threads and processes that are started meanwhile inherit the cores; threads among them are
    given back the cores that this process had before. A system that refuses is left as it is.
    """
    wanted = set(cores)
    before = {thread: _cores_of(thread) for thread in _threads()}
    process_cores = _cores_of(0)
    for thread in before:
        _pin(thread, wanted)
    try:
        yield
    finally:
        for thread in _threads():
            _pin(thread, before.get(thread, process_cores))


# On Linux each thread has cores of its own, on Windows its process does (0: this process).

if sys.platform == "win32":

    def _threads() -> list[int]:
        return [0]

    def _cores_of(process: int) -> set[int]:
        return set(psutil.Process(process or None).cpu_affinity() or [])

    def _pin(process: int, cores: set[int]) -> None:
        if cores:
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                psutil.Process(process or None).cpu_affinity(sorted(cores))

else:

    def _threads() -> list[int]:
        try:
            return [int(path.name) for path in Path("/proc/self/task").iterdir()]
        except OSError:
            return [0]

    def _cores_of(thread: int) -> set[int]:
        try:
            return os.sched_getaffinity(thread)
        except OSError:
            return set()

    def _pin(thread: int, cores: set[int]) -> None:
        if cores:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, cores)
