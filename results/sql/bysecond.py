"""What a trial's requests were like second by second, counted file by file.

The same figures as `results/views/latency_by_second.sql` and `latency_tenths.sql`, from one sort of
each trial's requests by second and latency. Of service times only one percentile is told, so they
are not sorted but for the values beside it. A test holds both ways against each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.sql.percentiles import quantiles
from results.sql.requestfiles import Batch, Numbers, TrialFiles, each, kept

SECOND_NS: Final = 10**9
SECONDS: Final = pa.schema(
    {
        "run_id": pa.string(),
        "trial_id": pa.string(),
        "configuration": pa.string(),
        "workload": pa.string(),
        "block": pa.int64(),
        "valid": pa.bool_(),
        "second": pa.int64(),
        "requests": pa.int64(),
        "failed": pa.int64(),
        "latency_p50_ns": pa.float64(),
        "latency_p99_ns": pa.float64(),
        "latency_max_ns": pa.int64(),
        "service_p99_ns": pa.float64(),
    }
)
TENTHS: Final = pa.schema(
    {
        "run_id": pa.string(),
        "trial_id": pa.string(),
        "second": pa.int64(),
        "tenth": pa.int64(),
        "requests": pa.int64(),
    }
)
_TIME_BITS: Final = 40
"""A request is a whole number: its second above these bits, its latency below (18 minutes)."""

_SECOND_MAX: Final = 2 ** (62 - _TIME_BITS)


class Unfit(Exception):
    """A time that does not fit, or none at all: the views' own SQL has to count."""


def seconds_tables(trials: Sequence[TrialFiles]) -> tuple[pa.Table, pa.Table]:
    """The rows of the views `latency_by_second` and `latency_tenths` for these trials.

    Raises Unfit, OSError or ArrowException.
    """
    made = [(SECONDS.empty_table(), TENTHS.empty_table()), *each(_of_trial, trials)]
    seconds, tenths = zip(*made, strict=True)
    return pa.concat_tables(seconds), pa.concat_tables(tenths)


def _of_trial(trial: TrialFiles) -> tuple[pa.Table, pa.Table]:
    latencies, service_times, failed = _read(trial)
    rows: dict[str, list[Any]] = {name: [] for name in SECONDS.names[6:]}
    tenths: dict[str, list[Any]] = {name: [] for name in TENTHS.names[2:]}
    for (second, latency_ns), service_ns in zip(_by_second(latencies), service_times, strict=True):
        p50_ns, p99_ns = quantiles(latency_ns, (0.5, 0.99))
        service_p99_ns = _p99(service_ns)
        counts = second, len(latency_ns), failed[second]
        own = (*counts, p50_ns, p99_ns, int(latency_ns[-1]), service_p99_ns)
        for column, value in zip(rows.values(), own, strict=True):
            column.append(value)
        by_tenth = np.diff(np.searchsorted(latency_ns, _BOUNDS), append=len(latency_ns))
        full = np.flatnonzero(by_tenth)
        tenths["second"] += [second] * len(full)
        tenths["tenth"] += full.tolist()
        tenths["requests"] += by_tenth[full].tolist()
    return _with_trial(trial, rows, SECONDS), _with_trial(trial, tenths, TENTHS)


def _with_trial(trial: TrialFiles, own: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    """A table whose first columns are the same in all rows: those of the trial."""
    count = len(own["second"])
    known = {
        name: [getattr(trial.record, name)] * count for name in schema.names if name not in own
    }
    return pa.table(known | own, schema=schema)


def _read(trial: TrialFiles) -> tuple[Numbers, Iterator[Numbers], Counter[int]]:
    """Each request of measure as a number, ascending; the service times of each second, in no
    order; by second, how many failed.
    """
    latencies, services, count = np.empty(trial.rows, np.int64), np.empty(trial.rows, np.int64), 0
    seconds = np.empty(trial.rows, np.int32)
    failed: Counter[int] = Counter()
    for batch in trial.batches():
        measured = batch.measured
        if not measured.any():
            continue
        if batch.measure is None:
            raise Unfit
        second = kept(_seconds(batch, batch.measure[0]), measured)
        if np.abs(second).max() >= _SECOND_MAX:
            raise Unfit
        until = count + len(second)
        latencies[count:until] = _keys(second, kept(batch.latency_ns, measured))
        services[count:until] = kept(batch.column("service_ns"), measured)
        seconds[count:until] = second
        count = until
        if batch.failed is not None:
            failed.update(second[kept(batch.failed, measured)].tolist())
    latencies = latencies[:count]
    latencies.sort()
    return latencies, _grouped(seconds[:count], services[:count]), failed


def _grouped(seconds: NDArray[np.int32], values: Numbers) -> Iterator[Numbers]:
    """The values of each second, the seconds ascending. They come nearly so: quick for timsort."""
    order = np.argsort(seconds, kind="stable")
    ordered = values[order]
    yield from np.split(ordered, np.flatnonzero(np.diff(seconds[order])) + 1) if len(order) else ()


def _p99(values: Numbers) -> float:
    """As of sorted values: only the two that it lies between must stand where they would."""
    place = (len(values) - 1) * 0.99
    around = np.partition(values, (math.floor(place), math.ceil(place)))
    return quantiles(around, (0.99,))[0]


def _keys(second: Numbers, time_ns: Numbers) -> Numbers:
    if time_ns.min() < 0 or time_ns.max() >> _TIME_BITS:
        raise Unfit
    return (second << _TIME_BITS) | time_ns


def _seconds(batch: Batch, begin_ns: int) -> Numbers:
    """Whole seconds since measure began, towards zero as SQL's // has it."""
    since_ns = batch.intended_ns - begin_ns
    seconds = since_ns // SECOND_NS
    if len(seconds) and seconds.min() < 0:
        seconds += (seconds < 0) & (since_ns % SECOND_NS != 0)
    return seconds


def _by_second(keys: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Each second with its times, ascending."""
    seconds = keys >> _TIME_BITS
    changes = np.flatnonzero(np.diff(seconds)) + 1
    for own in np.split(keys, changes):
        if len(own):
            yield int(own[0]) >> _TIME_BITS, own & (2**_TIME_BITS - 1)


def _bounds() -> Numbers:
    """The least latency in each tenth of a decade: the first whole number whose logarithm, as a
    double, reaches it.
    """
    found = [-1]
    for tenth in range(1, math.ceil(_TIME_BITS * math.log10(2) * 10) + 1):
        value = max(1, math.floor(10 ** (tenth / 10)) - 2)
        while math.floor(math.log10(value) * 10) < tenth:
            value += 1
        found.append(value)
    return np.array(found, np.int64)


_BOUNDS: Final = _bounds()
