"""The head of a cluster: Ray's head and the enrolment service, as a daemon on this machine."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc

from orchestrator.membership.enrolment import MESSAGE_BYTES_MAX, Enrolment
from orchestrator.membership.headstate import DEFAULT_PORT, SECRET_NAME, HeadSettings, HeadState
from orchestrator.membership.members import Members
from orchestrator.membership.pki import AUTHORITY_DAYS
from orchestrator.membership.raynode import LOOPBACK, START_TIMEOUT_S, RayProcesses, free_port
from orchestrator.systems import require_linux
from results.collecting.secure import add_port, joined_address, log_failed_handshakes, say
from results.collecting.timeserver import TimeServer
from results.errors import EnvironmentLacks, UserError
from results.wire import cluster_pb2_grpc as wire_grpc

_WATCH_EVERY_S = 0.5
_CALLS_MAX = 64
_RESTART_PAUSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Started:
    """A head that runs: what to type on a node, and where the secret for it lies."""

    address: str
    port: int
    secret_path: Path
    already: bool

    @property
    def join_line(self) -> str:
        """The line for every machine that shall join."""
        where = joined_address(self.address, self.port)
        return f"bench node join {where} --secret {SECRET_NAME}"


def prepare_head(
    address: str | None, port: int | None, *, days: float = AUTHORITY_DAYS
) -> HeadState:
    """Check the address, choose ports, and make what is missing on disk; starts nothing.

    None: as the last time, else loopback and the default port. Port 0: any free one.
    """
    require_linux("the head of a cluster")
    state = HeadState()
    state.prepare(_settings(state, address, port), days=days)
    return state


def start_head(address: str | None, port: int | None, *, days: float = AUTHORITY_DAYS) -> Started:
    """Start the head as a daemon; when there is one already, tell about that one."""
    state = HeadState()
    if state.daemon.alive:
        settings = state.settings()
        state.prepare(settings)
        _refuse_other_place(settings, address, port)
        return Started(settings.address, settings.port, state.secret_path, already=True)
    state = prepare_head(address, port, days=days)
    process = state.daemon.start("orchestrator.membership.head")
    state.daemon.wait_ready(process, START_TIMEOUT_S)
    settings = state.settings()
    return Started(settings.address, settings.port, state.secret_path, already=False)


def _refuse_other_place(settings: HeadSettings, address: str | None, port: int | None) -> None:
    if address in (None, settings.address) and port in (None, settings.port):
        return
    raise UserError(
        f"a head already runs here, at {settings.address}:{settings.port}; "
        "end it first: bench node leave"
    )


def _settings(state: HeadState, address: str | None, port: int | None) -> HeadSettings:
    try:
        last = state.settings()
    except EnvironmentLacks:
        last = HeadSettings(address=LOOPBACK, port=DEFAULT_PORT, ray_port=0)
    address = address or last.address
    _check_address(address)
    chosen = last.port if port is None else port
    same_place = address == last.address and last.ray_port and _is_free(address, last.ray_port)
    return HeadSettings(
        address=address,
        port=chosen or free_port(address),
        ray_port=last.ray_port if same_place else free_port(address),
    )


def _check_address(address: str) -> None:
    """It must be one of this machine's, at which nodes can reach it. Raises UserError."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise UserError(f"{address!r} is not an IP address of this machine") from error
    if parsed.is_unspecified:
        raise UserError(
            f"{address} means every address; choose the one at which nodes reach this machine: "
            f"{', '.join(_own_addresses())}"
        )
    try:
        free_port(address)
    except OSError as error:
        raise UserError(
            f"{address} is not an address of this machine; it has {', '.join(_own_addresses())}"
        ) from error


def _own_addresses() -> list[str]:
    import psutil

    found = psutil.net_if_addrs().values()
    return [a.address for group in found for a in group if a.family == socket.AF_INET]


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((address, port)) != 0


class HeadDaemon:
    """The daemon: while it lives, Ray's head and the enrolment service do."""

    def __init__(self, state: HeadState, stop: threading.Event) -> None:
        self._state = state
        self._stop = stop
        self._settings = state.settings()
        self._session = ""
        self._ray: RayProcesses | None = None
        self._server = grpc.server(
            ThreadPoolExecutor(_CALLS_MAX),
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.so_reuseport", 0),
            ],
        )

    def run(self) -> None:
        """Serve until told to stop."""
        members = Members(self._state.nodes_path)
        enrolment = Enrolment(self._state, members, self._where)
        wire_grpc.add_ClusterServicer_to_server(enrolment, self._server)
        wire_grpc.add_TimeServicer_to_server(TimeServer(), self._server)
        settings = self._settings
        add_port(self._server, settings.address, settings.port, self._state.tls_folder)
        try:
            self._start_ray()
            self._server.start()
            self._state.daemon.tell_ready()
            say(f"head at {settings.address}:{settings.port}, Ray at port {settings.ray_port}")
            while not self._stop.wait(_WATCH_EVERY_S):
                self._watch_ray()
        finally:
            self._server.stop(grace=0.5).wait()
            if self._ray:
                self._ray.stop()

    def _where(self) -> tuple[str, str]:
        """Session and address of Ray's head; empty while it is not there."""
        settings = self._settings
        where = joined_address(settings.address, settings.ray_port)
        return self._session, where if self._session else ""

    def _start_ray(self) -> None:
        settings = self._settings
        self._ray = RayProcesses.head(
            address=settings.address,
            port=settings.ray_port,
            environment=self._state.ray_environment(),
            log=self._state.folder / "ray.log",
        )
        self._ray.wait_started(self._stop.wait)
        self._session = secrets.token_hex(8)

    def _watch_ray(self) -> None:
        if self._ray and self._ray.alive:
            return
        self._session = ""
        say("Ray's head died; it is started again, and every node joins it anew")
        if self._ray:
            self._ray.stop()
            self._ray = None
        try:
            self._start_ray()
        except EnvironmentLacks as error:
            say(str(error))
            self._stop.wait(_RESTART_PAUSE_S)


def run_head(state: HeadState) -> None:
    """Be the head until told to stop."""
    state.daemon.hold()
    try:
        HeadDaemon(state, state.daemon.stop_event()).run()
    finally:
        state.daemon.release()


def main() -> None:
    """The daemon's process: everything it needs is in the state folder."""
    log_failed_handshakes()
    try:
        run_head(HeadState())
    except (EnvironmentLacks, UserError) as error:
        say(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
