"""Comparison tables for a terminal, for Markdown, for programs; the numbers are made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleRenderable, Group
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from results.comparing.compare import Comparison, Row, Settings, Table, comparison_rows
from results.comparing.ratios import ACROSS_SYSTEMS, Ratio, RatioTable, plain_ratios, ratio_tables
from results.judging.leaks import leak_row
from results.markdown import markdown_table, markdown_text
from results.metrics import counted, format_change, format_value

VERDICT_STYLES = {
    "better": "green",
    "worse": "red",
    "invalid": "red",
    "equivalent": "cyan",
    "trimmed,": "yellow",
}
GROUPS = {
    "memory": "memory",
    "price": "what it costs",
    "load": "what it carries",
    "build": "program",
}
UNKNOWN = "–"
PIPE_COLUMNS = 120
LONGEST_WORD = len("equivalent")
NODES_NAMED_MAX = 3
CLASSES_ABREAST = 2
"""Node classes in one grid of ratios: more don't fit into 100 columns."""


def terminal_comparison(comparison: Comparison) -> ConsoleRenderable:
    """All tables with what must be known beside them, for a terminal of 100 columns."""
    parts: list[ConsoleRenderable] = []
    for table in comparison.tables:
        parts += [_title(comparison, table), _grid(comparison, table)]
    for ratios in ratio_tables(comparison):
        parts += _ratio_parts(comparison, ratios)
    parts += [Text.from_markup(line) for line in _notes(comparison)]
    return Group(*parts)


def _title(comparison: Comparison, table: Table) -> Text:
    names = " → ".join(_named(comparison, name) for name in (table.baseline, table.candidate))
    blocks = f"{table.blocks} of {comparison.planned_on(table.node_class)} blocks"
    traffic = f"{table.workload}: {comparison.descriptions.get(table.workload, '')}"
    place = escape(where(comparison, table))
    if len(comparison.classes) > 1:
        lines = f"[bold]{place}[/]\n[dim]{escape(traffic)} · {blocks}[/]"
    else:
        lines = f"[dim]{escape(traffic)} · {blocks} · {place}[/]"
    return Text.from_markup(f"\n[bold]{escape(comparison.service)}[/]  {escape(names)}\n{lines}")


def where(comparison: Comparison, table: Table) -> str:
    """The system, the class and, where there may be several, the nodes of a table."""
    parts = [system_and_class(table)]
    wine = comparison.wine.get(table.node_class)
    if wine:
        parts.append(wine if "wine" in wine.lower() else f"Wine {wine}")
    if len(table.nodes) > 1 or len(comparison.classes) > 1:
        parts.append(_nodes(table.nodes))
    return " · ".join(filter(None, parts))


def system_and_class(table: Table) -> str:
    """A class as it is called, its system first."""
    name = table.node_class
    return name if name.startswith(table.os) else f"{table.os} · {name}"


def _nodes(nodes: Sequence[str]) -> str:
    if len(nodes) > NODES_NAMED_MAX:
        return f"{len(nodes)} nodes"
    return " and ".join(nodes)


def _ratio_parts(comparison: Comparison, table: RatioTable) -> Iterator[ConsoleRenderable]:
    """The title and one grid for every few node classes."""
    yield Text.from_markup(
        f"\n[bold]across systems: ratios only[/]  {escape(table.candidate)} per "
        f"{escape(table.baseline)}, {escape(table.workload)}"
    )
    heads = {t.node_class: system_and_class(t) for t in comparison.tables}
    for first in range(0, len(table.classes), CLASSES_ABREAST):
        chosen = slice(first, first + CLASSES_ABREAST)
        grid = Grid(
            box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0),
            header_style="bold",
        )  # fmt: skip
        grid.add_column("", no_wrap=True)
        for name in table.classes[chosen]:
            grid.add_column(escape(heads[name]), overflow="fold")
        for row in table.rows:
            grid.add_row(row.label, *(_ratio_text(r) for r in row.ratios[chosen]))
        yield grid


def _ratio_text(ratio: Ratio | None) -> str:
    if ratio is None:
        return f"[dim]{UNKNOWN}[/]"
    style = VERDICT_STYLES.get(ratio.row.verdict.partition(" ")[0], "default")
    return f"[{style}]{ratio.text}[/]"


def _named(comparison: Comparison, configuration: str) -> str:
    built = comparison.builds.get(configuration)
    return f"{configuration} ({built})" if built else configuration


def empty_grid() -> Grid:
    """A table of metrics, one a row, with no column yet but that of their names."""
    grid = Grid(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    grid.add_column("", no_wrap=True)
    return grid


def _grid(comparison: Comparison, table: Table) -> Grid:
    grid = empty_grid()
    # A long name may break, a number never: half a number is a wrong one.
    for name, values in _named_values(table):
        width = max(map(len, values), default=0)
        grid.add_column(
            name, justify="right", min_width=width, max_width=max(width, 12), overflow="fold"
        )
    grid.add_column("change", justify="right", no_wrap=True)
    grid.add_column(interval_name(comparison.settings), justify="right", min_width=8)
    grid.add_column("verdict", min_width=LONGEST_WORD)
    group = ""
    for row in table.rows:
        if row.metric.group != group:
            group = row.metric.group
            grid.add_row(f"[dim italic]{GROUPS[group]}[/]")
        add_metric(grid, row)
    return grid


def _named_values(table: Table) -> Iterator[tuple[str, list[str]]]:
    """Both configurations with their column of values."""
    yield table.baseline, [format_value(row.metric, row.baseline) for row in table.rows]
    yield table.candidate, [format_value(row.metric, row.candidate) for row in table.rows]


def add_metric(grid: Grid, row: Row) -> None:
    """Add a metric's values, change, interval and verdict; what decides is marked."""
    mark = "[bold]●[/]" if row.primary else " "
    grid.add_row(f"{mark} {row.metric.label}", *value_cells(row), _verdict(row))


def value_cells(row: Row) -> Iterator[str]:
    """Both values, the change and its interval."""
    yield format_value(row.metric, row.baseline)
    yield format_value(row.metric, row.candidate)
    yield change_text(row)
    yield interval_text(row)


def interval_name(settings: Settings) -> str:
    """The head of the column of intervals."""
    return f"{settings.confidence * 100:g} % interval"


def change_text(row: Row) -> str:
    """The change of a metric, as in `-48.5 %` or `+30.75 pp`; a dash for none."""
    return (
        format_change(row.metric, row.change.estimate, relative=row.relative)
        if row.change
        else UNKNOWN
    )


def interval_text(row: Row) -> str:
    """Both bounds of the change; a dash where one does not exist."""
    if row.change is None or not math.isfinite(row.change.low + row.change.high):
        return UNKNOWN
    low, high = (
        format_change(row.metric, bound, relative=row.relative)
        for bound in (row.change.low, row.change.high)
    )
    return f"{low} … {high}"


def _verdict(row: Row) -> str:
    style = VERDICT_STYLES.get(row.verdict.partition(" ")[0], "dim")
    return f"[{style}]{row.verdict}[/]" if row.verdict else ""


def _notes(comparison: Comparison) -> Iterator[str]:
    if not comparison.tables:
        yield "[red]no configuration has valid trials to compare[/]"
    if ratio_tables(comparison):
        yield f"[dim]{ACROSS_SYSTEMS}[/]"
    yield from (f"[dim]{escape(text)}[/]" for text in explanations(comparison))
    yield from (f"[yellow]![/] {escape(text)}" for text in comparison.warnings)
    yield from (f"[red]✗[/] not compared: {escape(text)}" for text in comparison.missing)
    for trial_id, reason in comparison.invalid:
        yield f"[red]✗[/] not counted: {escape(trial_id)}: {escape(reason)}"


def explanations(comparison: Comparison) -> Iterator[str]:
    """How to read the tables, and how many blocks a verdict needs."""
    if not comparison.tables:
        return
    settings = comparison.settings
    yield (
        f"● decides, corrected for {_counted(comparison)}; other rows are secondary, uncorrected. "
        f"Intervals: {settings.confidence * 100:g} %, over blocks."
    )
    yield from _too_few(comparison)
    yield from (leak.text for leak in comparison.leaks if not leak.leaks)
    for table in comparison.tables:
        for row in table.rows:
            if row.more_blocks:
                yield (
                    f"{table.candidate}: about {row.more_blocks} blocks would show a change of "
                    f"{row.metric.label} of this size."
                )


def _too_few(comparison: Comparison) -> Iterator[str]:
    """Which tables have fewer blocks than a verdict needs; by name, unless all have as few."""
    needed = comparison.blocks_needed
    more = f"a verdict needs {needed} blocks (--trials {needed})."
    short = [table for table in comparison.tables if table.blocks < needed]
    if len(short) == len(comparison.tables) and len({table.blocks for table in short}) == 1:
        yield f"With {counted(short[0].blocks, 'block')} nothing can be decided: {more}"
        return
    for table in short:
        yield (
            f"With {counted(table.blocks, 'block')} of {table.candidate} under {table.workload} on "
            f"{table.node_class} nothing can be decided: {more}"
        )


def _counted(comparison: Comparison) -> str:
    number = sum(row.primary for table in comparison.tables for row in table.rows)
    return f"{counted(number, 'contrast')} (Holm)"


def markdown_comparison(comparison: Comparison) -> str:
    """The same tables in Markdown, for a pull request or a README."""
    return "\n".join(_markdown_lines(comparison)) + "\n"


def _markdown_lines(comparison: Comparison) -> Iterator[str]:
    for table in comparison.tables:
        yield from markdown_of_table(comparison, table)
        yield ""
    yield from markdown_notes(comparison)


def markdown_of_table(comparison: Comparison, table: Table) -> Iterator[str]:
    """The lines of one table with what it is about."""
    names = [_named(comparison, name) for name in (table.baseline, table.candidate)]
    yield f"**{markdown_text(comparison.service)}**: {' → '.join(map(markdown_text, names))}  "
    yield markdown_text(
        f"{table.workload}: {comparison.descriptions.get(table.workload, '')}; "
        f"{table.blocks} of {comparison.planned_on(table.node_class)} blocks; "
        f"{where(comparison, table)}"
    )
    yield ""
    heads = (
        "",
        table.baseline,
        table.candidate,
        "change",
        interval_name(comparison.settings),
        "verdict",
    )
    yield from markdown_table([*map(markdown_text, heads)], map(markdown_row, table.rows))


def markdown_row(row: Row) -> Sequence[str]:
    """The cells of one metric; what decides is bold."""
    label = f"**{row.metric.label}**" if row.primary else row.metric.label
    return label, *value_cells(row), markdown_text(row.verdict)


def markdown_notes(comparison: Comparison) -> Iterator[str]:
    """What must be known beside the tables."""
    for ratios in ratio_tables(comparison):
        yield from _markdown_ratios(comparison, ratios)
    for text in explanations(comparison):
        yield f"{markdown_text(text.replace('●', 'Bold'))}  "
    for text in comparison.warnings:
        yield f"- warning: {markdown_text(text)}"
    for text in comparison.missing:
        yield f"- not compared: {markdown_text(text)}"
    for trial_id, reason in comparison.invalid:
        yield f"- not counted: {markdown_text(f'{trial_id}: {reason}')}"


def _markdown_ratios(comparison: Comparison, table: RatioTable) -> Iterator[str]:
    heads = {t.node_class: system_and_class(t) for t in comparison.tables}
    names = markdown_text(f"{table.candidate} per {table.baseline}")
    yield f"**Across systems: ratios only**: {names}  "
    yield f"{markdown_text(table.workload)}. {ACROSS_SYSTEMS}"
    yield ""
    yield f"| | {' | '.join(markdown_text(heads[name]) for name in table.classes)} |"
    yield f"|---|{'---:|' * len(table.classes)}"
    for row in table.rows:
        cells = (ratio.text if ratio else UNKNOWN for ratio in row.ratios)
        yield f"| {row.label} | {' | '.join(cells)} |"
    yield ""


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "runs": list(comparison.run_ids),
        "service": comparison.service,
        "baseline": comparison.settings.baseline,
        "confidence": comparison.settings.confidence,
        "blocks_planned": comparison.planned_blocks,
        "blocks_needed": comparison.blocks_needed,
        "rows": comparison_rows(comparison).to_pylist(),
        "ratios": plain_ratios(comparison),
        "leaks": [leak_row(leak) for leak in comparison.leaks],
        "not_compared": list(comparison.missing),
        "invalid": [{"trial_id": t, "reason": reason} for t, reason in comparison.invalid],
        "warnings": list(comparison.warnings),
    }


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the tables. A pipe has no width: nothing is cut off there."""
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    console.print(terminal_comparison(comparison), highlight=False, soft_wrap=False)
