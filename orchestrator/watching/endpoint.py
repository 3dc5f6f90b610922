"""The server that answers a scraper, in the process of the run and never in its way.

It answers on threads of the lowest priority, few at a time, and gives up a client that does not
ask or does not read. There is nothing to change through it: it knows one path, for reading.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from orchestrator.watching.board import Board
from results.errors import EnvironmentLacks, UserError

VARIABLE: Final = "HEAPGATE_METRICS"
PATH: Final = "/metrics"
PATIENCE_S: Final = 5.0
"""A client that is silent for so long is given up."""

CLIENTS_MAX: Final = 8
"""More at a time are turned away."""

LOWEST: Final = 19
Answer = Callable[..., Iterable[bytes]]


@contextmanager
def serve_metrics(address: str | None) -> Iterator[Board | None]:
    """Answer at `ADDRESS:PORT` (else $HEAPGATE_METRICS) while it lasts; None without an address.

    Raises UserError for what is no address, EnvironmentLacks where it can't be listened on.
    """
    address = address or os.environ.get(VARIABLE)
    if not address:
        yield None
        return
    from prometheus_client import CollectorRegistry, make_wsgi_app

    from orchestrator.watching.exposition import Exposition

    board = Board()
    registry = CollectorRegistry()
    registry.register(Exposition(board))
    host, port = parsed(address)
    server = _bound(host, port)
    server.set_app(_only_metrics(make_wsgi_app(registry), host))
    thread = threading.Thread(target=_serve, args=(server,), name="metrics", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        server.shutdown()
        server.server_close()


def parsed(address: str) -> tuple[str, int]:
    """Address and port of `127.0.0.1:9464`, `[::1]:9464`. Raises UserError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        number = int(port) if port.isascii() and port.isdigit() else -1
        ipaddress.ip_address(host)
    except ValueError:
        number = -1
    if not 0 < number < 65536:
        raise UserError(
            f"{address!r} is no address to serve metrics at; write 127.0.0.1:9464, or another "
            "address of this machine to let others ask too"
        )
    return host, number


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CLIENTS_MAX
    # On Windows that would let another program have the same port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._places = threading.Semaphore(CLIENTS_MAX)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, and ask no name server who we are, as the library would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, self.allow_reuse_address)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one client."""
        try:
            _yield_to_others()
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""


def _serve(server: _Server) -> None:
    _yield_to_others()
    server.serve_forever(poll_interval=0.2)


def _yield_to_others() -> None:
    """This thread alone gets the processor last: on Linux each has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)


def _bound(host: str, port: int) -> _Server:
    try:
        return _Server(host, port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            state = "in use" if error.errno == errno.EADDRINUSE else "not yours to take"
            text = f"port {port} for metrics is {state}; name another with --metrics {host}:PORT"
        else:
            text = f"metrics can't be served at {host}: {error.strerror or error}"
        raise EnvironmentLacks(text) from error


def _only_metrics(answer: Answer, host: str) -> Answer:
    """One path; on loopback only by a name of this machine.

    Else a page in this machine's browser could have its own name resolve to it (DNS rebinding).
    """

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        refused = ""
        if environ["PATH_INFO"] != PATH:
            refused = "404 Not Found"
        elif ipaddress.ip_address(host).is_loopback and not _is_here(environ.get("HTTP_HOST", "")):
            refused = "403 Forbidden"
        if refused:
            start(refused, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{refused}; live metrics are at {PATH}\n".encode()]
        try:
            return answer(environ, start)
        except Exception:  # the library would print its traceback into the run's own words
            start("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"the metrics could not be read; the run goes on\n"]

    return app


def _is_here(name: str) -> bool:
    host = name.rsplit(":", 1)[0] if not name.endswith("]") else name
    host = host.removeprefix("[").removesuffix("]")
    try:
        return not host or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
