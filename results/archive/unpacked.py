"""How much memory an Arrow message will take, told by its heads before anything is unpacked.

A few bytes may unpack to gigabytes, and Arrow takes a message's word for how many. A compressed
buffer begins with that length, so the sum is known in advance. The heads are flatbuffers: tables
whose fields are found by a list of offsets.

Formats: https://arrow.apache.org/docs/format/Columnar.html (serialization, buffer compression) and
https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

_BUFFER = struct.Struct("<qq")
_LENGTH = struct.Struct("<q")
_NOT_COMPRESSED = -1
_HEADER, _BUFFERS, _COMPRESSION, _DICTIONARY_DATA = 2, 2, 3, 1
"""Places of fields in `Message`, `RecordBatch` and `DictionaryBatch` (Message.fbs)."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer. What points out of the buffer raises struct.error."""

    data: memoryview
    place: int

    def _number(self, form: str, place: int) -> int:
        if place < 0:
            raise struct.error("an offset points before the buffer")
        (number,) = struct.unpack_from(form, self.data, place)
        return int(number)

    def field(self, number: int) -> int | None:
        """Where a field is; None when the table does not have it."""
        offsets = self.place - self._number("<i", self.place)
        entry = 4 + 2 * number
        if entry >= self._number("<H", offsets):
            return None
        offset = self._number("<H", offsets + entry)
        return self.place + offset if offset else None

    def pointed_to(self, place: int) -> int:
        """What an offset points to."""
        return place + self._number("<I", place)

    def table(self, number: int) -> _Table | None:
        """A field that is a table."""
        place = self.field(number)
        return None if place is None else _Table(self.data, self.pointed_to(place))

    def buffers(self) -> Iterator[tuple[int, int]]:
        """Of a record batch: where each buffer begins in the body, and its length."""
        place = self.field(_BUFFERS)
        if place is None:
            return
        begin = self.pointed_to(place)
        first = begin + 4
        last = first + self._number("<I", begin) * _BUFFER.size
        if last > len(self.data):
            raise struct.error("a list ends behind the buffer")
        yield from _BUFFER.iter_unpack(self.data[first:last])


def unpacked_bytes(data: bytes) -> int:
    """Bytes that all buffers of an Arrow IPC stream have together once they are unpacked.

    Raises ValueError or ArrowException for what is no such stream.
    """
    try:
        return sum(map(_of_message, pa.ipc.MessageReader.open_stream(data)))
    except struct.error as error:
        raise ValueError(f"a message's head can't be read: {error}") from error


def _of_message(message: pa.ipc.Message) -> int:
    if message.type not in ("record batch", "dictionary"):
        return 0
    head = memoryview(message.metadata)
    root = _Table(head, _Table(head, 0).pointed_to(0)).table(_HEADER)
    batch = root.table(_DICTIONARY_DATA) if root and message.type == "dictionary" else root
    if batch is None:
        raise ValueError("a message has no head")
    body = memoryview(message.body)
    is_compressed = batch.field(_COMPRESSION) is not None
    lengths = [
        _unpacked(body, begin, length) if is_compressed and length else length
        for begin, length in batch.buffers()
    ]
    if min(lengths, default=0) < 0:
        raise ValueError("a buffer's length is below nothing")
    return sum(lengths)


def _unpacked(body: memoryview, begin: int, length: int) -> int:
    """Of one buffer, compressed or left as it was because that is shorter."""
    if begin < 0:
        raise ValueError("a buffer begins before its message")
    (unpacked,) = _LENGTH.unpack_from(body, begin)
    return length if unpacked == _NOT_COMPRESSED else int(unpacked)
