"""Reading several pipes in one thread, until all of them have ended."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import sys
import threading
from collections.abc import Iterable

READ_BYTES = 65_536
CLOSE_TIMEOUT_S = 0.5

Chunk = tuple[int, bytes]
"""A descriptor and what came from it; nothing at its end."""


class SelectedPipes:
    """Pipes read by one thread when there is something. Owns the descriptors."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._descriptors = tuple(descriptors)
        self._selector = selectors.DefaultSelector()
        for descriptor in self._descriptors:
            if sys.platform != "win32":
                os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)

    @property
    def open(self) -> bool:
        """Whether any pipe has not ended."""
        return bool(self._selector.get_map())

    def read(self, timeout_s: float) -> list[Chunk]:
        """What has come, waiting for it at most so long."""
        chunks = []
        for key, _ in self._selector.select(timeout_s):
            data = _read_ready(key.fd)
            if data is not None:
                chunks.append((key.fd, data))
            if data == b"":
                self._selector.unregister(key.fd)
        return chunks

    def close(self) -> None:
        """Close all descriptors."""
        self._selector.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _read_ready(descriptor: int) -> bytes | None:
    """What is there; nothing at the end, None when there was nothing after all."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class ThreadedPipes:
    """Pipes with a thread each, which closes it: Windows can't wait for several."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(descriptor,), name="pipe", daemon=True)
            for descriptor in descriptors
        ]
        self._left = len(self._threads)
        for thread in self._threads:
            thread.start()

    def _run(self, descriptor: int) -> None:
        data = b"begin"
        while data:
            try:
                data = os.read(descriptor, READ_BYTES)
            except OSError:
                data = b""  # broken: its other end was closed
            self._chunks.put((descriptor, data))
        os.close(descriptor)

    @property
    def open(self) -> bool:
        """Whether any pipe has not ended."""
        return self._left > 0

    def read(self, timeout_s: float) -> list[Chunk]:
        """What has come, waiting for it at most so long."""
        chunks: list[Chunk] = []
        with contextlib.suppress(queue.Empty):
            chunks.append(self._chunks.get(timeout=timeout_s))
            while True:
                chunks.append(self._chunks.get_nowait())
        self._left -= sum(not data for _, data in chunks)
        return chunks

    def close(self) -> None:
        """Wait a moment for the threads; a pipe that is held open is closed when it ends."""
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)


if sys.platform == "win32":
    Pipes = ThreadedPipes
else:
    Pipes = SelectedPipes
