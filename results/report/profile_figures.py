"""The figures of profiles: nested calls as pictures, and the functions that changed as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from results.report.data import Panel, ReportData
from results.report.facts import cut_off
from results.report.figure import Figure
from results.report.flames import NARROWEST, ROWS_MAX, amount, flames
from results.report.grid import Grid

_KINDS: Final = {
    "heap": ("What the heap holds, call by call", "memory in use, as of the last collection"),
    "allocs": ("What was allocated, call by call", "bytes allocated since the start"),
    "goroutine": ("What the goroutines do", "goroutines, each where it stands"),
    "mutex": ("Who makes others wait for a lock", "time that others waited since the start"),
    "block": ("Who waits", "time spent waiting since the start"),
}
FUNCTIONS_MAX: Final = 60


def profile_figures(data: ReportData, panel: Panel) -> Iterator[Figure]:
    """One figure for each kind of profile that was taken."""
    stacks = data.answers["profile_stacks"].of(panel).to_pylist()
    functions = data.answers["profile_functions"].of(panel).to_pylist()
    baseline = data.comparison.settings.baseline
    for kind, (title, what) in _KINDS.items():
        own = [row for row in stacks if row["kind"] == kind]
        pictures = flames(own, data.configurations, baseline)
        if pictures:
            rows = [row for row in functions if row["kind"] == kind]
            yield Figure(
                f"profile-{kind}",
                "profiles",
                title,
                _caption(kind, what, own, baseline),
                (),
                (_grid(rows, baseline),) if rows else (),
                ("profile_stacks", "profile_functions"),
                tuple(pictures),
            )


def _caption(kind: str, what: str, rows: list[dict[str, Any]], baseline: str) -> str:
    counts = sorted({row["profiles"] for row in rows})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    profiles = "profile" if counts == [1] else "profiles"
    counted = "Nothing here is tested for chance."
    sampled = "Go estimates it from samples, and nothing here is tested for chance."
    return (
        f"{what.capitalize()}: mean of {number} {profiles} of each configuration. A frame is as "
        f"wide as what it and its calls hold, on one scale for all pictures; its colour tells the "
        f"change against {baseline}. {counted if kind == 'goroutine' else sampled} Calls below "
        f"{NARROWEST * 100:g} % or deeper than {ROWS_MAX} are not drawn."
    )


def _grid(rows: list[dict[str, Any]], baseline: str) -> Grid:
    heads = (
        "configuration", "function", baseline, "then", "change", "change with its calls",
    )  # fmt: skip
    made = tuple(
        (
            row["configuration"],
            row["function"],
            amount(row["unit"], row["baseline_flat"]),
            amount(row["unit"], row["flat"]),
            _signed(row["unit"], row["flat_change"]),
            _signed(row["unit"], row["cumulative_change"]),
        )
        for row in rows
    )
    whole = Grid("What functions hold themselves (medians)", heads, made, frozenset({2, 3, 4, 5}))
    return cut_off(whole, FUNCTIONS_MAX)


def _signed(unit: str, value: float) -> str:
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{amount(unit, abs(value))}"
