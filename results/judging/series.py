"""What a trial's memory, collections and latency did over measure, as a few evenly spaced values.

A series has at most `POINTS_MAX` values: medians of a slice of time, or for latency the 99th
percentile of one second or of a few. The rows are read batch by batch and only the columns that are
needed, so a long trial costs little memory: latencies are counted in buckets whose width is a 64th
of a power of two, below 1.6 % of their value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.record import PhaseSpan, TrialRecord
from results.streams import table_of

POINTS_MAX: Final = 60
SAMPLES_PER_POINT: Final = 4
"""A median of fewer samples of memory is hardly smoother than one."""

REQUESTS_PER_POINT: Final = 100
"""Of fewer requests a p99 is the maximum."""

_MANTISSA_KEPT: Final = 46
"""Bits of a double that are dropped: the exponent and 6 bits of the fraction stay."""

_BUCKETS: Final = 50 << (52 - _MANTISSA_KEPT)
"""From one nanosecond to 2^50 ns, 13 days."""

_FIRST_BUCKET: Final = int(np.float64(1.0).view(np.int64)) >> _MANTISSA_KEPT
_MEMORY: Final = {
    "linux": {"rss": "rss_bytes"},
    "windows": {"working_set": "working_set_bytes", "commit": "commit_bytes"},
}
_HEAP: Final = {"heap_goal": "heap_goal_bytes", "heap_live": "heap_live_bytes"}


@dataclass(frozen=True, slots=True)
class Series:
    """Values over seconds since measure began, evenly spaced but for what is missing."""

    name: str
    seconds: NDArray[np.float64]
    values: NDArray[np.float64]


def read_series(folder: Path, record: TrialRecord) -> Iterator[Series]:
    """The series of phase measure that a trial's files have; none when there was no measure.

    Raises OSError or ArrowException for a file that can't be read.
    """
    span = next((span for span in record.phases if span.name == "measure"), None)
    if span is None or span.end_ns <= span.start_ns:
        return
    columns = _MEMORY[record.os]
    samples = _columns(folder / "memory.arrow", "time_ns", *columns.values())
    for name, column in columns.items():
        yield _sliced(name, samples["time_ns"], samples[column], span, SAMPLES_PER_POINT)
    cycles = _columns(folder / "gc.arrow", "time_ns", *_HEAP.values())
    for name, column in _HEAP.items():
        yield _sliced(name, cycles["time_ns"], cycles[column], span, 1)
    yield _latency_p99(folder, record, span)


def _columns(path: Path, *names: str) -> dict[str, NDArray[np.float64]]:
    """Columns of the rows of measure; what is null is not a number."""
    found: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in names}
    for batch, measured in _measured_batches(path, *names):
        for name in names:
            column = _numbers(batch, name)
            found[name].append(column[measured])
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    """A column as doubles: exact up to 2^53, so times are only good to a quarter microsecond."""
    column = batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _measured_batches(
    path: Path, *names: str
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.bool_]]]:
    """Each batch with these columns of a file, and which of its rows belong to measure."""
    if not path.exists():
        return
    # Not mapped: a long trial's pages would all be resident in the collector.
    with pa.OSFile(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
        fields = [n for n, name in enumerate(schema.names) if name in ("phase", *names)]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_file(source, options=options)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            phase = batch.column("phase")
            index = phase.dictionary.index("measure").as_py()
            yield batch, phase.indices.to_numpy(zero_copy_only=False) == index


def _sliced(
    name: str,
    times_ns: NDArray[np.float64],
    values: NDArray[np.float64],
    span: PhaseSpan,
    per_point: int,
) -> Series:
    """The median of each of equal slices of measure; a slice without values is left out."""
    known = ~np.isnan(values)
    times_ns, values = times_ns[known], values[known]
    points = min(POINTS_MAX, len(values) // per_point)
    if not points:
        return Series(name, np.empty(0), np.empty(0))
    width_s = (span.end_ns - span.start_ns) / 1e9 / points
    slices = ((times_ns - span.start_ns) / 1e9 / width_s).astype(np.int64).clip(0, points - 1)
    taken = [(point, values[slices == point]) for point in range(points)]
    full = [(point, float(np.median(own))) for point, own in taken if len(own)]
    seconds = np.array([(point + 0.5) * width_s for point, _ in full])
    return Series(name, seconds, np.array([value for _, value in full]))


def _latency_p99(folder: Path, record: TrialRecord, span: PhaseSpan) -> Series:
    """p99 of the requests of each second, or of each few, by their intended start."""
    width_s = _seconds_per_point(record, span)
    points = int((span.end_ns - span.start_ns) / 1e9 / width_s) if width_s else 0
    counts = np.zeros((points, _BUCKETS), dtype=np.int64)
    for path in sorted(folder.glob("requests*.arrow")) if points else ():
        begin_ns = span.start_ns - record.clock_behind_ns(table_of(path.stem)[1])
        for batch, measured in _measured_batches(
            path, "intended_ns", "start_ns", "lag_ns", "latency_ns", "service_ns"
        ):
            since_ns, latency_ns = _latencies(batch, begin_ns)
            slices = (since_ns / 1e9 // width_s).astype(np.int64)
            inside = measured & (slices >= 0) & (slices < points)
            _count(counts, slices[inside], latency_ns[inside])
    enough = np.flatnonzero(counts.sum(axis=1) >= REQUESTS_PER_POINT)
    values = np.array([_p99(counts[point]) for point in enough])
    seconds = (enough.astype(np.float64) + 0.5) * width_s
    return Series("latency_p99", seconds, values)


def _seconds_per_point(record: TrialRecord, span: PhaseSpan) -> int:
    """Whole seconds with enough requests, at most `POINTS_MAX` of them; 0 when there are none."""
    measured = record.load.measured if record.load else 0
    if not measured:
        return 0
    seconds = (span.end_ns - span.start_ns) / 1e9
    # Half as many again: arrivals are random, and a slice with too few is lost.
    enough = math.ceil(1.5 * REQUESTS_PER_POINT * seconds / measured)
    return max(1, enough, math.ceil(seconds / POINTS_MAX))


def _latencies(
    batch: pa.RecordBatch, begin_ns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intended start since measure began, and latency from it, in either form of the table."""
    names = batch.schema.names
    start_ns = np.asarray(batch.column("start_ns").to_numpy()) - begin_ns
    if "latency_ns" in names:
        intended_ns = _numbers(batch, "intended_ns") - begin_ns
        since_ns = np.where(np.isnan(intended_ns), start_ns, intended_ns)
        return since_ns, _numbers(batch, "latency_ns")
    lag_ns = np.nan_to_num(_numbers(batch, "lag_ns"))
    return start_ns - lag_ns, _numbers(batch, "service_ns") + lag_ns


def _count(counts: NDArray[Any], slices: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Add latencies to the buckets of their slices."""
    width = counts.shape[1]
    buckets = (np.maximum(values, 1.0).view(np.int64) >> _MANTISSA_KEPT) - _FIRST_BUCKET
    places = slices * width + buckets.clip(0, width - 1)
    counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)


def _p99(counts: NDArray[np.int64]) -> float:
    """The middle of the bucket that holds the 99th percentile."""
    rank = math.ceil(0.99 * int(counts.sum()))
    bucket = int(np.searchsorted(np.cumsum(counts), rank)) + _FIRST_BUCKET
    bounds = np.array([bucket << _MANTISSA_KEPT, (bucket + 1) << _MANTISSA_KEPT], dtype=np.int64)
    return float(bounds.view(np.float64).mean())
