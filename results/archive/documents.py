"""The documents of an archive as small tables: what each run and each trial says of itself.

One table is made at a time, when it is asked for: a query seldom needs more than two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

from results.archive.archive import RunEntry
from results.judging.trendrows import leaks_table, trends_table
from results.nodes import NODES, node_rows
from results.record import PhasePeak, PhaseSpan, TrialRecord, planned_id

_TEXT: Final = pa.string()
_NUMBER: Final = pa.int64()

_RUNS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "archive": _TEXT,
        "status": _TEXT,
        "service": _TEXT,
        "started_ns": _NUMBER,
        "finished_ns": _NUMBER,
        "heapgate_version": _TEXT,
        "matrix_path": _TEXT,
        "seed": _NUMBER,
        "blocks": _NUMBER,
        "planned": _NUMBER,
    }
)
_TRIALS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "planned_id": _TEXT,
        "block": _NUMBER,
        "position": _NUMBER,
        "attempt": _NUMBER,
        "configuration": _TEXT,
        "baseline": pa.bool_(),
        "workload": _TEXT,
        "node_id": _TEXT,
        "node_class": _TEXT,
        "os": _TEXT,
        "wine": _TEXT,
        "valid": pa.bool_(),
        "counted": pa.bool_(),
        "started_ns": _NUMBER,
        "finished_ns": _NUMBER,
        "measure_start_ns": _NUMBER,
        "measure_end_ns": _NUMBER,
        "gc_traced": pa.bool_(),
        "peak_rss_bytes": _NUMBER,
        "peak_cgroup_bytes": _NUMBER,
        "peak_working_set_bytes": _NUMBER,
        "peak_working_set_from": _TEXT,
        "peak_commit_bytes": _NUMBER,
        "peak_commit_from": _TEXT,
        "peak_job_bytes": _NUMBER,
        "binary_sha256": _TEXT,
        "binary_size_bytes": _NUMBER,
        "go_version": _TEXT,
        "exit_cause": _TEXT,
        "exit_text": _TEXT,
        "sent": _NUMBER,
        "measured": _NUMBER,
        "failed": _NUMBER,
        "lag_p99_ns": _NUMBER,
        "generator_cpu_share": pa.float64(),
        "generators": _NUMBER,
        "clock_offset_ns": _NUMBER,
        "clock_error_ns": _NUMBER,
        "clock_drift_ns": _NUMBER,
        "load_clock_error_ns": _NUMBER,
    }
)
_PHASES: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "phase": _TEXT,
        "start_ns": _NUMBER,
        "end_ns": _NUMBER,
        "cpu_ns": _NUMBER,
    }
)
_VALIDITY: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "configuration": _TEXT,
        "workload": _TEXT,
        "block": _NUMBER,
        "node_class": _TEXT,
        "valid": pa.bool_(),
        "counted": pa.bool_(),
        "level": _TEXT,
        "code": _TEXT,
        "text": _TEXT,
        "remedy": _TEXT,
    }
)
_LIMITS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "trial_id": _TEXT,
        "configuration": _TEXT,
        "name": _TEXT,
        "asked": pa.float64(),
        "read_back": pa.float64(),
        "enforced": pa.bool_(),
        "mechanism": _TEXT,
        "reason": _TEXT,
    }
)
_BUILDS: Final = pa.schema(
    {
        "run_id": _TEXT,
        "configuration": _TEXT,
        "os": _TEXT,
        "sha256": _TEXT,
        "size_bytes": _NUMBER,
        "go_version": _TEXT,
        "build_info": _TEXT,
        "build_flags": _TEXT,
        "commit": _TEXT,
    }
)


def document_tables(
    runs: Sequence[RunEntry], records: Sequence[TrialRecord], counted: set[tuple[str, str]]
) -> dict[str, Callable[[], pa.Table]]:
    """What makes each table, by the table's name."""
    return {
        "raw_runs": lambda: _table(_RUNS, map(_run_row, runs)),
        "raw_builds": lambda: _table(_BUILDS, (row for run in runs for row in _build_rows(run))),
        "raw_trials": lambda: _table(_TRIALS, (_trial_row(r, counted) for r in records)),
        "raw_phases": lambda: _table(_PHASES, (row for r in records for row in _phase_rows(r))),
        "raw_nodes": lambda: _table(NODES, node_rows(records)),
        "raw_validity": lambda: _table(
            _VALIDITY, (row for r in records for row in _validity_rows(r, counted))
        ),
        "raw_limits": lambda: _table(_LIMITS, (row for r in records for row in _limit_rows(r))),
        "raw_trends": lambda: trends_table(records),
        "raw_leaks": lambda: leaks_table(records),
    }


def measure_of(record: TrialRecord) -> PhaseSpan | None:
    """When phase measure of a trial was; None when it did not come to it."""
    return next((span for span in record.phases if span.name == "measure"), None)


def _table(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


def _run_row(run: RunEntry) -> dict[str, Any]:
    return {
        **run.document,
        "archive": str(run.path.parent),
        "planned": len(run.document["planned"]),
    }


def _build_rows(run: RunEntry) -> list[dict[str, Any]]:
    return [
        {
            "configuration": name,
            **build,
            "run_id": run.run_id,
            "build_flags": " ".join(build.get("build_flags") or ()),
        }
        for name, build in run.document["builds"].items()
    ]


def _trial_row(record: TrialRecord, counted: set[tuple[str, str]]) -> dict[str, Any]:
    service = record.spec["service"]
    binary = service["binary"]
    measure = measure_of(record)
    peak = next((peak for peak in record.peaks if peak.phase == "measure"), None)
    load, end, clock = record.load, record.exit, record.clock_offset or {}
    own = {name: getattr(record, name, None) for name in _TRIALS.names}
    return own | {
        "planned_id": planned_id(record.trial_id),
        "counted": (record.run_id, record.trial_id) in counted,
        "measure_start_ns": measure and measure.start_ns,
        "measure_end_ns": measure and measure.end_ns,
        "gc_traced": bool(service["go_runtime"] and record.spec["gc_trace"]),
        "peak_rss_bytes": peak and peak.rss_bytes,
        "peak_cgroup_bytes": peak and peak.cgroup_bytes,
        **_windows_peaks(peak),
        "binary_sha256": binary["sha256"],
        "binary_size_bytes": binary["size_bytes"],
        "go_version": binary["go_version"],
        "exit_cause": end and end.cause,
        "exit_text": end and end.text,
        "sent": load and load.sent,
        "measured": load and load.measured,
        "failed": load and load.failed,
        "lag_p99_ns": load and load.lag_p99_ns,
        "generator_cpu_share": load and load.cpu_share,
        "wine": record.wine,
        "generators": len(record.generators) or 1,
        **{f"clock_{name}": clock.get(name) for name in ("offset_ns", "error_ns", "drift_ns")},
    }


def _windows_peaks(peak: PhasePeak | None) -> dict[str, Any]:
    if peak is None:
        return {}
    (working_set, working_set_from), (commit, commit_from) = peak.working_set, peak.commit
    return {
        "peak_working_set_bytes": working_set,
        "peak_working_set_from": working_set_from,
        "peak_commit_bytes": commit,
        "peak_commit_from": commit_from,
        "peak_job_bytes": peak.job_bytes,
    }


def _phase_rows(record: TrialRecord) -> list[dict[str, Any]]:
    return [
        {
            "run_id": record.run_id,
            "trial_id": record.trial_id,
            "phase": span.name,
            "start_ns": span.start_ns,
            "end_ns": span.end_ns,
            "cpu_ns": span.cpu_ns,
        }
        for span in record.phases
    ]


def _validity_rows(record: TrialRecord, counted: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Each finding of a trial; one row without a finding where there is none."""
    of_trial = _keys(record) | {
        "workload": record.workload,
        "block": record.block,
        "node_class": record.node_class,
        "valid": record.valid,
        "counted": (record.run_id, record.trial_id) in counted,
    }
    own = ("level", "code", "text", "remedy")
    found = [{name: getattr(finding, name) for name in own} for finding in record.findings]
    return [of_trial | row for row in found or [{}]]


def _limit_rows(record: TrialRecord) -> list[dict[str, Any]]:
    own = ("name", "asked", "read_back", "enforced", "mechanism", "reason")
    return [_keys(record) | {name: getattr(limit, name) for name in own} for limit in record.limits]


def _keys(record: TrialRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "trial_id": record.trial_id,
        "configuration": record.configuration,
    }
