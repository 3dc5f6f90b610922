"""The charts of latency: by percentile, over time, and where each request lies."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from results.report.charts import (
    SECONDS,
    Chart,
    Palette,
    colour_of,
    extent_of,
    rows_of,
    second_axis,
    time_of,
    zoom_by_time,
)

_LATENCY_LABEL: Final = (
    "datum.value < 0.9995 ? format(datum.value * 1000, '~r') + ' µs' : "
    "datum.value < 999.5 ? format(datum.value, '~r') + ' ms' : "
    "format(datum.value / 1000, '~r') + ' s'"
)


def percentile_chart(palette: Palette, points: pa.Table) -> Chart:
    """Latency and service time by percentile, on a log axis that gives each nine its place."""
    axis = alt.Axis(
        values=[1, 2, 10, 100, 1000, 10000],
        grid=True,
        labelOverlap=True,
        labelExpr="{'1': '0 %', '2': '50 %', '10': '90 %', '100': '99 %', '1000': '99.9 %', "
        "'10000': '99.99 %'}[datum.value]",
    )
    scale = alt.Scale(type="log", domain=[1, 10000], nice=False)
    x = alt.X("one_in:Q", title="share of requests that were faster", scale=scale, axis=axis)
    base = rows_of("points").transform_calculate(
        ms="datum.median_ns / 1e6", low="datum.low_ns / 1e6", high="datum.high_ns / 1e6"
    )
    band = base.transform_filter("datum.kind == 'latency'").mark_area(opacity=0.16)
    dash = _kinds("kind", {"latency": [1, 0], "service time": [5, 4]})
    extent = extent_of(points, "low_ns")[0], extent_of(points, "high_ns")[1]
    line = base.mark_line(strokeWidth=2.2).encode(
        x=x, y=_latency_axis("ms", extent), color=palette.colour, strokeDash=dash
    )
    seen = base.mark_point(filled=True, size=60, opacity=0).encode(
        x=x, y="ms:Q", color=palette.colour,
        tooltip=[
            alt.Tooltip("configuration:N"), alt.Tooltip("kind:N"),
            alt.Tooltip("share:Q", format=".4~%", title="percentile"),
            alt.Tooltip("ms:Q", format=",.3~r", title="median of trials, ms"),
            alt.Tooltip("low:Q", format=",.3~r", title="least trial, ms"),
            alt.Tooltip("high:Q", format=",.3~r", title="greatest trial, ms"),
            alt.Tooltip("slower:Q", format=",.0f", title="requests beyond"),
        ],
    )  # fmt: skip
    chart = alt.layer(
        band.encode(x=x, y=_latency_axis("low", extent), y2="high:Q", color=palette.colour),
        line.transform_filter("datum.slower >= 10"),
        # From the last point that counts on, so that the line does not break.
        line.transform_filter("datum.slower < 11.3").encode(opacity=alt.value(0.4)),
        seen,
        width="container",
        height=340,
    )
    description = (
        "Line chart on two log axes: latency from the intended start (solid) and service time "
        "(dashed) against the share of requests that were faster, up to 99.99 %, by configuration."
    )
    return Chart("percentiles", description, palette.finish(chart, description), {"points": points})


def _latency_axis(field: str, extent_ns: tuple[float, float]) -> alt.Y:
    """A log axis with two labels for each decade, as far as there is data."""
    low, high = (max(value, 1) / 1e6 for value in extent_ns)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = [factor * 10.0**decade for decade in decades for factor in (1, 3)]
    # From the step below the least value to the step above the greatest.
    low = max((step for step in steps if step <= low), default=low)
    high = min((step for step in steps if step >= high), default=high)
    ticks = [float(f"{step:.6g}") for step in steps if low <= step <= high]
    axis = alt.Axis(labelExpr=_LATENCY_LABEL, values=ticks)
    scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
    return alt.Y(f"{field}:Q", title="latency", scale=scale, axis=axis)


def _kinds(field: str, kinds: dict[str, list[int]]) -> alt.StrokeDash:
    """Which line is which; the words beside the chart tell it."""
    scale = alt.Scale(domain=list(kinds), range=list(kinds.values()))
    return alt.StrokeDash(f"{field}:N", scale=scale, legend=None)


def over_time_chart(palette: Palette, seconds: pa.Table) -> Chart:
    """p50 and p99 of latency and p99 of service time by second, medians over trials."""
    base = rows_of("seconds").transform_calculate(
        p50="datum.p50_ns / 1e6",
        p99="datum.p99_ns / 1e6",
        service="datum.service_p99_ns / 1e6",
        slowest="datum.slowest_ns / 1e6",
    )
    folded = base.transform_fold(["p50", "p99", "service"], as_=["percentile", "ms"])
    lows = (extent_of(seconds, name)[0] for name in ("p50_ns", "service_p99_ns"))
    extent = min(lows), extent_of(seconds, "p99_ns")[1]
    x, y = second_axis(time_of(seconds)), _latency_axis("ms", extent)
    dash = _kinds("percentile", {"p99": [1, 0], "service": [5, 4], "p50": [2, 3]})
    line = folded.mark_line(strokeWidth=2, clip=True).encode(
        x=x, y=y, color=palette.colour, strokeDash=dash
    )
    points = folded.mark_point(size=26, filled=True, opacity=1, clip=True).encode(
        x=x, y=y, color=palette.colour,
        tooltip=[
            alt.Tooltip("configuration:N"), alt.Tooltip("second:Q"),
            alt.Tooltip("p50:Q", format=",.3~r", title="p50, ms"),
            alt.Tooltip("p99:Q", format=",.3~r", title="p99, ms"),
            alt.Tooltip("service:Q", format=",.3~r", title="p99 of service time, ms"),
            alt.Tooltip("slowest:Q", format=",.3~r", title="slowest of all trials, ms"),
            alt.Tooltip("requests:Q", title="requests per second"),
        ],
    )  # fmt: skip
    description = (
        "Line chart: 50th (dotted) and 99th percentile (solid) of latency and 99th percentile of "
        "service time (dashed) by second of phase measure on a log axis, medians over trials, by "
        "configuration."
    )
    both = alt.layer(line.add_params(zoom_by_time()), points, width="container", height=260)
    spec = palette.finish(both, description)
    return Chart("latency-over-time", description, spec, {"seconds": seconds}, zoom=True)


def heat_maps(palette: Palette, cells: pa.Table) -> list[Chart]:
    """How many requests had which latency in which second: a map for each configuration."""
    if not cells.num_rows:
        return []
    seconds = sorted(set(cells["second"].to_pylist()))
    step = min((b - a for a, b in pairwise(seconds)), default=1)
    found = []
    for index, name in enumerate(palette.configurations):
        own = cells.filter(pc.equal(cells["configuration"], name))
        if own.num_rows:
            found.append(_heat_map(palette, cells, own, (index, name), (seconds[-1], step)))
    return found


def _heat_map(
    palette: Palette, cells: pa.Table, own: pa.Table, of: tuple[int, str], time: tuple[int, int]
) -> Chart:
    index, name = of
    last, step = time
    most = max(2, pc.max(cells["requests"]).as_py())
    extent = extent_of(cells, "low_ns")[0], extent_of(cells, "high_ns")[1]
    chart = (
        rows_of("cells")
        .transform_calculate(
            low="datum.low_ns / 1e6", high="datum.high_ns / 1e6", until=f"datum.second + {step}"
        )
        .mark_rect(color=colour_of(index))
        .encode(
            x=alt.X(
                "second:Q",
                title=SECONDS,
                scale=alt.Scale(domain=[0, last + step], nice=False),
                axis=alt.Axis(grid=False, tickCount=6),
            ),
            x2="until:Q",
            y=_latency_axis("low", extent),
            y2="high:Q",
            opacity=alt.Opacity(
                "requests:Q",
                scale=alt.Scale(type="log", domain=[1, most], range=[0.14, 1]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("second:Q"),
                alt.Tooltip("low:Q", format=",.3~r", title="from, ms"),
                alt.Tooltip("high:Q", format=",.3~r", title="to, ms"),
                alt.Tooltip("requests:Q", title="requests, all trials"),
            ],
        )
    )
    description = (
        f"Heat map of {name}: number of requests by second of phase measure and latency on a log "
        "axis; the darker, the more."
    )
    spec = palette.finish(chart.properties(width="container", height=220), description)
    return Chart(f"heat-{index}", description, spec, {"cells": own}, configuration=name)
