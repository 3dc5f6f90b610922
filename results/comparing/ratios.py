"""What may be said across systems: ratios only, side by side.

RSS, working set and commit count different things, and two machines differ in more than their
system. What each configuration makes of its own baseline, on the same machine, can stand beside
each other; nothing is tested or pooled across node classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from results.comparing.compare import Comparison, Row, Table
from results.comparing.trimming import TRIMMED
from results.metrics import METRICS
from results.statistics.interval import Interval

LABELS: Final = {
    "initial_resident": "initial resident memory",
    "peak_resident": "peak resident memory",
    "peak_limited": "peak, as a limit counts",
}
"""Kinds whose metrics have a name of their own on each system."""

TOLD: Final = (
    "initial_resident", "peak_resident", "initial_commit", "peak_commit", "peak_limited",
    "gc_cpu_share", "cpu_cores", "latency_p50", "latency_p99", "throughput", "binary_size",
)  # fmt: skip
"""The kinds that are printed; the SQL view has all."""

ACROSS_SYSTEMS: Final = (
    "Only ratios may be compared across systems: each is a configuration's figure divided by its "
    "baseline's, on the same machines. RSS, working set and commit count different things, so "
    "their sizes never stand side by side, and no verdict spans two systems."
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A configuration's figure per its baseline's on one node class; 0.5 is half as much."""

    row: Row
    interval: Interval

    @property
    def text(self) -> str:
        """As in `0.53 (0.50 … 0.57)`; the bounds are left out where there are none."""
        low, high = self.interval.low, self.interval.high
        bounds = f" ({low:.2f} … {high:.2f})" if low > 0 and high < float("inf") else ""
        trimmed = f" {TRIMMED}" if self.row.verdict.endswith(TRIMMED) else ""
        return f"{self.interval.estimate:.2f}{bounds}{trimmed}"


@dataclass(frozen=True, slots=True)
class RatioRow:
    """One kind of metric: its ratio on each node class, None where there is none."""

    kind: str
    label: str
    ratios: tuple[Ratio | None, ...]


@dataclass(frozen=True, slots=True)
class RatioTable:
    """One configuration under one workload on all node classes."""

    workload: str
    baseline: str
    candidate: str
    classes: tuple[str, ...]
    rows: tuple[RatioRow, ...]


def ratio_tables(comparison: Comparison) -> tuple[RatioTable, ...]:
    """Ratios side by side; none unless node classes of several systems were measured."""
    if len({table.os for table in comparison.tables}) < 2:
        return ()
    by_subject: dict[tuple[str, str], dict[str, Table]] = {}
    for table in comparison.tables:
        subject = by_subject.setdefault((table.workload, table.candidate), {})
        subject[table.node_class] = table
    return tuple(
        RatioTable(
            workload,
            comparison.settings.baseline,
            candidate,
            comparison.classes,
            tuple(_rows([tables.get(name) for name in comparison.classes])),
        )
        for (workload, candidate), tables in by_subject.items()
    )


def _rows(tables: list[Table | None]) -> Iterator[RatioRow]:
    for kind in TOLD:
        ratios = tuple(_ratio(table, kind) if table else None for table in tables)
        if any(ratios):
            yield RatioRow(kind, LABELS.get(kind) or METRICS[kind].label, ratios)


def _ratio(table: Table, kind: str) -> Ratio | None:
    row = next((row for row in table.rows if row.metric.kind == kind), None)
    if row is None or row.change is None or not row.relative:
        return None
    change = row.change
    return Ratio(row, Interval(1 + change.estimate, 1 + change.low, 1 + change.high))


def plain_ratios(comparison: Comparison) -> list[dict[str, Any]]:
    """The same as JSON, one object for each ratio."""
    return [
        {
            "kind": row.kind,
            "workload": table.workload,
            "configuration": table.candidate,
            "node_class": node_class,
            "metric": ratio.row.metric.name,
            "ratio": ratio.interval.estimate,
            "ratio_low": _finite(ratio.interval.low),
            "ratio_high": _finite(ratio.interval.high),
            "verdict": ratio.row.verdict,
        }
        for table in ratio_tables(comparison)
        for row in table.rows
        for node_class, ratio in zip(table.classes, row.ratios, strict=True)
        if ratio
    ]


def _finite(bound: float) -> float | None:
    """JSON has no infinity; minus infinity is no bound of a ratio either."""
    return bound if 0 <= bound < float("inf") else None
