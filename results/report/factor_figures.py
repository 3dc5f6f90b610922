"""The figures that take a bundle of settings apart: which factor did how much, at which price."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from results.metrics import METRICS, format_change, format_value
from results.report.change_charts import waterfall_chart
from results.report.charts import Palette
from results.report.data import Panel, ReportData
from results.report.facts import grid_of
from results.report.figure import Figure
from results.report.forest import mark_of, minus
from results.report.grid import Grid
from results.report.verdict import PRICE
from results.report.waterfall import Bundle, bundles, steps, told_factor

_NO_WORD: Final = re.compile(r"[^\w.-]+")
"""What may not stand in the name of a figure."""


def factor_figures(
    data: ReportData, palette: Palette, panel: Panel, primary: Sequence[str]
) -> Iterator[Figure]:
    """One figure for each configuration that several others take apart, with all that decides."""
    rows = data.answers["comparison"].of(panel).to_pylist()
    records = [r for r in data.records if (r.node_class, r.workload) == panel]
    for bundle in bundles(records, data.configurations):
        by_metric = {m: _by_configuration(rows, m) for m in (*primary, *PRICE)}
        charts = [
            waterfall_chart(palette, made, metric, _ends(by_metric[metric], bundle, metric))
            for metric in primary
            if (made := steps(bundle, by_metric[metric], data.comparison.settings.baseline))
        ]
        if charts:
            number = len(bundle.parts) + len(bundle.missing)
            yield Figure(
                f"waterfall-{_NO_WORD.sub('_', bundle.configuration)}",
                "comparison",
                f"What makes up {bundle.configuration}, factor by factor",
                f"{bundle.configuration} differs from {data.comparison.settings.baseline} in "
                f"{number} factors. Each bar is what one of them does alone, with its interval "
                "(black); changes multiply, so on this log axis the order does not matter. The "
                "last bar is what is left: what they do only together. It is not tested.",
                tuple(charts),
                (_grid(bundle, by_metric),),
                ("comparison",),
            )


def _by_configuration(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    return {row["configuration"]: row for row in rows if row["metric"] == metric}


def _ends(rows: Mapping[str, dict[str, Any]], bundle: Bundle, metric: str) -> tuple[str, str]:
    row = rows[bundle.configuration]
    first, last = row["baseline_value"], row["candidate_value"]
    return format_value(METRICS[metric], first), format_value(METRICS[metric], last)


def _grid(bundle: Bundle, by_metric: Mapping[str, Mapping[str, dict[str, Any]]]) -> Grid:
    """Each factor's change of what decides and of the price; what was not shown is in brackets."""
    names = [m for m, rows in by_metric.items() if rows]
    wanted = [(told_factor(factor), name) for factor, name in bundle.parts]
    wanted.append((f"all of them ({bundle.configuration})", bundle.configuration))
    return grid_of(
        "Change by factor; in brackets where no difference is shown",
        ("factor", *(METRICS[name].label for name in names)),
        [(label, *(_change(by_metric[m].get(n)) for m in names)) for label, n in wanted],
    )


def _change(row: dict[str, Any] | None) -> str:
    if row is None or row["change"] is None:
        return "–"
    text = format_change(METRICS[row["metric"]], row["change"], relative=row["relative"])
    shown = mark_of(row["verdict"]) in ("better", "worse", "equivalent")
    return minus(text if shown else f"({text})")
