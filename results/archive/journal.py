"""The batches of one stream as they came, one after the other, until their trial is sealed.

A frame is a head of 56 bytes (`HGJ1`, rows, sequence number, length, SHA-256) and the message's
bytes, an Arrow IPC stream of one batch. Nothing is changed or encoded anew, so a batch costs the
collector little more than the disk. After a crash every whole frame is taken over; what does not
have its digest was never acknowledged, and ends the journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from results.files import sync_folder

SUFFIX: Final = ".journal"
_HEAD: Final = struct.Struct("<4sIQQ32s")
_MAGIC: Final = b"HGJ1"


class Frame(NamedTuple):
    """One batch as it came."""

    sequence: int
    rows: int
    digest: bytes
    data: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes in a journal."""
        return _HEAD.size + len(self.data)


def frames(path: Path, *, start_bytes: int = 0, after: int = 0) -> Iterator[Frame]:
    """Every whole frame of a journal in its order, up to the first that is not.

    Whoever read it before goes on at `start_bytes`, behind the frame with number `after`.
    """
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size
        file.seek(start_bytes)
        for expected in itertools.count(after + 1):
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            magic, rows, sequence, length, digest = _HEAD.unpack(head)
            # A torn head must not claim all the memory that its length asks for.
            if magic != _MAGIC or sequence != expected or length > whole:
                return
            data = file.read(length)
            if hashlib.sha256(data).digest() != digest:
                return
            yield Frame(sequence, rows, digest, data)


class Journal:
    """A growing journal. One thread appends; another may make sure meanwhile that it is on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if is_new:
            sync_folder(path.parent)
        self._end = 0
        self._safe_end = 0
        self._sync_failed = False
        self._is_open = True

    def recover(self) -> Iterator[Frame]:
        """What is there already; what comes after the last whole frame is cut off."""
        for frame in frames(self._path):
            self._end += frame.size_bytes
            yield frame
        os.ftruncate(self._descriptor, self._end)
        self.sync()

    def append(self, frame: Frame) -> None:
        """Write a frame whole, or not at all. Raises OSError."""
        data = memoryview(frame.data)
        head = _HEAD.pack(_MAGIC, frame.rows, frame.sequence, len(data), frame.digest)
        try:
            self._write(memoryview(head))
            self._write(data)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(head) + len(data)

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def sync(self) -> bool:
        """Return when everything appended so far is on disk; False when it was let go of before.

        Raises OSError; nothing may be appended after that.
        """
        with self._lock:
            if not self._is_open:
                return False
            end, descriptor = self._end, os.dup(self._descriptor)
        try:
            if end > self._safe_end:
                os.fdatasync(descriptor)
                self._safe_end = max(end, self._safe_end)
        except OSError:
            self._sync_failed = True
            raise
        finally:
            os.close(descriptor)
        return True

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of the file, with all that is surely on disk.

        After a sync that failed the system takes what it could not write for written, so that is
        cut off: it is not acknowledged, and comes again.
        """
        with contextlib.suppress(OSError):
            if not self._sync_failed:
                self.sync()
        with self._lock, contextlib.suppress(OSError):
            if self._is_open and self._sync_failed:
                os.ftruncate(self._descriptor, self._safe_end)
        self.close()
