"""The comparison table with its intervals drawn: words, and the geometry of a small picture.

All relative changes share one axis of ratios (half as much is as far left as twice as much is far
right). A difference in a unit of its own has no place there: it is drawn on its own scale and says
so. Bounds outside the axis end in an arrow.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from results.comparing.compare import Comparison, Row, Table
from results.comparing.tables import GROUPS, change_text, interval_text
from results.metrics import format_value
from results.statistics.interval import Interval

WIDTH: Final = 240.0
HEIGHT: Final = 26.0
_HALF: Final = WIDTH / 2 - 10
_TICK_LEAST: Final = 38.0 / _HALF
"""Labels closer than this would touch."""
_MINUS: Final = re.compile(r"(?<![\w.])-(?=\d)")
_TICKS: Final = ((1 / 4, -1 / 5), (1 / 2, -1 / 3), (1, -1 / 2), (3, -3 / 4), (7, -7 / 8))
"""Round changes and those that are as far to the other side."""
_LOG2_LIMITS: Final = (0.25, 3.0)
"""An axis shows at least ±19 % and at most an eighth to eight times."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One interval in pixels; `arrow_*` says that the bound lies further out."""

    low: float
    high: float
    point: float
    arrow_low: bool
    arrow_high: bool
    own_scale: bool


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One metric as it is shown."""

    label: str
    meaning: str
    primary: bool
    baseline: str
    candidate: str
    change: str
    interval: str
    verdict: str
    mark: str
    """better, worse, none, equivalent, invalid or open: colour and shape."""
    drawn: Drawn | None
    p: str


@dataclass(frozen=True, slots=True)
class ForestTable:
    """A table by groups of metrics, and the ticks of its axis."""

    table: Table
    groups: tuple[tuple[str, tuple[ForestRow, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    has_own_scale: bool


def forest_table(table: Table) -> ForestTable:
    """Lay out one table of a comparison."""
    limit = _axis_limit(table)
    made = [(row.metric.group, _row(row, limit)) for row in table.rows]
    groups = tuple(
        (title, tuple(row for group, row in made if group == name))
        for name, title in GROUPS.items()
        if any(group == name for group, _ in made)
    )
    own = any(row.drawn and row.drawn.own_scale for _, row in made)
    return ForestTable(table, groups, tuple(_ticks(limit)), own)


def mark_of(verdict: str) -> str:
    """The shape and colour of a verdict."""
    word = verdict.partition(" ")[0]
    known = {"better": "better", "worse": "worse", "equivalent": "equivalent", "no": "none"}
    return known.get(word, "invalid" if word == "invalid" else "open")


def headline_rows(comparison: Comparison) -> list[ForestRow]:
    """The few rows that the top of the page repeats: what decides, then the price."""
    if len(comparison.tables) != 1:
        return []
    (table,) = comparison.tables
    wanted = ("initial_rss", "gc_cpu_share", "latency_p99", "throughput")
    by_name = {row.metric.name: row for row in table.rows if row.change}
    names = [row.metric.name for row in table.rows if row.primary and row.change]
    names += [name for name in wanted if name in by_name and name not in names]
    limit = _axis_limit(table)
    return [_row(by_name[name], limit) for name in names[:5]]


def minus(text: str) -> str:
    """Hyphens before numbers as minus signs: a page has no terminal's poor letters."""
    return _MINUS.sub("\N{MINUS SIGN}", text)


def _row(row: Row, limit: float) -> ForestRow:
    return ForestRow(
        label=row.metric.label,
        meaning=row.metric.meaning,
        primary=row.primary,
        baseline=format_value(row.metric, row.baseline),
        candidate=format_value(row.metric, row.candidate),
        change=minus(change_text(row)),
        interval=minus(interval_text(row)),
        verdict=row.verdict,
        mark=mark_of(row.verdict),
        drawn=_drawn(row, limit),
        p="" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
    )


def _drawn(row: Row, limit: float) -> Drawn | None:
    if row.change is None:
        return None
    low, point, high = row.change.low, row.change.estimate, row.change.high
    if row.relative:
        low, point, high = (_log2(value) / limit for value in (low, point, high))
    else:
        known = [abs(v) for v in (low, point, high) if math.isfinite(v)]
        largest = max(known) / 0.85 or 1.0
        low, point, high = (value / largest for value in (low, point, high))
    return Drawn(
        low=_place(low),
        high=_place(high),
        point=_place(point),
        arrow_low=low < -1,
        arrow_high=high > 1,
        own_scale=not row.relative,
    )


def _place(share: float) -> float:
    """A share of half the axis, in pixels from the left."""
    return round(WIDTH / 2 + max(-1.0, min(1.0, share)) * _HALF, 1)


def _log2(change: float) -> float:
    if change <= -1:
        return -math.inf
    return math.log2(1 + change) if math.isfinite(change) else math.inf


def _axis_limit(table: Table) -> float:
    """Half the width of the axis, in doublings."""
    least, most = _LOG2_LIMITS
    changes = [row.change for row in table.rows if row.change and row.relative]
    bounds = [abs(_log2(v)) for change in changes for v in _parts(change)]
    known = [bound for bound in bounds if math.isfinite(bound)]
    return min(max([least, *known]) * 1.05, most)


def _parts(change: Interval) -> tuple[float, float, float]:
    return change.low, change.estimate, change.high


def _ticks(limit: float) -> list[tuple[float, str]]:
    """None in the middle, and on both sides round changes as far as there is room."""
    found = [(_place(0.0), "0")]
    last = 0.0
    for more, less in _TICKS:
        place = _log2(more) / limit
        if place <= 1 and place - last >= _TICK_LEAST:
            found.append((_place(place), _tick_text(more)))
            found.append((_place(_log2(less) / limit), _tick_text(less)))
            last = place
    return sorted(found)


def _tick_text(change: float) -> str:
    return minus(f"{change * 100:+.0f}\N{NARROW NO-BREAK SPACE}%")
