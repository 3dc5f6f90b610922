"""What a trial's requests answered: counts and exact percentiles, read file by file.

The same figures as `results/views/answers.sql`, for archives so large that the
SQL's sort of all rows at once takes long and much memory. One trial is read at a time on each core:
only the columns that are needed, batch by batch, and a request leaves two numbers behind. A test
holds both ways against each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from results.record import PhaseSpan, TrialRecord
from results.streams import table_of

SHARES: Final = (0.5, 0.99, 0.999)
"""The percentiles of a trial, as fractions."""

ABREAST_ROWS_MAX: Final = 20_000_000
"""Of larger trials only one is read at a time: each row takes 8 bytes until its trial is done."""

ANSWERS: Final = pa.schema(
    {
        "run_id": pa.string(),
        "trial_id": pa.string(),
        "requests": pa.int64(),
        "failed": pa.int64(),
        "succeeded": pa.int64(),
        "latency": pa.list_(pa.float64()),
        "service": pa.list_(pa.float64()),
    }
)
_COLUMNS: Final = ("start_ns", "lag_ns", "phase", "latency_ns", "service_ns", "error")
_NARROW_MAX: Final = 2**32

Integers = NDArray[np.integer[Any]]


def request_files(
    tables: Mapping[str, pa.Table | ds.Dataset],
) -> dict[tuple[str, str], list[Path]]:
    """The files behind an archive's tables of requests, by run and trial (`results.fragments`)."""
    found: dict[tuple[str, str], list[Path]] = {}
    for name, table in tables.items():
        if name.startswith("raw_requests") and isinstance(table, ds.FileSystemDataset):
            for path in map(Path, table.files):
                run, _, trial, _ = path.parts[-4:]
                found.setdefault((run, trial), []).append(path)
    return found


def answers_table(trials: Sequence[tuple[TrialRecord, Sequence[Path]]]) -> pa.Table:
    """The rows of the view `answers` for these trials, each with its files of requests.

    Raises OSError or ArrowException for a file that can't be read.
    """
    largest = max((sum(_rows_of(record).values()) for record, _ in trials), default=0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(1 if largest > ABREAST_ROWS_MAX else cores or 1) as pool:
        made = list(pool.map(_answers_row, *zip(*trials, strict=True))) if trials else []
    return pa.Table.from_pylist([row for row in made if row], schema=ANSWERS)


def quantiles(ordered: Integers, shares: Sequence[float]) -> list[float]:
    """Percentiles of ascending values as DuckDB's quantile_cont gives them: between two values by
    the straight line, in doubles, the sum rounded once (a fused multiply and add).

    Raises IndexError for no values.
    """
    found = []
    for share in shares:
        place = (len(ordered) - 1) * share
        part = place - math.floor(place)
        low, high = (float(ordered[at(place)]) for at in (math.floor, math.ceil))
        found.append(float(Fraction(low) * Fraction(1 - part) + Fraction(high * part)))
    return found


@dataclass(slots=True)
class _Values:
    """A growing column of nanoseconds in four bytes each while all of them fit."""

    values: Integers
    count: int = 0

    @classmethod
    def room_for(cls, rows: int) -> _Values:
        return cls(np.empty(rows, np.uint32))

    def add(self, more: NDArray[np.int64]) -> None:
        narrow = self.values.dtype == np.uint32
        if narrow and len(more) and not (more.min() >= 0 and more.max() < _NARROW_MAX):
            self.values = self.values.astype(np.int64)
        until = self.count + len(more)
        self.values[self.count : until] = more
        self.count = until

    def quantiles(self) -> list[float] | None:
        """The percentiles; None of nothing. The values are in another order afterwards."""
        own = self.values[: self.count]
        own.sort()
        return quantiles(own, SHARES) if self.count else None


@dataclass(slots=True)
class _Answers:
    """What is known of the requests read so far."""

    latency: _Values
    service: _Values
    seen: int = 0
    requests: int = 0
    failed: int = 0
    succeeded: int = 0

    def add(self, batch: pa.RecordBatch, measure: tuple[int, int]) -> None:
        """Count a batch; `measure` is when that phase began and ended, by its rows' clock."""
        self.seen += batch.num_rows
        service_ns = _column(batch, "service_ns")
        error = batch.column("error")
        failed = None if error.null_count == len(error) else error.is_valid().to_numpy(False)
        ended_ns = _column(batch, "start_ns") + service_ns
        in_time = (ended_ns >= measure[0]) & (ended_ns < measure[1])
        if failed is not None:
            in_time &= ~failed
        self.succeeded += int(np.count_nonzero(in_time))
        measured = _measured(batch)
        if measured is not None and not measured.any():
            return
        latency_ns = _latency(batch, service_ns)
        if measured is not None:
            latency_ns, service_ns = latency_ns[measured], service_ns[measured]
            failed = None if failed is None else failed[measured]
        self.requests += len(service_ns)
        self.failed += 0 if failed is None else int(np.count_nonzero(failed))
        self.latency.add(latency_ns)
        self.service.add(service_ns)


def _answers_row(record: TrialRecord, paths: Sequence[Path]) -> dict[str, Any] | None:
    """One trial's row; None where nothing was sent."""
    span = next((span for span in record.phases if span.name == "measure"), None)
    rows = sum(_rows_of(record).values())
    answers = _Answers(_Values.room_for(rows), _Values.room_for(rows))
    for path in paths:
        measure = _measure(record, span, table_of(path.stem).part)
        for batch in _batches(path):
            answers.add(batch, measure)
    if not answers.seen:
        return None
    return {
        "run_id": record.run_id,
        "trial_id": record.trial_id,
        "requests": answers.requests,
        "failed": answers.failed,
        "succeeded": answers.succeeded,
        "latency": answers.latency.quantiles(),
        "service": answers.service.quantiles(),
    }


def _rows_of(record: TrialRecord) -> dict[str, int]:
    """How many rows each stream of requests has."""
    return {name: n for name, n in record.rows.items() if table_of(name).table == "requests"}


def _measure(record: TrialRecord, span: PhaseSpan | None, part: int) -> tuple[int, int]:
    if span is None:
        return 0, 0
    behind_ns = record.clock_behind_ns(part)
    return span.start_ns - behind_ns, span.end_ns - behind_ns


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        names = pa.ipc.open_file(source).schema.names
        fields = [n for n, name in enumerate(names) if name in _COLUMNS]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_file(source, options=options)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _column(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    """A column of whole numbers; null is 0."""
    column = batch.column(name)
    return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy())


def _measured(batch: pa.RecordBatch) -> NDArray[np.bool_] | None:
    """Which rows belong to phase measure; None for all of them."""
    phase = batch.column("phase")
    index = phase.dictionary.index("measure").as_py()
    of_measure: NDArray[np.bool_] = phase.indices.to_numpy(zero_copy_only=False) == index
    return None if of_measure.all() else of_measure


def _latency(batch: pa.RecordBatch, service_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the intended start, in either form of the table."""
    if "latency_ns" in batch.schema.names:
        return _column(batch, "latency_ns")
    return service_ns + _column(batch, "lag_ns")
