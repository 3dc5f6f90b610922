"""Can the verdicts be believed? Simulated runs whose truth is known, through the real comparison.

The noise is what benchmarks on shared machines show: a machine that drifts from trial to trial
(autocorrelated), rare large outliers (Student's t with three degrees of freedom) and slow-downs
that only ever add (skewed). Every trial of a run meets the drift in the order in which it ran.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from results.comparing.compare import Measurement, Row, Settings, compare
from tests.benchmarks.figures import Figure

AREA = "results"
RUNS = 10_000
RUNS_PER_POWER = 2_000
SEED = 20_261
CANDIDATES = 2
SETTINGS = Settings(baseline="default", primary=("peak_rss",))
NAMES = ("default", "first", "second")
CHANGE = 0.05


@dataclass(slots=True)
class Machine:
    """What a trial's value is multiplied with, trial after trial; `spread` is that of its noise."""

    random: random.Random
    spread: float
    drift: float = 0.0

    def factor(self) -> float:
        """The next trial's factor."""
        self.drift = 0.8 * self.drift + self.random.gauss(0, 2 * self.spread)
        normal, squares = self.random.gauss(0, 1), self.random.gammavariate(1.5, 2)
        heavy = normal / math.sqrt(squares / 3) / math.sqrt(3)
        slow = self.random.expovariate(0.5) if self.random.random() < 0.1 else 0.0
        return math.exp(self.drift + self.spread * (heavy + slow))


def figures() -> Iterator[Figure]:
    """False alarms and coverage for a few numbers of blocks, and the power to see 5 %."""
    for blocks in (8, 12, 20):
        yield _false_alarms(blocks)
    for blocks in (6, 10, 20):
        yield _coverage(blocks)
    for blocks in (5, 6, 10, 20):
        for spread in (0.015, 0.03):
            yield _power(blocks, spread)


def simulated_rows(
    machine: Machine, blocks: int, changes: dict[str, float], names: tuple[str, ...] = NAMES
) -> list[Row]:
    """The primary rows of one simulated run: randomised blocks on one drifting machine."""
    measured = [
        Measurement(
            ("run", block), "node", "steady", name, "peak_rss",
            100.0 * (1 + changes.get(name, 0.0)) * machine.factor(),
        )
        for block in range(blocks)
        for name in machine.random.sample(names, len(names))
    ]  # fmt: skip
    return [row for table in compare(measured, SETTINGS) for row in table.rows]


def _false_alarms(blocks: int) -> Figure:
    """Share of runs of equal configurations with any verdict of better or worse."""
    machine = Machine(random.Random(SEED + blocks), spread=0.03)
    alarms = sum(
        any(row.verdict in ("better", "worse") for row in simulated_rows(machine, blocks, {}))
        for _ in range(RUNS)
    )
    name = f"A/A: a false verdict, {CANDIDATES} contrasts, {blocks} blocks"
    return Figure.at_most(AREA, name, 100 * alarms / RUNS, "% of runs", 5)


def _coverage(blocks: int) -> Figure:
    """Share of 95 % intervals that contain the true change."""
    machine = Machine(random.Random(SEED - blocks), spread=0.03)
    pair = NAMES[:2]
    holds = 0
    for _ in range(RUNS):
        (row,) = simulated_rows(machine, blocks, {pair[1]: CHANGE}, pair)
        assert row.change is not None
        holds += row.change.low <= CHANGE <= row.change.high
    name = f"95 % interval holds the truth, {blocks} blocks"
    return Figure.within(AREA, name, 100 * holds / RUNS, "% of runs", 93, 97.5)


def _power(blocks: int, spread: float) -> Figure:
    """How often a change of 5 % is seen: told, not promised."""
    machine = Machine(random.Random(SEED * blocks), spread)
    pair = NAMES[:2]
    seen = sum(
        simulated_rows(machine, blocks, {pair[1]: CHANGE}, pair)[0].verdict == "worse"
        for _ in range(RUNS_PER_POWER)
    )
    name = f"a change of {CHANGE:.0%} is seen, noise {spread:.1%}, {blocks} blocks"
    return Figure.told(AREA, name, 100 * seen / RUNS_PER_POWER, "% of runs")
