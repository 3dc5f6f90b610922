"""Default against optimised: one table for each workload, node class and candidate.

A trial is one observation; comparison is within blocks. Only valid trials are compared; the others
are listed with their reasons. The verdict words are: better, worse, no difference shown,
equivalent (±margin), invalid (why); beside them `needs N blocks` where no test could decide and
`n/a (why)` where no trial has the figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from results.errors import UserError
from results.metrics import METRICS, Metric
from results.record import TrialRecord, planned_id
from results.statistics import (
    Interval,
    PairedShift,
    blocks_at_least,
    blocks_for,
    equivalent,
    holm,
    paired_shift,
)

if TYPE_CHECKING:
    import pyarrow as pa

BlockKey = tuple[str, int]
RESIDUE: Final[dict[str, Callable[[TrialRecord], Any]]] = {
    "kernel": lambda record: record.node.get("kernel"),
    "CPU governor": lambda record: record.node.get("governor"),
    "huge pages": lambda record: record.node.get("huge_pages"),
    "Heapgate's version": lambda record: record.versions.get("heapgate"),
    "Locust's version": lambda record: record.versions.get("locust"),
    "sampling interval": lambda record: record.spec.get("sampling_interval_ns"),
}
"""What may move a figure and is in no column: trials of one table should agree in it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one valid trial. A block is known by its run and number."""

    block: BlockKey
    node_class: str
    workload: str
    configuration: str
    metric: str
    value: float | None
    """None: the trial can't tell."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to decide; from the run's document."""

    baseline: str
    confidence: float = 0.95
    primary: tuple[str, ...] = ("peak_rss",)
    margins: dict[str, float] = field(default_factory=dict)

    @property
    def alpha(self) -> float:
        """The error level."""
        return 1 - self.confidence


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: medians over blocks, the change, and what can be said of it.

    `change` is a fraction of the baseline when `relative`, else a difference in the metric's unit.
    `more_blocks` is about how many blocks would show a change of this size.
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


@dataclass(frozen=True, slots=True)
class Table:
    """One candidate against the baseline, under one workload on one node class."""

    workload: str
    node_class: str
    baseline: str
    candidate: str
    rows: tuple[Row, ...]
    blocks: int
    """Blocks in which both have a valid trial."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tables of the compared runs, and everything to know beside them."""

    run_ids: tuple[str, ...]
    service: str
    settings: Settings
    planned_blocks: int
    tables: tuple[Table, ...]
    descriptions: dict[str, str]
    builds: dict[str, str]
    invalid: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

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


@dataclass(slots=True)
class _Pairs:
    """The paired values of one metric of one candidate."""

    table: tuple[str, str, str]
    metric: Metric
    values: list[tuple[float, float]]
    measured: bool
    """Whether any trial has the metric."""

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


def compare(measurements: Iterable[Measurement], settings: Settings) -> tuple[Table, ...]:
    """Compare every configuration with the baseline. Pure: the same input, the same output."""
    cells = _cells(measurements)
    pairs = list(_paired(cells, settings.baseline))
    shifts = [paired_shift(p.differences, settings.confidence) if p.values else None for p in pairs]
    adjusted = _adjusted(pairs, shifts, settings)
    contrasts = sum(p.metric.name in settings.primary for p in pairs)
    rows: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for pair, shift, p_adjusted in zip(pairs, shifts, adjusted, strict=True):
        rows[pair.table].append(_row(pair, shift, p_adjusted, settings, contrasts))
    return tuple(_table(key, made, settings.baseline) for key, made in rows.items())


def _table(key: tuple[str, str, str], rows: list[Row], baseline: str) -> Table:
    node_class, workload, candidate = key
    blocks = max((row.pairs for row in rows), default=0)
    return Table(workload, node_class, baseline, candidate, tuple(rows), blocks)


Cells = dict[tuple[str, str], dict[str, dict[str, dict[BlockKey, float]]]]


def _cells(measurements: Iterable[Measurement]) -> Cells:
    """(node class, workload) → configuration → metric → block → value."""
    cells: Cells = {}
    for m in measurements:
        configurations = cells.setdefault((m.node_class, m.workload), {})
        metrics = configurations.setdefault(m.configuration, {})
        values = metrics.setdefault(m.metric, {})
        if m.value is not None:
            values[m.block] = m.value
    return cells


def _paired(cells: Cells, baseline: str) -> Iterable[_Pairs]:
    for (node_class, workload), configurations in sorted(cells.items()):
        base = configurations.get(baseline, {})
        for candidate, metrics in sorted(configurations.items()):
            if candidate == baseline:
                continue
            for metric in METRICS.values():
                ours, theirs = base.get(metric.name, {}), metrics.get(metric.name, {})
                if metric.name not in base and metric.name not in metrics:
                    continue
                blocks = sorted(ours.keys() & theirs.keys())
                values = [(ours[block], theirs[block]) for block in blocks]
                yield _Pairs(
                    (node_class, workload, candidate), metric, values, bool(ours or theirs)
                )


def _adjusted(
    pairs: Sequence[_Pairs], shifts: Sequence[PairedShift | None], settings: Settings
) -> list[float | None]:
    """Holm over the primary contrasts of all tables; the others keep their own p."""
    family = [
        i
        for i, (pair, shift) in enumerate(zip(pairs, shifts, strict=True))
        if pair.metric.name in settings.primary and shift
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
    primary = pair.metric.name in settings.primary
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


# From the archive


def comparison_of(
    run_ids: Sequence[str],
    documents: Sequence[dict[str, Any]],
    records: Sequence[TrialRecord],
    measurements: Sequence[Measurement],
) -> Comparison:
    """Everything that is told about some runs of one service.

    Raises UserError for runs that can't be compared: of other services, or with other baselines.
    """
    first = documents[0]
    service = _only_one("services", documents, lambda d: str(d["service"]))
    baseline = _only_one("baselines", documents, _baseline_of)
    asked = first["comparison"]
    settings = Settings(
        baseline=baseline,
        confidence=asked["confidence"],
        primary=tuple(asked["primary"]),
        margins=dict(asked["margins"]),
    )
    return Comparison(
        run_ids=tuple(run_ids),
        service=service,
        settings=settings,
        planned_blocks=sum(d["blocks"] for d in documents),
        tables=compare(measurements, settings),
        descriptions={r.workload: _described(r) for r in records},
        builds=_builds(documents),
        invalid=tuple(_invalid(records)),
        warnings=tuple(_warnings(records)),
    )


def _only_one(
    what: str, documents: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], str]
) -> str:
    """What all runs have in common; it is an error when they differ in it."""
    found = sorted({of(document) for document in documents})
    if len(found) > 1:
        raise UserError(f"these runs can't be compared: they have {what} {' and '.join(found)}")
    return found[0]


def _baseline_of(document: dict[str, Any]) -> str:
    return next(str(t["configuration"]) for t in document["planned"] if t["baseline"])


def _builds(documents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Configuration → what it was built with."""
    return {
        name: str(build.get("go_version") or "")
        for document in documents
        for name, build in document["builds"].items()
    }


def _described(record: TrialRecord) -> str:
    """What traffic a workload is, from what the node was told."""
    load = record.spec["load"]
    scenario = str(load["scenario"]).rpartition("/")[2].removesuffix(".py")
    if load["arrivals"]:
        traffic = f"{load['arrivals']['kind']} {load['arrivals']['rate_rps']:g}/s"
    else:
        traffic = f"{load['users']} users, closed loop"
    seconds = record.spec["phases"]["measure_ns"] / 1e9
    return f"{scenario}, {traffic}, measured for {seconds:g} s"


def _invalid(records: Sequence[TrialRecord]) -> Iterable[tuple[str, str]]:
    repeated = {(r.run_id, planned_id(r.trial_id)) for r in records if r.valid}
    for record in records:
        if not record.valid:
            reasons = "; ".join(f.text for f in record.findings if f.level == "invalid")
            counts = (record.run_id, planned_id(record.trial_id)) in repeated
            yield record.trial_id, f"{reasons} (its repetition counts)" if counts else reasons


def _warnings(records: Sequence[TrialRecord]) -> Iterable[str]:
    """What the tables hide, then each kind of warning once, with how many valid trials have it."""
    yield from _residue([record for record in records if record.valid])
    by_code: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for finding in record.findings if record.valid else []:
            if finding.level == "warning":
                by_code[finding.code].append(finding.text)
    for texts in by_code.values():
        more = "" if len(texts) == 1 else f" (in {len(texts)} trials)"
        yield f"{texts[0]}{more}"


def _residue(records: Sequence[TrialRecord]) -> Iterable[str]:
    """Trials that stand in one table and yet differ in something that it does not show."""
    by_class: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        by_class[record.node_class].append(record)
    for node_class, own in sorted(by_class.items()):
        for what, of in RESIDUE.items():
            found = sorted({str(of(record)) for record in own})
            if len(found) > 1:
                yield f"the trials on {node_class} differ in {what}: {', '.join(found)}"
    builds: dict[str, set[str]] = defaultdict(set)
    for record in records:
        builds[record.configuration].add(record.spec["service"]["binary"]["sha256"][:12])
    for configuration, digests in sorted(builds.items()):
        if len(digests) > 1:
            yield f"{configuration} was measured in several builds: {', '.join(sorted(digests))}"


def comparison_rows(comparison: Comparison) -> pa.Table:
    """The rows of the SQL view `comparison`."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("node_class", pa.string()),
            ("workload", pa.string()),
            ("baseline", pa.string()),
            ("configuration", pa.string()),
            ("metric", pa.string()),
            ("unit", pa.string()),
            ("baseline_value", pa.float64()),
            ("candidate_value", pa.float64()),
            ("relative", pa.bool_()),
            ("change", pa.float64()),
            ("change_low", pa.float64()),
            ("change_high", pa.float64()),
            ("p", pa.float64()),
            ("p_adjusted", pa.float64()),
            ("pairs", pa.int64()),
            ("is_primary", pa.bool_()),
            ("verdict", pa.string()),
        ]
    )
    return pa.Table.from_pylist(
        [_plain(table, row) for table in comparison.tables for row in table.rows], schema
    )


def _plain(table: Table, row: Row) -> dict[str, Any]:
    change = row.change
    return {
        "node_class": table.node_class,
        "workload": table.workload,
        "baseline": table.baseline,
        "configuration": table.candidate,
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "baseline_value": row.baseline,
        "candidate_value": row.candidate,
        "relative": row.relative,
        "change": change.estimate if change else None,
        "change_low": _finite(change.low) if change else None,
        "change_high": _finite(change.high) if change else None,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "pairs": row.pairs,
        "is_primary": row.primary,
        "verdict": row.verdict,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
