"""What `bench history` prints: each cell's metrics over all runs, and where they shifted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from orchestrator.answers.common import plain_table, print_json
from results.comparing.shiftwords import bounds_text, difference_text, size_text
from results.errors import UserError
from results.metrics import counted, format_value

if TYPE_CHECKING:
    from results.comparing.history import (
        CellHistory,
        Change,
        History,
        MetricHistory,
        RunPoint,
        Wanted,
    )

BARS: Final = "▁▂▃▄▅▆▇█"
SHOWN_RUNS: Final = 60
"""The latest ones: a line has no room for more."""

LEAST_RANGE: Final = 0.1
"""What a line spans at least, as a share of its level: else noise would look like news."""

STYLES: Final = {"better": "green", "worse": "red", "": "cyan"}


def print_history(
    archive_path: Path,
    service: str | None,
    wanted: Wanted,
    since: str | None,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """A service over all its runs. Raises UserError for what is not in the archive."""
    from results.comparing import history

    begin_ns = since_ns(since, archive_path) if since else 0
    found = history.since(history.read_history(archive_path, service, wanted), begin_ns)
    if as_json:
        print_json(history.plain_history(found))
        return
    for cell in found.cells:
        _print_cell(found, cell, console)
    for line in _notes(found):
        console.print(line, highlight=False, soft_wrap=True)


def since_ns(text: str, archive_path: Path) -> int:
    """When a history is shown from: a date, or the run of this name. Raises UserError."""
    from results.archive.archive import Archive

    try:
        # A run first: some of their ids can be read as a date and a time zone.
        return int(Archive(archive_path).run(text).document["started_ns"])
    except UserError as error:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UserError(f"--since is a date such as 2026-11-28, or a run; {error}") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1e9)


def _print_cell(history: History, cell: CellHistory, console: Console) -> None:
    points = max((own.points for own in cell.metrics), key=len)
    console.print(
        f"\n[bold]{escape(history.service)}[/]  {escape(cell.configuration)} × "
        f"{escape(cell.workload)}\n[dim]{escape(cell.node_class)} · {counted(len(points), 'run')}, "
        f"{_day(points[0])} … {_day(points[-1])}[/]",
        highlight=False,
    )
    table = plain_table("", "over the runs", "first", "latest", "(95 %)", "shifts")
    for own in cell.metrics:
        latest = own.points[-1]
        table.add_row(
            own.metric.label,
            line_of(own),
            format_value(own.metric, own.points[0].value),
            format_value(own.metric, latest.value),
            _between(own, latest.interval),
            "\n".join(f"[{STYLES[c.verdict]}]{_short(own, c)}[/]" for c in own.changes) or "–",
        )
    console.print(table)
    for own in cell.metrics:
        for change in own.changes:
            for line in _told(own, change):
                console.print(line, highlight=False, soft_wrap=True)


def line_of(own: MetricHistory) -> Text:
    """One bar a run, a `|` where the level shifted: red for the worse, green for the better."""
    first = max(0, len(own.points) - SHOWN_RUNS)
    bars = _bars([point.value for point in own.points[first:]])
    styles = {change.index - first: STYLES[change.verdict] for change in own.changes}
    text, style = Text(), ""
    for index, bar in enumerate(bars):
        if index in styles:
            style = styles[index]
            text.append("|", f"bold {style}")
        text.append(bar, style)
    return text


def _bars(values: Sequence[float]) -> str:
    low, high, level = min(values), max(values), abs(median(values))
    missing = max(0.0, LEAST_RANGE * level - (high - low))
    low, span = low - missing / 2, (high - low) + missing
    if span <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int((v - low) / span * len(BARS)))] for v in values)


def _short(own: MetricHistory, change: Change) -> str:
    word = change.verdict or "changed"
    return (
        f"{word} {size_text(own.metric, change, change.size)}{'' if change.settled else ' (fresh)'}"
    )


def _told(own: MetricHistory, change: Change) -> Iterator[str]:
    """A change in words, and what is known of why."""
    fresh = "" if change.settled else "; fresh: the next runs may move or refute it"
    yield (
        f"[{STYLES[change.verdict]}]{change.verdict or 'changed'}[/] {own.metric.label} "
        f"{format_value(own.metric, change.before)} → {format_value(own.metric, change.after)}, "
        f"{size_text(own.metric, change, change.size)} ({bounds_text(own.metric, change)}) between "
        f"{change.run_before} and "
        f"{change.run_after}{fresh}"
    )
    told = map(difference_text, change.differences)
    yield f"    [dim]{escape('; '.join(told)) or 'nothing that is recorded differs there'}[/]"


def _between(own: MetricHistory, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "–"
    return " … ".join(format_value(own.metric, value) for value in interval)


def _day(point: RunPoint) -> str:
    return f"{datetime.fromtimestamp(point.started_ns / 1e9, UTC):%Y-%m-%d}"


def _notes(history: History) -> Iterator[str]:
    from results.statistics.changepoints import SETTLE_RUNS, SIDE_RUNS

    changes = sum(len(own.changes) for cell in history.cells for own in cell.metrics)
    yield (
        f"\n[dim]{counted(changes, 'shift')} in {counted(history.series, 'line')}; in a line of 30 "
        "runs without any, one is seen by chance in less than 1 of 20. Found from "
        f"{SIDE_RUNS} runs on each side, settled with {SETTLE_RUNS} after it.[/]"
    )
    for note in history.notes:
        yield f"[yellow]![/] {escape(note)}"
