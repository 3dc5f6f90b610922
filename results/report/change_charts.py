"""The charts of changes: each configuration against the baseline, and factor by factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from results.metrics import METRICS
from results.report.charts import NAMES, Chart, Palette, plain_rows, rows_of
from results.report.forest import mark_of
from results.report.waterfall import Step, told_step

_VERDICTS: Final = ("better", "worse", "equivalent", "none", "open", "invalid")
_HOLLOW: Final = ("none", "open")
_VERDICT_SHAPES: Final = ("diamond", "triangle-up", "square", "circle", "circle", "cross")
_FACTOR_NAMES: Final = alt.Axis(ticks=False, domain=False, labelLimit=190, offset=10)


@dataclass(frozen=True, slots=True)
class _Marks:
    """How a verdict in the column `mark` looks: colour, and a shape for who sees no colour."""

    colour: alt.Color
    stroke: alt.Stroke
    fill: alt.Fill
    shape: alt.Shape


def _marks() -> _Marks:
    names = list(_VERDICTS)
    colours = [f"var(--{name})" for name in names]
    filled = [
        "var(--card)" if name in _HOLLOW else colour
        for name, colour in zip(names, colours, strict=True)
    ]
    scale = alt.Scale(domain=names, range=colours)
    shapes = alt.Scale(domain=names, range=list(_VERDICT_SHAPES))
    return _Marks(
        alt.Color("mark:N", scale=scale, legend=None),
        alt.Stroke("mark:N", scale=scale, legend=None),
        alt.Fill("mark:N", scale=alt.Scale(domain=names, range=filled), legend=None),
        alt.Shape("mark:N", scale=shapes, legend=None),
    )


def ablation_chart(palette: Palette, comparison: pa.Table, metric: str) -> Chart | None:
    """What each configuration changes against the baseline, in one metric."""
    rows = comparison.filter(pc.equal(comparison["metric"], metric))
    rows = rows.filter(pc.is_valid(rows["change"]))
    if not rows.num_rows:
        return None
    relative = all(rows["relative"].to_pylist())
    words = pa.array([mark_of(verdict) for verdict in rows["verdict"].to_pylist()])
    rows = in_order(rows.append_column("mark", words), palette.configurations)
    added = "1 + " if relative else ""
    base = rows_of("rows").transform_calculate(
        at=f"{added}datum.change",
        low=f"isValid(datum.change_low) ? {added}datum.change_low : {added}datum.change",
        high=f"isValid(datum.change_high) ? {added}datum.change_high : {added}datum.change",
    )
    label = METRICS[metric].label
    x = alt.X("at:Q", **_change_axis(label, relative=relative))
    y = alt.Y("configuration:N", title=None, sort=None, axis=NAMES)
    marks = _marks()
    tooltip = [
        alt.Tooltip("configuration:N"), alt.Tooltip("change:Q", format="+.1%" if relative else "+"),
        alt.Tooltip("verdict:N"), alt.Tooltip("pairs:Q", title="blocks"),
    ]  # fmt: skip
    chart = alt.layer(
        _zero(1 if relative else 0),
        base.mark_rule(strokeWidth=2.5).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, color=marks.colour
        ),
        base.mark_point(size=110, opacity=1, strokeWidth=2).encode(
            x=x, y=y, stroke=marks.stroke, fill=marks.fill, shape=marks.shape, tooltip=tooltip
        ),
        width="container",
        height=34 * rows.num_rows + 8,
    )
    description = (
        f"Interval chart: change of {label} of each configuration against the baseline, with its "
        "confidence interval; shape and colour tell the verdict."
    )
    spec = palette.finish(chart, description)
    return Chart(
        f"ablation-{metric.replace('_', '-')}", description, spec, {"rows": rows}, coloured=False
    )


def in_order(rows: pa.Table, configurations: Sequence[str]) -> pa.Table:
    """Rows in the order of their configurations: that of the matrix."""
    known = {name: place for place, name in enumerate(configurations)}
    places = [known.get(name, len(known)) for name in rows["configuration"].to_pylist()]
    return rows.take(sorted(range(rows.num_rows), key=lambda row: places[row]))


def _zero(place: float) -> alt.Chart:
    rule: alt.Chart = plain_rows("rows").mark_rule(color="var(--muted)")
    return rule.encode(x=alt.datum(place))


def _change_axis(label: str, *, relative: bool) -> dict[str, Any]:
    title = f"change of {label} against the baseline"
    if not relative:
        return {"title": title, "scale": alt.Scale(zero=True)}
    return {
        "title": title,
        "scale": alt.Scale(type="log", nice=False, padding=24),
        "axis": alt.Axis(
            labelExpr="datum.value == 1 ? '0' : "
            "replace(format(datum.value - 1, '+.3~p'), '%', ' %')",
            tickCount=6,
        ),
    }


def waterfall_chart(
    palette: Palette, steps: Sequence[Step], metric: str, ends: tuple[str, str]
) -> Chart:
    """From the baseline to the bundle, factor by factor; `ends` are both values as text."""
    label = METRICS[metric].label
    values = [step.end for step in steps]
    known = [b for s in steps for b in (s.low, s.high, s.start, s.end) if b]
    scale = alt.Scale(type="log", nice=False, domain=[min(known), max(known)], padding=76)
    axis = _change_axis(label, relative=True) | {"scale": scale}
    marks = _marks()
    y = alt.Y("label:N", title=None, sort=None, axis=_FACTOR_NAMES)
    base = plain_rows("rows").transform_calculate(
        low="isValid(datum.low) ? datum.low : datum.end",
        high="isValid(datum.high) ? datum.high : datum.end",
    )
    x = alt.X("end:Q", **axis)
    bars = base.transform_filter("datum.kind !== 'whole'")
    of_factors = base.transform_filter("datum.kind === 'factor'")
    wholes = base.transform_filter("datum.kind === 'whole'")
    joints = base.transform_filter("isValid(datum.next)")
    words = base.transform_calculate(far="max(datum.start, datum.end, datum.high)").encode(
        x=alt.X("far:Q", **axis), y=y, text="text:N"
    )
    style: dict[str, Any] = {"align": "left", "dx": 9, "fontSize": 11}
    tooltip = [
        alt.Tooltip("label:N", title="factor"), alt.Tooltip("text:N", title="change"),
        alt.Tooltip("verdict:N"),
    ]  # fmt: skip
    chart = alt.layer(
        _zero(1),
        joints.mark_rule(color="var(--muted)", strokeDash=[2, 2]).encode(
            x=x, y=y, y2=alt.Y2("next:N")
        ),
        bars.mark_bar(height=14, opacity=0.75, tooltip=True).encode(
            x=alt.X("start:Q", **axis), x2="end:Q", y=y, color=marks.colour, tooltip=tooltip
        ),
        of_factors.mark_rule(strokeWidth=1.5, color="var(--fg)").encode(
            x=alt.X("low:Q", **axis), x2="high:Q", y=y
        ),
        wholes.mark_point(size=120, opacity=1, strokeWidth=2).encode(
            x=x, y=y, stroke=marks.stroke, fill=marks.fill, shape=marks.shape, tooltip=tooltip
        ),
        # A line may run behind the words: a rim of the background keeps them readable.
        words.mark_text(stroke="var(--card)", strokeWidth=4, strokeJoin="round", **style),
        words.mark_text(color="var(--fg)", **style),
        width="container",
        height=30 * len(steps) + 8,
    )
    following = [s.label for s in steps[1:]]
    rows = pa.table(
        {
            "label": [step.label for step in steps],
            "kind": [step.kind for step in steps],
            "start": [step.start for step in steps],
            "end": values,
            "low": pa.array([step.low for step in steps], pa.float64()),
            "high": pa.array([step.high for step in steps], pa.float64()),
            "text": [ends[0], *map(told_step, steps[1:-1]), f"{ends[1]} ({told_step(steps[-1])})"],
            "verdict": [step.verdict for step in steps],
            "mark": ["none" if not s.verdict else mark_of(s.verdict) for s in steps],
            "next": pa.array([*following, None], pa.string()),
        }
    )
    description = (
        f"Waterfall chart of {label}: from {steps[0].label} ({ends[0]}) to {steps[-1].label} "
        f"({ends[1]}), one bar for each factor: "
        f"{', '.join(f'{s.label} {told_step(s)}' for s in steps[1:-1])}."
    )
    spec = palette.finish(chart, description)
    return Chart(
        f"waterfall-{metric.replace('_', '-')}", description, spec, {"rows": rows}, coloured=False
    )
