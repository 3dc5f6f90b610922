"""The calls of Windows that Heapgate needs: types, structures, constants and thin functions.

Only declarations live here; what they are for is decided by their callers. Structures can be looked
at on any system; a call on another system than Windows raises OSError. A call that Windows refuses
raises OSError with `winerror` and Windows' own words.

Layouts and values: learn.microsoft.com, "Windows API index" (winnt.h, psapi.h, processthreadsapi.h,
jobapi2.h), for 64-bit Windows.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from ctypes import wintypes
from typing import Any, Final

# wintypes' own DWORD, LONG and ULONG have 8 bytes on 64-bit Linux.
SIZE_T = ctypes.c_size_t
HANDLE = wintypes.HANDLE
DWORD = ctypes.c_uint32
LONG = ctypes.c_int32

PROCESS_TERMINATE: Final = 0x0001
PROCESS_SET_QUOTA: Final = 0x0100
PROCESS_SET_INFORMATION: Final = 0x0200
PROCESS_SUSPEND_RESUME: Final = 0x0800
PROCESS_QUERY_LIMITED_INFORMATION: Final = 0x1000
SYNCHRONIZE: Final = 0x00100000
TH32CS_SNAPPROCESS: Final = 0x00000002

CREATE_SUSPENDED: Final = 0x00000004
DETACHED_PROCESS: Final = 0x00000008
CREATE_NEW_PROCESS_GROUP: Final = 0x00000200
CTRL_BREAK_EVENT: Final = 1

WAIT_TIMEOUT: Final = 0x102
ERROR_MORE_DATA: Final = 234
STATUS_ACCESS_VIOLATION: Final = 0xC0000005
STATUS_FAILURES: Final = 0xC0000000
"""From here on an exit code is a status of the system: an error (ntstatus.h)."""

JOB_PROCESS_IDS: Final = 3
JOB_EXTENDED_LIMITS: Final = 9
JOB_CPU_RATE: Final = 15
JOB_OBJECT_LIMIT_WORKINGSET: Final = 0x0001
JOB_OBJECT_LIMIT_JOB_MEMORY: Final = 0x0200
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE: Final = 0x2000
JOB_OBJECT_CPU_RATE_CONTROL_ENABLE: Final = 0x1
JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP: Final = 0x4

RELATION_PROCESSOR_CORE: Final = 0


class ProcessMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS_EX2 (psapi.h); what was not filled in keeps its value."""

    _fields_ = (
        ("size", DWORD),
        ("page_faults", DWORD),
        ("peak_working_set", SIZE_T),
        ("working_set", SIZE_T),
        ("quota_peak_paged_pool", SIZE_T),
        ("quota_paged_pool", SIZE_T),
        ("quota_peak_nonpaged_pool", SIZE_T),
        ("quota_nonpaged_pool", SIZE_T),
        ("commit", SIZE_T),
        ("peak_commit", SIZE_T),
        ("private_usage", SIZE_T),
        ("private_working_set", SIZE_T),
        ("shared_commit", ctypes.c_uint64),
    )


PROCESS_MEMORY_SIZE: Final = ProcessMemory.private_usage.offset
"""Size of the first version of the structure, which every Windows fills."""


class SystemPerformance(ctypes.Structure):
    """PERFORMANCE_INFORMATION (psapi.h): the whole system, in pages."""

    _fields_ = (
        ("size", DWORD),
        ("commit_total", SIZE_T),
        ("commit_limit", SIZE_T),
        ("commit_peak", SIZE_T),
        ("physical_total", SIZE_T),
        ("physical_available", SIZE_T),
        ("system_cache", SIZE_T),
        ("kernel_total", SIZE_T),
        ("kernel_paged", SIZE_T),
        ("kernel_nonpaged", SIZE_T),
        ("page_size", SIZE_T),
        ("handles", DWORD),
        ("processes", DWORD),
        ("threads", DWORD),
    )


class PageFile(ctypes.Structure):
    """ENUM_PAGE_FILE_INFORMATION (psapi.h): one page file, in pages."""

    _fields_ = (
        ("size", DWORD),
        ("reserved", DWORD),
        ("total", SIZE_T),
        ("in_use", SIZE_T),
        ("peak", SIZE_T),
    )


class JobBasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION (winnt.h)."""

    _fields_ = (
        ("process_user_time", ctypes.c_int64),
        ("job_user_time", ctypes.c_int64),
        ("flags", DWORD),
        ("working_set_min", SIZE_T),
        ("working_set_max", SIZE_T),
        ("active_processes", DWORD),
        ("affinity", SIZE_T),
        ("priority_class", DWORD),
        ("scheduling_class", DWORD),
    )


class JobExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION (winnt.h)."""

    _fields_ = (
        ("basic", JobBasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory_limit", SIZE_T),
        ("job_memory_limit", SIZE_T),
        ("peak_process_memory", SIZE_T),
        ("peak_job_memory", SIZE_T),
    )


class JobCpuRate(ctypes.Structure):
    """JOBOBJECT_CPU_RATE_CONTROL_INFORMATION: `rate` in 1/10,000 of all processors' time."""

    _fields_ = (("flags", DWORD), ("rate", DWORD))


JOB_PROCESSES_MAX: Final = 1024


class JobProcessIds(ctypes.Structure):
    """JOBOBJECT_BASIC_PROCESS_ID_LIST, with room for `JOB_PROCESSES_MAX` processes."""

    _fields_ = (
        ("assigned", DWORD),
        ("listed", DWORD),
        ("ids", SIZE_T * JOB_PROCESSES_MAX),
    )


class SnapshotProcess(ctypes.Structure):
    """PROCESSENTRY32W (tlhelp32.h): one process of a snapshot."""

    _fields_ = (
        ("size", DWORD),
        ("usage", DWORD),
        ("pid", DWORD),
        ("default_heap", SIZE_T),
        ("module", DWORD),
        ("threads", DWORD),
        ("parent", DWORD),
        ("base_priority", LONG),
        ("flags", DWORD),
        ("name", wintypes.WCHAR * 260),
    )


class LogicalProcessor(ctypes.Structure):
    """SYSTEM_LOGICAL_PROCESSOR_INFORMATION (winnt.h); the union at its end is not looked into."""

    _fields_ = (
        ("mask", SIZE_T),
        ("relationship", DWORD),
        ("details", ctypes.c_uint64 * 2),
    )


class BootTimes(ctypes.Structure):
    """The beginning of SYSTEM_TIMEOFDAY_INFORMATION: 100 ns; `bias` follows the clock's changes."""

    _fields_ = (
        ("boot", ctypes.c_int64),
        ("now", ctypes.c_int64),
        ("zone_bias", ctypes.c_int64),
        ("zone", DWORD),
        ("reserved", DWORD),
        ("bias", ctypes.c_uint64),
        ("sleep_bias", ctypes.c_uint64),
    )


Call = Callable[..., Any]


def _declare(library: str, name: str, result: Any, *arguments: Any, checked: bool = True) -> Call:
    """A function with its prototype; `checked`: a zero result is an error and raises."""
    if sys.platform == "win32":
        function: Any = getattr(ctypes.WinDLL(library, use_last_error=True), name)
        function.restype = result
        function.argtypes = arguments
        if checked:
            function.errcheck = _refused
        return function  # type: ignore[no-any-return]

    def absent(*_arguments: Any) -> Any:
        raise OSError(f"{name} is a function of Windows")

    return absent


def _refused(result: Any, _function: Any, _arguments: Any) -> Any:
    if sys.platform == "win32" and not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


_POINTER = ctypes.c_void_p
if sys.platform == "win32":
    PageFileCallback = ctypes.WINFUNCTYPE(
        wintypes.BOOL, _POINTER, ctypes.POINTER(PageFile), wintypes.LPCWSTR
    )
else:
    PageFileCallback = ctypes.CFUNCTYPE(
        wintypes.BOOL, _POINTER, ctypes.POINTER(PageFile), wintypes.LPCWSTR
    )

close_handle = _declare("kernel32", "CloseHandle", wintypes.BOOL, HANDLE)
open_process = _declare("kernel32", "OpenProcess", HANDLE, DWORD, wintypes.BOOL, DWORD)
current_process = _declare("kernel32", "GetCurrentProcess", HANDLE)
wait = _declare("kernel32", "WaitForSingleObject", DWORD, HANDLE, DWORD, checked=False)
process_times = _declare(
    "kernel32", "GetProcessTimes", wintypes.BOOL, HANDLE, _POINTER, _POINTER, _POINTER, _POINTER
)
process_memory = _declare(
    "kernel32", "K32GetProcessMemoryInfo", wintypes.BOOL, HANDLE, _POINTER, DWORD
)
set_affinity = _declare("kernel32", "SetProcessAffinityMask", wintypes.BOOL, HANDLE, SIZE_T)
get_affinity = _declare(
    "kernel32", "GetProcessAffinityMask", wintypes.BOOL, HANDLE, _POINTER, _POINTER
)
performance = _declare("kernel32", "K32GetPerformanceInfo", wintypes.BOOL, _POINTER, DWORD)
enum_page_files = _declare(
    "kernel32", "K32EnumPageFilesW", wintypes.BOOL, PageFileCallback, _POINTER
)
create_job = _declare("kernel32", "CreateJobObjectW", HANDLE, _POINTER, wintypes.LPCWSTR)
assign_to_job = _declare("kernel32", "AssignProcessToJobObject", wintypes.BOOL, HANDLE, HANDLE)
set_job = _declare(
    "kernel32", "SetInformationJobObject", wintypes.BOOL, HANDLE, ctypes.c_int, _POINTER, DWORD
)
query_job = _declare(
    "kernel32", "QueryInformationJobObject", wintypes.BOOL,
    HANDLE, ctypes.c_int, _POINTER, DWORD, _POINTER,
)  # fmt: skip
terminate_job = _declare("kernel32", "TerminateJobObject", wintypes.BOOL, HANDLE, DWORD)
_snapshot = _declare("kernel32", "CreateToolhelp32Snapshot", HANDLE, DWORD, DWORD)
_snapshot_first = _declare("kernel32", "Process32FirstW", wintypes.BOOL, HANDLE, _POINTER)
_snapshot_next = _declare(
    "kernel32", "Process32NextW", wintypes.BOOL, HANDLE, _POINTER, checked=False
)
logical_processors = _declare(
    "kernel32", "GetLogicalProcessorInformation", wintypes.BOOL, _POINTER, _POINTER, checked=False
)
console_processes = _declare(
    "kernel32", "GetConsoleProcessList", DWORD, _POINTER, DWORD, checked=False
)
console_event = _declare("kernel32", "GenerateConsoleCtrlEvent", wintypes.BOOL, DWORD, DWORD)
is_admin = _declare("shell32", "IsUserAnAdmin", wintypes.BOOL, checked=False)
timer_period = _declare("winmm", "timeBeginPeriod", DWORD, DWORD, checked=False)
_query_system = _declare(
    "ntdll", "NtQuerySystemInformation", LONG,
    ctypes.c_int, _POINTER, DWORD, _POINTER, checked=False,
)  # fmt: skip
_resume = _declare("ntdll", "NtResumeProcess", LONG, HANDLE, checked=False)


def snapshot_processes() -> Iterator[SnapshotProcess]:
    """Every process of the system now; the same object each time. Raises OSError."""
    snapshot = _snapshot(TH32CS_SNAPPROCESS, 0)
    entry = SnapshotProcess()
    entry.size = ctypes.sizeof(entry)
    try:
        _snapshot_first(snapshot, ctypes.byref(entry))
        more = True
        while more:
            yield entry
            more = _snapshot_next(snapshot, ctypes.byref(entry))
    finally:
        close_handle(snapshot)


def resume_process(handle: int) -> None:
    """Let a process that was made suspended run. Raises OSError."""
    status = _resume(handle)
    if status:
        raise OSError(f"NtResumeProcess failed with status {status & 0xFFFFFFFF:#x}")


def has_console() -> bool:
    """Whether this process has a console, through which it can send Ctrl-Break."""
    return bool(console_processes(ctypes.byref(DWORD()), 1))


@functools.cache
def wine_version() -> str | None:
    """Version of the Wine that this runs under, "8.0" for example; None on Windows itself."""
    if sys.platform != "win32":
        return None
    version = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)
    if version is None:
        return None
    version.restype = ctypes.c_char_p
    return str(version().decode("ascii", "replace"))


def boot_time() -> int:
    """When Windows booted, in 100 ns: one and the same number until it boots again."""
    times = BootTimes()
    status = _query_system(3, ctypes.byref(times), ctypes.sizeof(times), None)
    if status:
        raise OSError(f"NtQuerySystemInformation failed with status {status & 0xFFFFFFFF:#x}")
    return int(times.boot - times.bias)


def make_job() -> int:
    """A job object whose processes all end when its last handle closes. Raises OSError."""
    job = int(create_job(None, None))
    limits = JobExtendedLimits()
    limits.basic.flags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    try:
        set_job(job, JOB_EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
    except OSError:
        close_handle(job)
        raise
    return job


def enter_own_job() -> None:
    """Put this process into a job object of its own, which ends with this process. Raises OSError.

    The handle is left open: the system closes it, and so ends the job, when this process dies.
    """
    assign_to_job(make_job(), current_process())
