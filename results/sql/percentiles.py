"""What a trial's requests answered: counts and exact percentiles, counted file by file.

The same figures as `results/views/answers.sql`, for archives so large that the SQL's sort of all
rows at once takes long and much memory: here a request leaves two numbers behind until its trial is
done. A test holds both ways against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.sql.requestfiles import Batch, Numbers, TrialFiles, each, kept

SHARES: Final = tuple(0.5 if i == 6 else 1 - 10 ** (-i / 20) for i in range(81))
"""Which percentiles a trial has, as fractions: twenty for each further nine. Number 6 would be
49.9 % and is the median, number 40 is 99 %, number 60 is 99.9 %."""

ANSWERS: Final = pa.schema(
    {
        "run_id": pa.string(),
        "trial_id": pa.string(),
        "requests": pa.int64(),
        "failed": pa.int64(),
        "succeeded": pa.int64(),
        "latency_ns": pa.list_(pa.float64()),
        "service_ns": pa.list_(pa.float64()),
    }
)
_NARROW_MAX: Final = 2**32

Integers = NDArray[np.integer[Any]]


def answers_table(trials: Sequence[TrialFiles]) -> pa.Table:
    """The rows of the view `answers` for these trials. Raises OSError or ArrowException."""
    made = [row for row in each(_answers_row, trials) if row]
    return pa.Table.from_pylist(made, schema=ANSWERS)


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
    """A growing column of nanoseconds, in four bytes each while all of them fit."""

    values: Integers
    count: int = 0

    @classmethod
    def room_for(cls, rows: int) -> _Values:
        return cls(np.empty(rows, np.uint32))

    def add(self, more: Numbers) -> None:
        if self.values.dtype == np.uint32 and not _narrow(more):
            self.values = self.values.astype(np.int64)
        until = self.count + len(more)
        self.values[self.count : until] = more
        self.count = until

    def quantiles(self) -> list[float] | None:
        """The percentiles; None of nothing. The values are in another order afterwards."""
        own = self.values[: self.count]
        own.sort()
        return quantiles(own, SHARES) if self.count else None


def _narrow(values: Numbers) -> bool:
    # Without a sign, what is below zero is very large: one look is enough.
    return not len(values) or bool(values.view(np.uint64).max() < _NARROW_MAX)


@dataclass(slots=True)
class _Answers:
    """What is known of the requests read so far."""

    latency: _Values
    service: _Values
    seen: int = 0
    requests: int = 0
    failed: int = 0
    succeeded: int = 0

    def add(self, batch: Batch) -> None:
        service_ns, measured, failed = batch.column("service_ns"), batch.measured, batch.failed
        self.seen += len(batch)
        self.requests += int(np.count_nonzero(measured))
        in_time = _in_time(batch, service_ns)
        if failed is not None:
            self.failed += int(np.count_nonzero(failed & measured))
            in_time &= ~failed
        self.succeeded += int(np.count_nonzero(in_time))
        if measured.any():
            self.latency.add(kept(batch.latency_ns, measured))
            self.service.add(kept(service_ns, measured))


def _in_time(batch: Batch, service_ns: Numbers) -> NDArray[np.bool_]:
    """Which of them were answered in measure."""
    if batch.measure is None:
        return np.zeros(len(batch), np.bool_)
    ended_ns = batch.column("start_ns") + service_ns
    return np.asarray((ended_ns >= batch.measure[0]) & (ended_ns < batch.measure[1]))


def _answers_row(trial: TrialFiles) -> dict[str, Any] | None:
    """One trial's row; None where nothing was sent."""
    answers = _Answers(_Values.room_for(trial.rows), _Values.room_for(trial.rows))
    for batch in trial.batches():
        answers.add(batch)
    if not answers.seen:
        return None
    return {
        "run_id": trial.record.run_id,
        "trial_id": trial.record.trial_id,
        "requests": answers.requests,
        "failed": answers.failed,
        "succeeded": answers.succeeded,
        "latency_ns": answers.latency.quantiles(),
        "service_ns": answers.service.quantiles(),
    }
