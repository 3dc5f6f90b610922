"""The picture of a tuning: memory against p99, the collector's CPU time as colour."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import altair as alt

from results.report.colours import AXIS, coloured, light_colours
from results.report.images import FONT, SCALE
from results.signoff.objectives import Objective
from results.tuning.front import front
from results.tuning.outcomes import Confirmed, Outcome
from results.tuning.recommendation import Recommendation, why_nothing
from results.tuning.search import Tuned
from results.tuning.settings import MIB

WIDTH: Final = 760
HEIGHT: Final = 420
_STEPS: Final = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)
Rows = list[dict[str, Any]]


def render_tuning(tuned: Tuned, best: Recommendation | None, service: str, form: str) -> bytes:
    """The picture as `svg`, `png` or `html` with everything inside."""
    import vl_convert

    spec = tuning_spec(tuned, best, service)
    if form == "html":
        return vl_convert.vegalite_to_html(spec, bundle=True).encode()
    svg = vl_convert.vegalite_to_svg(spec)
    return vl_convert.svg_to_png(svg, scale=SCALE) if form == "png" else svg.encode()


def tuning_spec(tuned: Tuned, best: Recommendation | None, service: str) -> dict[str, Any]:
    """The specification with its data, in the light colours of the page."""
    searched = [_searched(o) for o in tuned.outcomes if o.point and not o.spiral]
    confirmed = list(_confirmed_rows(tuned, best))
    memory = [row["mib"] for row in (*searched, *confirmed)]
    late = [row["ms"] for row in (*searched, *confirmed)]
    span = _Span(memory, late, tuned, best)
    layers = [
        *_spiral_layers(tuned, span),
        *_limit_layers(tuned, best, span),
        _searched_layer(searched, span),
        *_confirmed_layers(confirmed, span),
    ]
    chart = alt.layer(*layers, width=WIDTH, height=HEIGHT).properties(
        title=alt.TitleParams(
            f"{service}: memory against p99, GC CPU as colour",
            subtitle=_subtitle(tuned, best),
            anchor="start",
            subtitleColor="var(--muted)",
            color="var(--fg)",
            subtitlePadding=6,
            offset=12,
        )
    )
    spec: dict[str, Any] = chart.to_dict(validate=False)
    spec["config"] = {
        "font": FONT,
        "background": light_colours()["--card"],
        "padding": 20,
        "view": {"stroke": None},
        "axis": AXIS | {"gridOpacity": 0.6},
        "legend": {"labelColor": "var(--muted)", "titleColor": "var(--muted)"},
    }
    plain: dict[str, Any] = json.loads(json.dumps(coloured(spec)))
    return plain


class _Span:
    """What the axes show: all points and, where they are near, the lines."""

    def __init__(
        self, memory: list[float], late: list[float], tuned: Tuned, best: Recommendation | None
    ) -> None:
        lines = [o.bound / MIB for o in tuned.asked.objectives if _is_limit(o, _memory(tuned))]
        lines += [best.limit_bytes / MIB] if best else []
        lines += [tuned.spiral.low_bytes / MIB] if tuned.spiral else []
        most = max(memory)
        near = [line for line in lines if line < most * 1.5]
        self.memory = min([*memory, *near]) * 0.94, max([*memory, *near]) * 1.06
        p99 = [o.bound / 1e6 for o in tuned.asked.objectives if _is_limit(o, "latency_p99")]
        near = [line for line in p99 if line < max(late) * 1.5]
        self.late = min([*late, *near]) / 1.12, max([*late, *near]) * 1.12

    @property
    def x(self) -> alt.X:
        """Memory, logarithmic."""
        scale = alt.Scale(type="log", domain=list(self.memory), nice=False)
        axis = alt.Axis(values=_ticks(*self.memory), labelOverlap=True)
        return alt.X("mib:Q", title="peak memory, MiB (logarithmic)", scale=scale, axis=axis)

    @property
    def y(self) -> alt.Y:
        """The p99, logarithmic."""
        scale = alt.Scale(type="log", domain=list(self.late), nice=False)
        axis = alt.Axis(values=_ticks(*self.late), labelOverlap=True)
        return alt.Y("ms:Q", title="p99, ms (logarithmic)", scale=scale, axis=axis)


def _ticks(least: float, most: float) -> list[float]:
    """Round numbers between two, as one reads them on a logarithmic axis."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    numbers = (step * 10.0**decade for decade in decades for step in _STEPS)
    return [float(f"{number:.3g}") for number in numbers if least <= number <= most]


def _memory(tuned: Tuned) -> str:
    return tuned.asked.memory_metric


def _is_limit(objective: Objective, metric: str) -> bool:
    return objective.kind == "limit" and objective.metric == metric


def _subtitle(tuned: Tuned, best: Recommendation | None) -> list[str]:
    lines = ["large: confirmed in full blocks, with intervals · small: single short trials"]
    if best:
        lines.append(f"recommended (thick ring): {best.confirmed.setting.text}")
    elif not tuned.asked.blocking:
        lines.append("no objectives that block: nothing is recommended")
    else:
        lines.append(why_nothing(tuned.confirmed))
    return lines


def _searched(outcome: Outcome) -> dict[str, Any]:
    assert outcome.point
    memory, p99, share = outcome.point
    return {"mib": memory / MIB, "ms": p99 / 1e6, "gc": share, "setting": outcome.setting.text}


def _confirmed_rows(tuned: Tuned, best: Recommendation | None) -> Iterator[dict[str, Any]]:
    kept = {id(c) for c in front(tuned.confirmed, lambda c: c.point)}
    known = sorted((c for c in tuned.confirmed if c.point), key=lambda c: c.point or ())
    for place, own in enumerate(known):
        memory, p99, share = own.point or (0.0, 0.0, 0.0)
        x, y = own.intervals[own.memory_metric], own.intervals["latency_p99"]
        yield {
            "mib": memory / MIB,
            "ms": p99 / 1e6,
            "gc": share,
            "setting": own.setting.text,
            "label": _label(own),
            "best": bool(best and best.confirmed is own),
            "front": id(own) in kept,
            "above": place % 2 == 0,
            "mib_low": _bound(x.low, memory) / MIB,
            "mib_high": _bound(x.high, memory) / MIB,
            "ms_low": _bound(y.low, p99) / 1e6,
            "ms_high": _bound(y.high, p99) / 1e6,
        }


def _label(own: Confirmed) -> str:
    return own.setting.text + (" (as written)" if own.written else "")


def _bound(value: float, middle: float) -> float:
    """Bounds that too few trials leave open are not drawn."""
    return value if math.isfinite(value) else middle


def _rows(rows: Rows) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def _colour() -> alt.Color:
    scale = alt.Scale(scheme="viridis", reverse=True, domainMin=0)
    return alt.Color("gc:Q", title="GC CPU", scale=scale, legend=alt.Legend(format=".0%"))


_TOOLTIP: Final = [
    alt.Tooltip("setting:N"),
    alt.Tooltip("mib:Q", format=",.1f", title="memory, MiB"),
    alt.Tooltip("ms:Q", format=".3~g", title="p99, ms"),
    alt.Tooltip("gc:Q", format=".1%", title="GC CPU"),
]


def _searched_layer(rows: Rows, span: _Span) -> alt.Chart:
    base: alt.Chart = _rows(rows).mark_point(filled=True, size=34, opacity=0.65)
    drawn: alt.Chart = base.encode(x=span.x, y=span.y, color=_colour(), tooltip=_TOOLTIP)
    return drawn


def _confirmed_layers(rows: Rows, span: _Span) -> Iterator[alt.Chart]:
    """Intervals, names, and on top of them the points."""
    base = _rows(rows)
    line: dict[str, Any] = {"color": "var(--muted)", "strokeWidth": 1.4, "clip": True}
    yield base.mark_rule(**line).encode(x="mib_low:Q", x2="mib_high:Q", y="ms:Q")
    yield base.mark_rule(**line).encode(y="ms_low:Q", y2="ms_high:Q", x="mib:Q")
    middle = math.sqrt(span.memory[0] * span.memory[1])
    for above in (True, False):
        for left in (True, False):
            where = f"datum.mib {'<=' if left else '>'} {middle}"
            side = f"datum.above == {str(above).lower()} && {where}"
            yield from _words(base.transform_filter(side), above=above, left=left)
    yield base.mark_point(filled=True, size=190, opacity=1, stroke="var(--fg)").encode(
        x=span.x,
        y=span.y,
        color=_colour(),
        tooltip=_TOOLTIP,
        strokeWidth=alt.condition("datum.best", alt.value(3), alt.value(1)),
    )


def _words(own: alt.Chart, *, above: bool, left: bool) -> Iterator[alt.Chart]:
    """Names beside their points; a rim of the background keeps them readable over lines."""
    style: dict[str, Any] = {"fontSize": 11, "dy": -13 if above else 15, "dx": 9 if left else -9}
    style["align"] = "left" if left else "right"
    place = {"x": "mib:Q", "y": "ms:Q", "text": "label:N"}
    yield own.mark_text(stroke="var(--card)", strokeWidth=4, strokeJoin="round", **style).encode(
        **place
    )
    yield own.mark_text(color="var(--fg)", **style).encode(**place)


def _spiral_layers(tuned: Tuned, span: _Span) -> Iterator[alt.Chart]:
    """The band where the spiral begins, and what lies below it."""
    spiral = tuned.spiral
    if spiral is None or spiral.state == "below":
        return
    least, most = span.memory
    low = min(most, max(least, spiral.low_bytes / MIB))
    high = min(most, max(least, spiral.high_bytes / MIB))
    words = f"GOMEMLIMIT here: death spiral, from {spiral.low_bytes / MIB:,.0f} … " \
            f"{spiral.high_bytes / MIB:,.0f} MiB down"  # fmt: skip
    below = [{"mib": least, "end": low}]
    band = [{"mib": low, "end": high, "ms": span.late[1], "label": words}]
    yield _rows(below).mark_rect(color="var(--worse)", opacity=0.10).encode(x=span.x, x2="end:Q")
    yield _rows(band).mark_rect(color="var(--worse)", opacity=0.26).encode(x=span.x, x2="end:Q")
    yield (
        _rows(band)
        .mark_text(align="left", baseline="bottom", dy=-4, dx=2, color="var(--worse)", fontSize=11)
        .encode(x=alt.X("mib:Q"), y="ms:Q", text="label:N")
    )


def _limit_layers(tuned: Tuned, best: Recommendation | None, span: _Span) -> Iterator[alt.Chart]:
    """Objectives as lines, and the hard limit."""
    upright: Rows = [
        {"mib": o.bound / MIB, "label": o.text}
        for o in tuned.asked.objectives
        if _is_limit(o, _memory(tuned))
    ]
    if best:
        word = "hard limit" if best.limit_given else "hard limit to set"
        upright.append({"mib": best.limit_bytes / MIB, "label": word})
    upright = [r | {"ms": span.late[0]} for r in upright if r["mib"] <= span.memory[1]]
    level: Rows = [
        {"ms": o.bound / 1e6, "mib": span.memory[1], "label": o.text}
        for o in tuned.asked.objectives
        if _is_limit(o, "latency_p99") and o.bound / 1e6 <= span.late[1]
    ]
    line: dict[str, Any] = {"color": "var(--c1)", "strokeDash": [6, 4], "strokeWidth": 1.4}
    words: dict[str, Any] = {"color": "var(--c1)", "fontSize": 11}
    middle = math.sqrt(span.memory[0] * span.memory[1])
    for place, row in enumerate(upright):
        left = row["mib"] <= middle
        yield _rows([row]).mark_rule(**line).encode(x=span.x)
        yield (
            _rows([row])
            .mark_text(
                align="left" if left else "right", dx=4 if left else -4, dy=-6 - 15 * place, **words
            )
            .encode(x="mib:Q", y="ms:Q", text="label:N")
        )
    if level:
        yield _rows(level).mark_rule(**line).encode(y=span.y)
        yield (
            _rows(level)
            .mark_text(align="right", dx=-4, dy=-7, **words)
            .encode(x="mib:Q", y="ms:Q", text="label:N")
        )
