"""The report in Markdown, as a comment on a pull request: the verdict and what decides on top, the
rest folded. It stays below what a comment may hold, and says what it left out for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from results.comparing.compare import Comparison, Row, Table
from results.comparing.tables import markdown_notes, markdown_of_table, markdown_row, where
from results.markdown import html_text, markdown_table, markdown_text
from results.report import verdict

LETTERS_MAX: Final = 60_000
"""A comment on GitHub holds 65,536."""
SHORT_MAX: Final = 3
"""Of more tables only the first are shown unfolded."""
_BOLD: Final = ("better", "worse")
_SHORT: Final = ("initial_rss", "initial_working_set", *verdict.PRICE)


def markdown_report(comparison: Comparison) -> str:
    """The same comparison, the same text; names and errors of others are only text in it."""
    service = markdown_text(comparison.service)
    parts = [f"### {service}\n\n**{markdown_text(verdict.lead(comparison))}**\n"]
    doubts = verdict.doubts(comparison)
    if doubts:
        parts.append(f"> ⚠ {markdown_text('; '.join(doubts))}\n")
    parts += [_short(comparison, table) for table in comparison.tables[:SHORT_MAX]]
    foot = f"<sub>Heapgate, run {markdown_text(', '.join(comparison.run_ids))}</sub>\n"
    room = LETTERS_MAX - sum(map(len, parts)) - len(foot) - 100
    for part in _folded(comparison):
        if len(part) > room:
            parts.append(
                "There is more than a comment holds: `bench report` makes a page of it all.\n"
            )
            break
        parts.append(part)
        room -= len(part)
    return "\n".join([*parts, foot])


def _short(comparison: Comparison, table: Table) -> str:
    """What decides and its price."""
    by_name = {row.metric.name: row for row in table.rows if row.change}
    wanted = [row.metric.name for row in table.rows if row.primary]
    wanted += [name for name in _SHORT if name not in wanted]
    rows = [by_name[name] for name in wanted if name in by_name]
    if not rows:
        return ""
    interval = f"{comparison.settings.confidence * 100:g} % interval"
    heads = ("", table.baseline, table.candidate, "change", interval, "verdict")
    blocks = f"{table.blocks} of {comparison.planned_on(table.node_class)} blocks"
    about = markdown_text(f"{table.workload}, {blocks}, {where(comparison, table)}")
    lines = [*markdown_table([*map(markdown_text, heads)], map(_cells, rows)), "", about, ""]
    return "\n".join(lines)


def _cells(row: Row) -> Sequence[str]:
    *cells, verdict_word = markdown_row(row)
    return *cells, f"**{verdict_word}**" if row.verdict in _BOLD else verdict_word


def _folded(comparison: Comparison) -> Iterator[str]:
    """What a reader may unfold: all metrics of each table, then every reason for doubt."""
    for table in comparison.tables:
        title = f"All metrics: {table.candidate} against {table.baseline}, {table.workload}"
        yield _fold(title, markdown_of_table(comparison, table))
    notes = list(markdown_notes(comparison))
    if notes:
        yield _fold("How to read this, and every reason for doubt", notes)


def _fold(title: str, lines: Iterable[str]) -> str:
    inside = "\n".join(lines)
    return f"<details><summary>{html_text(title)}</summary>\n\n{inside}\n\n</details>\n"
