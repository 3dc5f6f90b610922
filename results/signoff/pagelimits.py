"""An objective's interval drawn against its limit: the geometry of a small picture.

The axis is linear and in the metric's own unit, or in percent of change as the table tells it. It
shows the whole interval, the limit, and which side of the limit keeps the objective. An end that is
not known (too few trials) is an arrow to the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from results.metrics import METRICS, format_value
from results.report.forest import minus
from results.signoff.language import parse_objective
from results.signoff.objectives import Objective

WIDTH: Final = 240.0
HEIGHT: Final = 38.0
_EDGE: Final = 4.0
"""Where the arrow of an unknown end points to, from the edge."""

_MARGIN: Final = 26.0
"""Room beyond the outermost of what is known, so that both sides of a limit are seen."""

_LABEL_HALF: Final = 30.0
"""About half of the longest label in pixels: nearer to an edge it would be cut off."""


@dataclass(frozen=True, slots=True)
class DrawnLimit:
    """A picture in pixels. `keeps` is the part of the axis that keeps the objective."""

    low: float
    high: float
    point: float
    limit: float
    keeps: tuple[float, float]
    arrow_low: bool
    arrow_high: bool
    label: str
    label_at: float


def drawn_limit(decision: Mapping[str, Any]) -> DrawnLimit | None:
    """The picture of a decision of a record; None where there is no interval or no limit."""
    interval = decision["interval"]
    if not interval or interval["estimate"] is None:
        return None
    try:
        objective = parse_objective(decision["objective"])
    except ValueError:
        return None
    if objective.kind not in ("limit", "change", "capacity"):
        return None
    return _drawn(objective, interval)


def _drawn(objective: Objective, interval: Mapping[str, float | None]) -> DrawnLimit:
    metric = METRICS[objective.metric or "throughput"]  # a capacity is a rate, too
    low, point, high = (interval[name] for name in ("low", "estimate", "high"))
    bound, at_most = objective.bound, objective.at_most
    label = format_value(metric, bound)
    if objective.kind == "change":
        # Decisions count upwards what is worse; the reader is told the change as it is.
        if metric.direction == "higher":
            low, point, high = (None if v is None else -v for v in (high, point, low))
            bound, at_most = -bound, False
        else:
            at_most = True
        label = minus(f"{bound * 100:+.4g} %")
    place = _axis([low, point, high, bound])
    limit = place(bound)
    return DrawnLimit(
        low=_EDGE if low is None else place(low),
        high=WIDTH - _EDGE if high is None else place(high),
        point=place(point or 0.0),
        limit=limit,
        keeps=(0.0, limit) if at_most else (limit, WIDTH),
        arrow_low=low is None,
        arrow_high=high is None,
        label=label,
        label_at=min(max(limit, _LABEL_HALF), WIDTH - _LABEL_HALF),
    )


def _axis(values: Iterable[float | None]) -> Callable[[float], float]:
    """From values to pixels from the left; everything that is known lies on the axis."""
    known = [value for value in values if value is not None]
    least, span = min(known), max(known) - min(known)

    def place(value: float) -> float:
        share = (value - least) / span if span else 0.5
        return round(_MARGIN + share * (WIDTH - 2 * _MARGIN), 1)

    return place
