"""The WebSocket user of a scenario: connecting and every round trip are rows.

    from locust import task
    from workloads.websocket_users import WebSocketUser

    class Talker(WebSocketUser):
        @task
        def talk(self):
            with self.connect("/chat") as chat:
                chat.ask("hello", name="hello")

It works in plain Locust too. What is recorded how: docs/scenarios.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import gevent.ssl
from locust import User

from workloads.underway import Requests
from workloads.websocket.connection import Connection, Terms, WebSocketError

__all__ = ["Connection", "WebSocketError", "WebSocketUser"]

SCHEMES: Final = {"http://": "ws://", "https://": "wss://"}


class WebSocketUser(User):
    """A user that makes WebSocket connections. Times are in seconds."""

    abstract = True

    connect_timeout: ClassVar[float] = 10.0
    timeout: ClassVar[float] = 60.0
    """How long an answer is waited for."""

    message_bytes_max: ClassVar[int] = 64 * 2**20
    """A larger message ends the connection, with code 1009."""

    compression: ClassVar[bool] = False
    """Offer permessage-deflate."""

    subprotocols: ClassVar[Sequence[str]] = ()
    headers: ClassVar[Mapping[str, str]] = {}

    verify: ClassVar[bool | str] = True
    """Check the service's certificate; or the path of the authority's own; or not at all."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._requests = Requests(self)
        self._terms = Terms(
            connect_timeout_s=self.connect_timeout,
            timeout_s=self.timeout,
            message_bytes_max=self.message_bytes_max,
            compression=self.compression,
            subprotocols=tuple(self.subprotocols),
            headers=self.headers,
            tls=_context(self.verify),
        )

    def connect(self, url: str = "/", name: str | None = None) -> Connection:
        """A new connection, to a path of the service or a whole address.

        Raises WebSocketError when there is none, ValueError for an address that is none.
        """
        full = f"{(self.host or '').rstrip('/')}{url}" if url.startswith("/") else url
        for plain, own in SCHEMES.items():
            if full.startswith(plain):
                full = own + full.removeprefix(plain)
        return Connection(full, self._requests, self._terms, name or url)


_contexts: dict[bool | str, Any] = {}


def _context(verify: bool | str) -> Any:
    """One for all users: reading certificates takes long."""
    if verify not in _contexts:
        file = verify if isinstance(verify, str) else None
        context = gevent.ssl.create_default_context(cafile=file)
        if verify is False:
            context.check_hostname = False
            context.verify_mode = gevent.ssl.CERT_NONE
        _contexts[verify] = context
    return _contexts[verify]
