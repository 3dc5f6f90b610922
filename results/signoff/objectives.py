"""What a configuration must hold, and whether it does: PASS, FAIL or CAN'T TELL.

A decision is made on an interval, never on a point. PASS: the whole interval keeps the objective;
FAIL: the whole interval breaks it; else CAN'T TELL, with about how many trials would. Only valid
trials count, but a trial that the service itself spoiled (it died, it hung) is no figure that may
be left out: with one, no objective of its cell passes.

The interval of a limit is that of the median over trials (order statistics), so the statement is
about the typical trial; how many single trials broke the limit is told beside it. The interval of
a change is that of the comparison within blocks. That all objectives hold is claimed only when each
does: such a claim needs no correction for their number (R. Berger, Multiparameter hypothesis
testing and acceptance sampling, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from results.comparing.compare import Comparison, Measurement, Table
from results.judging.leaks import Leak
from results.judging.validity import spoiled_by_node
from results.metrics import (
    METRICS,
    Metric,
    counted,
    format_time,
    format_value,
    metrics_on,
    named_on,
)
from results.record import TrialRecord, planned_id
from results.statistics.interval import Interval
from results.statistics.paired import blocks_at_least, median_interval

if TYPE_CHECKING:
    from results.capacity.archived import Searched

PASS: Final = "PASS"  # noqa: S105 (a word, no password)
FAIL: Final = "FAIL"
CANT_TELL: Final = "CAN'T TELL"
TRIALS_MAX: Final = 1_000
Word = Literal["PASS", "FAIL", "CAN'T TELL"]
Kind = Literal["limit", "change", "no_leak", "capacity"]
Severity = Literal["block", "warn"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One thing to hold, as `text` says it.

    `bound` is in the metric's own unit for a `limit`, which is `at_most` it or at least, and in
    requests per second for a `capacity`, which is at least it. For a
    `change` it is the fraction of the baseline by which the metric may become worse; below zero: by
    which it must become better. Empty `configurations` mean all but the baseline, empty
    `workloads` all.
    """

    text: str
    kind: Kind
    metric: str = ""
    bound: float = 0.0
    at_most: bool = True
    severity: Severity = "block"
    configurations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As JSON: what was written, and nothing that follows from it."""
        return {
            "text": self.text,
            "severity": self.severity,
            "configurations": list(self.configurations),
            "workloads": list(self.workloads),
        }

    def absent(self, configurations: Collection[str], workloads: Collection[str]) -> str:
        """Which of its own names are none of these, in words; empty when all are there."""
        named = (
            ("configuration", self.configurations, configurations),
            ("workload", self.workloads, workloads),
        )
        return ", ".join(
            f"{what} {name!r}" for what, own, known in named for name in own if name not in known
        )


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Where an objective is decided: one configuration under one workload on one node class."""

    os: str
    node_class: str
    workload: str
    configuration: str

    def is_of(self, record: TrialRecord) -> bool:
        """Whether a trial was in it."""
        return self == cell_of(record)


def cell_of(record: TrialRecord) -> Cell:
    """The cell of a trial."""
    return Cell(record.os, record.node_class, record.workload, record.configuration)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of an objective in a cell.

    `interval` is of the figure that decides: of a limit the metric's own, of a change the fraction
    of the baseline by which it is worse. `trials_needed` is about how many in all would tell; None
    where no number up to TRIALS_MAX would, or where it is not a question of number. `rests_on` is
    the search that a capacity was decided by.
    """

    objective: Objective
    cell: Cell
    word: Word
    reason: str
    trials: int = 0
    interval: Interval | None = None
    trials_needed: int | None = None
    rests_on: Searched | None = None

    @property
    def blocks(self) -> bool:
        """Whether it stands in the way."""
        return self.word != PASS and self.objective.severity == "block"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that objectives are decided on.

    `documents` are those of the runs, `searches` those of the capacity, the newest first.
    """

    measurements: Sequence[Measurement]
    tables: Sequence[Table]
    leaks: Sequence[Leak]
    records: Sequence[TrialRecord]
    baseline: str
    confidence: float
    documents: Sequence[Mapping[str, Any]] = ()
    searches: Sequence[Searched] = ()

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        records: Sequence[TrialRecord],
        measurements: Sequence[Measurement],
        documents: Sequence[Mapping[str, Any]] = (),
        searches: Sequence[Searched] = (),
    ) -> Evidence:
        """What was compared, with the trials that it was made of."""
        return cls(
            measurements=measurements,
            tables=comparison.tables,
            leaks=comparison.leaks,
            records=records,
            baseline=comparison.settings.baseline,
            confidence=comparison.settings.confidence,
            documents=documents,
            searches=searches,
        )


def decide(objectives: Sequence[Objective], evidence: Evidence) -> list[Decision]:
    """Every objective in every cell that it is about. Deterministic; at least one for each.

    Of a run that was ended early it is what the whole run would have said (`curtail.py`).
    """
    found = decisions_in(objectives, evidence)
    if any(document.get("stopped_early") for document in evidence.documents):
        from results.signoff.curtail import at_the_end

        return [at_the_end(decision, evidence) for decision in found]
    return found


def decisions_in(objectives: Sequence[Objective], evidence: Evidence) -> list[Decision]:
    """The same by what was measured alone, however much more was planned."""
    cells, spoiled = _cells(evidence), _spoiled(evidence.records)
    found: list[Decision] = []
    for objective in objectives:
        own = [cell for cell in cells if _is_about(objective, cell, cells, evidence.baseline)]
        if not own:
            nowhere = Cell("", "", ", ".join(objective.workloads), "")
            found.append(Decision(objective, nowhere, CANT_TELL, "no trial of this run has it"))
        for cell in own:
            decision = decide_in(objective, cell, evidence, objectives)
            found.append(_without_the_spoiled(decision, spoiled.get(cell, [])))
    return found


def _cells(evidence: Evidence) -> list[Cell]:
    """The cells with any trial, valid or not."""
    return sorted(set(map(cell_of, evidence.records)))


def _is_about(objective: Objective, cell: Cell, cells: Sequence[Cell], baseline: str) -> bool:
    if objective.workloads and cell.workload not in objective.workloads:
        return False
    if objective.kind == "limit" and METRICS[objective.metric] not in metrics_on(cell.os):
        return False
    if objective.configurations:
        return cell.configuration in objective.configurations
    alone = all(other.configuration == baseline for other in cells)
    return alone or cell.configuration != baseline


def _spoiled(records: Iterable[TrialRecord]) -> dict[Cell, list[str]]:
    """Cell → why trials of it are invalid that no repetition made good."""
    valid = {(r.run_id, planned_id(r.trial_id)) for r in records if r.valid}
    reasons: dict[Cell, list[str]] = defaultdict(list)
    for record in records:
        if record.valid or (record.run_id, planned_id(record.trial_id)) in valid:
            continue
        if not spoiled_by_node(record):
            first = next(f.code for f in record.findings if f.level == "invalid")
            reasons[cell_of(record)].append(first)
    return reasons


def _without_the_spoiled(decision: Decision, reasons: Sequence[str]) -> Decision:
    if decision.word != PASS or not reasons:
        return decision
    why = f"{counted(len(reasons), 'trial')} invalid by the service's own doing: {reasons[0]}"
    return replace(decision, word=CANT_TELL, reason=f"{why}; the others keep it")


def decide_in(
    objective: Objective, cell: Cell, evidence: Evidence, objectives: Sequence[Objective] = ()
) -> Decision:
    """One objective in one cell by its figures; `objectives` have the limits of a capacity."""
    undecided = Decision(objective, cell, CANT_TELL, "")
    if objective.kind == "capacity":
        from results.signoff.capacity import decide_capacity

        return decide_capacity(undecided, evidence, objectives)
    if objective.kind == "limit":
        return _limit(undecided, evidence)
    if objective.kind == "change":
        return _change(undecided, evidence)
    return _no_leak(undecided, evidence)


def _limit(undecided: Decision, evidence: Evidence) -> Decision:
    objective, cell = undecided.objective, undecided.cell
    metric = METRICS[objective.metric]
    values = [
        m.value
        for m in evidence.measurements
        if Cell(m.os, m.node_class, m.workload, m.configuration) == cell
        and m.metric == objective.metric
        and m.value is not None
    ]
    if not values:
        return replace(undecided, reason=_absent(metric))
    interval = median_interval(values, evidence.confidence)
    keeps = [v <= objective.bound if objective.at_most else v >= objective.bound for v in values]
    broken = len(values) - sum(keeps)
    worse = interval if objective.at_most else _negated(interval)
    bound = objective.bound if objective.at_most else -objective.bound
    told = f"{format_value(metric, interval.estimate)}{_bounds(metric, interval)}"
    if broken and broken < len(values):
        told += f"; {broken} of {counted(len(values), 'trial')} alone broke it"
    return _by_interval(undecided, worse, bound, len(values), evidence.confidence, told, interval)


def _change(undecided: Decision, evidence: Evidence) -> Decision:
    objective, cell = undecided.objective, undecided.cell
    if cell.configuration == evidence.baseline:
        return replace(undecided, reason="it is the baseline: there is nothing to compare it with")
    own = next((t for t in evidence.tables if _cell_of(t) == cell), None)
    names = named_on(cell.os, [objective.metric])
    row = own.row(names[0]) if own and names else None
    if row is None or row.change is None:
        absent = row.verdict if row else "no block has both sides"
        return replace(undecided, reason=f"{objective.metric}: {absent}")
    higher_is_worse = row.metric.direction == "lower"
    worse = row.change if higher_is_worse else _negated(row.change)
    bound = objective.bound if row.relative else 0.0
    if not row.relative and objective.bound < 0:
        return replace(undecided, trials=row.pairs, reason="no ratio can be made: a value is zero")
    told = _changed(row.change) if row.relative else "no ratio can be made: a value is zero"
    made = _by_interval(undecided, worse, bound, row.pairs, evidence.confidence, told, worse)
    if not row.relative and made.word == FAIL:
        # It did become worse; by which share of zero nobody can say.
        return replace(made, word=CANT_TELL, trials_needed=None)
    return made


def _no_leak(undecided: Decision, evidence: Evidence) -> Decision:
    from results.judging.leaks import NO_LEAK

    cell = undecided.cell
    leak = next(
        (k for k in evidence.leaks
         if Cell(k.os, k.node_class, k.workload, k.configuration) == cell), None,
    )  # fmt: skip
    if leak is None:
        return replace(undecided, reason="no trial was long enough to tell a leak")
    word: Word = FAIL if leak.leaks else PASS if leak.verdict == NO_LEAK else CANT_TELL
    if word == PASS and leak.seconds < undecided.objective.bound:
        asked, had = (format_time(s * 1e9) for s in (undecided.objective.bound, leak.seconds))
        return replace(undecided, reason=f"{leak.text}; measured for {had}, not for {asked}")
    return replace(undecided, word=word, reason=leak.text, trials=leak.trials, interval=leak.slope)


def _by_interval(
    undecided: Decision,
    worse: Interval,
    bound: float,
    trials: int,
    confidence: float,
    told: str,
    shown: Interval,
) -> Decision:
    """`worse` counts upwards: PASS at or below the bound with all of it, FAIL above with all."""
    made = replace(undecided, reason=told, trials=trials, interval=shown)
    if worse.high <= bound:
        return replace(made, word=PASS)
    if worse.low > bound:
        return replace(made, word=FAIL)
    return replace(made, trials_needed=_trials_needed(worse, bound, trials, confidence))


def _trials_needed(worse: Interval, bound: float, trials: int, confidence: float) -> int | None:
    """About how many trials would tell: an interval shrinks with the root of their number."""
    least = blocks_at_least(confidence, 1)
    if not (math.isfinite(worse.low) and math.isfinite(worse.high)):
        return max(least, trials + 1)
    distance = abs(worse.estimate - bound)
    half = worse.high - worse.estimate if worse.estimate <= bound else worse.estimate - worse.low
    if half <= 0 or half > distance * TRIALS_MAX:
        return None
    needed = math.ceil(trials * (half / distance) ** 2) + 1
    return max(least, needed, trials + 1) if needed <= TRIALS_MAX else None


def _negated(interval: Interval) -> Interval:
    return Interval(-interval.estimate, -interval.high, -interval.low)


def _absent(metric: Metric) -> str:
    return f"no valid trial has {metric.label}" + (f" ({metric.absent})" if metric.absent else "")


def _bounds(metric: Metric, interval: Interval) -> str:
    if not math.isfinite(interval.low) or not math.isfinite(interval.high):
        return ", too few trials for an interval"
    low, high = (format_value(metric, value) for value in (interval.low, interval.high))
    return f" ({low} … {high})"


def _changed(change: Interval) -> str:
    told = f"{change.estimate * 100:+.1f} %"
    if not math.isfinite(change.low) or not math.isfinite(change.high):
        return f"{told}, too few blocks for an interval"
    return f"{told} ({change.low * 100:+.1f} … {change.high * 100:+.1f} %)"


def _cell_of(table: Table) -> Cell:
    return Cell(table.os, table.node_class, table.workload, table.candidate)


def blocking(decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Those that stand in the way of a release."""
    return (decision for decision in decisions if decision.blocks)
