"""A figure of the page: what it shows, its pictures, the same as a table, the SQL behind."""

from __future__ import annotations

from dataclasses import dataclass

from results.report.charts import Chart
from results.report.flames import Flame
from results.report.grid import Grid


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `queries` are names of `queries/*.sql`."""

    name: str
    section: str
    title: str
    caption: str
    charts: tuple[Chart, ...]
    grids: tuple[Grid, ...]
    queries: tuple[str, ...]
    flames: tuple[Flame, ...] = ()
