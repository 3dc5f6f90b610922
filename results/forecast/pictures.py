"""A forecast as a picture: what was measured, the law, its interval, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import altair as alt

from results.forecast.forecast import UNTRUSTED, Forecast
from results.forecast.levels import Dimension
from results.forecast.overtime import Continued
from results.metrics import METRICS, Metric
from results.report.colours import AXIS, coloured
from results.report.images import FONT, SCALE, with_own_ids

Drawn = Any
"""A chart of Altair's: its layers have many types."""

Values = dict[str, Any]

WIDTH: Final = 720
HEIGHT: Final = 260
GRID: Final = 60
"""Points of the curve."""
MARGIN: Final = 1.12
"""How far the axis goes beyond what is forecast, by ratio."""
SCALES: Final = {"bytes": (2**20, "MiB"), "ns": (1e6, "ms"), "fraction": (0.01, "%")}

_COLOUR: Final = "var(--c1)"
_REFUSED: Final = "var(--line)"
_CONFIG: Final[dict[str, Any]] = {
    "font": FONT,
    "background": "var(--card)",
    "padding": 18,
    "view": {"stroke": None},
    "axis": AXIS,
    "title": {
        "anchor": "start",
        "color": "var(--fg)",
        "subtitleColor": "var(--muted)",
        "fontSize": 15,
        "subtitleFontSize": 12,
        "offset": 12,
    },
    "legend": {"labelColor": "var(--fg)", "title": None, "orient": "top"},
}


def picture(charts: Sequence[Drawn], form: str) -> bytes:
    """Charts below each other, as `svg` or `png`; the same forecasts give the same bytes."""
    import vl_convert

    spec = alt.vconcat(*charts, spacing=36).to_dict(validate=False)
    whole = coloured(spec | {"config": _CONFIG})
    if form == "png":
        return vl_convert.vegalite_to_png(whole, scale=SCALE)
    return with_own_ids(vl_convert.vegalite_to_svg(whole), 0).encode()


def forecast_chart(own: Forecast) -> Drawn:
    """The figure over the first dimension that is asked for."""
    dimension = own.dimensions[0]
    unit, _ = _scale(own.metric)
    size, _ = _axis_scale(dimension)
    low, high = dimension.bounds
    first, last = low / MARGIN, high * MARGIN
    grid = [low * (high / low) ** (index / (GRID - 1)) for index in range(GRID)]
    bands = [(x, own.along(x)) for x in grid]
    curve = [
        {"x": x / size, "y": b.estimate / unit, "low": b.low / unit, "high": b.high / unit}
        for x, b in bands
    ]
    points: list[Values] = [
        {"x": x / size, "y": row.value / unit, "configuration": trial.configuration}
        for x, row, trial in zip(dimension.values, own.rows, own.trials, strict=True)
    ]
    asked = [
        {
            "x": dimension.asked / size,
            "y": own.found.estimate / unit,
            "low": own.found.low / unit,
            "high": own.found.high / unit,
        }
    ]
    scale = alt.Scale(type="log", nice=False, domain=[first / size, last / size])
    x = alt.X("x:Q", title=_axis_title(dimension), scale=scale, axis=alt.Axis(grid=False))
    highs = [*asked, *_inside(curve, own)]
    top = max(*(p["y"] for p in points), *(c["high"] for c in highs))
    layers = [
        *_refused(first / size, low / size, high / size, last / size, x),
        *_curve_layers(curve, x, own.metric, top),
        _points(points),
        *_asked_layers(asked),
    ]
    return alt.layer(*layers, width=WIDTH, height=HEIGHT, title=_title(own, dimension))


def _inside(curve: Sequence[Values], own: Forecast) -> list[Values]:
    """The part of the curve up to what is asked for: farther out its band may dwarf all else."""
    size, _ = _axis_scale(own.dimensions[0])
    last = max(own.dimensions[0].asked, own.dimensions[0].highest) / size
    return [point for point in curve if point["x"] <= last]


def _scale(metric: Metric) -> tuple[float, str]:
    return SCALES.get(metric.unit, (1.0, metric.unit))


def _axis_scale(dimension: Dimension) -> tuple[float, str]:
    return {"live heap": (float(2**20), "MiB"), "rate": (1.0, "requests/s")}.get(
        dimension.name, (1.0, "%")
    )


def _axis_title(dimension: Dimension) -> str:
    return f"{dimension.name}, {_axis_scale(dimension)[1]}"


def _y(metric: Metric, top: float, column: str = "y") -> alt.Y:
    title = f"{metric.label}, {_scale(metric)[1]}".rstrip(", ")
    scale = alt.Scale(domain=[0, top * 1.05], nice=True, clamp=False)
    return alt.Y(f"{column}:Q", title=title, scale=scale)


def _rows(rows: Sequence[Values]) -> Drawn:
    return alt.Chart(alt.InlineData(values=list(rows)))


def _refused(first: float, low: float, high: float, last: float, x: alt.X) -> Iterator[Drawn]:
    """Where no forecast is made, greyed and said so."""
    rows = [{"x": first, "x2": low}, {"x": high, "x2": last}]
    yield _rows(rows).mark_rect(color=_REFUSED, opacity=0.75).encode(x=x, x2="x2:Q")
    words = [{"x": (a * b) ** 0.5, "text": "not forecast"} for a, b in ((first, low), (high, last))]
    style: dict[str, Any] = {"angle": 270, "color": "var(--muted)", "fontSize": 11}
    yield _rows(words).mark_text(**style).encode(x="x:Q", y=alt.value(HEIGHT / 2), text="text:N")


def _curve_layers(curve: Sequence[Values], x: alt.X, metric: Metric, top: float) -> Iterator[Drawn]:
    base = _rows(curve)
    band = base.mark_area(color=_COLOUR, opacity=0.16, clip=True)
    yield band.encode(x=x, y=_y(metric, top, "low"), y2="high:Q")
    yield base.mark_line(color=_COLOUR, strokeWidth=2, clip=True).encode(x=x, y=_y(metric, top))


def _points(points: Sequence[Values]) -> Drawn:
    names = list(dict.fromkeys(point["configuration"] for point in points))
    colours = ["var(--fg)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)"]
    scale = alt.Scale(domain=names, range=[colours[i % len(colours)] for i in range(len(names))])
    legend = alt.Legend() if len(names) > 1 else None
    mark = _rows(points).mark_point(filled=True, size=42, opacity=0.8, clip=True)
    return mark.encode(
        x="x:Q", y="y:Q", color=alt.Color("configuration:N", scale=scale, legend=legend)
    )


def _asked_layers(asked: Sequence[Values]) -> Iterator[Drawn]:
    base = _rows(asked)
    rule = base.mark_rule(color="var(--worse)", strokeWidth=2.5, clip=True)
    yield rule.encode(x="x:Q", y="low:Q", y2="high:Q")
    mark = base.mark_point(
        shape="diamond", size=130, filled=True, color="var(--worse)", opacity=1, clip=True
    )
    yield mark.encode(x="x:Q", y="y:Q")


def _title(own: Forecast, dimension: Dimension) -> alt.TitleParams:
    told = own.backtest
    verdict = UNTRUSTED if own.why_not else own.verdict
    at = " and ".join(f"{d.name} {d.show(d.asked)}" for d in own.dimensions)
    return alt.TitleParams(
        text=f"{own.metric.label} of {own.subject.base.configuration}: forecast at {at}",
        subtitle=[
            f"band: {own.confidence * 100:g} % prediction interval; dots: trials; grey: too far "
            "for a forecast",
            f"back-test: missed by {told.error * 100:.1f} % (median), held {told.held} of "
            f"{told.trials} trials: {verdict}",
        ],
    )


def history_chart(own: Continued) -> Drawn:
    """A metric over its runs, and the runs to come."""
    unit, _ = _scale(own.metric)
    runs: list[Values] = [{"x": _moment(p.started_ns), "y": p.value / unit} for p in own.runs]
    steps: list[Values] = [
        {
            "x": _moment(step.when_ns),
            "y": step.value.estimate / unit,
            "low": step.value.low / unit,
            "high": step.value.high / unit,
        }
        for step in own.steps
    ]
    last: Values = runs[-1] | {"low": runs[-1]["y"], "high": runs[-1]["y"]}
    top = max(row["y"] for row in runs)
    top = max([top, *(step["high"] for step in steps)])
    near = [m for m in own.meetings if m.bound / unit < 2 * top]
    top = max([top, *(m.bound / unit for m in near)])
    x = alt.X("x:T", title=None, axis=alt.Axis(grid=False, format="%b %d"))
    layers = [
        *_curve_layers([last, *steps], x, own.metric, top),
        _rows(runs).mark_line(point={"color": "var(--fg)"}, color="var(--fg)").encode(x=x, y="y:Q"),
        *_bound_layers([{"y": m.bound / unit, "text": m.text} for m in near]),
    ]
    return alt.layer(*layers, width=WIDTH, height=HEIGHT, title=_history_title(own))


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _bound_layers(rows: Sequence[Values]) -> Iterator[Drawn]:
    base = _rows(rows)
    yield base.mark_rule(color="var(--worse)", strokeDash=[6, 4]).encode(y="y:Q")
    words = base.mark_text(align="left", dx=4, dy=-6, color="var(--worse)", fontSize=11)
    yield words.encode(x=alt.value(0), y="y:Q", text="text:N")


def _history_title(own: Continued) -> alt.TitleParams:
    return alt.TitleParams(
        text=f"{METRICS[own.metric.name].label} of {own.cell.configuration} × {own.cell.workload}",
        subtitle=[
            f"band: {own.confidence * 100:g} % prediction interval of the runs to come; "
            f"{own.method}",
            own.verdict,
        ],
    )
