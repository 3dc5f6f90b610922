"""Places that a notification can be sent to: a webhook, a mail server, one that never answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


@dataclass
class Box:
    """What arrived: the bodies of a webhook, or mails as title and text."""

    port: int = 0
    arrived: list[Any] = field(default_factory=list)


@contextlib.contextmanager
def webhook(status: int = 200) -> Iterator[Box]:
    """A web server that takes JSON and answers with a status."""
    box = Box()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            box.arrived.append(json.loads(self.rfile.read(length)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def mail_server() -> Iterator[Box]:
    """An SMTP server that keeps what it gets."""
    box = Box()

    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
            mail = message_from_bytes(envelope.content, policy=default)
            body = mail.get_body(("plain",))
            assert body is not None
            box.arrived.append({"title": str(mail["Subject"]), "message": body.get_content()})
            return "250 taken"

    class OnAnyPort(Controller):
        def _create_server(self) -> Any:  # it would connect to port 0 to see whether it is there
            return self.loop.create_server(self._factory_invoker, sock=listener)

        def _trigger_server(self) -> None:
            with socket.create_connection(listener.getsockname()):
                pass

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    box.port = listener.getsockname()[1]
    controller = OnAnyPort(Handler(), loop=asyncio.new_event_loop(), hostname="127.0.0.1")
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@contextlib.contextmanager
def silent() -> Iterator[Box]:
    """It takes every connection and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Box(listener.getsockname()[1])


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
