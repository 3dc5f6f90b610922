"""Was the service in a steady state while it was measured? Tested when its trial is sealed.

Each series of measure (memory, heap goal, p99 latency by the second) is asked twice: does it have
a slope, and does its level change at some moment? Both answers must be significant, and matter: a
change by a small share of the level is none. What a trial of this length can't tell, it says.
To leave out a fixed time at the start is no proof: E. Barrett and others, Virtual machine warmup
blows hot and cold, OOPSLA 2017.

What is found is part of the trial's record, so that it costs nothing to read. `examined` makes the
same of an archive that was sealed before this was tested.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from results.judging.series import Series, read_series
from results.judging.trend import POINTS_MIN, Trend, theil_sen, trend
from results.metrics import format_bytes, format_time
from results.record import Finding, SeriesTrend, TrialRecord

CONFIDENCE: Final = 0.995
STEP_P_MAX: Final = 0.005
INDEPENDENT_MIN: Final = 10
"""Of fewer independent values chance can't be told from change."""

STEADY: Final = "steady"
DRIFTS: Final = "drifts"
STEPS: Final = "steps"
TOO_SHORT: Final = "can't tell: too short"
LOAD_CHANGES: Final = "the load changes"
_STEP_SHARE: Final = 0.75
"""A step is the better word when it is this share of what the slope amounts to over measure."""

_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Kind:
    """A series: what it is called, its unit, the share of its level that matters.

    A `relative` one is judged by its logarithm, because its noise grows with it. Heap after each
    collection serves the search for leaks; the heap goal follows it and tells of steadiness.
    """

    label: str
    unit: str
    matters: float
    relative: bool = False
    told: bool = True


KINDS: Final = {
    "rss": Kind("RSS", "bytes", 0.05),
    "working_set": Kind("working set", "bytes", 0.05),
    "commit": Kind("commit", "bytes", 0.05),
    "heap_goal": Kind("heap goal", "bytes", 0.05),
    "heap_live": Kind("live heap", "bytes", 0.05, told=False),
    "latency_p99": Kind("p99 latency", "ns", 0.25, relative=True),
}


def settle(record: TrialRecord, folder: Path) -> None:
    """Add to a valid trial's record what its series did, and a finding when it was not steady.

    `folder` holds its closed files. An invalid trial has nothing worth knowing, and a file that
    can't be read must not keep a trial from being sealed: that is a note.
    """
    if not record.valid:
        return
    try:
        record.steady = examined(record, folder)
    except (OSError, pa.ArrowException) as error:
        text = f"whether the trial was steady could not be tested: {error}"
        record.findings.append(Finding("steady_untested", "note", text))
        return
    record.findings += findings(record)


def examined(record: TrialRecord, folder: Path) -> list[SeriesTrend]:
    """What each series of a trial did over measure. Raises OSError or ArrowException."""
    load = record.spec.get("load") or {}
    changes = bool((load.get("arrivals") or {}).get("rates"))
    seconds = sum(p.end_ns - p.start_ns for p in record.phases if p.name == "measure") / 1e9
    return [
        judged(series, seconds, f"{record.trial_id} {series.name}", load_changes=changes)
        for series in read_series(folder, record)
        if len(series.values)
    ]


def judged(series: Series, seconds: float, seed: str, *, load_changes: bool = False) -> SeriesTrend:
    """What one series of a measure of some seconds did; the same input, the same answer."""
    kind = KINDS[series.name]
    level = float(np.median(series.values))
    if len(series.values) < POINTS_MIN or level <= 0:
        return SeriesTrend(
            series=series.name, unit=kind.unit, seconds=_short(seconds), points=len(series.values),
            level=_short(level), verdict=TOO_SHORT,
        )  # fmt: skip
    values = np.log(series.values) if kind.relative else series.values
    scale = level if kind.relative else 1.0
    found = trend(series.seconds, values, CONFIDENCE, zlib.crc32(seed.encode()))
    late = series.seconds >= seconds / 2
    size = found.step.size
    return SeriesTrend(
        series=series.name,
        unit=kind.unit,
        seconds=_short(seconds),
        points=len(values),
        level=_short(level),
        independent=_short(found.independent),
        slope_per_s=_short(found.slope.estimate * scale),
        slope_low_per_s=_short(found.slope.low * scale),
        slope_high_per_s=_short(found.slope.high * scale),
        late_slope_per_s=_short(theil_sen(series.seconds[late], values[late]) * scale),
        step=_short(math.expm1(size) * level if kind.relative else size),
        step_at_s=_short(float(series.seconds[found.step.index])),
        step_p=_short(found.step.p),
        verdict=LOAD_CHANGES if load_changes else _verdict(found, seconds, level / scale, kind),
    )


def _verdict(found: Trend, seconds: float, level: float, kind: Kind) -> str:
    """The word for a trend; `level` is in the unit of the slope."""
    if found.independent < INDEPENDENT_MIN:
        return TOO_SHORT
    matters = kind.matters * level
    over_measure = abs(found.slope.estimate) * seconds
    slope_shown = found.slope.low > 0 or found.slope.high < 0
    drifts = slope_shown and over_measure >= matters
    steps = found.step.p <= STEP_P_MAX and abs(found.step.size) >= matters
    if steps and (not drifts or abs(found.step.size) >= _STEP_SHARE * over_measure):
        return STEPS
    return DRIFTS if drifts else STEADY


def _short(value: float) -> float:
    """As many digits as mean anything: sums differ in the last ones from processor to processor."""
    return float(f"{value:.{_DIGITS}g}")


def findings(record: TrialRecord) -> Iterator[Finding]:
    """One warning for a trial that was not steady, with every series that was not."""
    texts = [
        told(found)
        for found in record.steady or ()
        if KINDS[found.series].told and found.verdict in (DRIFTS, STEPS)
    ]
    if texts:
        text = f"no steady state in measure: {'; '.join(texts)}"
        yield Finding("not_steady", "warning", text, "a longer warmup")


def rises(found: SeriesTrend) -> bool:
    """Whether a series went up over measure, by a slope or by a step that matters."""
    return found.verdict in (DRIFTS, STEPS) and _change(found) > 0


def _change(found: SeriesTrend) -> float:
    assert found.slope_per_s is not None
    assert found.step is not None
    return found.step if found.verdict == STEPS else found.slope_per_s * found.seconds


def told(found: SeriesTrend) -> str:
    """As in `RSS rose by 12.0 MiB a minute, over measure by 18 % of its median`."""
    assert found.slope_per_s is not None
    label = KINDS[found.series].label
    steps = found.verdict == STEPS
    change = _change(found)
    rose = f"{label} {'rose' if change > 0 else 'fell'} by"
    share = f"by {abs(change) / found.level:.0%} of its median".replace("%", " %")
    if steps:
        return f"{rose} {_amount(found.unit, abs(change))} after {found.step_at_s:.0f} s, {share}"
    a_minute = _amount(found.unit, abs(found.slope_per_s) * 60)
    return f"{rose} {a_minute} a minute, over measure {share}"


def _amount(unit: str, value: float) -> str:
    return format_time(value) if unit == "ns" else format_bytes(value)
