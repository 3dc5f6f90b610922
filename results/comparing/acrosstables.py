"""A run against an earlier one: for a terminal, for Markdown, for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from results.comparing.across import NOT_PAIRED, Across, AcrossTable
from results.comparing.compare import Row
from results.comparing.tables import (
    PIPE_COLUMNS,
    add_metric,
    empty_grid,
    interval_name,
    value_cells,
)
from results.markdown import markdown_table, markdown_text
from results.metrics import counted


def print_across(found: Across, console: Console) -> None:
    """Print the tables. A pipe has no width: nothing is cut off there."""
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    for table in found.tables:
        console.print(f"\n[bold]{escape(_title(found, table))}[/]", highlight=False)
        console.print(f"[dim]{escape(_place(table))}[/]", highlight=False)
        for text in table.changed:
            console.print(f"[dim]changed: {escape(text)}[/]", highlight=False)
        console.print(_grid(found, table))
    for text in notes(found):
        console.print(f"[dim]{escape(text)}[/]", highlight=False)
    for text in found.left_out:
        console.print(f"[red]✗[/] not compared: {escape(text)}", highlight=False)
    for text in found.warnings:
        console.print(f"[yellow]![/] {escape(text)}", highlight=False)


def _title(found: Across, table: AcrossTable) -> str:
    return f"{found.service}  {table.configuration}: {found.name} → {found.now_id}"


def _place(table: AcrossTable) -> str:
    return f"{table.workload} · {table.node_class} · {table.then} and {counted(table.now, 'trial')}"


def _grid(found: Across, table: AcrossTable) -> Grid:
    grid = empty_grid()
    for name in (found.name, "now", "change"):
        grid.add_column(escape(name), justify="right", no_wrap=name != found.name, overflow="fold")
    grid.add_column(interval_name(found.settings), justify="right")
    grid.add_column("verdict")
    for row in table.rows:
        add_metric(grid, row)
    return grid


def notes(found: Across) -> Iterator[str]:
    """How to read the tables."""
    yield (
        f"{found.name} is run {found.then_id}. {NOT_PAIRED} ● decides, corrected for "
        f"{counted(found.contrasts, 'contrast')} (Holm); other rows are secondary, uncorrected. "
        f"Intervals: {found.settings.confidence * 100:g} %, over trials."
    )


def markdown_across(found: Across) -> str:
    """The same tables in Markdown."""
    return "\n".join(_markdown_lines(found)) + "\n"


def _markdown_lines(found: Across) -> Iterator[str]:
    for table in found.tables:
        yield f"**{markdown_text(_title(found, table))}**  "
        told = (_place(table), *(f"changed: {text}" for text in table.changed))
        yield "; ".join(map(markdown_text, told))
        yield ""
        heads = (
            "",
            markdown_text(found.name),
            "now",
            "change",
            interval_name(found.settings),
            "verdict",
        )
        yield from markdown_table(heads, map(_markdown_row, table.rows))
        yield ""
    for text in notes(found):
        yield markdown_text(text.replace("●", "Bold"))
    for text in found.left_out:
        yield f"- not compared: {markdown_text(text)}"
    for text in found.warnings:
        yield f"- warning: {markdown_text(text)}"


def _markdown_row(row: Row) -> tuple[str, ...]:
    label = f"**{row.metric.label}**" if row.primary else row.metric.label
    return (label, *value_cells(row), row.verdict)


def plain_across(found: Across) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "run": found.now_id,
        "against": {"name": found.name, "run": found.then_id},
        "service": found.service,
        "paired": False,
        "confidence": found.settings.confidence,
        "rows": [_plain(table, row) for table in found.tables for row in table.rows],
        "changed": {
            f"{table.configuration}, {table.workload}, {table.node_class}": list(table.changed)
            for table in found.tables
            if table.changed
        },
        "not_compared": list(found.left_out),
        "warnings": list(found.warnings),
        "worse": found.worse,
    }


def _plain(table: AcrossTable, row: Row) -> dict[str, Any]:
    bounds = (row.change.low, row.change.high) if row.change else (None, None)
    low, high = (b if b is not None and abs(b) != float("inf") else None for b in bounds)
    return {
        "node_class": table.node_class,
        "os": table.os,
        "workload": table.workload,
        "configuration": table.configuration,
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "then": row.baseline,
        "now": row.candidate,
        "then_values": row.values[0],
        "now_values": row.values[1],
        "then_trials": table.then,
        "now_trials": table.now,
        "relative": row.relative,
        "change": row.change.estimate if row.change else None,
        "change_low": low,
        "change_high": high,
        "p": row.p,
        "p_adjusted": row.p_adjusted,
        "is_primary": row.primary,
        "verdict": row.verdict,
    }
