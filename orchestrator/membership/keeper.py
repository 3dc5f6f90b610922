"""Run a command, and end everything that ever came of it when the parent dies or says so.

    python -m orchestrator.membership.keeper FOLDER COMMAND …

FOLDER is temporary and removed at the end.

Standard input is the parent's hand: when it closes, the command is asked to end, then all that it
started is killed. The parent may have been killed itself, so this must not need its help. Linux:
this process adopts every orphan below it (PR_SET_CHILD_SUBREAPER, prctl(2)), so nothing leaves the
tree. Windows: it is in a job object that ends all its processes when its last handle closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 3.0
_LOOK_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS_MAX = 100
_JOB_EXTENDED_LIMITS = 9
_JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000


def main() -> None:
    """Keep a command; the exit code is its own, 0 when it was told to end."""
    hold_descendants()
    let_go = threading.Event()
    threading.Thread(target=_watch_parent, args=(let_go,), daemon=True).start()
    if sys.platform != "win32":
        # The parent answers Ctrl-C for all; a service manager's SIGTERM means: end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: let_go.set())
    folder, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    code = _wait(process, let_go)
    if code is None:
        with contextlib.suppress(OSError):
            process.terminate()
        _wait(process, threading.Event(), GRACE_S)
    end_descendants()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(code or 0)


def hold_descendants() -> None:
    """Make this process the one that all orphans below it fall to, or that a job object ends."""
    if sys.platform == "win32":
        _enter_job()
    elif sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Linux: let the kernel kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch_parent(let_go: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    let_go.set()


def _wait(
    process: subprocess.Popen[bytes], let_go: threading.Event, timeout_s: float = float("inf")
) -> int | None:
    """The command's exit code; None when it was let go of or the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and not let_go.wait(_LOOK_EVERY_S):
        code = _reaped(process)
        if code is not None:
            return code
    return None


def _reaped(process: subprocess.Popen[bytes]) -> int | None:
    """Collect every child that has ended, adopted ones too; the command's own code when it has."""
    if sys.platform == "win32" or process.returncode is not None:
        return process.poll()
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return process.returncode
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def end_descendants() -> None:
    """Kill all that is below this process, until there is nothing."""
    import psutil

    this = psutil.Process()
    for _ in range(_ROUNDS_MAX):
        # A process that has just been killed may still be seen; one that forked leaves another.
        left = [p for p in this.children(recursive=True) if _is_live(p)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def _is_live(process: object) -> bool:
    import psutil

    assert isinstance(process, psutil.Process)
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _enter_job() -> None:
    """Put this process into a job object that kills its members when the handle closes.

    The handle is never closed by hand: the system does it when this process ends, however it does.
    """
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
        limits = _ExtendedLimits()
        limits.limit_flags = _JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        done = kernel.SetInformationJobObject(
            job, _JOB_EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        this = ctypes.c_void_p(kernel.GetCurrentProcess())
        if not done or not kernel.AssignProcessToJobObject(job, this):
            sys.stderr.write(f"no job object: {ctypes.WinError(ctypes.get_last_error())}\n")


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION (winnt.h)."""

    _fields_ = (
        ("per_process_user_time_limit", ctypes.c_int64),
        ("per_job_user_time_limit", ctypes.c_int64),
        ("limit_flags", ctypes.c_uint32),
        ("minimum_working_set_size", ctypes.c_size_t),
        ("maximum_working_set_size", ctypes.c_size_t),
        ("active_process_limit", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory_limit", ctypes.c_size_t),
        ("job_memory_limit", ctypes.c_size_t),
        ("peak_process_memory_used", ctypes.c_size_t),
        ("peak_job_memory_used", ctypes.c_size_t),
    )


if __name__ == "__main__":
    main()
