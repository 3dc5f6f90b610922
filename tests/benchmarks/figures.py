"""A figure with its target, a table of them, and the file in which they are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FIGURES_FILE = Path("bench-figures.jsonl")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `target` is a text such as "≤ 250"; None: it is only told.

    `holds` is always true for a figure without a target.
    """

    area: str
    name: str
    value: float
    unit: str
    target: str | None
    holds: bool

    @classmethod
    def at_most(cls, area: str, name: str, value: float, unit: str, most: float) -> Figure:
        """A figure that should be small."""
        return cls(area, name, value, unit, f"≤ {most:g}", value <= most)

    @classmethod
    def at_least(cls, area: str, name: str, value: float, unit: str, least: float) -> Figure:
        """A figure that should be large."""
        return cls(area, name, value, unit, f"≥ {least:g}", value >= least)

    @classmethod
    def within(
        cls, area: str, name: str, value: float, unit: str, least: float, most: float
    ) -> Figure:
        """A figure that should be neither smaller nor larger."""
        return cls(area, name, value, unit, f"{least:g} … {most:g}", least <= value <= most)

    @classmethod
    def told(cls, area: str, name: str, value: float, unit: str) -> Figure:
        """A figure without a target."""
        return cls(area, name, value, unit, None, True)


def keep(figure: Figure, path: Path = FIGURES_FILE) -> None:
    """Add a figure to the file, one JSON object a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(figure), ensure_ascii=False) + "\n")


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print the figures as a table."""
    table = Table("area", "figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("target", justify="right")
    table.add_column("holds")
    for figure in figures:
        verdict = "" if figure.target is None else "yes" if figure.holds else "[red]no[/red]"
        table.add_row(
            figure.area,
            figure.name,
            f"{figure.value:,.4g}" if abs(figure.value) < 1000 else f"{figure.value:,.0f}",
            figure.unit,
            figure.target or "",
            verdict,
        )
    console.print(table)
