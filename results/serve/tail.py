"""An open trial, read from its journals as they grow: each batch once."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.archive.journal import SUFFIX, frames
from results.archive.trialfiles import BadBatch, decoded
from results.schema import TABLES
from results.streams import table_of

SECOND_NS: Final = 10**9
LATENCY_WINDOW_S: Final = 10
"""Latencies are told of this many seconds: older ones are forgotten."""

GC_CPU: Final = ("cpu_stw_sweep_ns", "cpu_assist_ns", "cpu_background_ns", "cpu_stw_mark_ns")
"""What a collection costs the service; idle workers cost nobody anything."""

TOLD_MAX: Final = 50
"""Events that are kept: the last ones."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that began, and how long it is meant to last."""

    name: str
    start_ns: int
    lasts_s: float | None


@dataclass(slots=True)
class TrialTail:
    """What is known of one open trial; times are its node's own clock."""

    folder: Path
    phases: list[Phase] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    """Warnings and errors: level and text."""

    resident: dict[int, int] = field(default_factory=dict)
    """Second → the most bytes in it."""

    resident_bytes: int | None = None
    requests: Counter[int] = field(default_factory=Counter)
    """Second → requests that were sent in it and have their answer."""

    sent: int = 0
    failed: int = 0
    latency_total_ns: int = 0
    """Of all requests so far."""

    rows: Counter[str] = field(default_factory=Counter)
    """Table → rows that the collector has written; also of tables that nothing else is read of."""

    gc_cycles: int = 0
    gc_cpu_ns: int = 0
    """CPU time of all collections, idle workers left out."""

    heap_live_bytes: int | None = None
    last_ns: int = 0
    problem: str = ""
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _latencies: dict[int, list[NDArray[np.int64]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def update(self) -> None:
        """Read what has come since."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            # It may be sealed, and gone, in this moment.
            with suppress(OSError, KeyError):
                self._read(path, table_of(path.stem).table)
        for second in [s for s in self._latencies if s < self._second - LATENCY_WINDOW_S]:
            del self._latencies[second]

    def _read(self, path: Path, table: str) -> None:
        take = getattr(self, f"_take_{table}", None)
        offset, sequence = self._places.get(path.name, (0, 0))
        try:
            for frame in frames(path, start_bytes=offset, after=sequence):
                if take is not None:
                    take(decoded(frame.data, TABLES[table].arrow))
                offset, sequence = offset + frame.size_bytes, frame.sequence
                self.rows[table] += frame.rows
                self._places[path.name] = offset, sequence
        except BadBatch as error:
            self.problem = f"{path.name} can't be read by this version: {error}"

    def _take_memory(self, batch: pa.RecordBatch) -> None:
        times = _integers(batch, "time_ns")
        names = ("rss_bytes", "working_set_bytes")
        column = next((n for n in names if batch.column(n).null_count < batch.num_rows), names[0])
        known = batch.column(column).is_valid().to_numpy(zero_copy_only=False)
        values = _integers(batch, column)
        for time_ns, value in zip(times[known], values[known], strict=True):
            second = int(time_ns) // SECOND_NS
            self.resident[second] = max(self.resident.get(second, 0), int(value))
            self.resident_bytes = int(value)
        self._seen(times)

    def _take_requests(self, batch: pa.RecordBatch) -> None:
        starts = _integers(batch, "start_ns")
        latencies = _integers(batch, "lag_ns") + _integers(batch, "service_ns")
        seconds = starts // SECOND_NS
        for second in np.unique(seconds):
            own = seconds == second
            self.requests[int(second)] += int(own.sum())
            # Whoever looks for the first time after an hour must not hold all of them.
            if second >= self._second - LATENCY_WINDOW_S:
                self._latencies[int(second)].append(latencies[own])
        self.latency_total_ns += int(latencies.sum())
        self.sent += batch.num_rows
        self.failed += batch.num_rows - batch.column("error").null_count

    def _take_gc(self, batch: pa.RecordBatch) -> None:
        kinds = batch.column("kind").to_pylist()
        self.gc_cycles += kinds.count("cycle")
        self.gc_cpu_ns += sum(int(_integers(batch, name).sum()) for name in GC_CPU)
        live = batch.column("heap_live_bytes").drop_null()
        if len(live):
            self.heap_live_bytes = int(live[-1].as_py())

    def _take_events(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            if row["kind"] == "phase":
                self.phases.append(Phase(str(row["phase"]), row["time_ns"], row["value"]))
            elif row["level"] != "info":
                self.told = [*self.told, (str(row["level"]), str(row["message"]))][-TOLD_MAX:]
        self._seen(_integers(batch, "time_ns"))

    def _seen(self, times: NDArray[np.int64]) -> None:
        if len(times):
            self.last_ns = max(self.last_ns, int(times.max()))

    @property
    def _second(self) -> int:
        return self.last_ns // SECOND_NS

    @property
    def phase_left_s(self) -> float | None:
        """How long the phase still lasts, by the node's clock; None when that is not planned."""
        if not self.phases or self.phases[-1].lasts_s is None:
            return None
        phase = self.phases[-1]
        return max(0.0, (phase.lasts_s or 0.0) - (self.last_ns - phase.start_ns) / 1e9)

    @property
    def rate_rps(self) -> float | None:
        """Requests a second, of three seconds whose answers are nearly all there."""
        if not self.sent:
            return None
        return sum(self.requests[self._second - back] for back in (2, 3, 4)) / 3

    def latency_ns(self, quantile: float, at_least: int = 1) -> float | None:
        """A quantile of the latencies of the last seconds; None of fewer than `at_least`."""
        recent = [piece for pieces in self._latencies.values() for piece in pieces]
        if sum(map(len, recent)) < at_least:
            return None
        return float(np.quantile(np.concatenate(recent), quantile))


def _integers(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    """A column; what is null is 0."""
    return np.asarray(batch.column(name).fill_null(0).to_numpy(zero_copy_only=False))
