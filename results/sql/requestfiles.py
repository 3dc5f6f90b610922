"""A trial's files of requests for what is counted outside SQL: few columns, batch by batch.

One trial is read at a time on each core. Either form of the table is read (`results/schema.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.archive.rowfiles import RowFiles
from results.record import TrialRecord
from results.sql.deadline import NEVER, Deadline
from results.streams import table_of

ABREAST_ROWS_MAX: Final = 20_000_000
"""Of larger trials only one is read at a time: each row takes 8 bytes, or 16, until its trial is
done."""

_COLUMNS: Final = (
    "intended_ns", "start_ns", "lag_ns", "phase", "latency_ns", "service_ns", "error"
)  # fmt: skip
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class TrialFiles:
    """A trial and its undamaged files of requests."""

    record: TrialRecord
    paths: tuple[Path, ...]
    deadline: Deadline = NEVER
    """Until when they may be read."""

    @property
    def rows(self) -> int:
        """How many requests it has at most, of all phases."""
        told = self.record.rows.items()
        return sum(n for name, n in told if table_of(name).table == "requests")

    def batches(self) -> Iterator[Batch]:
        """Its requests, some at a time.

        Raises OSError or ArrowException, UserError when its time is over.
        """
        span = next((span for span in self.record.phases if span.name == "measure"), None)
        for path in self.paths:
            behind_ns = self.record.clock_behind_ns(table_of(path.stem).part)
            measure = (span.start_ns - behind_ns, span.end_ns - behind_ns) if span else None
            for rows in _read(path):
                self.deadline.check()
                yield Batch(rows, measure)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some requests; `measure` is when that phase began and ended, by the clock of these rows."""

    rows: pa.RecordBatch
    measure: tuple[int, int] | None

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> Numbers:
        """A column of whole numbers; null is 0."""
        column = self.rows.column(name)
        return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy())

    @property
    def latency_ns(self) -> Numbers:
        """From the intended start to the last byte."""
        if "latency_ns" in self.rows.schema.names:
            return self.column("latency_ns")
        return self.column("service_ns") + self.column("lag_ns")

    @property
    def intended_ns(self) -> Numbers:
        """The intended start; in a closed loop the start."""
        if "intended_ns" not in self.rows.schema.names:
            return self.column("start_ns") - self.column("lag_ns")
        planned = self.rows.column("intended_ns")
        start_ns = self.column("start_ns")
        return np.where(planned.is_valid().to_numpy(False), self.column("intended_ns"), start_ns)

    @property
    def failed(self) -> Mask | None:
        """Which of them failed; None for none."""
        error = self.rows.column("error")
        if error.null_count == len(error):
            return None
        failed: Mask = error.is_valid().to_numpy(zero_copy_only=False)
        return failed

    @property
    def measured(self) -> Mask:
        """Which of them belong to phase measure."""
        phase = self.rows.column("phase")
        index = phase.dictionary.index("measure").as_py()
        codes: NDArray[Any] = phase.indices.to_numpy(zero_copy_only=False)
        return np.asarray(codes == index)


def kept(values: NDArray[Any], mask: Mask) -> NDArray[Any]:
    """The values that a mask picks; no copy is made when it picks all."""
    return values if mask.all() else values[mask]


def of_trials(
    files: Mapping[str, Sequence[RowFiles]],
    records: Sequence[TrialRecord],
    deadline: Deadline = NEVER,
) -> list[TrialFiles]:
    """These trials with their files of requests, of all those of an archive."""
    found: dict[tuple[str, str], list[Path]] = {}
    for name, parts in files.items():
        if name.startswith("raw_requests"):
            for trial, _, path in (file for part in parts for file in part.found()):
                key = (trial.record.run_id, trial.record.trial_id)
                found.setdefault(key, []).append(Path(path))
    keys = ((r, (r.run_id, r.trial_id)) for r in records)
    return [TrialFiles(record, tuple(found.get(key, ())), deadline) for record, key in keys]


def each(make: Callable[[TrialFiles], Made], trials: Sequence[TrialFiles]) -> list[Made]:
    """What is made of each trial, in their order; side by side where memory allows."""
    largest = max((trial.rows for trial in trials), default=0)
    with ThreadPoolExecutor(1 if largest > ABREAST_ROWS_MAX else _cores()) as pool:
        try:
            return list(pool.map(make, trials))
        except BaseException:
            # Whoever is told so waits for no other trial than those that are being read.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        names = pa.ipc.open_file(source).schema.names
        fields = [n for n, name in enumerate(names) if name in _COLUMNS]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_file(source, options=options)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
