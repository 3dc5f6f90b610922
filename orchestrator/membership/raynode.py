"""Ray's processes on this machine, for a head or a joined node: started, watched, ended as one.

Ray's own services (its control store, each node's raylet, its workers) listen on loopback alone
when the node's address is 127.0.0.1. At any other address they listen on *all* addresses of the
machine: Ray 2.60 can't be told otherwise. What protects them there is TLS with certificates of the
cluster's authority on both sides, and Ray's token.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from results.collecting.secure import AUTHORITY, CERTIFICATE, KEY
from results.errors import EnvironmentLacks
from workers.leases import TEMP_PREFIX

OBJECT_STORE_BYTES = 100 * 2**20
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
LOOPBACK = "127.0.0.1"
_PORTS_OF_RAY = frozenset({8265, 10001, 52365})
"""Ray's fixed ports of parts that are not started here; it refuses to give them to another part."""

_STARTED = "Ray runtime started"
_LOOK_EVERY_S = 0.1

_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USE_TLS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # By default everything a node starts, the service too, would be 15 nicer than others.
    "RAY_worker_niceness": "0",
    # A killed or frozen node is noticed within 5 s.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "GRPC_VERBOSITY": "NONE",
}


def ray_environment(address: str, tls_folder: Path, token_path: Path) -> dict[str, str]:
    """What must be in the environment of every Ray process before it imports Ray.

    `address` is this machine's own in the cluster.
    """
    return _SETTINGS | {
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_TLS_CA_CERT": str(tls_folder / AUTHORITY),
        "RAY_TLS_SERVER_CERT": str(tls_folder / CERTIFICATE),
        "RAY_TLS_SERVER_KEY": str(tls_folder / KEY),
        # With 1, Ray replaces loopback by an outer address; with 0 it refuses a second Windows
        # node. Drivers and workers follow this; `ray start` is told by `raystart`.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if address == LOOPBACK else "1",
    }


class RayProcesses:
    """Ray on this machine. Everything it starts ends with it, also when this process is killed."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it; `wait_started` tells when it works."""
        _remove_last_temp(log)
        self.temp = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX))
        log.with_suffix(".temp").write_text(str(self.temp), encoding="utf-8")
        self._log = log
        self._raylet: psutil.Process | None = None
        log.write_bytes(b"")
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "orchestrator.membership.keeper", str(self.temp)),
                    *(sys.executable, "-m", "orchestrator.membership.raystart", "start", "--block"),
                    *("--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *("--include-log-monitor=false", "--disable-usage-stats"),
                    # Else a node would use the path of the head's, on a machine that lacks it.
                    f"--temp-dir={self.temp}",
                    *arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                # `ray start` itself only has to be let through; see `raystart`.
                env=os.environ | environment | {"PYTHONPATH": _python_path()},
                start_new_session=sys.platform != "win32",
            )

    @classmethod
    def head(
        cls, *, address: str, port: int, environment: Mapping[str, str], log: Path
    ) -> RayProcesses:
        """Ray's head; it takes one processor's worth of tasks."""
        arguments = [
            *("--head", f"--node-ip-address={address}", f"--port={port}", "--num-cpus=1"),
            *("--include-dashboard=false", "--no-monitor"),
        ]
        return cls(arguments, environment, log)

    @property
    def pid(self) -> int:
        """The process that keeps the others."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether Ray's node and what keeps it are there.

        `ray start --block` alone does not tell: it takes some deaths of a raylet for orderly ends.
        """
        return self._process.poll() is None and (self._raylet is None or _lives(self._raylet))

    def wait_started(
        self, pause: Callable[[float], bool], timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """Return when Ray works, or when `pause` (seconds to wait) says that it need not any more.

        Raises EnvironmentLacks when it doesn't in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not pause(_LOOK_EVERY_S):
            said = self._log.read_text(encoding="utf-8", errors="replace")
            if _STARTED in said:
                self._raylet = self._find_raylet()
                return
            if not self.alive or time.monotonic() > deadline_s:
                self.stop()
                last = "\n".join(said.splitlines()[-8:])
                raise EnvironmentLacks(f"Ray did not start; its words are in {self._log}:\n{last}")

    def _find_raylet(self) -> psutil.Process | None:
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                if Path(process.cmdline()[0]).name in ("raylet", "raylet.exe"):
                    return process
        return None

    def stop(self) -> None:
        """End Ray and all that it started, and remove its temporary folder."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.temp, ignore_errors=True)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _remove_last_temp(log: Path) -> None:
    """What was left by one that was killed together with its keeper."""
    with contextlib.suppress(OSError):
        last = Path(log.with_suffix(".temp").read_text(encoding="utf-8"))
        if last.name.startswith(TEMP_PREFIX) and last.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(last, ignore_errors=True)


def free_port(address: str) -> int:
    """A TCP port that is free now at an address of this machine, and that Ray does not want."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    port = 0
    while port in {0, *_PORTS_OF_RAY}:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
            port = int(probe.getsockname()[1])
    return port


def _python_path() -> str:
    """So that the same Heapgate is found, however this one was started."""
    return os.pathsep.join(path for path in sys.path if path)
