"""The socket and the life of the server: bind, tell the address, answer until a signal comes."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import uvicorn

from results.archive.archives import find_archives
from results.errors import EnvironmentLacks, UserError
from results.serve.access import Access
from results.serve.app import make_app

LOOPBACK: Final = "127.0.0.1"
_CONNECTIONS_MAX: Final = 128


def serve(
    archives: Sequence[str | Path], address: str, port: int, announce: Callable[[str], None]
) -> None:
    """Answer until SIGINT or SIGTERM; `announce` is called with the URL once it can be opened.

    `archives` are folders or patterns; `port` 0 takes a free one. Raises UserError when there is no
    such archive or address, EnvironmentLacks when the port is taken.
    """
    # A worker has a folder of its own: what is named from here must be found from there.
    named = [Path(os.path.expanduser(name)).absolute() for name in archives]  # noqa: PTH111
    find_archives(named)
    with _bound(address, port) as listener:
        access = Access(listener.getsockname()[1], frozenset({address}))
        config = uvicorn.Config(
            make_app(named, access),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=0,
        )
        server = _Server(config)
        server.when_started = lambda: announce(_url(address, access))
        server.run([listener])


class _Server(uvicorn.Server):
    """Uvicorn ends by the signal that it got; this one has then done its work and returns."""

    when_started: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals that end it, and put back what was there before."""
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if not self.should_exit:
            # Opening a browser may take its time.
            threading.Thread(target=self.when_started, daemon=True).start()


def _bound(address: str, port: int) -> socket.socket:
    try:
        version = ipaddress.ip_address(address).version
    except ValueError as error:
        raise UserError(f"{address!r} is no address; this machine alone is {LOOPBACK}") from error
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    if sys.platform != "win32":
        # On Windows that would let another program have the same port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(_CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise EnvironmentLacks(_why(error, address, port)) from error
    return listener


def _why(error: OSError, address: str, port: int) -> str:
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        state = "in use" if error.errno == errno.EADDRINUSE else "not yours to take"
        return f"port {port} is {state}; name another with --port, or none to get a free one"
    return f"{address} can't be listened on: {error.strerror or os.strerror(error.errno or 0)}"


def _url(address: str, access: Access) -> str:
    parsed = ipaddress.ip_address(address)
    shown = LOOPBACK if parsed.is_unspecified else address
    host = f"[{shown}]" if ":" in shown else shown
    return f"http://{host}:{access.port}/?token={access.token}"
