"""What memory and collector cost a Go service should have under a GOGC and a GOMEMLIMIT.

A service under a steady load is a few numbers (`GoService`): how much stays alive, how fast it
allocates, what a collection costs. From them follow the heap's goal, the peak of memory and the
collector's CPU time, for any setting; from measured trials follow the numbers (`fit`).

Sources: A Guide to the Go Garbage Collector, https://go.dev/doc/gc-guide (target heap memory =
live heap + (live heap + roots) × GOGC / 100; CPU time of a collection = a fixed cost + a cost per
live byte; a collector under a memory limit takes at most about half of the CPU time), and Go's
runtime/mgcpacer.go (heapGoalInternal, memoryLimitHeapGoal: the goal under a limit is the limit less
what is not heap, less 3 %, at least 1 MiB, and never below the live heap).

It is a model, for choosing what to measure and for drawing what to expect; no number of it may
stand where a measurement belongs. Left out: what is allocated while a collection runs, what the
scavenger has not yet returned, and how requests queue, so it tells no latency.

Every function takes plain numbers or numpy arrays (they broadcast), and gives floats or arrays.
GOGC is in percent, `OFF` (infinite) for `off`; sizes are in bytes, GOMEMLIMIT `OFF` for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = float | NDArray[np.float64]

OFF: Final = math.inf
"""GOGC=off, or no GOMEMLIMIT."""

GOGC_DEFAULT: Final = 100.0
HEAP_MINIMUM_BYTES: Final = 4 * 2**20
"""The least goal at GOGC=100; in proportion for others."""

LIMIT_HEADROOM: Final = 0.03
LIMIT_HEADROOM_MIN_BYTES: Final = 2**20
LIMITER_SHARE: Final = 0.5
"""The share of all processors' time beyond which the collector lets memory grow instead."""

BINDING_SHARE: Final = 0.98
"""A goal below this share of what GOGC alone would give was set by the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoService:
    """A service under one load.

    `live_bytes` are marked live by a collection, `roots_bytes` are stacks and globals.
    `limited_bytes` is what GOMEMLIMIT counts besides the heap; the resident peak is
    `peak_per_goal` × the heap's goal + `resident_bytes`. `allocation_rate` is in bytes per second,
    `cycle_cpu_s` the CPU seconds of one collection, `mutator_cores` what the service's own work
    takes, `procs` is GOMAXPROCS. `cycle_wall_s` is how long a collection goes on (0: not known),
    which is longer when it has little of the processors, or only the idle ones. `error` is the
    relative error of the peaks that the fit left (root mean square), None when there was nothing
    left to compare.
    """

    live_bytes: float
    roots_bytes: float = 0.0
    limited_bytes: float = 0.0
    resident_bytes: float = 0.0
    peak_per_goal: float = 1.0
    allocation_rate: float
    cycle_cpu_s: float
    mutator_cores: float
    procs: float = 1.0
    cycle_wall_s: float = 0.0
    error: float | None = None

    def heap_goal_bytes(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """The heap's size at which a collection should end; infinite when nothing bounds it."""
        return heap_goal_bytes(
            self.live_bytes, self.roots_bytes, self.limited_bytes, gogc, memlimit
        )

    def peak_bytes(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """The peak of resident memory."""
        goal = self.heap_goal_bytes(gogc, memlimit)
        reached = reached_heap_bytes(
            goal, self.live_bytes, self.allocation_rate, self.cycle_cpu_s, self.procs
        )
        return _plain(self.peak_per_goal * np.asarray(reached) + self.resident_bytes)

    def cycles_per_s(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """Collections per second."""
        return _plain(np.asarray(self.gc_cores(gogc, memlimit)) / self.cycle_cpu_s)

    def gc_cores(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """CPU seconds of collections per second, at most half of all processors."""
        goal = self.heap_goal_bytes(gogc, memlimit)
        return gc_cores(goal, self.live_bytes, self.allocation_rate, self.cycle_cpu_s, self.procs)

    def gc_cpu_share(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """CPU time of collections per CPU time of the service, as metric `gc_cpu_share` is."""
        return gc_cpu_share(self.gc_cores(gogc, memlimit), self.mutator_cores)

    def mark_share(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """The share of time in which a collection goes on, at most 1."""
        runway = np.asarray(self.heap_goal_bytes(gogc, memlimit), dtype=float) - self.live_bytes
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(runway > 0, self.allocation_rate * self.cycle_wall_s / runway, OFF)
        return _plain(np.minimum(wanted, 1.0))

    def served_share(self, gogc: Numbers, memlimit: Numbers = OFF) -> Numbers:
        """How much of its own work the service gets done beside the collector; 1 is all."""
        left = self.procs - np.asarray(self.gc_cores(gogc, memlimit))
        return _plain(np.minimum(1.0, left / max(self.mutator_cores, 1e-12)))

    def memlimit_for_gc_share(self, share: float) -> float:
        """The GOMEMLIMIT under which collections take this share of the service's CPU time.

        Where GOGC does not collect earlier. The inverse of `gc_cpu_share`; a share at or above
        what the limiter allows gives the limit at which the limiter steps in.
        """
        cores = min(
            self.mutator_cores * share / (1 - share) if share < 1 else OFF,
            LIMITER_SHARE * self.procs,
        )
        runway = self.allocation_rate * self.cycle_cpu_s / cores
        return limit_for_goal_bytes(self.live_bytes + runway, self.limited_bytes)

    def memlimit_for_mark_share(self, share: float) -> float:
        """The GOMEMLIMIT under which a collection goes on for this share of time."""
        runway = self.allocation_rate * self.cycle_wall_s / share
        return limit_for_goal_bytes(self.live_bytes + runway, self.limited_bytes)

    def scaled(self, *, load: float = 1.0, live: float = 1.0) -> GoService:
        """The same service under `load` times the traffic, with `live` times the live heap.

        Allocation and own work go with the traffic, a collection's cost with the live heap.
        """
        return replace(
            self,
            live_bytes=self.live_bytes * live,
            cycle_cpu_s=self.cycle_cpu_s * live,
            cycle_wall_s=self.cycle_wall_s * live,
            allocation_rate=self.allocation_rate * load,
            mutator_cores=self.mutator_cores * load,
        )

    def to_plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def heap_goal_bytes(
    live_bytes: Numbers,
    roots_bytes: Numbers,
    limited_bytes: Numbers,
    gogc: Numbers = GOGC_DEFAULT,
    memlimit: Numbers = OFF,
) -> Numbers:
    """The heap's goal: the lesser of what GOGC asks for and what GOMEMLIMIT leaves."""
    by_limit = limit_goal_bytes(live_bytes, limited_bytes, memlimit)
    return _plain(np.minimum(gogc_goal_bytes(live_bytes, roots_bytes, gogc), by_limit))


def gogc_goal_bytes(live_bytes: Numbers, roots_bytes: Numbers, gogc: Numbers) -> Numbers:
    """By GOGC: live + (live + roots) × GOGC / 100, and no less than 4 MiB × GOGC / 100."""
    percent = np.asarray(gogc, dtype=float) / 100
    live = np.asarray(live_bytes, dtype=float)
    return _plain(np.maximum(live + (live + roots_bytes) * percent, HEAP_MINIMUM_BYTES * percent))


def limit_goal_bytes(live_bytes: Numbers, limited_bytes: Numbers, memlimit: Numbers) -> Numbers:
    """What a GOMEMLIMIT leaves for the heap, less the headroom; never below the live heap."""
    left = np.asarray(memlimit, dtype=float) - limited_bytes
    headroom = np.maximum(left * LIMIT_HEADROOM, LIMIT_HEADROOM_MIN_BYTES)
    with np.errstate(invalid="ignore"):
        goal = np.where(np.isinf(left), OFF, left - headroom)
    return _plain(np.maximum(goal, np.asarray(live_bytes, dtype=float)))


def limit_for_goal_bytes(goal_bytes: float, limited_bytes: float) -> float:
    """The GOMEMLIMIT that leaves so much for the heap: the inverse of `limit_goal_bytes`."""
    small = goal_bytes + LIMIT_HEADROOM_MIN_BYTES
    large = goal_bytes / (1 - LIMIT_HEADROOM)
    return max(small, large) + limited_bytes


def gc_cores(
    goal_bytes: Numbers,
    live_bytes: Numbers,
    allocation_rate: Numbers,
    cycle_cpu_s: Numbers,
    procs: Numbers,
) -> Numbers:
    """CPU seconds of collections per second: one each time goal − live was allocated."""
    runway = np.asarray(goal_bytes, dtype=float) - live_bytes
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.where(runway > 0, np.asarray(allocation_rate) * cycle_cpu_s / runway, OFF)
    return _plain(np.minimum(wanted, LIMITER_SHARE * np.asarray(procs, dtype=float)))


def reached_heap_bytes(
    goal_bytes: Numbers,
    live_bytes: Numbers,
    allocation_rate: Numbers,
    cycle_cpu_s: Numbers,
    procs: Numbers,
) -> Numbers:
    """The heap that is reached: the goal, or more where the limiter slows the collector down."""
    least_runway = np.asarray(allocation_rate) * cycle_cpu_s / (LIMITER_SHARE * np.asarray(procs))
    return _plain(np.maximum(goal_bytes, np.asarray(live_bytes) + least_runway))


def gc_cpu_share(cores: Numbers, mutator_cores: Numbers) -> Numbers:
    """CPU time of collections per CPU time of the service."""
    total = np.asarray(cores, dtype=float) + mutator_cores
    return _plain(np.where(total > 0, cores / np.maximum(total, 1e-12), 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a trial told: medians over the collections of its measure phase, and its peak.

    From view `gc_overhead` (heap_live_median_bytes, heap_goal_median_bytes, cycles, gc_cpu_ns,
    service_cpu_ns), table `gc` (stacks_bytes + globals_bytes, procs) and metric `peak_rss` or
    `peak_working_set`. `seconds` is how long measure took, `mark_s` for how much of it a collection
    went on (0: not known).
    """

    gogc: float
    memlimit_bytes: float
    live_bytes: float
    goal_bytes: float
    roots_bytes: float
    peak_bytes: float
    cycles: float
    gc_cpu_s: float
    service_cpu_s: float
    seconds: float
    procs: float
    mark_s: float = 0.0

    @property
    def tells(self) -> bool:
        """Whether a fit can use it: collections happened, and the heap had room between them."""
        return self.cycles >= 1 and self.goal_bytes > self.live_bytes > 0 and self.seconds > 0


def fit(trials: Iterable[Measured]) -> GoService:
    """The service that explains the trials best. Raises ValueError when none tells anything.

    Of one load: rates of different loads have no common value. Live heap, roots, allocation rate,
    own work and the cost of a collection are medians over the trials; the peak is a line over the
    goals by least squares; what the limit counts besides the heap is the median over the trials
    whose limit was binding (else: what is resident besides the heap).
    """
    told = [t for t in trials if t.tells]
    if not told:
        raise ValueError("no trial had a collection to learn from")
    live, roots = _median(t.live_bytes for t in told), _median(t.roots_bytes for t in told)
    slope, resident = _peak_line(told)
    limited = [left for t in told if (left := _beside_heap(t)) is not None]
    found = GoService(
        live_bytes=live,
        roots_bytes=roots,
        limited_bytes=_median(limited) if limited else max(0.0, resident),
        resident_bytes=resident,
        peak_per_goal=slope,
        allocation_rate=_median(t.cycles / t.seconds * (t.goal_bytes - t.live_bytes) for t in told),
        cycle_cpu_s=_median(t.gc_cpu_s / t.cycles for t in told),
        mutator_cores=_median((t.service_cpu_s - t.gc_cpu_s) / t.seconds for t in told),
        procs=_median(t.procs for t in told),
        cycle_wall_s=_median(t.mark_s / t.cycles for t in told),
    )
    return replace(found, error=_error(found, told))


def _peak_line(told: Sequence[Measured]) -> tuple[float, float]:
    """The peak as a line over the goal: slope and what is there without heap.

    A slope between 1 and 1.5, else the heap does not explain it: then 1, and the median rest.
    """
    goals = np.array([t.goal_bytes for t in told])
    peaks = np.array([t.peak_bytes for t in told])
    if np.ptp(goals) > 0.1 * float(np.median(goals)):
        sides = np.stack([goals, np.ones_like(goals)], axis=1)
        (slope, rest), *_ = np.linalg.lstsq(sides, peaks, rcond=None)
        if 1 <= slope <= 1.5 and rest >= 0:
            return float(slope), float(rest)
    return 1.0, max(0.0, float(np.median(peaks - goals)))


def _beside_heap(trial: Measured) -> float | None:
    """What the limit counted besides the heap; None when the limit did not set the goal."""
    if math.isinf(trial.memlimit_bytes):
        return None
    by_gogc = float(gogc_goal_bytes(trial.live_bytes, trial.roots_bytes, trial.gogc))
    if trial.goal_bytes >= BINDING_SHARE * by_gogc or trial.goal_bytes <= trial.live_bytes:
        return None
    return max(0.0, trial.memlimit_bytes - limit_for_goal_bytes(trial.goal_bytes, 0.0))


def _error(found: GoService, told: Sequence[Measured]) -> float | None:
    if len({(t.gogc, t.memlimit_bytes) for t in told}) < 3:
        return None
    off = [float(found.peak_bytes(t.gogc, t.memlimit_bytes)) / t.peak_bytes - 1 for t in told]
    return float(np.sqrt(np.mean(np.square(off))))


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _plain(values: Any) -> Numbers:
    """A float for one number, an array for several."""
    return float(values) if np.ndim(values) == 0 else np.asarray(values, dtype=float)
