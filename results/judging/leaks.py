"""Does a configuration leak? The slope of its live heap over long trials, against the baseline's.

A leak goes on for as long as the service runs. So live heap after each collection is asked (where
the runtime does not report it, resident memory, or commit on Windows): does it grow in measure, in
the second half at the pace of the first, and more than the baseline's does? A cache that fills, a
machine that drifts or a saw-tooth does not pass all three. Growth alone shows nothing: tests for a
trend find leaks in services without any (F. Machida and others, ISSREW 2013), and live heap tells
more of them than resident memory (R. Matias and others, 2014).

Slopes and intervals are each trial's own (Theil–Sen, block bootstrap: `trend.py`). Those of several
trials are put together without assuming a distribution (G. Zou, A. Donner, Construction of
confidence limits about effect measures, Statistics in Medicine 27, 2008).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from results.judging.counted import counted_trials
from results.judging.steady import INDEPENDENT_MIN, LOAD_CHANGES, TOO_SHORT
from results.metrics import counted, format_bytes
from results.record import SeriesTrend, TrialRecord, group_of
from results.statistics.interval import Interval

LEAK: Final = "leak"
AS_BASELINE: Final = "leak, the baseline too"
NO_LEAK: Final = "no leak shown"

SECONDS_MIN: Final = 300.0
"""Of a shorter measure nothing is said: caches, pools and connections still fill."""

GROWTH_MIN: Final = 0.02
"""Growth over measure by less than this share of the level is none."""

GROWTH_MIN_BYTES: Final = 2 * 2**20
"""Nor is growth by less than this: the runtime tells live heap in whole MiB."""

LASTS: Final = 0.5
"""The slope of the second half of measure must be this share of the whole's."""

SEEN_PER_HOUR: Final = 0.1
"""`no leak shown` says that a leak of this share of the level an hour would have been seen."""

_SERIES: Final = ("heap_live", "commit", "rss")
"""What is asked: the first of these that all trials of a table have."""

_LABELS: Final = {"heap_live": "live heap", "commit": "commit", "rss": "RSS"}

Place = tuple[str, str, str]
"""System, node class, workload: what shares a table."""

Trials = dict[tuple[str, int, str, str], SeriesTrend]
"""One configuration's, by what two trials of a pair share: run, block, group, node."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What is known of one configuration. Slopes are in bytes per second.

    `against` is how much more it grows than the baseline; None without pairs, and for the baseline
    itself. `needed_s` is about how long a measure would tell.
    """

    os: str
    node_class: str
    workload: str
    configuration: str
    baseline: bool
    series: str
    trials: int
    seconds: float
    level: float
    slope: Interval
    against: Interval | None
    verdict: str
    needed_s: float | None = None

    @property
    def long_enough(self) -> bool:
        """Whether the trials were made to tell."""
        return self.seconds >= SECONDS_MIN

    @property
    def leaks(self) -> bool:
        """Whether it leaks, the baseline with it or not."""
        return self.verdict in (LEAK, AS_BASELINE)

    @property
    def text(self) -> str:
        """A sentence for a person."""
        label = _LABELS[self.series]
        head = f"{self.configuration}, {self.workload} on {self.node_class}: {self.verdict}"
        if self.verdict == TOO_SHORT:
            needed = f"; {_length(self.needed_s)} of measure would" if self.needed_s else ""
            return f"{head}{needed}"
        if self.verdict == NO_LEAK:
            if self.slope.high <= 0:
                return f"{head}; {label} does not grow"
            most = format_bytes(self.slope.high * 3600)
            return f"{head}; {label} grows by at most {most} an hour"
        rate = format_bytes(self.slope.estimate * 3600)
        text = f"{head}: {label} grew by {rate} an hour ({_range(self.slope)})"
        if self.against is None:
            return text
        more = format_bytes(self.against.estimate * 3600)
        return f"{text}, {more} more than the baseline's"


def leaks_of(records: Iterable[TrialRecord]) -> tuple[Leak, ...]:
    """What the counted trials of some runs tell; of a table the baseline first.

    Left out are trials whose series were not tested, and those whose load changes by plan.
    """
    records = list(records)
    counts = counted_trials(records)
    places: dict[Place, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if (record.run_id, record.trial_id) in counts and record.steady and not _changes(record):
            places[record.os, record.node_class, record.workload].append(record)
    return tuple(leak for place in sorted(places) for leak in _judged(place, places[place]))


def _changes(record: TrialRecord) -> bool:
    return any(trend.verdict == LOAD_CHANGES for trend in record.steady or ())


def _judged(place: Place, records: Sequence[TrialRecord]) -> Iterator[Leak]:
    """Every configuration of a table, all by the same series."""
    by_name = [{trend.series: trend for trend in record.steady or ()} for record in records]
    series = next((name for name in _SERIES if all(name in found for found in by_name)), None)
    if series is None:
        return
    configurations: dict[str, Trials] = defaultdict(dict)
    for record, found in zip(records, by_name, strict=True):
        pair = record.run_id, record.block, group_of(record.trial_id), record.node_id
        configurations[record.configuration][pair] = found[series]
    baseline = next((r.configuration for r in records if r.baseline), None)
    base: Leak | None = None
    for name in sorted(configurations, key=lambda name: (name != baseline, name)):
        against = None
        if base is not None:
            against = _against(configurations[name], configurations[base.configuration])
        leak = _leak(place, name, configurations[name], base, against)
        if name == baseline:
            leak = base = replace(leak, baseline=True)
        yield leak


def _against(own: Trials, baseline: Trials) -> Interval | None:
    """How much more it grows than the baseline, over pairs."""
    slopes = [(_slope(own[pair]), _slope(baseline[pair])) for pair in own if pair in baseline]
    differences = [_difference(one, other) for one, other in slopes if one and other]
    return _mean(differences) if differences else None


def _leak(
    place: Place, configuration: str, trials: Trials, base: Leak | None, against: Interval | None
) -> Leak:
    system, node_class, workload = place
    trends = list(trials.values())
    known = [slope for trend in trends if (slope := _slope(trend))]
    # A trial whose values hang together too much says nothing; most must say something.
    enough = 2 * len(known) > len(trends)
    slope = _mean(known) if enough else Interval(math.nan, -math.inf, math.inf)
    seconds = median(trend.seconds for trend in trends)
    level = median(trend.level for trend in trends)
    verdict = TOO_SHORT
    if seconds >= SECONDS_MIN and enough:
        grows = _grows(trends, slope, seconds, level)
        verdict = _verdict(slope, level, base, against, grows=grows)
    return Leak(
        os=system, node_class=node_class, workload=workload, configuration=configuration,
        baseline=False, series=trends[0].series, trials=len(trends), seconds=seconds,
        level=level, slope=slope, against=against, verdict=verdict,
        needed_s=_needed(slope, seconds, level) if verdict == TOO_SHORT else None,
    )  # fmt: skip


def _grows(trends: Sequence[SeriesTrend], slope: Interval, seconds: float, level: float) -> bool:
    """Whether it grows for certain, by an amount that matters, and as fast at the end."""
    late = sum(trend.late_slope_per_s or 0.0 for trend in trends) / len(trends)
    matters = max(GROWTH_MIN_BYTES, GROWTH_MIN * level)
    return slope.low > 0 and slope.estimate * seconds >= matters and late >= LASTS * slope.estimate


def _verdict(
    slope: Interval, level: float, base: Leak | None, against: Interval | None, *, grows: bool
) -> str:
    if grows and (base is None or against is None or against.low > 0):
        return LEAK
    if grows and base is not None and base.verdict == LEAK:
        return AS_BASELINE
    return NO_LEAK if slope.high * 3600 < SEEN_PER_HOUR * level else TOO_SHORT


def _needed(slope: Interval, seconds: float, level: float) -> float | None:
    """The measure whose interval is narrow enough: its width falls with the length to the 3/2."""
    half = (slope.high - slope.low) / 2 * 3600
    if not math.isfinite(half) or level <= 0:
        return None
    needed = seconds * math.pow(half / (SEEN_PER_HOUR * level / 2), 2 / 3)
    return max(SECONDS_MIN, 2 * seconds if seconds >= SECONDS_MIN else 0.0, needed)


def _slope(trend: SeriesTrend) -> Interval | None:
    """A trial's slope; None when it had too few values, or too few independent ones."""
    if trend.slope_per_s is None or (trend.independent or 0) < INDEPENDENT_MIN:
        return None
    assert trend.slope_low_per_s is not None
    assert trend.slope_high_per_s is not None
    return Interval(trend.slope_per_s, trend.slope_low_per_s, trend.slope_high_per_s)


def _difference(one: Interval, other: Interval) -> Interval:
    """How much the one is above the other, with its bounds."""
    estimate = one.estimate - other.estimate
    low = math.hypot(one.estimate - one.low, other.high - other.estimate)
    high = math.hypot(one.high - one.estimate, other.estimate - other.low)
    return Interval(estimate, estimate - low, estimate + high)


def _mean(intervals: Sequence[Interval]) -> Interval:
    """Their mean, with its bounds."""
    n = len(intervals)
    estimate = sum(i.estimate for i in intervals) / n
    low = math.hypot(*(i.estimate - i.low for i in intervals)) / n
    high = math.hypot(*(i.high - i.estimate for i in intervals)) / n
    return Interval(estimate, estimate - low, estimate + high)


def _range(slope: Interval) -> str:
    return f"{format_bytes(slope.low * 3600)} … {format_bytes(slope.high * 3600)}"


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else counted(round(seconds / 60), "minute")


def leak_row(leak: Leak) -> dict[str, Any]:
    """A plain row, for SQL and for programs: growth in bytes per hour."""
    return {
        "node_class": leak.node_class,
        "os": leak.os,
        "workload": leak.workload,
        "configuration": leak.configuration,
        "baseline": leak.baseline,
        "verdict": leak.verdict,
        "series": leak.series,
        "trials": leak.trials,
        "measure_s": leak.seconds,
        "level": leak.level,
        **_per_hour("growth", leak.slope),
        **_per_hour("more_than_baseline", leak.against),
        "needed_s": leak.needed_s,
    }


def _per_hour(name: str, slope: Interval | None) -> dict[str, float | None]:
    names = (f"{name}_per_hour", f"{name}_low", f"{name}_high")
    if slope is None or not math.isfinite(slope.low):
        return dict.fromkeys(names)
    values = (slope.estimate, slope.low, slope.high)
    return {name: value * 3600 for name, value in zip(names, values, strict=True)}
