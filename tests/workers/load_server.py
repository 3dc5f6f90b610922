"""A small real HTTP server in a thread: it counts what it is asked and can stall for a while."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoadServer(ThreadingHTTPServer):
    """Answers any path with two bytes; `/status/503` and the like with that status."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: Counter[str] = Counter()
        self.stall_at: int | None = None
        self.stall_s = 0.0
        self._lock = threading.Lock()
        self._free_at_s = 0.0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def requests(self) -> int:
        with self._lock:
            return self.paths.total()

    def arrived(self, path: str) -> None:
        """Count a request and hold it while the server stalls, as a stop of the world would."""
        with self._lock:
            self.paths[path] += 1
            if self.paths.total() == self.stall_at:
                self._free_at_s = time.monotonic() + self.stall_s
            held_s = self._free_at_s - time.monotonic()
        if held_s > 0:
            threading.Event().wait(held_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoadServer

    def do_GET(self) -> None:
        self.server.arrived(self.path)
        status = int(self.path.removeprefix("/status/")) if "/status/" in self.path else 200
        self.wfile.write(
            b"HTTP/1.1 %d Answer\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
            % status
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def load_server() -> Iterator[LoadServer]:
    """A server that listens on a free port of 127.0.0.1 until the block ends."""
    server = LoadServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
