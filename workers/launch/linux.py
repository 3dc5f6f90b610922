"""Starting a service on Linux, by the launcher (`workers/launcher`, a tiny Go program).

There are two reasons for it: a process forked from a fat parent reports the parent's peak as its
own `ru_maxrss` (Linux keeps the larger of both across exec), and the service must be inside its
cgroup before its first instruction, because memory that was charged elsewhere does not move along.
The launcher lives as long as its standard input: when this process dies, even by SIGKILL, the whole
tree is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from results.record import ExitRecord
from workers.launch.deployment import (
    Deployment,
    StartFailed,
    Stopping,
    arguments_of,
    environment_of,
)
from workers.limits.limiter import Limiter
from workers.spec import ServiceSpec

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
UNPRIVILEGED_ID = 61234
"""User and group of the service where we are root: an id that owns nothing on a usual system."""


def give_home(home: Path) -> None:
    """Let the service's user own its folder."""
    if os.geteuid() == 0:
        os.chown(home, UNPRIVILEGED_ID, UNPRIVILEGED_ID)


def claim_port(probe: socket.socket) -> None:
    """Let the probe see as free what a server finds free.

    A port in TIME_WAIT is free for a server that sets SO_REUSEADDR, as Go's do.
    """
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


class ServiceProcess:
    """The launcher and what it has told of the service. `pid` is the service's own."""

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
        self._changed = threading.Condition()
        self._status: dict[str, dict[str, Any]] = {}
        self._launch(launcher, launcher_document(spec, deployment, limiter.join_paths, cores),
                     deployment.folder.parent / "launch.json")  # fmt: skip
        self.pid = self._await_started()

    def _launch(self, launcher: Path, document: dict[str, Any], path: Path) -> None:
        path.write_text(json.dumps(document), encoding="utf-8")
        path.chmod(0o644)
        output_read, output_write = os.pipe()
        error_read, error_write = os.pipe()
        status_read, status_write = os.pipe()
        try:
            self._launcher = subprocess.Popen(
                [str(launcher), str(path), str(status_write)],
                stdin=subprocess.PIPE,
                stdout=output_write,
                stderr=error_write,
                pass_fds=(status_write,),
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in (output_read, error_read, status_read):
                os.close(descriptor)
            raise StartFailed(f"the launcher can't run: {error}") from error
        finally:
            for descriptor in (output_write, error_write, status_write):
                os.close(descriptor)
        self.output_fd, self.error_fd = output_read, error_read
        self._reader = threading.Thread(
            target=self._read_status, args=(status_read,), name="launcher-status", daemon=True
        )
        self._reader.start()

    def _read_status(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                with self._changed:
                    self._status[message["event"]] = message
                    self._changed.notify_all()
        with self._changed:
            self._status.setdefault("done", {"leaked": 0})
            self._changed.notify_all()

    def _await(self, timeout_s: float, *events: str) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: any(event in self._status for event in events), timeout_s
            )

    def _await_started(self) -> int:
        self._await(START_TIMEOUT_S, "started", "failed", "done")
        if "started" in self._status:
            return int(self._status["started"]["pid"])
        text = self._status.get("failed", {}).get("text", "the launcher said nothing")
        self._close()
        for descriptor in (self.output_fd, self.error_fd):
            os.close(descriptor)
        raise StartFailed(text)

    @property
    def exited(self) -> bool:
        """Whether the main process has ended."""
        return "exited" in self._status or "done" in self._status

    def await_exit(self, timeout_s: float) -> bool:
        """Wait until the main process ends; False when the time is over."""
        return self._await(timeout_s, "exited", "done")

    def ask_to_end(self) -> str:
        """SIGTERM to the main process; empty, as it can always be asked."""
        self._say("term")
        return ""

    def kill(self) -> None:
        """SIGKILL to the whole tree."""
        self._say("kill")

    def finish(self) -> None:
        """Wait until nothing of the tree is left, and let the launcher go."""
        self._await(END_TIMEOUT_S, "done")
        self._close()

    def _close(self) -> None:
        """At the end of its input the launcher kills whatever is left."""
        with contextlib.suppress(OSError):
            if self._launcher.stdin:
                self._launcher.stdin.close()
        try:
            self._launcher.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
        self._reader.join(5.0)

    def _say(self, word: str) -> None:
        with contextlib.suppress(OSError):
            if self._launcher.stdin:
                self._launcher.stdin.write(f"{word}\n".encode())
                self._launcher.stdin.flush()

    def explain_exit(
        self, *, stopping: Stopping | None, unasked: str, fatal: str | None, oom_kills: int
    ) -> ExitRecord:
        """Why it ended, after `finish`. `unasked` is always empty here."""
        status = self._status.get("exited", {})
        code, number = status.get("code"), status.get("signal")
        cause, text = exit_cause(code, number, stopping=stopping, fatal=fatal, oom_kills=oom_kills)
        return ExitRecord(
            cause=cause,
            code=code,
            signal=number,
            text=text,
            max_rss_bytes=status.get("max_rss_bytes"),
            leaked_processes=self._status.get("done", {}).get("leaked", 0),
        )


def launcher_document(
    spec: ServiceSpec, deployment: Deployment, join_paths: tuple[str, ...], cores: tuple[int, ...]
) -> dict[str, Any]:
    """The launcher's specification: argument vector, environment block, user, cores, cgroups."""
    identity = UNPRIVILEGED_ID if os.geteuid() == 0 else None
    return {
        "argv": arguments_of(spec, deployment),
        "env": [f"{name}={value}" for name, value in environment_of(spec, deployment)],
        "dir": str(deployment.folder),
        "uid": identity,
        "gid": identity,
        "cpus": list(cores),
        "join": list(join_paths),
    }


def exit_cause(  # noqa: PLR0911 - one return a cause reads best
    code: int | None,
    number: int | None,
    *,
    stopping: str | None,
    fatal: str | None,
    oom_kills: int,
) -> tuple[str, str]:
    """The cause (a word of ExitRecord) and a sentence for a person."""
    if number == signal.SIGKILL and oom_kills:
        return "oom_kill", (
            "killed by the kernel: the cgroup's hard memory limit was reached "
            f"({oom_kills} OOM kill{'s' if oom_kills > 1 else ''})"
        )
    if fatal and "out of memory" in fatal:
        return "go_out_of_memory", f"the Go runtime ran out of memory: {fatal}"
    if stopping == "killed":
        return "killed", "did not end after SIGTERM within its stop timeout and was killed"
    if stopping == "stopped":
        return "stopped", "stopped by us"
    if fatal:
        return "crashed", fatal
    if number is not None:
        return "crashed", f"ended by signal {number} ({_signal_name(number)})"
    if code is None:
        return "crashed", "its exit status is not known"
    return "exited", f"ended by itself with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
