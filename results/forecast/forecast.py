"""A figure at a rate, a live heap or a setting of the collector that was not measured.

The law is in `laws.py`, the interval in `intervals.py`, and what they were worth on what was
measured in `backtest.py`. A forecast is a figure to plan with: no sign-off reads one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from results.errors import UserError
from results.forecast.backtest import Backtest, back_test, doubts
from results.forecast.intervals import Predictor
from results.forecast.laws import (
    GOAL,
    RATE,
    CollectorShare,
    Degenerate,
    Law,
    PeakMemory,
    Point,
    Row,
)
from results.forecast.levels import BEYOND_MAX, Dimension, folds_of, levels_of
from results.forecast.missing import lacking
from results.forecast.observations import Observation
from results.forecast.subjects import Asked, Subject
from results.gomodel import OFF, Measured, fit, heap_goal_bytes
from results.metrics import METRICS, Metric, format_bytes, named_on
from results.statistics.interval import Interval

GC_CPU: Final = "gc_cpu_share"
TRUSTED: Final = "fits what was measured"
UNTRUSTED: Final = "not to be trusted"


class Refused(UserError):
    """No forecast is made: it would lie too far out, or too little was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a forecast is asked for; rates a second, sizes in bytes, GOGC in percent.

    `live_bytes` is None where the runtime told nothing of its heap.
    """

    rate_rps: float
    live_bytes: float | None
    gogc: float
    memlimit_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A figure with its interval, and how its method did on what was measured.

    The interval is a prediction interval: where one more trial would fall. `beyond` is the factor
    by which the place lies outside of what was measured, 1 inside. `why_not` are the reasons of a
    verdict `not to be trusted`.
    """

    subject: Subject
    metric: Metric
    place: Place
    found: Interval
    confidence: float
    trials: tuple[Observation, ...]
    rows: tuple[Row, ...]
    """One for each of the trials."""
    dimensions: tuple[Dimension, ...]
    backtest: Backtest
    why_not: tuple[str, ...]
    notes: tuple[str, ...]
    along: Callable[[float], Interval]
    """The same along the first dimension, for a picture."""

    @property
    def verdict(self) -> str:
        """In words."""
        return f"{UNTRUSTED}: {'; '.join(self.why_not)}" if self.why_not else TRUSTED

    def is_same_as(self, other: Forecast) -> bool:
        """Whether both tell the same figure at the same place, from the same trials."""
        return (self.metric, self.place, self.trials) == (other.metric, other.place, other.trials)

    @property
    def beyond(self) -> float:
        """The greatest of all dimensions."""
        return max(dimension.beyond for dimension in self.dimensions)


def metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """Metrics that can be forecast, by their names; `gc_cpu` is short for GC CPU. Raises UserError.

    They are those of memory, and GC CPU.
    """
    sizes = [m.name for m in METRICS.values() if m.group == "memory" and m.unit == "bytes"]
    known = [*sizes, GC_CPU]
    found = tuple(GC_CPU if name == "gc_cpu" else name for name in names)
    for name in found:
        if name not in known:
            raise UserError(f"{name!r} can't be forecast; there are {', '.join(known)}")
    return found


def metrics_of(subject: Subject, asked: Asked) -> list[Metric]:
    """The metrics that are asked for, as the subject's system has them."""
    return [METRICS[name] for name in named_on(subject.base.os, asked.metrics)]


def forecast(subject: Subject, metric: Metric, asked: Asked) -> Forecast:
    """One figure of one subject. Raises Refused, which says why and what should be measured."""
    who = f"{metric.label} of {subject.base.configuration}"
    trials = [o for o in subject.trials if metric.name in o.metrics and _usable(o, metric, asked)]
    if not trials:
        raise Refused(f"{who} is not forecast: no trial has it{_lacks_a_trace(asked, metric)}")
    model = _Model.of(trials, subject.base, metric, asked)
    dimensions = tuple(model.dimensions())
    _refuse_far(who, model)
    missing = lacking(dimensions, len(trials), subject.base, asked.confidence)
    if missing:
        raise Refused(f"{who} is not forecast: {missing}")
    try:
        return _forecast(subject, metric, asked, model, dimensions)
    except Degenerate as error:
        raise Refused(
            f"{who} is not forecast: {' and '.join(d.name for d in dimensions)} were varied "
            "together, so what each of them does can't be told apart"
        ) from error


def _usable(own: Observation, metric: Metric, asked: Asked) -> bool:
    """Whether a trial tells all that the law asks for."""
    if metric.name == GC_CPU and own.heap is None:
        return False
    if not asked.heap:
        return True
    return own.heap is not None and own.heap.tells and math.isfinite(_bound(own))


def _bound(own: Observation) -> float:
    return min(own.gogc, own.memlimit_bytes)


def _lacks_a_trace(asked: Asked, metric: Metric) -> str:
    if asked.heap or metric.name == GC_CPU:
        return " together with a report of the runtime's collections (gc_trace)"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """The trials of a forecast as rows of its law, and the place that is asked for."""

    trials: tuple[Observation, ...]
    metric: Metric
    asked: Asked
    place: Place
    heap: Measured | None
    """Medians over the trials, for what is not asked for."""
    limited_bytes: float

    @classmethod
    def of(
        cls, trials: Sequence[Observation], base: Observation, metric: Metric, asked: Asked
    ) -> _Model:
        heaps = [o.heap for o in trials if o.heap is not None and o.heap.tells]
        heap = fit(heaps) if heaps else None
        live = heap.live_bytes if heap else None
        rate = median(o.rate_rps for o in trials) if asked.rate_rps is None else asked.rate_rps
        memlimit = base.memlimit_bytes if asked.memlimit_bytes is None else asked.memlimit_bytes
        return cls(
            trials=tuple(trials),
            metric=metric,
            asked=asked,
            place=Place(
                rate_rps=rate,
                live_bytes=live if asked.live_bytes is None else asked.live_bytes,
                gogc=base.gogc if asked.gogc is None else asked.gogc,
                memlimit_bytes=memlimit,
            ),
            heap=median_heap(heaps),
            limited_bytes=heap.limited_bytes if heap else 0.0,
        )

    @property
    def law(self) -> Law:
        """By the metric, over what is asked for."""
        over = (
            *((RATE,) if self.asked.rate_rps is not None else ()),
            *((GOAL,) if self.asked.heap else ()),
        )
        return CollectorShare(over) if self.metric.name == GC_CPU else PeakMemory(over)

    def rows(self) -> tuple[Row, ...]:
        """One for each trial."""
        return tuple(
            Row(
                point=self._measured(own),
                value=own.metrics[self.metric.name],
                gc_cores=own.gc_cores or 0.0,
                other_cores=own.other_cores or 0.0,
            )
            for own in self.trials
        )

    def _measured(self, own: Observation) -> Point:
        live = own.heap.live_bytes if own.heap and own.heap.tells else None
        return self.point(own.rate_rps, live, own.gogc, own.memlimit_bytes)

    def at(self, place: Place) -> Point:
        """A place as the law has it."""
        return self.point(place.rate_rps, place.live_bytes, place.gogc, place.memlimit_bytes)

    def point(self, rate_rps: float, live: float | None, gogc: float, memlimit: float) -> Point:
        """Without a heap that is asked for, the collector's work goes with the rate alone."""
        if not self.asked.heap or live is None or self.heap is None:
            return Point(rate_rps=rate_rps, turns=1.0)
        roots = self.heap.roots_bytes
        goal = float(heap_goal_bytes(live, roots, self.limited_bytes, gogc, memlimit))
        runway = goal - live
        turns = (live + roots) / runway if runway > 0 else OFF
        return Point(rate_rps=rate_rps, goal_bytes=goal, turns=turns)

    def dimensions(self) -> Iterator[Dimension]:
        """What is asked for, and what was measured of it. Raises Refused for rates that vary."""
        rates = tuple(own.rate_rps for own in self.trials)
        if self.asked.rate_rps is not None:
            yield Dimension("rate", rates, self.asked.rate_rps, show_rate)
        elif len(levels_of(rates)) > 1:
            raise Refused(
                f"{self.metric.label} was measured at several rates, {show_rate(min(rates))} to "
                f"{show_rate(max(rates))}: say which with --rate or --workload"
            )
        if self.asked.live_bytes is not None:
            live = tuple(own.heap.live_bytes for own in self.trials if own.heap)
            yield Dimension("live heap", live, self.asked.live_bytes, format_bytes)
        if self.asked.environment:
            yield self._setting()

    def _setting(self) -> Dimension:
        """GOGC as it acts: 100 / turns is GOGC where no limit binds, and less where one does."""
        acting = tuple(_acting(row.point) for row in self.rows())
        name = "GOGC" if self.asked.memlimit_bytes is None else "acting GOGC"
        return Dimension(name, acting, _acting(self.at(self.place)), _show_gogc)

    def checked(self) -> Iterator[Dimension]:
        """What must not lie too far out: what is asked for, and what the law makes of it."""
        yield from self.dimensions()
        if self.asked.heap:
            goals = tuple(row.point.goal_bytes for row in self.rows())
            yield Dimension("heap goal", goals, self.at(self.place).goal_bytes, format_bytes)
        settings = [own.gogc for own in self.trials if math.isfinite(own.gogc)]
        if self.asked.gogc is not None and math.isfinite(self.asked.gogc) and settings:
            yield Dimension("GOGC", tuple(settings), self.asked.gogc, _show_gogc)


def median_heap(heaps: Sequence[Measured]) -> Measured | None:
    """What a typical trial told; None for none."""
    if not heaps:
        return None
    return replace(
        heaps[0],
        live_bytes=median(h.live_bytes for h in heaps),
        roots_bytes=median(h.roots_bytes for h in heaps),
    )


def _refuse_far(who: str, model: _Model) -> None:
    """Raises Refused for a place more than BEYOND_MAX outside of what was measured."""
    for dimension in model.checked():
        low, high = dimension.bounds
        if dimension.is_too_far:
            show = dimension.show
            raise Refused(
                f"{who} is not forecast for a {dimension.name} of {show(dimension.asked)}: "
                f"measured was {show(dimension.lowest)} to {show(dimension.highest)}, and no "
                f"forecast goes farther than {BEYOND_MAX:g} times beyond, {show(low)} to "
                f"{show(high)}"
            )


def _forecast(
    subject: Subject,
    metric: Metric,
    asked: Asked,
    model: _Model,
    dimensions: tuple[Dimension, ...],
) -> Forecast:
    rows, law = model.rows(), model.law
    predictor = Predictor(law, rows, folds_of(dimensions, len(rows)))
    found = predictor.at(model.at(model.place), asked.confidence)
    test = back_test(law, rows, dimensions, asked.confidence)
    return Forecast(
        subject=subject,
        metric=metric,
        place=model.place,
        found=found,
        confidence=asked.confidence,
        trials=model.trials,
        rows=rows,
        dimensions=dimensions,
        backtest=test,
        why_not=tuple(doubts(test, found, metric.group, dimensions, asked.confidence)),
        notes=tuple(_notes(subject, model, dimensions)),
        along=lambda value: predictor.at(_moved(model, dimensions[0], value), asked.confidence),
    )


def _moved(model: _Model, dimension: Dimension, value: float) -> Point:
    """The place with another value of a dimension."""
    place = model.place
    if dimension.name == "rate":
        return model.at(replace(place, rate_rps=value))
    if dimension.name == "live heap":
        return model.at(replace(place, live_bytes=value))
    return model.at(replace(place, gogc=value, memlimit_bytes=OFF))


def _notes(subject: Subject, model: _Model, dimensions: Sequence[Dimension]) -> Iterator[str]:
    if subject.left_out:
        yield subject.left_out
    yield from _about_the_limit(model)
    if all(dimension.is_measured for dimension in dimensions):
        what = " and ".join(f"{d.name} {d.show(d.asked)}" for d in dimensions)
        yield f"{what} was measured: read what was measured there, not a forecast of it"
    lost = len(subject.trials) - len(model.trials)
    if lost:
        who = f"{model.metric.label} of {subject.base.configuration}"
        yield (
            f"{who} is told by {len(model.trials)} of {len(subject.trials)} trials: the others had "
            "no collection in measure, or no figure"
        )


def _about_the_limit(model: _Model) -> Iterator[str]:
    """What is to be known of a GOMEMLIMIT that is asked for."""
    limit, place = model.asked.memlimit_bytes, model.place
    if limit is None or math.isinf(limit):
        return
    named = f"a GOMEMLIMIT of {format_bytes(limit)}"
    free = model.at(replace(place, memlimit_bytes=OFF)).goal_bytes
    if model.at(place).goal_bytes >= free:
        yield f"{named} would not bind there, by Go's guide: GOGC collects earlier"
    elif all(math.isinf(own.memlimit_bytes) for own in model.trials):
        yield f"{named} would bind, and no trial had a limit: that is the guide's word alone"


def show_rate(value: float) -> str:
    """Requests per second."""
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.2g}/s"


def _acting(point: Point) -> float:
    """The GOGC that would have the same runway without a limit."""
    return 100 / point.turns if point.turns else OFF


def _show_gogc(value: float) -> str:
    if math.isinf(value):
        return "off"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
