"""One sealed trial: its phases, its load, every finding, its provenance, the end of its log."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from results.metrics import format_bytes, format_time
from results.record import TrialRecord
from results.report.grid import Grid
from results.serve.runs import duration, when

LOG_BYTES: Final = 64 * 2**10
_COUNTS: Final = ("planned", "sent", "measured", "failed", "not_sent", "late", "unrecorded")


@dataclasses.dataclass(frozen=True, slots=True)
class LogTail:
    """The last lines of what the service wrote; `left_out_bytes` come before them."""

    text: str
    left_out_bytes: int


def facts(record: TrialRecord) -> list[tuple[str, str]]:
    """What the top of the page tells."""
    measure = next((span for span in record.phases if span.name == "measure"), None)
    found = [
        ("configuration", record.configuration + (" (baseline)" if record.baseline else "")),
        ("workload", record.workload),
        ("block and place", f"block {record.block}, number {record.position} in it"),
        ("attempt", str(record.attempt)),
        ("node", f"{record.node_id} · {record.node_class}"),
        ("began (UTC)", when(record.started_ns)),
        ("took", duration((record.finished_ns - record.started_ns) / 1e9)),
        ("measured for", duration((measure.end_ns - measure.start_ns) / 1e9) if measure else "–"),
    ]
    if record.exit:
        found.append(("the service ended", record.exit.text or record.exit.cause))
    return found


def grids(record: TrialRecord) -> Iterable[Grid]:
    """Tables of what happened, those with rows."""
    made = (_phases(record), _load(record), _limits(record), _rows(record))
    return [grid for grid in made if grid.rows]


def provenance(record: TrialRecord) -> list[Grid]:
    """What exactly was run, where, and with what."""
    service = record.spec.get("service", {})
    binary = service.get("binary", {})
    environment = dict(service.get("environment", ()))
    tables = {
        "Program": binary | {"arguments": " ".join(map(str, service.get("arguments", ())))},
        "Environment": environment,
        "As the runtime sees it": record.applied,
        "Node": record.node,
        "Versions": record.versions,
        "Clock": {**record.clock, **(record.clock_offset or {})},
    }
    return [_named(title, values) for title, values in tables.items() if values]


def log_tail(folder: Path) -> LogTail | None:
    """The end of the service's own output; None when there is none."""
    path = folder / "service.log"
    if path.is_symlink():
        return None
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - LOG_BYTES)
            file.seek(start)
            data = file.read(LOG_BYTES)
    except OSError:
        return None
    if start:
        # From the next whole line on.
        cut = data.find(b"\n") + 1
        data, start = data[cut:], start + cut
    return LogTail(visible(data.decode("utf-8", errors="replace")), start)


def visible(text: str) -> str:
    """Text with its control characters written out: a log may colour and move the cursor."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _phases(record: TrialRecord) -> Grid:
    peaks = {peak.phase: peak for peak in record.peaks}
    windows = record.os == "windows"
    rows = []
    for span in record.phases:
        peak = peaks.get(span.name)
        first = (peak.working_set[0] if windows else peak.rss_bytes) if peak else None
        second = (peak.commit[0] if windows else peak.cgroup_bytes) if peak else None
        rows.append(
            (
                span.name,
                format_time(span.end_ns - span.start_ns),
                "–" if span.cpu_ns is None else format_time(span.cpu_ns),
                _bytes(first),
                _bytes(second),
            )
        )
    names = ("peak working set", "peak commit") if windows else ("peak RSS", "peak cgroup usage")
    heads = ("phase", "lasted", "CPU of the service", *names)
    return Grid("Phases", heads, tuple(rows), frozenset({1, 2, 3, 4}))


def _load(record: TrialRecord) -> Grid:
    load = record.load
    if load is None:
        return Grid("Load", (), ())
    values = [(name, _number(getattr(load, name))) for name in _COUNTS]
    values += [
        (f"lag {which}", "–" if value is None else format_time(value))
        for which, value in (
            ("p50", load.lag_p50_ns),
            ("p99", load.lag_p99_ns),
            ("max", load.lag_max_ns),
        )
    ]
    values.append(("of its core", f"{load.cpu_share * 100:.0f} %"))
    rows = tuple((name.replace("_", " "), value) for name, value in values)
    return Grid("Load", ("the generator's account", "requests"), rows, frozenset({1}))


def _limits(record: TrialRecord) -> Grid:
    rows = tuple(
        (
            limit.name,
            f"{limit.asked:,.10g}",
            "–" if limit.read_back is None else f"{limit.read_back:,.10g}",
            limit.mechanism,
            "in force" if limit.enforced else f"not in force: {limit.reason}",
        )
        for limit in record.limits
    )
    heads = ("limit", "asked", "read back", "by", "state")
    return Grid("Limits", heads, rows, frozenset({1, 2}))


def _rows(record: TrialRecord) -> Grid:
    rows = tuple((name, f"{count:,}") for name, count in sorted(record.rows.items()))
    return Grid("Rows in the archive", ("stream", "rows"), rows, frozenset({1}))


def _named(title: str, values: Mapping[str, Any]) -> Grid:
    rows = tuple((str(name).replace("_", " "), _fact(str(name), v)) for name, v in values.items())
    return Grid(title, ("", "value"), rows)


def _fact(name: str, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} ({value:,})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _bytes(value: int | None) -> str:
    return "–" if value is None else format_bytes(value)


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
