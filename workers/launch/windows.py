"""Starting a service on Windows: made suspended, put into its job object, then let run.

So no instruction of it runs outside the job, whose handle lives in this process alone: when this
process dies, however that is, Windows ends the whole tree. It is asked to end by Ctrl-Break, which
needs a console that both have; a node without one (a Windows service) can only end it at once, and
the exit's text says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from results.record import ExitRecord
from workers import win32
from workers.launch.deployment import (
    GRACE_S,
    Deployment,
    StartFailed,
    Stopping,
    arguments_of,
    environment_of,
)
from workers.limits.job_object import JobObject, own_processes
from workers.limits.limiter import Limiter
from workers.processes import own_group
from workers.spec import ServiceSpec

END_TIMEOUT_S = 10.0
POLL_S = 0.005
SO_EXCLUSIVEADDRUSE: Final = -5
"""~SO_REUSEADDR (winsock2.h): no other program may have the port."""

_ACCESS = (
    win32.PROCESS_SET_QUOTA
    | win32.PROCESS_TERMINATE
    | win32.PROCESS_SUSPEND_RESUME
    | win32.PROCESS_SET_INFORMATION
    | win32.PROCESS_QUERY_LIMITED_INFORMATION
)
_CORES_MAX: Final = 64
"""An affinity mask names the cores of one processor group."""

_COMMIT_REFUSED: Final = "errno=1455"
"""ERROR_COMMITMENT_LIMIT, as the Go runtime prints it (runtime/mem_windows.go)."""


def give_home(_home: Path) -> None:
    """The service runs as the user that the node runs as: its folder is its own already."""


def claim_port(probe: socket.socket) -> None:
    """Let the probe find only what is free: SO_REUSEADDR would take another's port on Windows."""
    probe.setsockopt(socket.SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1)


class ServiceProcess:
    """A service's main process and the job with its whole tree."""

    def __init__(
        self,
        spec: ServiceSpec,
        deployment: Deployment,
        *,
        launcher: Path,
        limiter: Limiter,
        cores: tuple[int, ...],
    ) -> None:
        """Start the service. Raises StartFailed."""
        if not isinstance(limiter, JobObject):
            raise StartFailed(f"a service needs a job object on Windows: {limiter.reason}")
        self._job = limiter
        self._leaked = 0
        self._has_console = win32.has_console()
        self.output_fd, output_write = os.pipe()
        self.error_fd, error_write = os.pipe()
        try:
            self._process = self._create(spec, deployment, output_write, error_write)
            self._let_run(cores)
        except (OSError, ValueError) as error:
            os.close(self.output_fd)
            os.close(self.error_fd)
            raise StartFailed(str(error)) from error
        finally:
            os.close(output_write)
            os.close(error_write)
        self.pid = self._process.pid

    def _create(
        self, spec: ServiceSpec, deployment: Deployment, output: int, error: int
    ) -> subprocess.Popen[bytes]:
        """The suspended process; it inherits its three standard handles and nothing else."""
        own_environment = environment_of(spec, deployment)
        group = own_group()
        return subprocess.Popen(
            arguments_of(spec, deployment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
            cwd=deployment.folder,
            env=environment_block(own_environment, os.environ, deployment.folder),
            creationflags=win32.CREATE_SUSPENDED | group["creationflags"],
        )

    def _let_run(self, cores: tuple[int, ...]) -> None:
        """Into the job, onto its cores, and on. What can't be let run is ended."""
        try:
            handle = win32.open_process(_ACCESS, False, self._process.pid)
            try:
                win32.assign_to_job(self._job.job, handle)
                _pin(handle, cores)
                win32.resume_process(handle)
            finally:
                win32.close_handle(handle)
        except (OSError, ValueError):
            self._process.kill()
            self._process.wait()
            raise

    @property
    def exited(self) -> bool:
        """Whether the main process has ended."""
        return self._process.poll() is not None

    def await_exit(self, timeout_s: float) -> bool:
        """Wait until the main process ends; False when the time is over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exited

    def ask_to_end(self) -> str:
        """Ctrl-Break to its process group; the text says why that is not possible."""
        if not self._has_console:
            return "this node has no console for Ctrl-Break"
        try:
            win32.console_event(win32.CTRL_BREAK_EVENT, self.pid)
        except OSError as error:
            return f"Ctrl-Break could not be sent: {error}"
        return ""

    def kill(self) -> None:
        """End the whole tree at once."""
        with contextlib.suppress(OSError):
            self._job.kill()

    def finish(self) -> None:
        """Count what outlived the service, end it, and wait until the main process is gone."""
        if not self.await_exit(END_TIMEOUT_S):
            self.kill()
        deadline_s = time.monotonic() + GRACE_S
        while (left := own_processes(self._job.processes())) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        self._leaked += len(left)
        self.kill()
        self.await_exit(END_TIMEOUT_S)

    def explain_exit(
        self,
        *,
        stopping: Stopping | None,
        unasked: str,
        fatal: str | None,
        oom_kills: int,
    ) -> ExitRecord:
        """Why it ended, after `finish`. `unasked` says why it could not be asked to end first."""
        code = self._process.returncode
        cause, text = exit_cause(code, stopping=stopping, unasked=unasked, fatal=fatal)
        return ExitRecord(
            cause=cause, code=code, signal=None, text=text, leaked_processes=self._leaked
        )


def _pin(handle: int, cores: tuple[int, ...]) -> None:
    """Keep a process to its cores, and see that it is. Raises OSError or ValueError."""
    if not cores:
        return
    if max(cores) >= _CORES_MAX:
        raise ValueError(f"core {max(cores)} is beyond the {_CORES_MAX} of one processor group")
    wanted = sum(1 << core for core in cores)
    win32.set_affinity(handle, wanted)
    mask, system = win32.SIZE_T(), win32.SIZE_T()
    win32.get_affinity(handle, ctypes.byref(mask), ctypes.byref(system))
    if mask.value != wanted:
        raise ValueError(f"pinned to cores {wanted:#b}, but it runs on {mask.value:#b}")


def environment_block(
    asked: Iterable[tuple[str, str]], node: Mapping[str, str], home: Path
) -> dict[str, str]:
    """The service's whole block: what was asked for, and what Windows itself needs to run it.

    `node` is the node's own environment, from which only the system's folders are taken. Names
    are the same whatever their case; what was asked for wins. Sorted, as Windows wants it.
    """
    root = node.get("SYSTEMROOT") or node.get("SystemRoot") or r"C:\Windows"
    needed = {
        "SystemRoot": root,
        "SystemDrive": root[:2],
        "PATH": rf"{root}\system32;{root}",
        "TEMP": str(home),
        "TMP": str(home),
    }
    given = dict(asked)
    taken = {name.upper() for name in given}
    block = {name: value for name, value in needed.items() if name.upper() not in taken} | given
    return dict(sorted(block.items(), key=lambda pair: pair[0].upper()))


def exit_cause(  # noqa: PLR0911 - one return a cause reads best
    code: int | None, *, stopping: str | None, unasked: str, fatal: str | None
) -> tuple[str, str]:
    """The cause (a word of ExitRecord) and a sentence for a person."""
    if fatal and _COMMIT_REFUSED in fatal:
        return "commit_refused", (
            "Windows refused to commit more memory, at the job's limit or at the system's own "
            f"(error 1455): {fatal}"
        )
    if fatal and ("out of memory" in fatal or "VirtualAlloc" in fatal):
        return "go_out_of_memory", f"the Go runtime ran out of memory: {fatal}"
    if stopping == "killed":
        return "killed", "did not end after Ctrl-Break within its stop timeout and was ended"
    if stopping == "stopped" and unasked:
        return "stopped", f"stopped by us at once, it could not be asked first: {unasked}"
    if stopping == "stopped":
        return "stopped", "stopped by us"
    if code == win32.STATUS_ACCESS_VIOLATION or (fatal or "").startswith("Exception 0xc0000005"):
        return "access_violation", fatal or "ended by an access violation (0xC0000005)"
    if fatal:
        return "crashed", fatal
    if code is None:
        return "crashed", "its exit code is not known"
    if code >= win32.STATUS_FAILURES:
        return "crashed", f"ended with Windows' status {code:#010x}"
    return "exited", f"ended by itself with exit code {code}"
