"""What the page shows, asked of the archive by SQL: each query beside its answer.

The text of a query that the page shows is the very text that was run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from results.archive.archive import RunEntry
from results.comparing.compare import Comparison
from results.record import TrialRecord
from results.report.course import Course
from results.sql.database import Database

QUERIES: Final = (
    "comparison",
    "ratios",
    "memory_over_time",
    "commit_over_time",
    "phase_spans",
    "memory_by_trial",
    "memory_marks",
    "gc_cycles",
    "latency_percentiles",
    "latency_over_time",
    "latency_heat_map",
    "gc_cost",
    "profile_stacks",
    "profile_functions",
    "limits",
    "findings",
    "steadiness",
    "trials",
    "builds",
)
POINTS_MAX: Final = 8_000
"""Points of one chart: what a browser draws at once without delay."""
SLICES: Final = (16, 400)
"""Fewest and most slices of a chart's time; 400 is about two pixels each."""
STEPS_MAX: Final = 240
"""Columns of the heat maps of all configurations together."""

Panel = tuple[str, str]
"""(node class, workload): what shares a chart."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A query as it was run, and its rows."""

    sql: str
    rows: pa.Table

    def of(self, panel: Panel) -> pa.Table:
        """The rows of one panel."""
        node_class, workload = panel
        mask = pc.and_(
            pc.equal(self.rows["node_class"], node_class), pc.equal(self.rows["workload"], workload)
        )
        return self.rows.filter(mask)


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the page is made from; two of the same archive are equal."""

    run: RunEntry
    records: tuple[TrialRecord, ...]
    comparison: Comparison
    answers: dict[str, Answer]
    notes: tuple[str, ...]
    course: Course | None = None
    """The other runs of the service; None when there are none."""

    @property
    def panels(self) -> list[Panel]:
        """What was measured together, in one order."""
        return sorted({(record.node_class, record.workload) for record in self.records})

    def system_of(self, panel: Panel) -> str:
        """The system of a panel's node class: linux or windows."""
        return next((r.os for r in self.records if r.node_class == panel[0]), "linux")

    @property
    def configurations(self) -> list[str]:
        """The baseline first, the others as the matrix has them."""
        planned = self.run.document["planned"]
        builds = self.run.document["builds"].items()
        built = [str(build.get("configuration") or name) for name, build in builds]
        in_order = dict.fromkeys([*built, *_names(planned)])
        used = _names(planned) | {record.configuration for record in self.records}
        baseline = self.comparison.settings.baseline
        return [baseline, *(name for name in in_order if name in used and name != baseline)]


def _names(planned: Sequence[dict[str, Any]]) -> set[str]:
    return {str(trial["configuration"]) for trial in planned}


def read_report(database: Database) -> ReportData:
    """Ask a database of one run everything."""
    (run,) = database.runs
    values = _values(run, database.records)
    answers = {}
    for name in QUERIES:
        sql = Template(query_text(name)).substitute(values)
        answers[name] = Answer(sql, database.query(sql))
    # Damage is among the comparison's warnings already.
    notes = tuple(note for note in database.notes if note not in database.damage)
    return ReportData(run, database.records, database.comparison(), answers, notes)


def query_text(name: str) -> str:
    """A query with its comments, its blanks not filled in."""
    return (resources.files("results.report") / "queries" / f"{name}.sql").read_text("utf-8")


def _values(run: RunEntry, records: Sequence[TrialRecord]) -> dict[str, str]:
    """What fills the blanks: the run, and how coarse a chart has to be."""
    by_panel: dict[Panel, int] = {}
    for record in records:
        panel = record.node_class, record.workload
        by_panel[panel] = by_panel.get(panel, 0) + 1
    trials = max(by_panel.values(), default=1)
    configurations = len({record.configuration for record in records}) or 1
    measured_s = max((_measure_s(record) for record in records), default=1.0)
    least, most = SLICES
    return {
        "run": "'" + run.run_id.replace("'", "''") + "'",
        "buckets": str(min(max(POINTS_MAX // (2 * trials), least), most)),
        "step_s": str(max(1, math.ceil(measured_s * configurations / STEPS_MAX))),
    }


def _measure_s(record: TrialRecord) -> float:
    spans = [span for span in record.phases if span.name == "measure"]
    return max(((span.end_ns - span.start_ns) / 1e9 for span in spans), default=0.0)
