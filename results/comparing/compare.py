"""Default against optimised: one table for each workload, node class and candidate.

A trial is one observation; comparison is within blocks, and a block is on one node: neither two
node classes nor two nodes of a class are ever paired. Only valid trials are compared; the others
are listed with their reasons. The verdict words are: better, worse, no difference shown,
equivalent (±margin), invalid (why); beside them `trimmed, not saved` (`trimming.py`),
`needs N blocks` where no test could decide and `n/a (why)` where no trial has the figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from results.metrics import METRICS, Metric, metrics_on, named_on
from results.statistics.interval import Interval
from results.statistics.paired import (
    PairedShift,
    blocks_at_least,
    blocks_for,
    equivalent,
    holm,
    paired_shift,
    sign_flip_p,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from results.judging.leaks import Leak

BlockKey = tuple[str, int]
PairKey = tuple[str, int, str, str]
"""Run, number of the block, group of nodes, node: what two trials share that may be paired."""

Contrast = tuple[str, str]
"""Two configurations: the second is compared with the first."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one valid trial. A block is known by its run and number, and by its place.

    `place` is the group of nodes and the node; `os` is the system of the node class.
    """

    block: BlockKey
    node_class: str
    workload: str
    configuration: str
    metric: str
    value: float | None
    """None: the trial can't tell."""
    place: tuple[str, str] = ("", "")
    os: str = "linux"

    @property
    def pair(self) -> PairKey:
        """What the other half of a pair has too."""
        return *self.block, *self.place


@dataclass(frozen=True, slots=True)
class Settings:
    """How to decide; from the run's document.

    `primary` are metrics as the matrix names them: on a system that lacks one, its counterpart
    decides (`results.metrics.named_on`). A margin is no such promise: it says which change of that
    very figure does not matter to the user. The counterpart counts other pages, so a margin holds
    for the metric that it names and for no other.
    """

    baseline: str
    confidence: float = 0.95
    primary: tuple[str, ...] = ("peak_rss",)
    margins: dict[str, float] = field(default_factory=dict)

    @property
    def alpha(self) -> float:
        """The error level."""
        return 1 - self.confidence

    def decides(self, metric: Metric, system: str) -> bool:
        """Whether a metric is primary on a system."""
        return metric.name in named_on(system, self.primary)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: medians over blocks, the change, and what can be said of it.

    `change` is a fraction of the baseline when `relative`, else a difference in the metric's unit.
    `more_blocks` is about how many blocks would show a change of this size. `values` are those of
    either side where nothing is paired, `differences` those of the pairs: of logarithms when
    `relative`.
    """

    metric: Metric
    baseline: float | None
    candidate: float | None
    change: Interval | None
    relative: bool
    p: float | None
    p_adjusted: float | None
    pairs: int
    primary: bool
    verdict: str
    more_blocks: int | None = None
    values: tuple[int, int] = (0, 0)
    differences: tuple[float, ...] = ()

    @property
    def open(self) -> bool:
        """Whether nothing can be said of it."""
        return self.verdict.startswith(("needs", "invalid", "n/a"))


@dataclass(frozen=True, slots=True)
class Table:
    """One candidate against the baseline, under one workload on one node class.

    `nodes` are those of its pairs: the machines on which something was compared.
    """

    workload: str
    node_class: str
    baseline: str
    candidate: str
    rows: tuple[Row, ...]
    blocks: int
    """Blocks in which both have a valid trial."""
    os: str = "linux"
    nodes: tuple[str, ...] = ()

    def row(self, name: str) -> Row | None:
        """The row of a metric."""
        return next((row for row in self.rows if row.metric.name == name), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tables of the compared runs, and everything to know beside them.

    `planned` are the blocks planned for a node class, `wine` the version where one ran under it.
    `missing` is what was planned and has no table.
    """

    run_ids: tuple[str, ...]
    service: str
    settings: Settings
    planned_blocks: int
    tables: tuple[Table, ...]
    descriptions: dict[str, str]
    builds: dict[str, str]
    invalid: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    planned: dict[str, int] = field(default_factory=dict)
    wine: dict[str, str] = field(default_factory=dict)
    leaks: tuple[Leak, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def worse(self) -> list[str]:
        """The figures that decide and are worse."""
        return [name for name, row in self._deciding if row and row.verdict == "worse"]

    @property
    def undecided(self) -> list[str]:
        """The figures that decide and have no verdict, and what is not compared at all."""
        told = [f"{name}: {row.verdict}" for name, row in self._deciding if row and row.open]
        none = [f"{name}: no such figure" for name, row in self._deciding if row is None]
        return [*told, *none, *self.missing]

    @property
    def _deciding(self) -> Iterator[tuple[str, Row | None]]:
        """What decides in each table, by name; None where the table lacks it."""
        for table in self.tables:
            for name in named_on(table.os, self.settings.primary):
                what = f"{METRICS[name].label} of {table.candidate} under {table.workload}"
                yield what, table.row(name)

    def planned_on(self, node_class: str) -> int:
        """The blocks that a node class should have measured."""
        return self.planned.get(node_class, self.planned_blocks)

    @property
    def classes(self) -> tuple[str, ...]:
        """The node classes of the tables, in their order."""
        return tuple(dict.fromkeys(table.node_class for table in self.tables))

    @property
    def measured(self) -> bool:
        """Whether any trial was carried out, valid or not."""
        return bool(self.tables or self.invalid)

    @property
    def blocks_needed(self) -> int:
        """The fewest blocks with which every primary contrast can get a verdict."""
        return blocks_at_least(self.settings.confidence, self._contrasts)

    @property
    def _contrasts(self) -> int:
        return max(1, sum(row.primary for table in self.tables for row in table.rows))


TableKey = tuple[str, str, str, str, str]
"""System, node class, workload, what is compared with, candidate."""


@dataclass(slots=True)
class _Pairs:
    """The paired values of one metric of one candidate."""

    table: TableKey
    metric: Metric
    values: list[tuple[float, float]]
    nodes: set[str]
    measured: bool
    """Whether any trial has the metric."""
    primary: bool

    @property
    def relative(self) -> bool:
        """Whether ratios make sense: nothing is zero or less."""
        return all(a > 0 and b > 0 for a, b in self.values)

    @property
    def differences(self) -> list[float]:
        """Log ratios, or plain differences where there are zeros."""
        if self.relative:
            return [math.log(b / a) for a, b in self.values]
        return [b - a for a, b in self.values]


def compare(
    measurements: Iterable[Measurement],
    settings: Settings,
    working_set_limited: Collection[str] = (),
    contrasts: Mapping[str, Sequence[Contrast]] | None = None,
) -> tuple[Table, ...]:
    """Compare every configuration with the baseline. Pure: the same input, the same output.

    `working_set_limited` are the configurations that asked for a limit of their working set.
    `contrasts` are those of each system to compare instead; p is corrected over all of them.
    """
    from results.comparing.trimming import marked

    cells = _cells(measurements)
    pairs = list(_paired(cells, settings, contrasts))
    shifts = [paired_shift(p.differences, settings.confidence) if p.values else None for p in pairs]
    adjusted = _adjusted(pairs, shifts)
    family = sum(p.primary for p in pairs)
    rows: dict[TableKey, list[Row]] = defaultdict(list)
    nodes: dict[TableKey, set[str]] = defaultdict(set)
    for pair, shift, p_adjusted in zip(pairs, shifts, adjusted, strict=True):
        rows[pair.table].append(_row(pair, shift, p_adjusted, settings, family))
        nodes[pair.table] |= pair.nodes
    return tuple(
        Table(
            workload=workload,
            node_class=node_class,
            baseline=baseline,
            candidate=candidate,
            rows=marked(made, limited=candidate in working_set_limited),
            blocks=max((row.pairs for row in made), default=0),
            os=system,
            nodes=tuple(sorted(nodes[system, node_class, workload, baseline, candidate])),
        )
        for (system, node_class, workload, baseline, candidate), made in rows.items()
    )


Cells = dict[tuple[str, str, str], dict[str, dict[str, dict[PairKey, float]]]]


def _cells(measurements: Iterable[Measurement]) -> Cells:
    """(system, node class, workload) → configuration → metric → pair → value."""
    cells: Cells = {}
    for m in measurements:
        configurations = cells.setdefault((m.os, m.node_class, m.workload), {})
        metrics = configurations.setdefault(m.configuration, {})
        values = metrics.setdefault(m.metric, {})
        if m.value is not None:
            values[m.pair] = m.value
    return cells


def _paired(
    cells: Cells, settings: Settings, contrasts: Mapping[str, Sequence[Contrast]] | None
) -> Iterable[_Pairs]:
    for (system, node_class, workload), configurations in sorted(cells.items()):
        for baseline, candidate in _asked(system, configurations, settings, contrasts):
            base, metrics = configurations.get(baseline, {}), configurations[candidate]
            for metric in metrics_on(system):
                ours, theirs = base.get(metric.name, {}), metrics.get(metric.name, {})
                sides = [metric.name in side for side in (base, metrics) if side]
                # A side without a hard limit has no headroom that anything could be compared with.
                if not (all(sides) if metric.needs_limit else any(sides)):
                    continue
                common = sorted(ours.keys() & theirs.keys())
                yield _Pairs(
                    table=(system, node_class, workload, baseline, candidate),
                    metric=metric,
                    values=[(ours[key], theirs[key]) for key in common],
                    nodes={node for *_, node in common if node},
                    measured=bool(ours or theirs),
                    primary=settings.decides(metric, system),
                )


def _asked(
    system: str,
    configurations: Collection[str],
    settings: Settings,
    contrasts: Mapping[str, Sequence[Contrast]] | None,
) -> list[Contrast]:
    """What to compare in one cell: each configuration with the baseline, unless told otherwise."""
    if contrasts is None:
        others = sorted(set(configurations) - {settings.baseline})
        return [(settings.baseline, candidate) for candidate in others]
    asked = contrasts.get(system, ())
    return [(a, b) for a, b in asked if a in configurations and b in configurations]


def _adjusted(pairs: Sequence[_Pairs], shifts: Sequence[PairedShift | None]) -> list[float | None]:
    """Holm over the primary contrasts of all tables; the others keep their own p."""
    family = [
        i
        for i, (pair, shift) in enumerate(zip(pairs, shifts, strict=True))
        if pair.primary and shift
    ]
    found = [shift.p if shift else None for shift in shifts]
    corrected = holm([shift.p for i in family if (shift := shifts[i])])
    for index, p in zip(family, corrected, strict=True):
        found[index] = p
    return found


def _row(
    pair: _Pairs,
    shift: PairedShift | None,
    p_adjusted: float | None,
    settings: Settings,
    contrasts: int,
) -> Row:
    primary = pair.primary
    row = Row(
        metric=pair.metric,
        baseline=median(a for a, _ in pair.values) if pair.values else None,
        candidate=median(b for _, b in pair.values) if pair.values else None,
        change=_change(shift.shift, relative=pair.relative) if shift else None,
        relative=pair.relative,
        p=shift.p if shift else None,
        p_adjusted=p_adjusted,
        pairs=len(pair.values),
        primary=primary,
        verdict=_without_pairs(pair),
        differences=tuple(pair.differences),
    )
    if shift is None:
        return row
    family = contrasts if primary else 1
    verdict = _verdict(pair, shift, p_adjusted or 0.0, settings, family)
    more = None
    if verdict == "no difference shown" and primary:
        more = blocks_for(pair.differences, settings.confidence, family)
        # As many as there were did not show it.
        more = max(more, shift.pairs + 1) if more else None
    return replace(row, verdict=verdict, more_blocks=more)


def _without_pairs(pair: _Pairs) -> str:
    """Nothing to compare: no trial has it, or only one side."""
    if pair.measured or not pair.metric.absent:
        return "invalid (no valid pair)"
    return f"n/a ({pair.metric.absent})"


def _change(shift: Interval, *, relative: bool) -> Interval:
    if not relative:
        return shift
    return Interval(*(_expm1(value) for value in (shift.estimate, shift.low, shift.high)))


def _expm1(value: float) -> float:
    """Also for a bound that does not exist: minus infinity stays, it is not -100 %."""
    if value == -math.inf:
        return value
    return math.expm1(value) if value < 700 else math.inf


def _verdict(
    pair: _Pairs, shift: PairedShift, p_adjusted: float, settings: Settings, family: int
) -> str:
    if pair.metric.direction == "none":
        return ""
    least = blocks_at_least(settings.confidence, family)
    if shift.pairs < least:
        return f"needs {least} blocks"
    margin = settings.margins.get(pair.metric.name)
    if margin and pair.relative and _equivalent(pair, margin, settings.confidence):
        return f"equivalent (±{margin * 100:g} %)"
    excludes_zero = shift.shift.low > 0 or shift.shift.high < 0
    if p_adjusted > settings.alpha * (1 + 1e-12) or not excludes_zero:
        return "no difference shown"
    higher = shift.shift.estimate > 0
    return "better" if higher == (pair.metric.direction == "higher") else "worse"


def _equivalent(pair: _Pairs, margin: float, confidence: float) -> bool:
    return equivalent(pair.differences, math.log1p(-margin), math.log1p(margin), confidence)


def comparison_rows(comparison: Comparison) -> pa.Table:
    """The rows of the SQL view `comparison`."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("node_class", pa.string()),
            ("os", pa.string()),
            ("workload", pa.string()),
            ("baseline", pa.string()),
            ("configuration", pa.string()),
            ("metric", pa.string()),
            ("kind", pa.string()),
            ("unit", pa.string()),
            ("baseline_value", pa.float64()),
            ("candidate_value", pa.float64()),
            ("relative", pa.bool_()),
            ("change", pa.float64()),
            ("change_low", pa.float64()),
            ("change_high", pa.float64()),
            ("p", pa.float64()),
            ("p_adjusted", pa.float64()),
            ("p_sign_flip", pa.float64()),
            ("pairs", pa.int64()),
            ("is_primary", pa.bool_()),
            ("verdict", pa.string()),
        ]
    )
    return pa.Table.from_pylist(
        [plain_row(table, row) for table in comparison.tables for row in table.rows], schema
    )


def plain_row(table: Table, row: Row) -> dict[str, Any]:
    """A row as plain values, with what its table says of it."""
    change = row.change
    return {
        "node_class": table.node_class,
        "os": table.os,
        "workload": table.workload,
        "baseline": table.baseline,
        "configuration": table.candidate,
        "metric": row.metric.name,
        "kind": row.metric.kind,
        "unit": row.metric.unit,
        "baseline_value": row.baseline,
        "candidate_value": row.candidate,
        "relative": row.relative,
        "change": change.estimate if change else None,
        "change_low": _finite(change.low) if change else None,
        "change_high": _finite(change.high) if change else None,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "p_sign_flip": sign_flip_p(row.differences),
        "pairs": row.pairs,
        "is_primary": row.primary,
        "verdict": row.verdict,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
