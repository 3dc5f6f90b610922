"""The Grafana dashboard of a run, made from a short list of panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN: Final = 'instance=~"$instance"'
"""In every query: the runs that are chosen on top of the dashboard."""

TRIAL: Final = "{{configuration}} {{workload}} {{node}}"
COLUMNS: Final = 24
GRAPH_HEIGHT: Final = 8
STAT_HEIGHT: Final = 4
Query = tuple[str, str]
"""What to ask, with `$` for the choice, and its legend."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `unit` is Grafana's word for it."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 12


def _one(name: str, legend: str = TRIAL) -> Query:
    return f"heapgate_{name}{{$}}", legend


def _rate(name: str, legend: str) -> Query:
    return f"rate(heapgate_{name}{{$}}[$__rate_interval])", legend


PANELS: Final = (
    Panel(
        "Trials done",
        "none",
        (_one("run_done_trials", "done"), _one("run_planned_trials", "planned")),
        "stat",
        5,
    ),
    Panel("Time left", "s", (_one("run_left_seconds", ""),), "stat", 4),
    Panel(
        "Trials that ended",
        "none",
        (
            ("sum by (outcome) (heapgate_run_sealed_trials_total{$})", "{{outcome}}"),
            _one("run_repeated_trials_total", "repeated"),
        ),
        "stat",
        6,
    ),
    Panel(
        "Since it last moved",
        "s",
        (("time() - heapgate_run_last_change_timestamp_seconds{$}", ""),),
        "stat",
        4,
    ),
    Panel("Room for the archive", "bytes", (_one("archive_free_bytes", ""),), "stat", 5),
    Panel(
        "Phase",
        "none",
        (_one("trial_info", "{{configuration}} {{workload}} {{node}}: {{phase}}"),),
        "state-timeline",
        24,
    ),
    Panel(
        "Memory",
        "bytes",
        (
            _one("trial_resident_bytes", f"resident {TRIAL}"),
            _one("trial_cgroup_usage_bytes", f"cgroup {TRIAL}"),
            _one("trial_cgroup_anon_bytes", f"cgroup, anonymous {TRIAL}"),
            _one("trial_commit_bytes", f"commit {TRIAL}"),
            _one("trial_heap_live_bytes", f"heap live {TRIAL}"),
            _one("trial_memory_limit_bytes", f"limit {TRIAL}"),
        ),
    ),
    Panel(
        "Requests",
        "reqps",
        (
            _rate("trial_requests_due_total", f"due {TRIAL}"),
            _rate("trial_requests_total", f"answered {TRIAL}"),
            _rate("trial_requests_failed_total", f"failed {TRIAL}"),
        ),
    ),
    Panel(
        "Latency of the last 10 s", "s", (_one("trial_latency_seconds", "{{quantile}} " + TRIAL),)
    ),
    Panel(
        "Mean latency",
        "s",
        (
            (
                "rate(heapgate_trial_latency_seconds_sum{$}[$__rate_interval])"
                " / rate(heapgate_trial_latency_seconds_count{$}[$__rate_interval])",
                TRIAL,
            ),
        ),
    ),
    Panel("Requests without an answer", "none", (_one("trial_requests_waiting"),)),
    Panel(
        "Processor of the service",
        "none",
        (
            _rate("trial_cpu_seconds_total", f"cores {TRIAL}"),
            _rate("trial_gc_cpu_seconds_total", f"cores for garbage collection {TRIAL}"),
        ),
    ),
    Panel("Garbage collections", "ops", (_rate("trial_gc_cycles_total", TRIAL),)),
    Panel("The generator's own delay", "s", (_one("trial_generator_lag_seconds"),)),
    Panel("The generator's core", "percentunit", (_one("trial_generator_cpu_ratio"),)),
    Panel(
        "Samples",
        "ops",
        (
            _rate("trial_samples_total", f"taken {TRIAL}"),
            _rate("trial_missed_samples_total", f"missed {TRIAL}"),
        ),
    ),
    Panel("Waiting in the spool", "none", (_one("trial_spool_batches"),)),
    Panel("Rows written", "ops", (_rate("archive_rows_total", "{{table}}"),)),
    Panel("Size of the run", "bytes", (_one("archive_size_bytes", ""),)),
    Panel(
        "Reasons for doubt",
        "none",
        (("sum by (level, code) (heapgate_run_findings_total{$})", "{{level}}: {{code}}"),),
        "bargauge",
    ),
)


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "uid": "heapgate-run",
        "title": "Heapgate: a run that goes on",
        "description": "Live metrics of bench run --metrics; docs/watching.md explains each.",
        "tags": ["heapgate"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _instance()]},
        "annotations": {"list": []},
        "panels": list(_placed()),
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _instance() -> dict[str, Any]:
    query = "label_values(heapgate_run_info, instance)"
    return {
        "name": "instance",
        "label": "Run at",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "instance"},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed() -> list[dict[str, Any]]:
    """The panels from left to right, row after row."""
    placed: list[dict[str, Any]] = []
    x = y = height = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + height
        height = STAT_HEIGHT if panel.kind in ("stat", "state-timeline") else GRAPH_HEIGHT
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x += panel.width
    return placed


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if panel.kind == "stat" else {},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.replace("{$}", f"{{{CHOSEN}}}"),
                "legendFormat": legend or "__auto",
            }
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
