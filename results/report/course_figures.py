"""The course of a service over its runs: one small chart for each metric, its shifts as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

import altair as alt
import pyarrow as pa

from results.comparing.history import CellHistory, Change, MetricHistory
from results.comparing.shiftwords import bounds_text, difference_text, size_text
from results.metrics import Metric, counted, format_value
from results.report.charts import Chart, Palette, rows_of
from results.report.data import Panel, ReportData
from results.report.figure import Figure
from results.report.forest import minus
from results.report.grid import Grid

RUNS_MAX: Final = 100
"""The latest ones: more points are not seen apart."""

TICKS_MAX: Final = 8
LEAST_RANGE: Final = 0.1
"""What an axis spans at least, as a share of the level: else noise would look like news."""

GRID_ROWS_MAX: Final = 60
NOTES_MAX: Final = 3
_UNITS: Final = {"bytes": (2**20, "MiB", ",.4~g"), "ns": (1e6, "ms", ",.3~g"),
                 "fraction": (1, "", ".2~%")}  # fmt: skip
"""By a metric's unit: what it is divided by, the unit on the axis, and its numbers' format."""

_VERDICTS: Final = {"better": "var(--better)", "worse": "var(--worse)", "": "var(--muted)"}
_RUNS: Final = pa.schema(
    {
        "configuration": pa.string(), "place": pa.int64(), "run": pa.string(),
        "began": pa.string(), "value": pa.float64(), "low": pa.float64(), "high": pa.float64(),
        "trials": pa.int64(), "this": pa.bool_(),
    }
)  # fmt: skip
_SHIFTS: Final = pa.schema(
    {
        "configuration": pa.string(), "place": pa.float64(), "size": pa.string(),
        "verdict": pa.string(), "between": pa.string(),
    }
)  # fmt: skip

Line = tuple[CellHistory, MetricHistory]


def course_figures(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    """The figure of one panel; none where only this run has it."""
    history = data.course and data.course.history
    if not history:
        return
    cells = [cell for cell in history.cells if (cell.node_class, cell.workload) == panel]
    places = _places(cells)
    if len(places) < 2:
        return
    lines = [(cell, own) for cell in cells for own in cell.metrics]
    metrics = dict.fromkeys(own.metric for _, own in lines)
    made = [
        _chart(palette, metric, [line for line in lines if line[1].metric is metric], places, data)
        for metric in metrics
    ]
    shifts = sum(len(own.changes) for _, own in lines)
    told = [
        f"{counted(len(places), 'run')} of {history.service} in this archive, the oldest first; a "
        "point is the median of a run's valid trials with its 95 % interval, the ring is this run.",
        f"{counted(shifts, 'shift')} of level in {counted(len(lines), 'line')}, dashed: how they "
        "are found, and how often by chance, is told by bench history.",
        *history.notes[:NOTES_MAX],
    ]
    if len(history.notes) > NOTES_MAX:
        told.append(f"{len(history.notes) - NOTES_MAX} more notes: bench history.")
    grids = [_shift_grid(lines)] if shifts else []
    yield Figure(
        "course", "history", "Over the runs", " ".join(told), tuple(made),
        (*grids, _run_grid(lines)), (),
    )  # fmt: skip


def _places(cells: Iterable[CellHistory]) -> dict[str, int]:
    """The place of each run, by its id: the latest ones, from 1 on."""
    began = {p.run_id: p.started_ns for c in cells for own in c.metrics for p in own.points}
    order = sorted(began, key=lambda run_id: (began[run_id], run_id))[-RUNS_MAX:]
    return {run_id: place for place, run_id in enumerate(order, 1)}


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a metric's values are drawn."""

    divisor: float
    title: str
    form: str

    @classmethod
    def of(cls, metric: Metric) -> _Scale:
        divisor, unit, form = _UNITS.get(metric.unit, (1, metric.unit, "~s"))
        return cls(divisor, f"{metric.label}, {unit}" if unit else metric.label, form)


def _chart(
    palette: Palette, metric: Metric, lines: list[Line], places: dict[str, int], data: ReportData
) -> Chart:
    scale = _Scale.of(metric)
    runs = _run_rows(lines, places, scale, data.run.run_id)
    shifts = _shift_rows(lines, places)
    description = (
        f"Line chart: {metric.label} over {len(places)} runs, the oldest first, one line for each "
        "configuration; dashed lines are shifts of level."
    )
    chart = alt.layer(
        *_layers(palette, scale, len(places), _domain(runs)), width="container", height=150
    )
    spec = palette.finish(chart, description)
    tables = {"runs": runs, "shifts": shifts}
    return Chart(f"course-{metric.name.replace('_', '-')}", description, spec, tables)


def _domain(runs: pa.Table) -> tuple[float, float]:
    """What the axis of values spans: at least a share of their level."""
    values = [
        v for name in ("value", "low", "high") for v in runs[name].to_pylist() if v is not None
    ]
    least, most = min(values), max(values)
    span = max(most - least, LEAST_RANGE * abs(median(values))) or 1.0
    rim = (span - (most - least)) / 2 + span * 0.08
    return least - rim, most + rim


def _layers(
    palette: Palette, scale: _Scale, runs: int, domain: tuple[float, float]
) -> list[alt.Chart]:
    x_scale = alt.Scale(domain=[0.5, runs + 0.5], nice=False)
    places = list(range(1, runs + 1, math.ceil(runs / TICKS_MAX)))
    ticks = alt.Axis(grid=False, values=places, format="d")
    x = alt.X("place:Q", title="run", scale=x_scale, axis=ticks)
    axis = alt.Axis(tickCount=4, format=scale.form)
    y = alt.Y("value:Q", title=scale.title, scale=alt.Scale(domain=list(domain)), axis=axis)
    base = rows_of("runs")
    own: dict[str, Any] = {"x": "place:Q", "y": "value:Q", "color": palette.colour}
    tooltip = [
        alt.Tooltip("run:N"), alt.Tooltip("began:N", title="began (UTC)"),
        alt.Tooltip("configuration:N"), alt.Tooltip("value:Q", format=scale.form),
        alt.Tooltip("trials:Q"),
    ]  # fmt: skip
    ring = base.transform_filter("datum.this").mark_point(size=130, strokeWidth=1.6, opacity=1)
    bounds = base.transform_filter("isValid(datum.low)").mark_rule(opacity=0.55)
    shift, *words = _shift_layers()
    return [
        shift,
        base.mark_line(strokeWidth=1.2, opacity=0.6).encode(**own | {"x": x, "y": y}),
        bounds.encode(**own | {"y": "low:Q", "y2": "high:Q"}),
        ring.encode(**own),
        base.mark_point(filled=True, size=26, opacity=1).encode(**own, tooltip=tooltip),
        *words,
    ]


def _shift_layers() -> tuple[alt.Chart, alt.Chart, alt.Chart]:
    """A rule where a level shifted, and by how much, on a rim of the background."""
    base = rows_of("shifts")
    colours: dict[str, Any] = {
        "scale": alt.Scale(domain=list(_VERDICTS), range=list(_VERDICTS.values())),
        "legend": None,
    }
    rule = base.mark_rule(strokeDash=[4, 3], strokeWidth=1.5)
    style: dict[str, Any] = {"align": "left", "dx": 4, "y": 7, "fontSize": 11}
    rim = base.mark_text(stroke="var(--card)", strokeWidth=4, strokeJoin="round", **style)
    place: dict[str, Any] = {"x": "place:Q", "text": "size:N"}
    return (
        rule.encode(x="place:Q", stroke=alt.Stroke("verdict:N", **colours)),
        rim.encode(**place),
        base.mark_text(**style).encode(**place, fill=alt.Fill("verdict:N", **colours)),
    )


def _run_rows(lines: Iterable[Line], places: dict[str, int], scale: _Scale, this: str) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for cell, own in lines:
        for point in own.points:
            if point.run_id in places:
                low, high = point.interval or (None, None)
                rows.append(
                    {
                        "configuration": cell.configuration,
                        "place": places[point.run_id],
                        "run": point.run_id,
                        "began": _minute(point.started_ns),
                        "value": point.value / scale.divisor,
                        "low": None if low is None else low / scale.divisor,
                        "high": None if high is None else high / scale.divisor,
                        "trials": point.trials,
                        "this": point.run_id == this,
                    }
                )
    return pa.Table.from_pylist(rows, _RUNS)


def _shift_rows(lines: Iterable[Line], places: dict[str, int]) -> pa.Table:
    rows = [
        {
            "configuration": cell.configuration,
            "place": (places[change.run_before] + places[change.run_after]) / 2,
            "size": minus(size_text(own.metric, change, change.size)),
            "verdict": change.verdict,
            "between": f"{change.run_before} … {change.run_after}",
        }
        for cell, own in lines
        for change in own.changes
        if {change.run_before, change.run_after} <= places.keys()
    ]
    return pa.Table.from_pylist(rows, _SHIFTS)


def _shift_grid(lines: Iterable[Line]) -> Grid:
    rows = [
        (
            own.metric.label,
            cell.configuration,
            change.verdict or "changed",
            minus(size_text(own.metric, change, change.size)),
            minus(bounds_text(own.metric, change)),
            f"{change.run_before} … {change.run_after}{'' if change.settled else ' (fresh)'}",
            _why(change),
        )
        for cell, own in lines
        for change in own.changes
    ]
    heads = ("metric", "configuration", "shift", "size", "95 %", "between", "what differs there")
    return _latest("Shifts of level", heads, rows, frozenset({3, 4}))


def _why(change: Change) -> str:
    told = "; ".join(map(difference_text, change.differences))
    return told or "nothing that is recorded"


def _run_grid(lines: Iterable[Line]) -> Grid:
    """The values of each run, the latest first."""
    found = [
        (point.started_ns, point.run_id, own.metric, cell.configuration, point)
        for cell, own in lines
        for point in own.points
    ]
    found.sort(key=lambda row: row[:2], reverse=True)
    rows = [
        (
            run_id,
            _minute(started_ns),
            configuration,
            metric.label,
            format_value(metric, point.value),
            str(point.trials),
        )
        for started_ns, run_id, metric, configuration, point in found
    ]
    heads = ("run", "began (UTC)", "configuration", "metric", "median", "trials")
    return _latest("Each run, the latest first", heads, rows, frozenset({4, 5}))


def _latest(
    caption: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: frozenset[int]
) -> Grid:
    left = len(rows) - GRID_ROWS_MAX
    if left > 0:
        caption = f"{caption} ({left:,} more rows: bench history)"
    return Grid(caption, heads, tuple(rows[:GRID_ROWS_MAX]), numbers)


def _minute(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M}"
