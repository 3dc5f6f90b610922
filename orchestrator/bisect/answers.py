"""What `bench bisect` prints."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import plain_table, print_json
from results.errors import RunIncomplete

if TYPE_CHECKING:
    from orchestrator.bisect.bisect import Asked
    from orchestrator.bisect.bisection import Outcome, Tried

STYLES = {"good": "green", "bad": "red", "can't tell": "yellow", "does not build": "yellow"}


def print_bisection(
    matrix_path: Path,
    asked: Asked,
    archive: Path,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """Bisect, and tell the commit. Raises RunIncomplete when more than one is left."""
    from orchestrator.bisect.bisect import bisect

    outcome = bisect(matrix_path, asked, archive, console)
    if as_json:
        print_json(plain_outcome(outcome))
    else:
        _print_tried(outcome, console)
        _print_found(outcome, console)
    if outcome.found is None:
        names = ", ".join(commit.short for commit in outcome.remaining)
        raise RunIncomplete(f"can't tell which of these made the change: {names}")


def _print_tried(outcome: Outcome, console: Console) -> None:
    table = plain_table("commit", "", "change", "95 %", "blocks", "subject")
    for tried in outcome.tried:
        style = STYLES[tried.side]
        change = tried.change
        reason = f"\n[dim]{escape(tried.reason)}[/]" if tried.reason else ""
        table.add_row(
            tried.commit.short,
            f"[{style}]{tried.side}[/]",
            _size(tried, change.estimate) if change else "–",
            _bounds(tried),
            str(tried.pairs or "–"),
            escape(tried.commit.subject) + reason,
        )
    console.print(table)


def _print_found(outcome: Outcome, console: Console) -> None:
    if (found := outcome.found) is None:
        return
    console.print(
        f"[bold red]first bad commit[/] {found.sha}\n{found.date}, {escape(found.author)}: "
        f"{escape(found.subject)}",
        highlight=False,
        soft_wrap=True,
    )


def _size(tried: Tried, value: float) -> str:
    return f"{value * 100:+.1f} %" if tried.relative else f"{value:+.4g}"


def _bounds(tried: Tried) -> str:
    change = tried.change
    if change is None or not (math.isfinite(change.low) and math.isfinite(change.high)):
        return "–"
    return f"{_size(tried, change.low)} … {_size(tried, change.high)}"


def plain_outcome(outcome: Outcome) -> dict[str, Any]:
    """As JSON."""
    return {
        "found": asdict(outcome.found) if outcome.found else None,
        "remaining": [asdict(commit) for commit in outcome.remaining],
        "tried": [_plain(tried) for tried in outcome.tried],
    }


def _plain(tried: Tried) -> dict[str, Any]:
    change = tried.change
    return {
        "commit": asdict(tried.commit),
        "side": tried.side.value,
        "reason": tried.reason,
        "relative": tried.relative,
        "change": change.estimate if change else None,
        "low": change.low if change and math.isfinite(change.low) else None,
        "high": change.high if change and math.isfinite(change.high) else None,
        "pairs": tried.pairs,
        "runs": list(tried.runs),
    }
