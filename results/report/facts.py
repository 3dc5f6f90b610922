"""Validity and provenance of a run as plain rows: may it be believed, and what exactly was run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from results.comparing.compare import Comparison
from results.comparing.ratios import ratio_tables
from results.metrics import format_bytes, format_time
from results.record import TrialRecord
from results.report.data import ReportData
from results.report.forest import minus
from results.report.grid import Grid

_HIDDEN_VARIABLES: Final = ("HEAPGATE_PAD", "HEAPGATE_RUN", "HOME", "LANG", "PATH", "TZ")
"""What every service gets alike says nothing about a configuration."""
_LIMIT_NAMES: Final = {
    "memory_max_bytes": "memory, hard",
    "memory_high_bytes": "memory, soft",
    "cpus": "processors",
    "working_set_max_bytes": "working set",
}


def when(time_ns: int | None) -> str:
    """A time for a person, in UTC."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if time_ns else "–"


def run_facts(data: ReportData) -> list[tuple[str, str]]:
    """What is known of the whole run."""
    document = data.run.document
    counted = sum(bool(value) for value in data.answers["trials"].rows["counted"].to_pylist())
    planned = len(document["planned"])
    return [
        ("run", data.run.run_id),
        ("status", data.run.status),
        ("began (UTC)", when(document["started_ns"])),
        ("ended (UTC)", when(document["finished_ns"])),
        ("trials that count", f"{counted} of {planned} planned"),
        ("blocks", str(document["blocks"])),
        ("seed", str(document["seed"])),
        ("matrix", str(document["matrix_path"])),
        ("versions", _versions(data.records) or f"heapgate {document['heapgate_version']}"),
    ]


def _versions(records: Sequence[TrialRecord]) -> str:
    found = sorted({f"{name} {v}" for record in records for name, v in record.versions.items()})
    return ", ".join(found)


def configuration_grid(data: ReportData) -> Grid:
    """What each configuration asks for, as the services were told."""
    rows = []
    for name in data.configurations:
        for system, build in _builds_of(data, name):
            record = next(
                (r for r in data.records if r.configuration == name and r.os == (system or r.os)),
                None,
            )
            rows.append(_configured(f"{name} ({system})" if system else name, build, record))
    heads = ("configuration", "Go", "environment", "build flags", "size", "SHA-256")
    return Grid("What was run", heads, tuple(rows), frozenset({4}))


def _builds_of(data: ReportData, name: str) -> list[tuple[str, dict[str, Any]]]:
    """The builds of a configuration, by system where there are several."""
    found = [build for own, build in _builds(data) if own == name]
    if len(found) < 2:
        return [("", found[0] if found else {})]
    return [(str(build["os"]), build) for build in found]


def _builds(data: ReportData) -> list[tuple[str, dict[str, Any]]]:
    """All builds with the name of their configuration."""
    builds = data.run.document["builds"].items()
    return [(str(build.get("configuration") or name), build) for name, build in builds]


def _configured(name: str, build: dict[str, Any], record: TrialRecord | None) -> tuple[str, ...]:
    return (
        name,
        str(build.get("go_version") or "–"),
        _environment(record) or "–",
        " ".join(build.get("build_flags") or ()) or "–",
        format_bytes(build["size_bytes"]) if build.get("size_bytes") else "–",
        str(build.get("sha256") or "–"),
    )


def _environment(record: TrialRecord | None) -> str:
    if record is None:
        return ""
    pairs = record.spec["service"].get("environment", ())
    return " ".join(f"{name}={value}" for name, value in pairs if name not in _HIDDEN_VARIABLES)


def build_infos(data: ReportData) -> list[tuple[str, str]]:
    """Configuration and what its binary says of itself (`go version -m`)."""
    return [
        (f"{name} ({system})" if system else name, str(build.get("build_info") or "–"))
        for name in data.configurations
        for system, build in _builds_of(data, name)
        if build
    ]


def node_grid(data: ReportData) -> Grid:
    """Every fact of every node; a node that changed within the run has several columns."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for record in data.records:
        known = nodes.setdefault(record.node_id, [])
        if record.node not in known:
            known.append(record.node)
    columns = [
        (name if len(states) == 1 else f"{name} ({number})", state)
        for name, states in sorted(nodes.items())
        for number, state in enumerate(states, 1)
    ]
    facts = dict.fromkeys(fact for _, state in columns for fact in state)
    rows = tuple(
        (fact.replace("_", " "), *(_fact(fact, state.get(fact)) for _, state in columns))
        for fact in facts
    )
    return Grid("Nodes", ("fact", *(name for name, _ in columns)), rows)


def _fact(name: str, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} ({value:,})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def limit_grid(data: ReportData) -> Grid:
    """Limits as asked for and as the system told them afterwards."""
    rows = []
    for row in data.answers["limits"].rows.to_pylist():
        state = "in force" if row["enforced"] else f"not in force: {row['reason']}"
        rows.append(
            (
                row["configuration"],
                limit_name(row["name"]),
                limit_text(row["name"], row["asked"]),
                limit_text(row["name"], row["read_back"]),
                row["mechanism"] or "–",
                state,
                str(row["trials"]),
            )
        )
    heads = ("configuration", "limit", "asked", "read back", "by", "state", "trials")
    return Grid("Limits", heads, tuple(rows), frozenset({2, 3, 6}))


def limit_name(name: str) -> str:
    """A limit's name for a person."""
    return _LIMIT_NAMES.get(name, name)


def limit_text(name: str, value: float | None) -> str:
    """A limit's value with its unit; a dash for none."""
    if value is None:
        return "–"
    return format_bytes(value) if name.endswith("_bytes") else f"{value:g}"


def finding_grids(data: ReportData) -> dict[str, Grid]:
    """Findings by level: invalid, warning, note; a level without any is left out."""
    grids = {}
    found = data.answers["findings"].rows.to_pylist()
    for level in ("invalid", "warning", "note"):
        rows = tuple(_finding(row) for row in found if row["level"] == level)
        if rows:
            heads = ("configuration", "trials", "what was found", "what helps")
            grids[level] = Grid(f"{level.capitalize()}s", heads, rows, frozenset({1}))
    return grids


def _finding(row: dict[str, Any]) -> tuple[str, ...]:
    text = f"{row['text']} ({row['first_trial']})"
    return row["configuration"], str(row["trials"]), text, row["remedy"] or "–"


def leak_grid(comparison: Comparison) -> Grid:
    """What long trials tell of leaks; no rows when none was long enough."""
    rows = tuple(
        (
            leak.configuration,
            leak.workload,
            leak.node_class,
            leak.verdict,
            f"{format_bytes(leak.slope.estimate * 3600)} an hour",
            f"{format_bytes(leak.slope.low * 3600)} … {format_bytes(leak.slope.high * 3600)}",
            leak.series.replace("_", " "),
        )
        for leak in comparison.leaks
        if math.isfinite(leak.slope.low)
    )
    heads = ("configuration", "workload", "node class", "verdict", "growth", "99.5 %", "of")
    return Grid("Leaks", heads, rows, frozenset({4, 5}))


def steady_grid(data: ReportData) -> Grid:
    """What each series did over measure; no rows where every measure was too short to tell."""
    found = data.answers["steadiness"].rows.to_pylist()
    told = [row for row in found if row["steady"] + row["drifts"] + row["steps"]]
    rows = tuple(
        (
            row["configuration"],
            row["workload"],
            row["series"].replace("_", " "),
            *(str(row[name]) for name in ("steady", "drifts", "steps", "untold")),
            _change_over_measure(row["slope_share"]),
        )
        for row in told
    )
    heads = (
        "configuration", "workload", "series", "steady", "drifts", "steps", "can't tell",
        "change over measure",
    )  # fmt: skip
    return Grid(
        "Was it steady while it was measured? (trials)", heads, rows, frozenset(range(3, 8))
    )


def _change_over_measure(share: float | None) -> str:
    return "–" if share is None else minus(f"{share * 100:+z.1f} %")


def uncounted_grid(data: ReportData) -> Grid:
    """Each trial that does not count, with its reasons."""
    rows = tuple((trial_id, reason or "–") for trial_id, reason in data.comparison.invalid)
    return Grid("Trials that do not count", ("trial", "why"), rows)


def trial_grid(data: ReportData) -> Grid:
    """Every trial: counted or not, its load, how well its generator kept time, how it ended."""
    rows = []
    for row in data.answers["trials"].rows.to_pylist():
        state = "counts" if row["counted"] else "valid, repeated" if row["valid"] else "invalid"
        rows.append(
            (
                row["trial_id"],
                row["node_id"],
                state,
                _whole(row["measured"]),
                _whole(row["failed"]),
                "–" if row["lag_p99_ns"] is None else format_time(row["lag_p99_ns"]),
                _share(row["generator_cpu_share"]),
                row["exit_text"] or "–",
            )
        )
    heads = (
        "trial", "node", "state", "requests", "failed", "generator late (p99)", "its core", "ended",
    )  # fmt: skip
    return Grid("Trials", heads, tuple(rows), frozenset({3, 4, 5, 6}))


def ratio_grids(comparison: Comparison) -> list[Grid]:
    """Ratios of each configuration side by side, where several systems were measured."""
    return [
        grid_of(
            f"{table.candidate} per {table.baseline}, {table.workload}",
            ("", *table.classes),
            [(row.label, *(r.text if r else "–" for r in row.ratios)) for row in table.rows],
        )
        for table in ratio_tables(comparison)
    ]


def cut_off(grid: Grid, most: int) -> Grid:
    """The first rows only."""
    left = max(0, len(grid.rows) - most)
    return Grid(grid.caption, grid.heads, grid.rows[:most], grid.numbers, left)


def grid_of(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Grid:
    """A grid whose first column are words and the others numbers."""
    numbers = frozenset(range(1, len(heads)))
    return Grid(caption, tuple(heads), tuple(tuple(row) for row in rows), numbers)


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"
