"""Does a history tell the truth? Simulated runs whose levels are known, through the real search.

The noise of a run is like that of its neighbours (autocorrelated by φ), has heavy tails (Student's
t with three degrees of freedom) and slow-downs that only ever add. Each run has six trials, whose
own noise is half as large.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from statistics import median

from results.comparing.history import standard_error
from results.statistics.changepoints import find_changes
from results.statistics.twosample import shift_between
from tests.benchmarks.figures import Figure

AREA = "results"
HISTORIES = 2_000
HISTORIES_PER_POWER = 500
RUNS = 30
TRIALS = 6
CHANGED_AT = 20
SPREAD = 0.02
SEED = 20_262


def figures() -> Iterator[Figure]:
    """False alarms by how alike neighbours are, the power, and how true the size is."""
    for dependence, most in ((0.0, 5.0), (0.3, 5.0), (0.5, 5.0)):
        yield _false_alarms(dependence, most)
    for change in (0.05, 0.10):
        for dependence in (0.0, 0.3):
            yield from _power(change, dependence)
    yield _few_runs()


def simulated(
    source: random.Random, runs: int, dependence: float, spread: float, change: float = 0.0,
    changed_at: int = CHANGED_AT,
) -> list[list[float]]:  # fmt: skip
    """The values of the trials of each run."""
    drift, found = 0.0, []
    for run in range(-20, runs):
        drift = dependence * drift + math.sqrt(1 - dependence**2) * _heavy(source)
        slow = source.expovariate(1.0) if source.random() < 0.1 else 0.0
        level = math.exp(spread * (drift + slow)) * (1 + change * (run >= changed_at))
        trials = [100 * level * math.exp(spread / 2 * _heavy(source)) for _ in range(TRIALS)]
        if run >= 0:
            found.append(trials)
    return found


def _heavy(source: random.Random) -> float:
    return source.gauss(0, 1) / math.sqrt(source.gammavariate(1.5, 2) / 3) / math.sqrt(3)


def found_in(history: list[list[float]]) -> list[int]:
    """Where a history of trials is said to change."""
    values = [median(trials) for trials in history]
    errors = [standard_error(trials) for trials in history]
    return [split.index for split in find_changes(values, errors)]


def _false_alarms(dependence: float, most: float) -> Figure:
    source = random.Random(SEED + round(10 * dependence))
    alarms = sum(
        bool(found_in(simulated(source, RUNS, dependence, SPREAD))) for _ in range(HISTORIES)
    )
    name = f"A/A history of {RUNS} runs, φ = {dependence:g}: any change"
    return Figure.at_most(AREA, name, 100 * alarms / HISTORIES, "% of histories", most)


def _power(change: float, dependence: float) -> Iterator[Figure]:
    source = random.Random(SEED - round(100 * change) - round(10 * dependence))
    seen = holds = 0
    for _ in range(HISTORIES_PER_POWER):
        history = simulated(source, RUNS, dependence, SPREAD, change)
        near = [index for index in found_in(history) if abs(index - CHANGED_AT) <= 2]
        if near:
            seen += 1
            values = [math.log(median(trials)) for trials in history]
            bounds = shift_between(values[: near[0]], values[near[0] :], 0.95).shift
            holds += bounds.low <= math.log1p(change) <= bounds.high
    name = f"a change of {change:.0%} after {CHANGED_AT} of {RUNS} runs, φ = {dependence:g}"
    yield Figure.told(AREA, f"{name}: seen", 100 * seen / HISTORIES_PER_POWER, "% of histories")
    share = 100 * holds / max(1, seen)
    yield Figure.told(AREA, f"{name}: interval holds it", share, "% of those")


def _few_runs() -> Figure:
    source = random.Random(SEED)
    seen = sum(
        bool(found_in(simulated(source, 8, 0.3, 0.01, 0.2, 5))) for _ in range(HISTORIES_PER_POWER)
    )
    name = "a change of 20 % after 5 of 8 runs, noise 1 %: seen"
    return Figure.told(AREA, name, 100 * seen / HISTORIES_PER_POWER, "% of histories")
