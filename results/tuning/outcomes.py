"""What a setting showed: one trial of the search, or all trials of its confirmation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from results.gomodel import Measured
from results.signoff.objectives import CANT_TELL, FAIL, PASS, Decision, Objective
from results.statistics.interval import Interval
from results.tuning.settings import Setting

SPIRAL_SHARE: Final = 0.5
"""From this share of time, or of the service's CPU time, on the collector has taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one trial of a setting showed.

    `values` are its metrics by name, `memory_bytes` the peak of resident memory, `gc_share` the
    collector's CPU time per CPU time of the service, 1 at most. `spiral` says why the collector
    took over, empty when it did not; `unusable` why there are no figures, and `own_doing` whether
    the service itself is to blame. `took_s` is how long the whole trial lasted.
    """

    setting: Setting
    memory_bytes: float | None = None
    p99_ns: float | None = None
    gc_share: float | None = None
    throughput_rps: float | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    measured: Measured | None = None
    spiral: str = ""
    unusable: str = ""
    own_doing: bool = False
    took_s: float = 0.0

    @property
    def collections(self) -> float:
        """How many there were in measure."""
        return self.values.get("gc_cycles") or 0.0

    @property
    def point(self) -> tuple[float, float, float] | None:
        """Memory, p99 and GC CPU; None when one is not known."""
        if self.unusable or None in (self.memory_bytes, self.p99_ns, self.gc_share):
            return None
        assert self.memory_bytes is not None and self.p99_ns is not None
        assert self.gc_share is not None
        return self.memory_bytes, self.p99_ns, self.gc_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """A setting that was measured in full blocks: medians with intervals, and its objectives.

    `intervals` are by metric; `greatest_bytes` is the greatest peak of any trial, of what a hard
    limit counts where the system tells it. `spiral` says why the collector took over in at least
    half of the trials, empty when it did not.
    """

    setting: Setting
    trials: int
    intervals: Mapping[str, Interval]
    memory_metric: str
    greatest_bytes: float | None = None
    decisions: Sequence[Decision] = ()
    written: bool = False
    spiral: str = ""

    @property
    def point(self) -> tuple[float, float, float] | None:
        """Medians of memory, p99 and GC CPU; None when one is not known."""
        found = [self.intervals.get(n) for n in (self.memory_metric, "latency_p99", "gc_cpu_share")]
        if any(interval is None for interval in found):
            return None
        memory, p99, gc = (interval.estimate for interval in found if interval)
        return memory, p99, gc

    @property
    def in_spiral(self) -> bool:
        """Whether the collector has taken over."""
        return bool(self.spiral) or (self.point is not None and self.point[2] >= SPIRAL_SHARE)

    @property
    def holds(self) -> bool:
        """Whether every blocking objective is kept by its interval, and no collector took over."""
        asked = [d for d in self.decisions if d.objective.severity == "block"]
        return bool(asked) and not self.in_spiral and all(d.word == PASS for d in asked)

    @property
    def word(self) -> str:
        """What its objectives say together: PASS, FAIL or CAN'T TELL; empty without any."""
        words = [d.word for d in self.decisions if d.objective.severity == "block"]
        if not words:
            return ""
        if FAIL in words or CANT_TELL in words:
            return FAIL if FAIL in words else CANT_TELL
        return PASS


def shortfalls(
    objectives: Iterable[Objective],
    values: Mapping[str, float | None],
    written: Mapping[str, float | None],
) -> dict[str, float]:
    """How far a trial is from keeping each objective, by its text: zero or less keeps it.

    As a fraction of the bound of a limit, of the baseline for a change; 1 when a figure is missing.
    `written` are the figures of the configuration as it is written.
    """
    found = {}
    for objective in objectives:
        value, reference = values.get(objective.metric), written.get(objective.metric)
        found[objective.text] = _shortfall(objective, value, reference)
    return found


def _shortfall(objective: Objective, value: float | None, reference: float | None) -> float:
    if value is None:
        return 1.0
    if objective.kind == "limit":
        beyond = value - objective.bound if objective.at_most else objective.bound - value
        return beyond / (abs(objective.bound) or 1.0)
    if not reference:
        return 1.0
    from results.metrics import METRICS

    worse = value / reference - 1
    if METRICS[objective.metric].direction == "higher":
        worse = -worse
    return worse - objective.bound


def bound_on(objectives: Iterable[Objective], metric: str) -> float:
    """The least limit on a metric; infinite without one."""
    limits = (o.bound for o in objectives if o.kind == "limit" and o.metric == metric)
    return min(limits, default=math.inf)
