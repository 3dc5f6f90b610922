"""Did a trial at a rate hold? By its own figures; what many trials say together is the search's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from results.judging import steady
from results.judging.validity import NODE_FAULTS
from results.metrics import METRICS, format_value
from results.record import TrialRecord
from results.signoff.objectives import Objective

GENERATOR: Final = frozenset({"generator_late", "generator_exhausted", "generator_saturated"})
"""Findings that say that the load generator, not the service, was at its end."""

UNLOADED: Final = frozenset(
    {"interrupted", "not_run", "start_failed", "never_ready", "setting_differs"}
)
"""Findings that have nothing to do with the rate: another one would not help."""

BACKLOG_S: Final = 0.5
"""More requests waiting at the end of measure than at its begin, in seconds of arrivals."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a trial says: `holds` is None when it says nothing of the service."""

    holds: bool | None
    reason: str
    generator_at_its_end: bool = False


def held(
    record: TrialRecord,
    values: Mapping[str, float | None],
    objectives: Sequence[Objective],
    rate_rps: float,
) -> Held:
    """Whether a trial keeps every limit, and its service kept up with what came.

    Limits that were kept only because the trial ended don't hold: latency must not rise in measure,
    and memory must not where memory is limited.
    `values` are the trial's metrics by name. Objectives that are no limits, that only warn, or that
    are about other configurations or workloads are not asked.
    """
    if not record.valid:
        codes = {f.code for f in record.findings if f.level == "invalid"}
        first = next(f.text for f in record.findings if f.level == "invalid")
        if codes <= NODE_FAULTS | GENERATOR | UNLOADED:
            return Held(None, first, generator_at_its_end=bool(codes & GENERATOR))
        return Held(False, first)
    growth = _backlog_growth(record)
    if growth > BACKLOG_S * rate_rps:
        return Held(False, f"{growth:,} more requests waited at the end of measure than before")
    unknown = ""
    asked = [o for o in objectives if is_asked(o, record.configuration, record.workload)]
    for objective in asked:
        metric = METRICS[objective.metric]
        value = values.get(metric.name)
        if value is None:
            unknown = unknown or f"{metric.label}: {metric.absent or 'the trial has none'}"
        elif value > objective.bound if objective.at_most else value < objective.bound:
            return Held(
                False, f"{metric.label} {format_value(metric, value)}, not {objective.text}"
            )
    if rising := _rising(record, asked):
        return Held(False, f"no steady state: {rising}")
    return Held(None, unknown) if unknown else Held(True, "every limit is kept")


def is_asked(objective: Objective, configuration: str, workload: str) -> bool:
    """Whether an objective limits the capacity of a configuration under a workload.

    Throughput is what is searched for, and a search of less would never fail.
    """
    return (
        objective.kind == "limit"
        and objective.severity == "block"
        and objective.metric != "throughput"
        and (not objective.configurations or configuration in objective.configurations)
        and (not objective.workloads or workload in objective.workloads)
    )


def _rising(record: TrialRecord, asked: Sequence[Objective]) -> str:
    """What of that is limited rose all the time, in words; empty when nothing did."""
    units = {METRICS[objective.metric].unit for objective in asked}
    rising = (s for s in record.steady or () if s.unit in units and steady.rises(s))
    return "; ".join(steady.told(series) for series in rising if steady.KINDS[series.series].told)


def _backlog_growth(record: TrialRecord) -> int:
    load = record.load
    if load is None or load.waiting_before is None or load.waiting_after is None:
        return 0
    return load.waiting_after - load.waiting_before
