"""One stream of a trial at the collector: its journal while it grows, its Arrow file in the end.

A batch is checked when it comes and kept as it came. When the stream is complete, its batches are
merged into large record batches whose words have one numbering, and compressed: a tenth of the
rows' size in memory, and read as fast. Each record batch names the batches that it was made of by
their numbers and digests, so the account that the collector gave can be checked again from the
sealed file. Format: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from results.archive.journal import SUFFIX, Frame, Journal, frames
from results.archive.unpacked import unpacked_bytes
from results.schema import TABLES, TableSchema
from results.streams import table_of

SEALED_ROWS: Final = 131_072
"""Rows of a sealed record batch: more is hardly smaller, and costs its readers memory."""

BATCH_ROWS_MAX: Final = 1_048_576
BATCH_BYTES_MAX: Final = 256 * 2**20
"""Of a batch in memory: a message of a few bytes may unpack to gigabytes."""

_COMPRESSION: Final = pa.Codec("zstd", 1)
"""Higher levels take much longer and gain nothing: most of what is left is noise."""

_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)
"""Streams are handled side by side already; a batch is too small to be shared out."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is on disk of one stream; the digest is that of `StreamTotal` in the wire format."""

    batches: int
    rows: int
    digest: str


class BadBatch(ValueError):
    """A batch that does not fit: not Arrow, another schema, or out of order."""


class TableFile:
    """One stream's growing journal, and the sealed file made of it.

    Batches are added by one thread at a time; `sync` may be called by another meanwhile.
    """

    def __init__(self, path: Path, table: TableSchema) -> None:
        """Open a stream, with what a crashed collector left of it; `path` is the sealed file's."""
        self._path = path
        self._schema = table.arrow
        self._words = Words(self._schema)
        self._chain = hashlib.sha256()
        self._lock = threading.Lock()
        self._closed = False
        self.batches = 0
        self.rows = 0
        self._journal = Journal(path.with_suffix(SUFFIX))
        for frame in self._journal.recover():
            batch = decoded(frame.data, self._schema)
            self._words.learn(batch)
            # A frame's digest is over its data: its head may count other rows after a crash.
            self._count(frame._replace(rows=batch.num_rows))

    def add(self, sequence: int, data: bytes) -> bool:
        """Append one batch; False when it is there already. Raises BadBatch or OSError."""
        with self._lock:
            if self._closed:
                raise BadBatch("the stream was closed meanwhile")
            if sequence <= self.batches:
                return False
            if sequence != self.batches + 1:
                raise BadBatch(f"batch {sequence} came after batch {self.batches}")
            batch = decoded(data, self._schema)
            self._words.learn(batch)
            frame = Frame(sequence, batch.num_rows, hashlib.sha256(data).digest(), data)
            self._journal.append(frame)
            self._count(frame)
        return True

    def _count(self, frame: Frame) -> None:
        self._chain.update(frame.digest)
        self.batches = frame.sequence
        self.rows += frame.rows

    @property
    def account(self) -> Account:
        """What this file holds."""
        return Account(self.batches, self.rows, self._chain.hexdigest())

    def sync(self) -> bool:
        """Return when everything added so far is on disk; False when it was let go of before."""
        return self._journal.sync() or self._closed

    def close(self) -> None:
        """Write the sealed file from the journal. Raises OSError."""
        with self._lock:
            whole = self._path.with_suffix(".whole")
            try:
                self._write_sealed(whole)
            except OSError:
                whole.unlink(missing_ok=True)
                raise
            whole.replace(self._path)
            self._closed = True
            self._journal.close()

    def _write_sealed(self, target: Path) -> None:
        batches = rows = 0
        options = pa.ipc.IpcWriteOptions(compression=_COMPRESSION)
        with target.open("wb") as file:
            with pa.ipc.new_file(file, self._schema, options=options) as writer:
                for parts, marks in self._merged():
                    # The words come first in a file: its first record batch already has them all.
                    whole = self._words.renumbered(parts)
                    writer.write_batch(whole, custom_metadata=_metadata(marks))
                    batches, rows = batches + len(marks), rows + whole.num_rows
            file.flush()
            os.fdatasync(file.fileno())
        if (batches, rows) != (self.batches, self.rows):
            raise OSError(f"{self._path}: batch {batches + 1} can't be read back")

    def _merged(self) -> Iterator[tuple[list[pa.RecordBatch], list[Frame]]]:
        """The journal's batches in groups of at least `SEALED_ROWS`, but for the last."""
        parts: list[pa.RecordBatch] = []
        marks: list[Frame] = []
        rows = 0
        for frame in frames(self._path.with_suffix(SUFFIX)):
            parts.append(_only_batch(frame.data, self._schema))
            marks.append(frame._replace(rows=parts[-1].num_rows, data=b""))
            rows += parts[-1].num_rows
            if rows >= SEALED_ROWS:
                yield parts, marks
                parts, marks, rows = [], [], 0
        if marks:
            yield parts, marks

    def abandon(self) -> None:
        """Let go of it as it surely is on disk; it can be opened again."""
        with self._lock:
            if not self._closed:
                self._journal.abandon()


class Words:
    """The words of a stream's dictionary columns, each once, in the order in which they came."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._known: dict[str, dict[str, None]] = {
            field.name: {} for field in schema if pa.types.is_dictionary(field.type)
        }
        self._last: dict[str, pa.Array] = {}

    def learn(self, batch: pa.RecordBatch) -> None:
        """Remember the words of a batch. Raises BadBatch when there are more than fit."""
        for name, known in self._known.items():
            words = batch.column(name).dictionary
            last = self._last.get(name)
            if last is not None and last.equals(words):
                continue
            new = [w for w in words.to_pylist() if w is not None and w not in known]
            room = 2 ** (self._schema.field(name).type.index_type.bit_width - 1)
            if len(known) + len(new) > room:
                raise BadBatch(f"column {name} has more than {room} different words")
            known.update(dict.fromkeys(new))
            self._last[name] = words

    def renumbered(self, parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        """Batches as one, their words numbered alike."""
        columns = []
        for field in self._schema:
            pieces = [part.column(field.name) for part in parts]
            if field.name in self._known:
                pieces = self._alike(field, pieces)
            columns.append(pa.concat_arrays(pieces))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _alike(self, field: pa.Field, pieces: Sequence[pa.Array]) -> list[pa.Array]:
        words = pa.array(list(self._known[field.name]), field.type.value_type)
        renumbered = []
        for piece in pieces:
            numbers = pc.index_in(piece.dictionary, words).cast(field.type.index_type)
            indices = numbers.take(piece.indices)
            renumbered.append(pa.DictionaryArray.from_arrays(indices, words))
        return renumbered


def salvaged_table(path: Path) -> pa.Table:
    """All complete rows of a journal that a crash left."""
    schema = TABLES[table_of(path.stem).table].arrow
    words = Words(schema)
    batches = [decoded(frame.data, schema) for frame in frames(path)]
    for batch in batches:
        words.learn(batch)
    return pa.Table.from_batches([words.renumbered([b]) for b in batches], schema=schema)


def sealed_account(source: pa.NativeFile, *, decode: bool = True) -> tuple[int, str]:
    """The rows of a sealed file, and the digest of its batches as they once came.

    `decode` unpacks and checks every value; else only the phases are, to count rows. Raises
    ArrowException for a file that is none, ValueError for marks that are none.
    """
    rows, chain = 0, hashlib.sha256()
    names = pa.ipc.open_file(source).schema.names
    few = None if decode or "phase" not in names else [names.index("phase")]
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=few)
    with pa.ipc.open_file(source, options=options) as file:
        for number in range(file.num_record_batches):
            batch, metadata = file.get_batch_with_custom_metadata(number)
            if decode:
                batch.validate(full=True)
            rows += batch.num_rows
            chain.update(bytes.fromhex((metadata or {}).get(b"sha256", b"").decode()))
    return rows, chain.hexdigest()


def _metadata(marks: Sequence[Frame]) -> dict[str, str]:
    return {
        "sequence": f"{marks[0].sequence}-{marks[-1].sequence}",
        "rows": " ".join(str(frame.rows) for frame in marks),
        "sha256": " ".join(frame.digest.hex() for frame in marks),
    }


def decoded(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """A message's one batch, checked to its last value. Raises BadBatch."""
    batch = _only_batch(data, schema)
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise BadBatch(f"not an Arrow batch: {error}") from error
    return batch


def _only_batch(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    try:
        with pa.ipc.open_stream(data, options=_READ) as reader:
            if not reader.schema.equals(schema):
                raise BadBatch("the batch has another schema than this table")
            if unpacked_bytes(data) > BATCH_BYTES_MAX:
                raise BadBatch(f"a batch has at most {BATCH_BYTES_MAX:,} bytes in memory")
            batches = list(reader)
    except BadBatch:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadBatch(f"not an Arrow batch: {error}") from error
    if len(batches) != 1:
        raise BadBatch(f"one record batch is wanted, {len(batches)} came")
    if batches[0].num_rows > BATCH_ROWS_MAX:
        raise BadBatch(f"a batch has at most {BATCH_ROWS_MAX:,} rows")
    return batches[0]
