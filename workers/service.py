"""The service under test on a node: deploy, start, wait until ready, stop, and why it died.

How a process is started, asked to end and explained differs by system: `workers/launch/`.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from results.clock import steady_ns
from results.errors import EnvironmentLacks, HeapgateError, UserError
from results.record import ExitRecord
from workers.launch.deployment import HOST, Deployment, StartFailed, Stopping
from workers.launch.system import ServiceProcess, claim_port, give_home
from workers.limits.limiter import Limiter
from workers.spec import ServiceSpec

__all__ = ["HOST", "Deployment", "Service", "ServiceFailed", "deploy"]

READY_POLL_S = 0.01
CONNECT_TIMEOUT_S = 0.2
"""A port here that listens answers at once; to one that does not, Windows tries for two seconds."""

ANSWER_TIMEOUT_S = 2.0


class ServiceFailed(HeapgateError):
    """The service did not start, did not become ready, or died; the text tells its last words."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def deploy(spec: ServiceSpec, folder: Path, host: str = HOST) -> Deployment:
    """Copy the binary into the trial's folder, verify its hash and choose the port.

    `host` is the address that it should listen on. Raises UserError when the wanted port is taken,
    EnvironmentLacks when the copy fails or is not the planned binary.
    """
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    give_home(home)
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
        claim_port(probe)
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
        limiter: Limiter,
        cores: tuple[int, ...],
    ) -> None:
        """Start the service inside the limiter's group. Raises ServiceFailed("start_failed")."""
        self.spec = spec
        self.deployment = deployment
        self._stopping: Stopping | None = None
        self._unasked = ""
        self._started_ns = steady_ns()
        try:
            self._process = ServiceProcess(
                spec, deployment, launcher=launcher, limiter=limiter, cores=cores
            )
        except StartFailed as error:
            text = f"{spec.name} could not be started: {error}"
            raise ServiceFailed("start_failed", text) from error
        self.pid = self._process.pid
        self.output_fd, self.error_fd = self._process.output_fd, self._process.error_fd

    @property
    def exited(self) -> bool:
        """Whether the main process has ended."""
        return self._process.exited

    def wait_ready(self, should_stop: Callable[[], bool]) -> int:
        """Wait until the service answers; return how long it took in nanoseconds.

        Raises ServiceFailed when it exits first ("exited") or runs out of time ("never_ready").
        """
        answer = "nothing listens there"
        while not should_stop():
            if self.exited:
                raise ServiceFailed("exited", f"{self.spec.name} ended before it was ready")
            ready, answer = self._probe()
            took_ns = steady_ns() - self._started_ns
            if ready:
                return took_ns
            if took_ns > self.spec.ready_timeout_ns:
                where = f"{self.deployment.base_url}{self.spec.ready_path or ''}"
                waited_s = self.spec.ready_timeout_ns / 1e9
                raise ServiceFailed(
                    "never_ready",
                    f"{self.spec.name} was not ready after {waited_s:g} s: {where}: {answer}",
                )
            self._process.await_exit(READY_POLL_S)
        raise ServiceFailed("stopped", "stopped while the service was starting")

    def _probe(self) -> tuple[bool, str]:
        """Whether it is ready, and what it answered; without a path an open port is enough."""
        connection = http.client.HTTPConnection(
            self.deployment.host, self.deployment.port, timeout=CONNECT_TIMEOUT_S
        )
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_TIMEOUT_S)
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
        """End the service: asked first, then after its stop timeout killed with its whole tree."""
        if not self.exited:
            self._stopping = "stopped"
            self._unasked = self._process.ask_to_end()
            if self._unasked:
                self._process.kill()
            elif not self._process.await_exit(self.spec.stop_timeout_ns / 1e9):
                self._stopping = "killed"
                self._process.kill()
        self._process.finish()

    def explain_exit(self, *, fatal: str | None, oom_kills: int) -> ExitRecord:
        """Why it ended, after `stop`: from the exit status, its own last words and the group."""
        return self._process.explain_exit(
            stopping=self._stopping, unasked=self._unasked, fatal=fatal, oom_kills=oom_kills
        )
