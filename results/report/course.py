"""How a run's figures went before and after it: the other runs of its service in the archive.

A few metrics only: those that decide, and what they are paid with. `bench history` shows all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.archive.archive import Archive, RunEntry
from results.comparing.compare import Comparison
from results.comparing.history import History, Wanted, known_metrics, read_history
from results.errors import UserError
from results.metrics import format_bytes

PRICE: Final = ("gc_cpu_share", "latency_p99", "throughput")
"""What is shown beside the metrics that decide."""

BYTES_MAX: Final = 2**30
"""Of rows in all these runs: each is read for its percentiles, and a page is waited for."""


@dataclass(frozen=True, slots=True)
class Course:
    """The history of a run's service, or why it is not shown."""

    history: History | None
    left_out: str = ""


def read_course(archive_path: Path, run: RunEntry, comparison: Comparison) -> Course | None:
    """The history that a run is a part of; None when there is no other run of its service."""
    service = str(run.document["service"])
    others = [entry for entry in Archive(archive_path).runs() if _is_beside(entry, service)]
    if len(others) < 2 or run.run_id not in {entry.run_id for entry in others}:
        return None
    size_bytes = sum(map(_bytes_of, others))
    if size_bytes > BYTES_MAX:
        return Course(
            None,
            f"The archive has {len(others)} runs of {service}, with {format_bytes(size_bytes)} of "
            f"rows: too much to read for a page. They are shown by: bench history {service}",
        )
    try:
        history = read_history(archive_path, service, _wanted(comparison))
    except UserError:
        # No trial of any of them is valid: the page says so of its own.
        return None
    return Course(history)


def _is_beside(entry: RunEntry, service: str) -> bool:
    return entry.document["service"] == service and "bisect" not in entry.document


def _bytes_of(entry: RunEntry) -> int:
    return sum(path.stat().st_size for path in entry.path.glob("trials/*/*.arrow"))


def _wanted(comparison: Comparison) -> Wanted:
    return Wanted(
        metrics=known_metrics(list(_metrics(comparison))),
        configurations=tuple(dict.fromkeys(_configurations(comparison))),
        workloads=tuple(dict.fromkeys(table.workload for table in comparison.tables)),
    )


def _metrics(comparison: Comparison) -> Iterable[str]:
    return dict.fromkeys([*comparison.settings.primary, *PRICE])


def _configurations(comparison: Comparison) -> Iterable[str]:
    for table in comparison.tables:
        yield table.baseline
        yield table.candidate
