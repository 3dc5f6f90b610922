"""The charts as Vega-Lite, made with Altair; their data stays beside them, as named tables.

Colours are CSS variables (`var(--c0)`): the SVG in the page follows the theme, also in print. Every
chart has a parameter `shown`, the configurations that are switched on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from results.report.colours import AXIS

COLOURS: Final = 8
"""Colours of configurations in the style sheet; more configurations begin again."""

SECONDS: Final = "seconds since measure began"
_SHOWN: Final = "indexof(shown, datum.configuration) >= 0"
NAMES: Final = alt.Axis(ticks=False, domain=False, labelLimit=120, offset=10)
"""Configurations beside their rows; a mark at the edge does not cover a name."""
_CONFIG: Final[dict[str, Any]] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "mark": {"aria": False},
    "axis": AXIS | {"labelFontSize": 11, "titleFontSize": 11},
    # Titles lie on top and labels have one width: charts below each other share their time.
    "axisY": {
        "minExtent": 46,
        "titleAngle": 0,
        "titleAlign": "left",
        "titleBaseline": "bottom",
        "titleX": -46,
        "titleY": -8,
    },
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: its specification and the tables that it draws."""

    name: str
    description: str
    """For who can't see it: what is on the axes and what the marks are."""
    spec: dict[str, Any]
    tables: dict[str, pa.Table]
    zoom: bool = False
    configuration: str = ""
    """The only configuration that it shows, if it is about one."""
    coloured: bool = True
    """Whether its colours are those of configurations; else those of verdicts."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Which configuration has which colour, the same in all charts."""

    configurations: tuple[str, ...]

    @property
    def colour(self) -> alt.Color:
        """By configuration, without a legend: the page has one for all."""
        colours = [colour_of(index) for index in range(len(self.configurations))]
        scale = alt.Scale(domain=list(self.configurations), range=colours)
        return alt.Color("configuration:N", scale=scale, legend=None)

    def finish(self, chart: Any, description: str) -> dict[str, Any]:
        """The specification with what all charts share."""
        # Checking against the schema takes half of the time; the tests draw every chart.
        spec: dict[str, Any] = chart.to_dict(validate=False)
        spec["config"] = _CONFIG
        spec["description"] = description
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        shown = {"name": "shown", "value": list(self.configurations)}
        spec["params"] = [shown, *spec.get("params", [])]
        return spec


def colour_of(index: int) -> str:
    """The colour of a configuration by its place."""
    return f"var(--c{index % COLOURS})"


def zoom_by_time() -> alt.Parameter:
    """Drag to move, Ctrl and wheel to zoom: a wheel alone scrolls the page."""
    wheel = "wheel![event.ctrlKey]"
    return alt.selection_interval(name="zoom", bind="scales", encodings=["x"], zoom=wheel)


def rows_of(table: str) -> alt.Chart:
    """The rows of the configurations that are switched on; the whole chart gets its size."""
    return alt.Chart(alt.NamedData(table)).transform_filter(_SHOWN)


def plain_rows(table: str) -> alt.Chart:
    """The rows, whatever is switched on."""
    return alt.Chart(alt.NamedData(table))


def second_axis(domain: tuple[float, float]) -> alt.X:
    """The time of a trial; charts of one panel share its `domain`."""
    scale = alt.Scale(domain=list(domain), nice=False)
    whole: dict[str, Any] = {"tickMinStep": 1} if domain[1] - domain[0] > 4 else {}
    axis = alt.Axis(grid=False, tickCount=8, **whole)
    return alt.X("second:Q", title=SECONDS, scale=scale, axis=axis)


def time_of(rows: pa.Table) -> tuple[float, float]:
    """The time of a chart, with room for marks at its ends."""
    first, last = extent_of(rows, "second")
    rim = max((last - first) * 0.02, 0.02)
    return round(first - rim, 3), round(last + rim, 3)


def extent_of(table: pa.Table, column: str) -> tuple[float, float]:
    """The least and the greatest value of a column."""
    found = pc.min_max(table[column]).as_py()
    return found["min"], found["max"]


def memory_chart(
    palette: Palette, samples: pa.Table, phases: pa.Table, marks: pa.Table, limits: pa.Table
) -> Chart:
    """Resident memory of every trial over its time, with phases, limits and deaths."""
    lines = _memory_lines(palette, samples, "resident", "resident memory, MiB")
    layers = [*_phase_layers(phases), lines[0], *_limit_layers(palette.colour, limits), lines[1]]
    layers += _death_layers(marks)
    chart = alt.layer(*layers, height=320, width="container")
    description = _memory_description("resident memory", samples)
    tables = {"samples": samples, "phases": phases, "marks": marks, "limits": limits}
    return Chart("memory", description, palette.finish(chart, description), tables, zoom=True)


def commit_chart(palette: Palette, samples: pa.Table, phases: pa.Table, limits: pa.Table) -> Chart:
    """Commit of every trial over its time, with phases and limits."""
    lines = _memory_lines(palette, samples, "commit", "commit, MiB")
    layers = [*_phase_layers(phases), lines[0], *_limit_layers(palette.colour, limits), lines[1]]
    chart = alt.layer(*layers, height=240, width="container")
    description = _memory_description("commit", samples)
    tables = {"samples": samples, "phases": phases, "limits": limits}
    return Chart("commit", description, palette.finish(chart, description), tables, zoom=True)


def _memory_description(what: str, samples: pa.Table) -> str:
    return (
        f"Line chart: {what} in MiB of {_count(samples)} trials against seconds since "
        "phase measure began; one line for each trial, in the colour of its configuration."
    )


def _memory_lines(
    palette: Palette, samples: pa.Table, what: str, title: str
) -> tuple[alt.Chart, alt.Chart]:
    """The lines of `what`_bytes, and the points that a pointer meets."""
    colour = palette.colour
    second = second_axis(time_of(samples))
    hover = alt.selection_point(
        name="hover", fields=["trial_id"], on="pointerover", clear="pointerout", empty=False
    )
    mib = alt.Y("mib:Q", title=title, axis=alt.Axis(tickCount=6))
    base = rows_of("samples").transform_calculate(mib=f"datum.{what}_bytes / 1048576")
    lines = base.mark_line(clip=True, strokeJoin="round").encode(
        x=second, y=mib, color=colour, detail="trial_id:N",
        strokeWidth=alt.when(hover).then(alt.value(2.6)).otherwise(alt.value(1.2)),
        strokeDash=alt.when("datum.counted").then(alt.value([1, 0])).otherwise(alt.value([4, 3])),
        opacity=alt.when("datum.counted").then(alt.value(0.85)).otherwise(alt.value(0.6)),
    ).add_params(zoom_by_time())  # fmt: skip
    # Large and invisible: what a pointer meets when it comes near a line.
    points = base.mark_point(filled=True, size=160, opacity=0, clip=True).encode(
        x=second, y=mib, color=colour,
        tooltip=[
            alt.Tooltip("trial_id:N", title="trial"),
            alt.Tooltip("configuration:N"),
            alt.Tooltip("phase:N"),
            alt.Tooltip("second:Q", format=".1f", title="second"),
            alt.Tooltip("mib:Q", format=",.1f", title=f"{what}, MiB"),
        ],
    ).add_params(hover)  # fmt: skip
    return lines, points


def _count(table: pa.Table) -> int:
    return int(pc.count_distinct(table["trial_id"]).as_py()) if table.num_rows else 0


def _phase_layers(phases: pa.Table) -> list[alt.Chart]:
    """The measure phase as a band, the borders of the others, and names where there is room."""
    if not phases.num_rows:
        return []
    whole_s = pc.max(phases["end_s"]).as_py() - pc.min(phases["begin_s"]).as_py()
    band = plain_rows("phases").transform_filter("datum.phase == 'measure'")
    room = f"(datum.end_s - datum.begin_s) * width > {whole_s * 52!r}"
    names = plain_rows("phases").transform_filter(room)
    names = names.transform_calculate(second="(datum.begin_s + datum.end_s) / 2")
    return [
        band.mark_rect(color="var(--band)", clip=True).encode(x="begin_s:Q", x2="end_s:Q"),
        plain_rows("phases")
        .mark_rule(color="var(--line)", strokeDash=[2, 3], clip=True)
        .encode(x="begin_s:Q"),
        names.mark_text(color="var(--muted)", y=9, fontSize=11, clip=True).encode(
            x="second:Q", text="phase:N"
        ),
    ]


def _limit_layers(colour: alt.Color, limits: pa.Table) -> list[alt.Chart]:
    if not limits.num_rows:
        return []
    base = rows_of("limits").transform_calculate(mib="datum.bytes / 1048576")
    rule = base.mark_rule(strokeWidth=1.5, strokeDash=[7, 4]).encode(y="mib:Q", color=colour)
    layers = [rule]
    style: dict[str, Any] = {"align": "left", "dy": -8, "fontSize": 11, "fontWeight": "bold"}
    for column in sorted(set(limits["column"].to_pylist())):
        own = base.transform_filter(f"datum.column === {column}")
        place = {"x": alt.value(5 + 145 * column), "y": "mib:Q", "text": "label:N"}
        # Lines run behind the words: a rim of the background keeps them readable.
        rim = own.mark_text(stroke="var(--card)", strokeWidth=4, strokeJoin="round", **style)
        layers += [rim.encode(**place), own.mark_text(**style).encode(color=colour, **place)]
    return layers


def _death_layers(marks: pa.Table) -> list[alt.Chart]:
    if not marks.num_rows:
        return []
    base = rows_of("marks").transform_calculate(
        mib="datum.resident_bytes / 1048576", word="replace(datum.cause, '_', ' ')"
    )
    cross = base.mark_point(
        shape="M-1,-1L1,1M1,-1L-1,1", size=120, stroke="var(--worse)", strokeWidth=3, clip=True
    ).encode(
        x="second:Q",
        y="mib:Q",
        tooltip=[
            alt.Tooltip("trial_id:N", title="trial"),
            alt.Tooltip("cause:N"),
            alt.Tooltip("text:N", title="what happened"),
        ],
    )
    words = base.mark_text(align="right", dx=-9, color="var(--worse)", fontSize=11, clip=True)
    words = words.encode(x="second:Q", y="mib:Q", text="word:N")
    return [cross, words]


def gc_strip(palette: Palette, cycles: pa.Table, phases: pa.Table, samples: pa.Table) -> Chart:
    """Over the time of `samples`: one row for each trial, one tick for each garbage collection."""
    rows = max(1, _count(cycles))
    ticks = (
        rows_of("cycles")
        .mark_tick(thickness=1.6, clip=True)
        .encode(
            x=second_axis(time_of(samples)),
            y=alt.Y(
                "label:N",
                title=None,
                sort=None,
                axis=alt.Axis(labelLimit=70, ticks=False, labelOverlap=True),
            ),
            color=palette.colour,
            opacity=alt.Opacity(
                "cycles:Q", scale=alt.Scale(type="log", range=[0.55, 1]), legend=None
            ),
            tooltip=[
                alt.Tooltip("trial_id:N", title="trial"),
                alt.Tooltip("second:Q", format=".2f"),
                alt.Tooltip("cycles:Q", title="cycles in this slice"),
                alt.Tooltip("stop_us:Q", format=",.0f", title="longest stop, µs"),
                alt.Tooltip("goal_mib:Q", format=",.0f", title="heap goal, MiB"),
            ],
        )
        .transform_calculate(
            stop_us="datum.longest_stop_ns / 1000", goal_mib="datum.heap_goal_bytes / 1048576"
        )
    )
    height = min(18 * rows, 720)
    layers = [*_phase_layers(phases)[:2], ticks.add_params(zoom_by_time())]
    chart = alt.layer(*layers, width="container", height=height)
    description = (
        f"Strip chart: garbage collections of {rows} trials against seconds since phase measure "
        "began; one row for each trial, one tick for each collection."
    )
    spec = palette.finish(chart, description)
    return Chart("gc-strip", description, spec, {"cycles": cycles, "phases": phases}, zoom=True)


def gc_chart(palette: Palette, trials: pa.Table, field: str, title: str) -> Chart:
    """One dot for each trial, a bar at the median of its configuration."""
    order = [n for n in palette.configurations if n in set(trials["configuration"].to_pylist())]
    y = alt.Y("configuration:N", title=None, sort=order, axis=NAMES)
    number = alt.Axis(format="~%" if field == "gc_cpu_share" else "~s", tickCount=5)
    x = alt.X(f"{field}:Q", title=title, axis=number, scale=alt.Scale(zero=True))
    base = rows_of("trials")
    dots = base.mark_point(filled=True, size=75, opacity=0.75).encode(
        x=x, y=y, color=palette.colour,
        tooltip=[
            alt.Tooltip("trial_id:N", title="trial"), alt.Tooltip("block:Q"),
            alt.Tooltip("gc_cpu_share:Q", format=".2%", title="GC CPU"),
            alt.Tooltip("cycles:Q"),
            alt.Tooltip("longest_stop_ns:Q", format=",", title="longest stop, ns"),
        ],
    )  # fmt: skip
    median = base.mark_tick(thickness=3, size=24).encode(
        x=alt.X(f"median({field}):Q"), y=y, color=palette.colour
    )
    description = f"Dot plot: {title} of each trial by configuration, with a bar at the median."
    both = alt.layer(dots, median, width="container", height=34 * len(order) + 8)
    spec = palette.finish(both, description)
    return Chart(f"gc-{field.replace('_', '-')}", description, spec, {"trials": trials})
