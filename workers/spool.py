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

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from results.files import put_in_place, remove_folder
from results.schema import TableSchema
from results.streams import stream_of

FLUSH_ROWS = 4096
FLUSH_EVERY_S = 0.5
LOG_BYTES_MAX = 16 * 2**20
"""A longer service log is cut in the middle: its beginning and its end tell most."""

Columns = Mapping[str, Sequence[Any]]


class StreamWriter:
    """Rows of one table, as batches in files. May be used by several threads.

    A disk that is full must not stop a measurement: rows that could not be written are counted in
    `lost_rows`, and the trial's totals tell.
    """

    def __init__(self, folder: Path, table: TableSchema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = table.arrow
        self._lock = threading.Lock()
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._flushed_s = time.monotonic()
        self._digest = hashlib.sha256()
        self._sequence = 0
        self.rows = 0
        self.lost_rows = 0
        self._write_totals()

    def append(self, columns: Columns) -> None:
        """Add rows as columns of equal length; a nullable column may be left out."""
        self.write(_batch(self._schema, columns))

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch of this table's schema."""
        with self._lock:
            self._waiting.append(batch)
            self._waiting_rows += batch.num_rows
            due = time.monotonic() - self._flushed_s >= FLUSH_EVERY_S
            if due or self._waiting_rows >= FLUSH_ROWS:
                self._flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the totals once more: there may be room for them by now."""
        with self._lock:
            self._flush()
            self._write_totals()

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        if not self._waiting_rows:
            return
        batches, self._waiting = self._waiting, []
        rows, self._waiting_rows = self._waiting_rows, 0
        try:
            data = _encoded(self._schema, batches)
            _write_whole(self._folder / f"{self._sequence + 1:08d}.arrow", data)
        except OSError:
            self.lost_rows += rows
            self._write_totals()
            return
        self._sequence += 1
        self.rows += rows
        self._digest.update(hashlib.sha256(data).digest())
        self._write_totals()

    def _write_totals(self) -> None:
        totals = {
            "batches": self._sequence,
            "rows": self.rows,
            "lost_rows": self.lost_rows,
            "digest": self._digest.hexdigest(),
        }
        try:
            _write_whole(self._folder / "totals.json", json.dumps(totals).encode())
        except OSError:
            return  # the next batch says the same and more, and `close` tries again


class Spool:
    """One trial's folder in the spool; part 0 is that of the service's own node."""

    def __init__(self, root: Path, run_id: str, trial_id: str, part: int = 0) -> None:
        self._part = part
        self.folder = Path(root) / trial_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writers: dict[str, StreamWriter] = {}
        opened = self.folder / "open.json"
        if not opened.exists():
            identity = {"run_id": run_id, "trial_id": trial_id, "part": part}
            _write_whole(opened, json.dumps(identity).encode())

    def stream(self, table: TableSchema, process: int = 0) -> StreamWriter:
        """The writer of a process's stream of a table; the same one each time."""
        name = stream_of(table.name, self._part, process)
        if name not in self._writers:
            self._writers[name] = StreamWriter(self.folder / name, table)
        return self._writers[name]

    def row_counts(self) -> dict[str, int]:
        """Rows by stream, those of other processes too."""
        for writer in self._writers.values():
            writer.flush()
        return {name: totals["rows"] for name, totals in self.totals().items()}

    def lost_rows(self) -> int:
        """Rows that could not be written here, in all streams."""
        return sum(int(totals["lost_rows"]) for totals in self.totals().values())

    def totals(self) -> dict[str, dict[str, Any]]:
        """Batches, rows, lost rows and digest by stream, as its writer noted them last."""
        return {
            path.parent.name: json.loads(path.read_bytes())
            for path in sorted(self.folder.glob("*/totals.json"))
        }

    def finish(self, record_json: str, log: Path | None, parts: Sequence[int] = ()) -> None:
        """No more batches will come: hand the record, the log and the totals to the agent.

        `parts` are the load nodes' spools that belong to the same trial.
        """
        for writer in self._writers.values():
            writer.close()
        if log is not None:
            (self.folder / "service.log").write_bytes(_cut(log))
        document = {"totals": self.totals(), "trial_json": record_json, "parts": list(parts)}
        _write_whole(self.folder / "finish.json", json.dumps(document).encode())

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


def _encoded(schema: pa.Schema, batches: list[pa.RecordBatch]) -> bytes:
    """One batch as an Arrow IPC stream, its dictionaries made one."""
    table = pa.Table.from_batches(batches, schema=schema).unify_dictionaries().combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        put_in_place(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _cut(log: Path) -> bytes:
    data = log.read_bytes()
    if len(data) <= LOG_BYTES_MAX:
        return data
    half = LOG_BYTES_MAX // 2
    return data[:half] + b"\n[... cut ...]\n" + data[-half:]
