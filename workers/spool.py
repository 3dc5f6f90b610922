"""The spool: every batch of rows is a file on the node's disk before anything else happens to it.

Layout below the spool's root, for one trial:

    <trial_id>/open.json                       which run and trial it is
    <trial_id>/<stream>/00000001.arrow         one record batch: an Arrow IPC stream
    <trial_id>/<stream>/totals.json            batches, rows and digest so far
    <trial_id>/finish.json, service.log        written last: no more batches will come

A load node's spool of a trial is its part 1, 2 …: its streams are `requests-1`, `requests-2` ….
Several processes of a node that write one table each have a stream: `requests`, `requests.1` ….

A batch appears under its final name by rename, so a reader never sees half of one. The agent
(`workers/agent.py`) sends the files and removes what the collector has on disk. Several processes
may write one trial, each its own streams.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from results.files import put_in_place, remove_folder
from results.schema import TableSchema
from results.streams import stream_of

FLUSH_EVERY_S = 0.5
FLUSH_BYTES = 2 * 2**20
"""Rows in memory that make a batch before its time is over: about 40,000 requests."""

COMPRESSED_FROM_ROWS = 1024
"""Smaller batches are cheaper whole: a sampler must not cost what it measures."""

BATCH_ROWS_MAX = 262_144
STREAM_BYTES_MAX = 4 * 2**30
"""What the spool holds at most of one stream that the collector does not take: further rows are
lost, and counted. That is over 300 million requests."""

COUNT_EVERY_S = 1.0
"""How old a count of what waits for the agent may be: after an hour without it, it takes long."""

WAITING_BYTES_MAX = 64 * 2**20
"""What may wait in memory for a slow disk, where a thread of its own writes."""

END_PATIENCE_S = 10.0
"""For so long a trial's end waits for room on a full disk: the agent makes some, as it sends."""

_END_PAUSE_S = 0.1

LOG_BYTES_MAX = 16 * 2**20
"""A longer service log is cut in the middle: its beginning and its end tell most."""

_COMPRESSION = pa.Codec("zstd", 1)
Columns = Mapping[str, Sequence[Any]]


class StreamWriter:
    """Rows of one table, as batches in files. May be used by several threads.

    Nothing here may stop a measurement: rows for which the disk or the spool has no room, or which
    a slow disk did not take in time, are counted in `lost_rows`, and the trial's totals tell.
    With `in_background` a thread writes, and `write` never waits for a disk.
    """

    def __init__(
        self,
        folder: Path,
        table: TableSchema,
        *,
        bytes_max: int = STREAM_BYTES_MAX,
        in_background: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._schema = table.arrow
        self._files = BatchFiles(folder, bytes_max)
        self._lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._flushed_s = time.monotonic()
        self._lost_in_memory = 0
        self._background = Background(self.flush) if in_background else None
        self._files.write_totals()

    @property
    def rows(self) -> int:
        """Rows in files."""
        return self._files.rows

    @property
    def lost_rows(self) -> int:
        """Rows that are lost, and only counted."""
        return self._files.lost_rows + self._lost_in_memory

    @property
    def totals(self) -> dict[str, Any]:
        """Batches, rows, lost rows and digest so far, also when no disk took them."""
        return self._files.totals | {"lost_rows": self.lost_rows}

    def append(self, columns: Columns) -> None:
        """Add rows as columns of equal length; a nullable column may be left out."""
        self.write(_batch(self._schema, columns))

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch of this table's schema."""
        with self._lock:
            if self._background and self._waiting_bytes >= WAITING_BYTES_MAX:
                self._lost_in_memory += batch.num_rows
                return
            self._waiting.append(batch)
            self._waiting_bytes += batch.nbytes
            due = time.monotonic() - self._flushed_s >= FLUSH_EVERY_S
            if not due and self._waiting_bytes < FLUSH_BYTES:
                return
        if self._background:
            self._background.wake()
        else:
            self.flush()

    def rehearse(self, batch: pa.RecordBatch) -> None:
        """Do what a batch needs, but for the writing, so that the first one takes no longer."""
        for one in _merged(self._schema, [batch, batch]).to_batches():
            _encoded(one)

    def flush(self) -> None:
        """Write what waits; return when it is in files."""
        with self._disk_lock:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the totals once more: there may be room for them by now."""
        if self._background:
            self._background.stop()
        with self._disk_lock:
            self._flush()
            self._files.write_totals()

    def _flush(self) -> None:
        with self._lock:
            self._flushed_s = time.monotonic()
            batches, self._waiting = self._waiting, []
            self._waiting_bytes = 0
            lost, self._lost_in_memory = self._lost_in_memory, 0
            self._files.lost_rows += lost
        if batches or lost:
            self._files.add(_merged(self._schema, batches))


class BatchFiles:
    """The files of one stream, and the account of them. One thread at a time."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._bytes = 0
        self._counted_s = 0.0
        self._digest = hashlib.sha256()
        self._sequence = 0
        self.rows = 0
        self.lost_rows = 0

    def add(self, table: pa.Table) -> None:
        """Write rows as one batch, or as several when they are very many."""
        for batch in table.to_batches(max_chunksize=BATCH_ROWS_MAX):
            self._add(batch)
        self.write_totals()

    def _add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        data = _encoded(batch)
        try:
            if not self._has_room(len(data)):
                raise OSError(f"the spool holds {self._bytes_max} bytes of this stream already")
            _write_whole(self._folder / f"{self._sequence + 1:08d}.arrow", data)
        except OSError:
            self.lost_rows += batch.num_rows
            return
        self._sequence += 1
        self._bytes += len(data)
        self.rows += batch.num_rows
        self._digest.update(hashlib.sha256(data).digest())

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes more may be spooled; what was sent is gone when one looks."""
        now_s = time.monotonic()
        if self._bytes + size > self._bytes_max and now_s - self._counted_s >= FLUSH_EVERY_S:
            self._counted_s = now_s
            self._bytes = _size_of(self._folder)
        return self._bytes + size <= self._bytes_max

    @property
    def totals(self) -> dict[str, Any]:
        """The account of them."""
        return {
            "batches": self._sequence,
            "rows": self.rows,
            "lost_rows": self.lost_rows,
            "digest": self._digest.hexdigest(),
        }

    def write_totals(self) -> None:
        """Leave the account beside the files."""
        try:
            _write_whole(self._folder / "totals.json", json.dumps(self.totals).encode())
        except OSError:
            return  # the next batch says the same and more, and `close` tries again


class Background:
    """A thread that does one thing again whenever it is woken."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._due = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it done soon."""
        self._due.set()

    def stop(self) -> None:
        """Let it finish what it does, and no more."""
        self._stopped = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._stopped:
                return
            self._work()


class Spool:
    """One trial's folder in the spool; part 0 is that of the service's own node.

    With `in_background` threads write: not for a process whose threads are gevent's.
    """

    def __init__(
        self,
        root: Path,
        run_id: str,
        trial_id: str,
        part: int = 0,
        *,
        stream_bytes_max: int = STREAM_BYTES_MAX,
        in_background: bool = False,
    ) -> None:
        self._part = part
        self._stream_bytes_max = stream_bytes_max
        self._in_background = in_background
        self.folder = Path(root) / trial_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writers: dict[str, StreamWriter] = {}
        self._waiting, self._counted_s = 0, 0.0
        opened = self.folder / "open.json"
        if not opened.exists():
            identity = {"run_id": run_id, "trial_id": trial_id, "part": part}
            _write_whole(opened, json.dumps(identity).encode())

    def stream(self, table: TableSchema, process: int = 0) -> StreamWriter:
        """The writer of a process's stream of a table; the same one each time."""
        name = stream_of(table.name, self._part, process)
        if name not in self._writers:
            self._writers[name] = StreamWriter(
                self.folder / name,
                table,
                bytes_max=self._stream_bytes_max,
                in_background=self._in_background,
            )
        return self._writers[name]

    def row_counts(self) -> dict[str, int]:
        """Rows by stream, those of other processes too."""
        for writer in self._writers.values():
            writer.flush()
        return {name: totals["rows"] for name, totals in self.totals().items()}

    def waiting(self) -> int:
        """Batches that the agent has not delivered yet, of all processes; counted every second."""
        now_s = time.monotonic()
        if now_s - self._counted_s >= COUNT_EVERY_S:
            self._counted_s = now_s
            with contextlib.suppress(OSError):  # it is being removed
                self._waiting = sum(1 for _ in self.folder.glob("*/*.arrow"))
        return self._waiting

    def lost_rows(self) -> int:
        """Rows that could not be written here, in all streams."""
        return sum(int(totals["lost_rows"]) for totals in self.totals().values())

    def totals(self) -> dict[str, dict[str, Any]]:
        """Batches, rows, lost rows and digest by stream.

        Of other processes' streams as they noted them last; of our own as they are, because a full
        disk may have had no room for the note.
        """
        noted = {
            path.parent.name: json.loads(path.read_bytes())
            for path in sorted(self.folder.glob("*/totals.json"))
        }
        return noted | {name: writer.totals for name, writer in self._writers.items()}

    def finish(self, record_json: str, log: Path | None, parts: Sequence[int] = ()) -> None:
        """No more batches will come: hand the record, the log and the totals to the agent.

        `parts` are the load nodes' spools that belong to the same trial. Raises OSError when the
        disk is still full after `END_PATIENCE_S`.
        """
        for writer in self._writers.values():
            writer.close()
        if log is not None:
            _once_there_is_room(self.folder / "service.log", _cut(log))
        document = {"totals": self.totals(), "trial_json": record_json, "parts": list(parts)}
        _once_there_is_room(self.folder / "finish.json", json.dumps(document).encode())

    def remove(self) -> None:
        """Forget the trial."""
        remove_folder(self.folder)


def _batch(schema: pa.Schema, columns: Columns) -> pa.RecordBatch:
    rows = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], type=field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _merged(schema: pa.Schema, batches: list[pa.RecordBatch]) -> pa.Table:
    """Batches as one, their dictionaries made one."""
    return pa.Table.from_batches(batches, schema=schema).unify_dictionaries().combine_chunks()


def _encoded(batch: pa.RecordBatch) -> pa.Buffer:
    """A batch as an Arrow IPC stream."""
    compression = _COMPRESSION if batch.num_rows >= COMPRESSED_FROM_ROWS else None
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _size_of(folder: Path) -> int:
    """Bytes of the batches in a folder; the agent removes some meanwhile."""
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat().st_size
    return size


def _write_whole(path: Path, data: bytes | pa.Buffer) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        put_in_place(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _once_there_is_room(path: Path, data: bytes) -> None:
    """Write a file on a disk that may be full, but not for ever."""
    deadline_s = time.monotonic() + END_PATIENCE_S
    while True:
        try:
            return _write_whole(path, data)
        except OSError as error:
            if error.errno != errno.ENOSPC or time.monotonic() >= deadline_s:
                raise
        time.sleep(_END_PAUSE_S)


def _cut(log: Path) -> bytes:
    data = log.read_bytes()
    if len(data) <= LOG_BYTES_MAX:
        return data
    half = LOG_BYTES_MAX // 2
    return data[:half] + b"\n[... cut ...]\n" + data[-half:]
