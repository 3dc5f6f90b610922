"""Windows' structures and what is made of them, without a Windows.

The bytes were recorded from the calls themselves: Windows CPython 3.11.9 under Wine 8.0.
"""

from __future__ import annotations

import ctypes
import sys

import pytest

from workers import win32
from workers.limits.none import NoLimits
from workers.sampling.windows import Marks, MemorySample, PhasePeaks, ProcessSampler


@pytest.mark.parametrize(
    ("structure", "size", "offsets"),
    [
        (win32.ProcessMemory, 96, {"working_set": 16, "commit": 56, "peak_commit": 64,
                                   "private_working_set": 80}),
        (win32.SystemPerformance, 104, {"commit_total": 8, "commit_limit": 16,
                                        "physical_total": 32, "page_size": 80, "threads": 96}),
        (win32.PageFile, 32, {"total": 8, "in_use": 16, "peak": 24}),
        (win32.JobBasicLimits, 64, {"flags": 16, "working_set_min": 24, "working_set_max": 32,
                                    "affinity": 48}),
        (win32.JobExtendedLimits, 144, {"io_counters": 64, "process_memory_limit": 112,
                                        "job_memory_limit": 120, "peak_job_memory": 136}),
        (win32.JobCpuRate, 8, {"rate": 4}),
        (win32.LogicalProcessor, 32, {"relationship": 8, "details": 16}),
        (win32.BootTimes, 48, {"now": 8, "bias": 32}),
    ],
)  # fmt: skip
def test_structures_lie_as_windows_has_them(
    structure: type[ctypes.Structure], size: int, offsets: dict[str, int]
) -> None:
    assert ctypes.sizeof(structure) == size
    assert {name: getattr(structure, name).offset for name in offsets} == offsets


@pytest.mark.skipif(sys.platform == "win32", reason="its name has two bytes a character there")
def test_a_snapshot_s_entry_but_for_its_name() -> None:
    fields = {n: getattr(win32.SnapshotProcess, n).offset for n in ("pid", "threads", "parent")}
    assert fields == {"pid": 8, "threads": 28, "parent": 32}
    assert win32.SnapshotProcess.name.offset == 44


PROCESS = bytes.fromhex(
    "48000000000000000050e701000000000050e70100000000000000000000000000000000000000000000000000000000"
    "000000000000000000c003010000000000c00301000000000000000000000000ffffffffffffffff0000000000000000"
)
SYSTEM = bytes.fromhex(
    "680000000000000035fe0f00000000008e295e000000000000000000000000008c295e0000000000592b4e0000000000"
    "000000000000000000000000000000000000000000000000000000000000000000100000000000004002000008000000"
    "2800000000000000"
)
JOB_IDS = bytes.fromhex("0200000002000000000100000000000008010000000000000000000000000000")
PROCESSORS = bytes.fromhex(
    "0300000000000000030000000000000000000000000000000000000000000000"
    "0100000000000000000000000000000001000000000000000000000000000000"
)


def test_a_recorded_process() -> None:
    memory = win32.ProcessMemory.from_buffer_copy(PROCESS)
    assert memory.size == win32.PROCESS_MEMORY_SIZE
    assert memory.working_set == memory.peak_working_set == 31_936_512
    assert memory.commit == memory.peak_commit == 17_022_976
    assert memory.private_working_set == 2**64 - 1, "as it was before: Wine does not fill it in"


def test_a_recorded_system() -> None:
    system = win32.SystemPerformance.from_buffer_copy(SYSTEM)
    assert (system.page_size, system.processes, system.threads) == (4096, 8, 40)
    assert system.physical_total * system.page_size == 25_276_497_920
    assert 0 < system.commit_total < system.commit_limit


def test_a_recorded_list_of_a_job() -> None:
    room = ctypes.sizeof(win32.JobProcessIds)
    ids = win32.JobProcessIds.from_buffer_copy(JOB_IDS.ljust(room, b"\0"))
    assert ids.ids[: ids.listed] == [256, 264]


def test_recorded_processors() -> None:
    package, core = (win32.LogicalProcessor * 2).from_buffer_copy(PROCESSORS)
    assert package.relationship != win32.RELATION_PROCESSOR_CORE
    assert (core.mask, core.relationship) == (1, win32.RELATION_PROCESSOR_CORE)


@pytest.mark.skipif(sys.platform == "win32", reason="there they work")
def test_elsewhere_a_call_names_itself() -> None:
    with pytest.raises(OSError, match="CreateJobObjectW is a function of Windows"):
        win32.make_job()
    assert win32.wine_version() is None


class Kernel(ProcessSampler):
    """A process whose marks are told by the test: a system's own can't be made to stand still."""

    def __init__(self) -> None:
        self.told = Marks(0, 0, 0)

    def marks(self) -> Marks:
        return self.told


def sample(working_set_bytes: int, commit_bytes: int) -> MemorySample:
    return MemorySample(
        1, 4, 0, 0, working_set_bytes, None, 900, commit_bytes, None, None, None, None, None, None
    )


def test_only_a_mark_that_rose_in_a_phase_is_its_peak() -> None:
    kernel = Kernel()
    peaks = PhasePeaks(kernel, NoLimits("not used here"))
    kernel.told = Marks(500, 300, None)
    startup = peaks.begin("startup")
    assert (startup.working_set_bytes, startup.commit_bytes, startup.job_bytes) == (500, 300, None)
    peaks.seen(sample(400, 350), True)
    peaks.seen(sample(450, 250), True)
    peaks.seen(sample(10_000, 10_000), False)  # the phase has changed already
    kernel.told = Marks(500, 400, 700)
    idle = peaks.begin("idle")
    assert idle.working_set_bytes is None, "it was reached before"
    assert idle.commit_bytes == 400
    assert idle.job_bytes is None, "nobody knows what it was before"
    assert (idle.sampled_working_set_bytes, idle.sampled_commit_bytes) == (450, 350)
    kernel.told = Marks(0, None, None)
    ended = peaks.begin("measure")
    assert (ended.working_set_bytes, ended.commit_bytes, ended.job_bytes) == (None, None, None)
    assert ended.sampled_working_set_bytes is None, "no sample, no figure"


def test_a_windows_row_keeps_its_marks_in_every_phase() -> None:
    peaks = PhasePeaks(Kernel(), NoLimits("not used here"))
    row = sample(400, 300)
    assert peaks.seen(row, False) == row == peaks.seen(row, True)
    assert row.resident_bytes == 400
