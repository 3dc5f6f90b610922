"""The rows of the SQL view `objectives`: what a run's matrix wants held, and whether it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from results.archive.archive import RunEntry
from results.comparing.compare import Comparison, Measurement
from results.record import TrialRecord
from results.signoff.language import objective_from_plain
from results.signoff.objectives import CANT_TELL, Decision, Evidence, decide

if TYPE_CHECKING:
    from results.capacity.archived import Searched

_TEXT, _NUMBER = pa.string(), pa.float64()

OBJECTIVES: Final = pa.schema(
    {
        "objective": _TEXT,
        "kind": _TEXT,
        "severity": _TEXT,
        "node_class": _TEXT,
        "os": _TEXT,
        "workload": _TEXT,
        "configuration": _TEXT,
        "metric": _TEXT,
        "decision": _TEXT,
        "reason": _TEXT,
        "estimate": _NUMBER,
        "low": _NUMBER,
        "high": _NUMBER,
        "trials": pa.int64(),
        "trials_needed": pa.int64(),
    }
)


def objective_rows(
    run: RunEntry,
    comparison: Comparison,
    records: Sequence[TrialRecord],
    measurements: Sequence[Measurement],
) -> pa.Table:
    """Each objective of a run's own document, in each cell that it is about."""
    wanted, rows = [], []
    for plain in run.document.get("objectives") or ():
        try:
            wanted.append(objective_from_plain(plain))
        except (ValueError, KeyError, TypeError) as error:
            rows.append(_unread(plain, error))
    searches = _searches(run, records) if any(o.kind == "capacity" for o in wanted) else ()
    evidence = Evidence.of(comparison, records, measurements, [run.document], searches)
    rows += [_plain(decision) for decision in decide(wanted, evidence)]
    return pa.Table.from_pylist(rows, OBJECTIVES)


def _searches(run: RunEntry, records: Sequence[TrialRecord]) -> Sequence[Searched]:
    from results.capacity.archived import searches_in

    names = {record.configuration for record in records}
    return searches_in(run.path.parent, str(run.document["service"]), names)


def _unread(plain: Any, error: Exception) -> dict[str, Any]:
    """An objective of another version, say: nothing was decided of it."""
    text = plain.get("text") if isinstance(plain, dict) else plain
    return {"objective": str(text), "decision": CANT_TELL, "reason": f"it can't be read: {error}"}


def _plain(decision: Decision) -> dict[str, Any]:
    objective, cell, interval = decision.objective, decision.cell, decision.interval
    return {
        "objective": objective.text,
        "kind": objective.kind,
        "severity": objective.severity,
        "node_class": cell.node_class or None,
        "os": cell.os or None,
        "workload": cell.workload or None,
        "configuration": cell.configuration or None,
        "metric": objective.metric or None,
        "decision": decision.word,
        "reason": decision.reason,
        "estimate": interval and _finite(interval.estimate),
        "low": interval and _finite(interval.low),
        "high": interval and _finite(interval.high),
        "trials": decision.trials,
        "trials_needed": decision.trials_needed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
