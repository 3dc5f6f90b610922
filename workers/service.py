"""The service under test on a node: deploy, start, wait until ready, stop, and why it died.

The service is started by the launcher (`workers/launcher`, a tiny Go program), for two reasons:
a process forked from a fat parent reports the parent's peak as its own `ru_maxrss` (Linux keeps
the larger of both across exec), and the service must be inside its cgroup before its first
instruction, because memory that was charged elsewhere does not move along. The launcher lives as
long as its standard input: when this process dies, even by SIGKILL, the whole tree is ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks, HeapgateError, UserError
from results.record import ExitRecord
from workers.spec import ServiceSpec

HOST = "127.0.0.1"
READY_POLL_S = 0.01
UNPRIVILEGED_ID = 61234
"""User and group of the service where we are root: an id that owns nothing on a usual system."""


class ServiceFailed(HeapgateError):
    """The service did not start, did not become ready, or died; the text tells its last words."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a trial's service lies on this node and where it will listen."""

    program: str
    folder: Path
    port: int
    host: str = HOST

    @property
    def base_url(self) -> str:
        """The service's address for the load generator."""
        return f"http://{self.host}:{self.port}"


def deploy(spec: ServiceSpec, folder: Path, host: str = HOST) -> Deployment:
    """Copy the binary into the trial's folder, verify its hash and choose the port.

    `host` is the address that it should listen on. Raises UserError when the wanted port is taken,
    EnvironmentLacks when the copy fails or is not the planned binary.
    """
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    program = _copy_program(spec, folder) if spec.binary.copy else _find_program(spec)
    return Deployment(program, home, _choose_port(spec.port, host), host)


def _copy_program(spec: ServiceSpec, folder: Path) -> str:
    target = folder / Path(spec.binary.argv0).name
    try:
        shutil.copyfile(spec.binary.argv0, target)
        target.chmod(0o755)
    except OSError as error:
        raise EnvironmentLacks(f"can't deploy {spec.binary.argv0}: {error}") from error
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != spec.binary.sha256:
        raise EnvironmentLacks(
            f"{target} has SHA-256 {digest}, the plan says {spec.binary.sha256}: "
            "the binary changed after it was planned"
        )
    return str(target)


def _find_program(spec: ServiceSpec) -> str:
    found = shutil.which(spec.binary.argv0)
    if found is None:
        raise EnvironmentLacks(f"command {spec.binary.argv0!r} is not on this node's PATH")
    return found


def _choose_port(wanted: int | None, host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port in TIME_WAIT is free for a server that sets SO_REUSEADDR, as Go's do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted or 0))
        except OSError as error:
            raise UserError(
                f"port {wanted} on {host} is already used by another program; "
                "leave `port` out to have a free one chosen"
            ) from error
        return int(probe.getsockname()[1])


class Service:
    """A running service process tree. One object a trial; not restarted."""

    def __init__(
        self,
        spec: ServiceSpec,
        deployment: Deployment,
        *,
        launcher: Path,
        join_paths: tuple[str, ...],
        cores: tuple[int, ...],
    ) -> None:
        """Start the service through the launcher. Raises ServiceFailed("start_failed")."""
        self.spec = spec
        self.deployment = deployment
        self._changed = threading.Condition()
        self._status: dict[str, dict[str, Any]] = {}
        self._stopping: str | None = None
        self._started_at_s = time.monotonic()
        self._launch(launcher, join_paths, cores)
        self.pid = self._await_started()

    def _launch(self, launcher: Path, join_paths: tuple[str, ...], cores: tuple[int, ...]) -> None:
        document = launcher_document(self.spec, self.deployment, join_paths, cores)
        path = self.deployment.folder.parent / "launch.json"
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
            raise ServiceFailed("start_failed", f"the launcher can't run: {error}") from error
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
        self._await(30.0, "started", "failed", "done")
        if "started" in self._status:
            return int(self._status["started"]["pid"])
        text = self._status.get("failed", {}).get("text", "the launcher said nothing")
        self.close()
        for descriptor in (self.output_fd, self.error_fd):
            os.close(descriptor)
        raise ServiceFailed("start_failed", f"{self.spec.name} could not be started: {text}")

    @property
    def exited(self) -> bool:
        """Whether the main process has ended."""
        return "exited" in self._status or "done" in self._status

    def wait_ready(self, should_stop: Callable[[], bool]) -> int:
        """Wait until the service answers; return how long it took in nanoseconds.

        Raises ServiceFailed when it exits first ("exited") or runs out of time ("never_ready").
        """
        deadline_s = self._started_at_s + self.spec.ready_timeout_ns / 1e9
        answer = "nothing listens there"
        while not should_stop():
            if self.exited:
                raise ServiceFailed("exited", f"{self.spec.name} ended before it was ready")
            ready, answer = self._probe()
            now_s = time.monotonic()
            if ready:
                return int((now_s - self._started_at_s) * 1e9)
            if now_s > deadline_s:
                where = f"{self.deployment.base_url}{self.spec.ready_path or ''}"
                waited_s = self.spec.ready_timeout_ns / 1e9
                raise ServiceFailed(
                    "never_ready",
                    f"{self.spec.name} was not ready after {waited_s:g} s: {where}: {answer}",
                )
            self._await(READY_POLL_S, "exited", "done")
        raise ServiceFailed("stopped", "stopped while the service was starting")

    def _probe(self) -> tuple[bool, str]:
        """Whether it is ready, and what it answered; without a path an open port is enough."""
        connection = http.client.HTTPConnection(
            self.deployment.host, self.deployment.port, timeout=2.0
        )
        try:
            connection.connect()
            if self.spec.ready_path is None:
                return True, "connected"
            connection.request("GET", self.spec.ready_path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return False, str(error) or type(error).__name__
        finally:
            connection.close()
        return 200 <= status < 300, f"HTTP status {status}"

    def stop(self) -> None:
        """End the service: SIGTERM, then after its stop timeout SIGKILL to the whole tree."""
        if not self.exited:
            self._stopping = "stopped"
            self._say("term")
            if not self._await(self.spec.stop_timeout_ns / 1e9, "exited", "done"):
                self._stopping = "killed"
                self._say("kill")
        self._await(10.0, "done")
        self.close()

    def close(self) -> None:
        """Let the launcher go: at the end of its input it kills whatever is left."""
        with contextlib.suppress(OSError):
            if self._launcher.stdin:
                self._launcher.stdin.close()
        try:
            self._launcher.wait(10.0)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()
        self._reader.join(5.0)

    def _say(self, word: str) -> None:
        with contextlib.suppress(OSError):
            if self._launcher.stdin:
                self._launcher.stdin.write(f"{word}\n".encode())
                self._launcher.stdin.flush()

    def explain_exit(self, *, fatal: str | None, oom_kills: int) -> ExitRecord:
        """Why it ended, after `stop`: from the exit status, its own last words and the cgroup."""
        status = self._status.get("exited", {})
        code, number = status.get("code"), status.get("signal")
        cause, text = exit_cause(
            code, number, stopping=self._stopping, fatal=fatal, oom_kills=oom_kills
        )
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
    places = {"{port}": str(deployment.port), "{host}": deployment.host}
    identity = UNPRIVILEGED_ID if os.geteuid() == 0 else None
    return {
        "argv": [deployment.program, *(_fill(a, places) for a in spec.arguments)],
        "env": [f"{name}={_fill(value, places)}" for name, value in spec.environment],
        "dir": str(deployment.folder),
        "uid": identity,
        "gid": identity,
        "cpus": list(cores),
        "join": list(join_paths),
    }


def _fill(text: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text


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
