"""Trimming a working set is not a saving: Windows can be told to keep less of a process resident.

What is taken away comes back with the next access, and the memory that the system has promised
(commit) is as large as before. So a working set that fell counts only when commit fell too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from results.comparing.compare import Row, Table

TRIMMED: Final = "trimmed, not saved"
COMMIT_OF: Final = {
    "initial_working_set": "initial_commit",
    "peak_working_set": "peak_commit",
}
"""What must fall with a working set."""

SHARE_MIN: Final = 0.1
"""Of the bytes by which the working set fell, commit must have fallen by this share at least."""


def marked(rows: Sequence[Row], *, limited: bool) -> tuple[Row, ...]:
    """The rows of a table; those of a trimmed working set say so.

    `better` becomes `trimmed, not saved`, and `needs N blocks` says it beside: such a row never
    counts as better. `limited`: the configuration asked for a limit of its working set.
    """
    by_name = {row.metric.name: row for row in rows}
    return tuple(
        replace(row, verdict=_verdict(row))
        if is_trimmed(row, by_name.get(COMMIT_OF.get(row.metric.name, "")), limited=limited)
        else row
        for row in rows
    )


def is_trimmed(resident: Row, commit: Row | None, *, limited: bool) -> bool:
    """Whether a working set fell without commit.

    It fell when it is better, or when it is less and the configuration asked for a limit: then
    only a commit that is shown to fall speaks for it. Commit fell when its interval excludes "no
    change" and it fell by at least `SHARE_MIN` of the bytes. Where nothing is known of commit,
    only a limit that was asked for makes a working set trimmed.
    """
    if resident.metric.name not in COMMIT_OF or resident.change is None:
        return False
    less = resident.change.estimate < 0
    if commit is None or commit.change is None:
        return limited and less
    fell = resident.verdict == "better" or (limited and less)
    return fell and not _fell_with(commit, resident)


def _fell_with(commit: Row, resident: Row) -> bool:
    assert commit.change is not None
    return commit.change.high < 0 and _fall(commit) >= SHARE_MIN * _fall(resident)


def _fall(row: Row) -> float:
    """By how much it is less than the baseline, in the metric's unit."""
    return (row.baseline or 0.0) - (row.candidate or 0.0)


def _verdict(row: Row) -> str:
    if row.verdict == "better":
        return TRIMMED
    return f"{row.verdict}; {TRIMMED}" if row.verdict.startswith("needs") else row.verdict


def trimmings(tables: Iterable[Table]) -> Iterator[str]:
    """One sentence for each row that says so."""
    for table in tables:
        for row in table.rows:
            if not row.verdict.endswith(TRIMMED):
                continue
            commit = table.row(COMMIT_OF[row.metric.name])
            yield (
                f"{table.candidate}, {table.workload} on {table.node_class}: "
                f"{row.metric.label} {_change(row)}, {_commit(commit)}: {TRIMMED}"
            )


def _commit(row: Row | None) -> str:
    if row is None or row.change is None:
        return "nothing is known of its commit"
    return f"{row.metric.label} {_change(row)}"


def _change(row: Row) -> str:
    assert row.change is not None
    return f"{row.change.estimate * 100:+z.1f} %"
