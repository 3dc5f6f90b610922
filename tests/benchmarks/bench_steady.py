"""Does the test for a steady state cry wolf, and what does it see? Simulated trials through it.

The trials are what services in a steady state look like: memory that wanders (autocorrelated), the
saw-tooth of a collected heap, sizes in whole MiB, a cache whose last percent still fills, and p99
latencies by the second with bursts. Then the same with a drift, a step or a leak put in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from results.judging.leaks import AS_BASELINE, LEAK, leaks_of
from results.judging.series import Series, _sliced
from results.judging.steady import DRIFTS, STEPS, judged
from results.record import PhaseSpan, SeriesTrend, TrialRecord
from results.schema import SCHEMA_VERSION
from tests.benchmarks.figures import Figure

AREA = "load"
TRIALS: Final = 2_000
TRIALS_PER_POWER: Final = 400
SEED: Final = 20_262
MIB: Final = 2**20
CHANGE: Final = 0.1
LATENCY_CHANGE: Final = 0.5
LENGTHS_S: Final = (30, 60, 120, 300)
LEAK_RUNS: Final = {"heap_live": 1_000, "rss": 300}
LEAK_RUNS_PER_POWER: Final = 60
LEAK_LENGTHS_S: Final = (300, 600, 1_800, 3_600)

Values = NDArray[np.float64]
Change = Callable[[Values], Values]
"""What is put in: a factor for each share of measure, 0 … 1."""


def unchanged(share: Values) -> Values:
    """Nothing: a steady state."""
    return np.ones_like(share)


def drift(by: float) -> Change:
    """Even growth by a share of the level over measure."""
    return lambda share: 1 + by * share


def step(by: float, at: float = 0.4) -> Change:
    """Another level from some moment on."""
    return lambda share: np.where(share >= at, 1 + by, 1.0)


@dataclass(slots=True)
class SimulatedTrial:
    """The series of one trial of some seconds; everything is drawn from its number."""

    number: int
    seconds: float
    random: random.Random
    numpy: np.random.Generator

    @classmethod
    def of(cls, number: int, seconds: float | None = None) -> SimulatedTrial:
        """A trial by its number; its length is drawn too, when not given."""
        draw = random.Random(SEED + number)
        length_s = draw.choice(LENGTHS_S)
        return cls(number, seconds or length_s, draw, np.random.default_rng(SEED + number))

    def rss(self, change: Change = unchanged) -> Series:
        """RSS at 10 Hz: a wandering level, a saw-tooth in it, and a cache that is nearly full."""
        times_s = np.arange(0, self.seconds, 0.1)
        share = times_s / self.seconds
        wander = self._wander(len(times_s), self.random.uniform(0.1, 2.0) * 10)
        period_s = self.random.uniform(0.2, 5.0)
        tooth = self._teeth(times_s, period_s)
        filling = 0.01 * np.exp(-times_s / (self.seconds * self.random.uniform(0.05, 0.3)))
        values = 1 + 0.02 * wander + self.random.uniform(0, 0.2) * tooth - filling
        level = self.random.uniform(20, 2_000) * MIB
        return self._sliced("rss", times_s, level * values * change(share), 4)

    def heap(self, name: str, change: Change = unchanged) -> Series:
        """A figure of each collection, in whole MiB as the runtime tells it."""
        cycles = self.random.randint(60, 1_500)
        times_s = np.sort(self.numpy.uniform(0, self.seconds, cycles))
        values = 1 + self.random.uniform(0.005, 0.03) * self._wander(
            cycles, self.random.uniform(0.5, 0.02 * cycles)
        )
        level = self.random.uniform(10, 1_000)
        whole = np.round(level * values * change(times_s / self.seconds)) * MIB
        return self._sliced(name, times_s, whole, 1)

    def latency(self, change: Change = unchanged) -> Series:
        """p99 by the second: it scatters by a fifth, hangs together, and has bursts."""
        count = min(60, int(self.seconds))
        seconds = (np.arange(count) + 0.5) * self.seconds / count
        wander = self._wander(count, self.random.uniform(0.3, 2.0))
        bursts = np.where(self.numpy.random(count) < 0.05, self.numpy.uniform(2, 5, count), 1.0)
        values = 5e6 * np.exp(0.2 * wander) * bursts * change(seconds / self.seconds)
        return Series("latency_p99", seconds, values)

    def _teeth(self, times_s: Values, period_s: float) -> Values:
        """A saw-tooth of height 1; no two of its periods are equal, as no two collections are."""
        count = int(self.seconds / period_s * 1.5) + 20
        lengths = period_s * self.numpy.uniform(0.8, 1.2, count)
        begins = np.cumsum(lengths) - lengths * (1 + self.random.random())
        last = np.searchsorted(begins, times_s, side="right") - 1
        teeth: Values = (times_s - begins[last]) / lengths[last]
        return np.minimum(teeth, 1.0)

    def _wander(self, count: int, memory: float) -> Values:
        """Autocorrelated noise of spread 1 with heavy tails; `memory` is in values."""
        dependence = math.exp(-1 / memory)
        shocks = self.numpy.standard_t(4, count + 200) / math.sqrt(2)
        shocks *= math.sqrt(1 - dependence**2)
        values: Values = lfilter([1.0], [1.0, -dependence], shocks)[200:]
        return values

    def _sliced(self, name: str, times_s: Values, values: Values, per_point: int) -> Series:
        span = PhaseSpan("measure", 0, round(self.seconds * 1e9))
        return _sliced(name, times_s * 1e9, values, span, per_point)

    def judge(self, series: Series) -> SeriesTrend:
        """What the real test says."""
        return judged(series, self.seconds, f"{self.number} {series.name}")


def filling(share_of_level: float, of_measure: float) -> Change:
    """A cache that fills: fast at first, then slower."""
    return lambda share: 1 - share_of_level * np.exp(-share / of_measure)


def both(one: Change, other: Change) -> Change:
    """Two changes at once."""
    return lambda share: one(share) * other(share)


def leak_verdicts(number: int, seconds: float, leak_per_hour: float, series: str) -> list[str]:
    """Baseline and candidate of three blocks; the candidate's level grows by a share an hour.

    Half of the services have a cache that still fills, the same in both configurations.
    """
    draw = random.Random(number)
    cache = filling(draw.choice((0, 0.1)), draw.uniform(0.03, 0.15))
    leaking = both(cache, drift(leak_per_hour * seconds / 3600))
    records = []
    for place in range(6):
        block, candidate = divmod(place, 2)
        trial = SimulatedTrial.of(number * 6 + place, seconds)
        change = leaking if candidate else cache
        made = trial.rss(change) if series == "rss" else trial.heap(series, change)
        records.append(_record(block + 1, ("default", "candidate")[candidate], trial.judge(made)))
    return [leak.verdict for leak in leaks_of(records)]


def _record(block: int, configuration: str, trend: SeriesTrend) -> TrialRecord:
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id="simulated", trial_id=f"b{block}-{configuration}",
        block=block, position=1, attempt=1, configuration=configuration,
        baseline=configuration == "default", workload="steady", node_id="node", node_class="class",
        started_ns=0, finished_ns=1, spec={}, node={"os": "linux"}, versions={}, clock={},
        steady=[trend],
    )  # fmt: skip


def not_steady(number: int) -> bool:
    """Whether a trial that is steady in all its series is said not to be."""
    trial = SimulatedTrial.of(number)
    series = (trial.rss(), trial.heap("heap_goal"), trial.latency())
    return any(trial.judge(one).verdict in (DRIFTS, STEPS) for one in series)


def figures() -> Iterator[Figure]:
    """False alarms, and what is seen of a change."""
    alarms = sum(map(not_steady, range(TRIALS)))
    name = f"a steady trial is called unsteady, {TRIALS:,} simulated"
    yield Figure.at_most(AREA, name, 100 * alarms / TRIALS, "% of trials", 5)
    for seconds in (60, 300):
        for kind, change in (("drift", drift), ("step", step)):
            yield _power(f"RSS {kind} of {CHANGE:.0%}", "rss", change(CHANGE), seconds)
            what = f"p99 {kind} of {LATENCY_CHANGE:.0%}"
            yield _power(what, "latency_p99", change(LATENCY_CHANGE), seconds)
    yield from _leak_figures()


def _leak_figures() -> Iterator[Figure]:
    """A leak where there is none, and how often one of 10 % an hour is found."""
    for series, runs in LEAK_RUNS.items():
        alarms = 0
        for number in range(runs):
            seconds = random.Random(number).choice(LEAK_LENGTHS_S)
            verdicts = leak_verdicts(number, seconds, 0.0, series)
            alarms += any(verdict in (LEAK, AS_BASELINE) for verdict in verdicts)
        name = f"a leak in {series} where there is none, {runs:,} simulated runs"
        yield Figure.at_most(AREA, name, 100 * alarms / runs, "% of runs", 5)
        for minutes in (10, 30, 60):
            found = [
                leak_verdicts(number, minutes * 60, CHANGE, series)[1] == LEAK
                for number in range(LEAK_RUNS_PER_POWER)
            ]
            name = f"a leak of {CHANGE:.0%} an hour in {series}, 3 blocks of {minutes} min, is seen"
            yield Figure.told(AREA, name, 100 * sum(found) / len(found), "% of runs")


def _power(what: str, name: str, change: Change, seconds: float) -> Figure:
    seen = 0
    for number in range(TRIALS_PER_POWER):
        trial = SimulatedTrial.of(number, seconds)
        series = trial.rss(change) if name == "rss" else trial.latency(change)
        seen += trial.judge(series).verdict in (DRIFTS, STEPS)
    title = f"{what} in {seconds:g} s is seen"
    return Figure.told(AREA, title, 100 * seen / TRIALS_PER_POWER, "% of trials")
