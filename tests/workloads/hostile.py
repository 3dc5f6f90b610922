"""An HTTP server that answers with any bytes it is told to, in any pieces, and may hang up."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httptools

END, RESET, STAY = "end", "reset", "stay"
"""What follows the last piece: an orderly end of the stream, a reset, or nothing."""


@dataclass
class Answer:
    """The pieces of one answer and the pause before each, in seconds."""

    pieces: list[bytes]
    then: str = STAY
    pause_s: float = 0.0


@dataclass
class Hostile:
    """Answers the n-th request that it gets with the n-th script; `requests` are their bytes."""

    port: int = 0
    scripts: queue.SimpleQueue[Answer] = field(default_factory=queue.SimpleQueue)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will(self, *pieces: bytes, then: str = STAY, pause_s: float = 0.0) -> None:
        self.scripts.put(Answer(list(pieces), then, pause_s))

    def forget(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self.scripts.get_nowait()
        self.requests.clear()

    def serve(self, taken: socket.socket) -> None:
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with taken, contextlib.suppress(OSError, queue.Empty):
            while request := _one_request(taken):
                self.requests.append(request)
                answer = self.scripts.get(timeout=5)
                for piece in answer.pieces:
                    time.sleep(answer.pause_s)
                    taken.sendall(piece)
                if answer.then == RESET:
                    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if answer.then != STAY:
                    return


class _Whole:
    def __init__(self) -> None:
        self.done = False

    def on_message_complete(self) -> None:
        self.done = True


def _one_request(taken: socket.socket) -> bytes:
    whole, data = _Whole(), b""
    parser = httptools.HttpRequestParser(whole)
    while not whole.done:
        piece = taken.recv(65_536)
        if not piece:
            return b""
        data += piece
        try:
            parser.feed_data(piece)
        except httptools.HttpParserError:
            return data
    return data


@contextlib.contextmanager
def hostile_server() -> Iterator[Hostile]:
    """A running server; its threads end with it."""
    server = Hostile()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.port = listening.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    server.connections += 1
                    threading.Thread(target=server.serve, args=(taken,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)
