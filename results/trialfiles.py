"""One trial's Arrow files while they are written, and after a crash.

The files are in the Arrow IPC *file* format, written batch by batch. Without its footer (a crash)
everything after the first 8 bytes is still a valid IPC stream, so every complete batch can be read
back. Each batch carries its sequence number and its SHA-256 as metadata, so the account of what is
on disk survives with it. Format: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from results.schema import TABLES, TableSchema
from results.streams import table_of

_FILE_HEAD_BYTES = 8
"""`ARROW1` and padding; what follows is laid out as a stream."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is on disk of one stream; the digest is that of `StreamTotal` in the wire format."""

    batches: int
    rows: int
    digest: str


class BadBatch(ValueError):
    """A batch that does not fit: not Arrow, another schema, or out of order."""


class TableFile:
    """One growing Arrow file. Dictionaries grow with it, so that all batches share one."""

    def __init__(self, path: Path, table: TableSchema) -> None:
        self._path = path
        self._schema = table.arrow
        # One word from the start: Arrow takes growth from an empty dictionary for a replacement,
        # which the file format does not have.
        self._words: dict[str, dict[str | None, int]] = {
            field.name: {"": 0} for field in self._schema if pa.types.is_dictionary(field.type)
        }
        self._file = path.open("wb")
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._writer = pa.ipc.new_file(self._file, self._schema, options=options)
        self._chain = hashlib.sha256()
        self.batches = 0
        self.rows = 0

    def add(self, sequence: int, data: bytes) -> bool:
        """Append one batch; False when it is there already. Raises BadBatch or OSError."""
        if sequence <= self.batches:
            return False
        if sequence != self.batches + 1:
            raise BadBatch(f"batch {sequence} came after batch {self.batches}")
        batch = _decoded(data, self._schema)
        try:
            self._append(batch, hashlib.sha256(data).digest())
        except pa.ArrowException as error:
            raise BadBatch(f"the batch can't be written: {error}") from error
        return True

    def _append(self, batch: pa.RecordBatch, digest: bytes) -> None:
        columns = [self._shared(field, batch.column(field.name)) for field in self._schema]
        sequence = self.batches + 1
        self._writer.write_batch(
            pa.RecordBatch.from_arrays(columns, schema=self._schema),
            custom_metadata=_marks(sequence, digest),
        )
        self._chain.update(digest)
        self.batches = sequence
        self.rows += batch.num_rows

    def _shared(self, field: pa.Field, column: pa.Array) -> pa.Array:
        """The column with its words numbered by this file's own dictionary."""
        words = self._words.get(field.name)
        if words is None:
            return column
        own = [words.setdefault(word, len(words)) for word in column.dictionary.to_pylist()]
        numbers = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        taken = np.asarray(own, dtype=np.int64)[numbers] if own else np.zeros(len(column), np.int64)
        indices = pa.array(
            taken,
            type=field.type.index_type,
            mask=column.is_null().to_numpy(zero_copy_only=False),
        )
        dictionary = pa.array(list(words), type=field.type.value_type)
        return pa.DictionaryArray.from_arrays(indices, dictionary)

    @property
    def account(self) -> Account:
        """What this file holds."""
        return Account(self.batches, self.rows, self._chain.hexdigest())

    def sync(self) -> None:
        """Return when everything written so far is on disk."""
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Complete the file: its footer, and each dictionary whole instead of piece by piece.

        Growing dictionaries are within the format, and readers that go through a file in order
        manage them. pyarrow's datasets read batches in parallel and crash on them.
        """
        self._writer.close()
        self.sync()
        self._file.close()
        whole = self._path.with_suffix(".whole")
        try:
            self._copy_whole(whole)
        except OSError:
            whole.unlink(missing_ok=True)
            raise
        whole.replace(self._path)

    def _copy_whole(self, target: Path) -> None:
        dictionaries = {
            name: pa.array(list(words), type=pa.string()) for name, words in self._words.items()
        }
        copied = 0
        with target.open("wb") as file:
            with pa.ipc.new_file(file, self._schema) as writer:
                for copied, (batch, digest) in enumerate(salvaged_batches(self._path), 1):
                    columns = [
                        pa.DictionaryArray.from_arrays(column.indices, dictionaries[name])
                        if name in dictionaries
                        else column
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    ]
                    writer.write_batch(
                        pa.RecordBatch.from_arrays(columns, schema=self._schema),
                        custom_metadata=_marks(copied, digest),
                    )
            file.flush()
            os.fdatasync(file.fileno())
        if copied != self.batches:
            raise OSError(f"{self._path}: batch {copied + 1} can't be read back")

    def abandon(self) -> None:
        """Close without a footer: the file stays salvageable."""
        with contextlib.suppress(OSError):
            self._file.close()


def _marks(sequence: int, digest: bytes) -> dict[str, str]:
    return {"sequence": str(sequence), "sha256": digest.hex()}


def recover(path: Path, table: TableSchema) -> TableFile:
    """Open a file that a crash left, with every complete batch in it, ready to grow on."""
    left = path.with_suffix(".left")
    if not left.exists():
        path.rename(left)
    file = TableFile(path, table)
    for batch, digest in salvaged_batches(left):
        if not batch.schema.equals(table.arrow):
            file.abandon()
            raise BadBatch(f"{path.name} was begun by another release")
        file._append(batch, digest)
    file.sync()
    left.unlink()
    return file


def salvaged_batches(path: Path) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """Every complete batch of a file with or without footer, and the digest that it came with."""
    with path.open("rb") as file:
        file.seek(_FILE_HEAD_BYTES)
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                batch, metadata = reader.read_next_batch_with_custom_metadata()
                yield batch, bytes.fromhex(metadata[b"sha256"].decode())
        except (pa.ArrowInvalid, OSError, StopIteration):
            return


def salvaged_table(path: Path) -> pa.Table:
    """All complete rows of a file that a crash left."""
    schema = TABLES[table_of(path.stem)[0]].arrow
    return pa.Table.from_batches([b for b, _ in salvaged_batches(path)], schema=schema)


def _decoded(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    try:
        with pa.ipc.open_stream(data) as reader:
            if not reader.schema.equals(schema):
                raise BadBatch("the batch has another schema than this table")
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise BadBatch(f"not an Arrow batch: {error}") from error
    if len(batches) != 1:
        raise BadBatch(f"one record batch is wanted, {len(batches)} came")
    return batches[0]
