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
from typing import Any

from results.comparing.across import MeasuredRun, across
from results.comparing.compare import Measurement, Row, Settings, compare
from tests.benchmarks.figures import Figure

AREA = "results"
RUNS = 10_000
RUNS_PER_POWER = 2_000
RUNS_ACROSS = 2_000
SEED = 20_261
CANDIDATES = 2
SETTINGS = Settings(baseline="default", primary=("peak_rss",))
NAMES = ("default", "first", "second")
CHANGE = 0.05


@dataclass(slots=True)
class Machine:
    """What a trial's value is multiplied with, trial after trial; `spread` is that of its noise.

    One that does not drift has the same noise, each trial's independent of the one before.
    """

    random: random.Random
    spread: float
    drift: float = 0.0
    drifts: bool = True

    def factor(self) -> float:
        """The next trial's factor."""
        self.drift = 0.8 * self.drift * self.drifts + self.random.gauss(0, 2 * self.spread)
        normal, squares = self.random.gauss(0, 1), self.random.gammavariate(1.5, 2)
        heavy = normal / math.sqrt(squares / 3) / math.sqrt(3)
        slow = self.random.expovariate(0.5) if self.random.random() < 0.1 else 0.0
        return math.exp(self.drift + self.spread * (heavy + slow))


def figures() -> Iterator[Figure]:
    """False alarms and coverage for a few numbers of blocks, and the power to see 5 %.

    Then the false alarms of one run against an earlier one, where nothing is paired.
    """
    for blocks in (8, 12, 20):
        yield _false_alarms(blocks)
    for blocks in (6, 10, 20):
        yield _coverage(blocks)
    for blocks in (5, 6, 10, 20):
        for spread in (0.015, 0.03):
            yield _power(blocks, spread)
    for drifts in (False, True):
        yield _false_alarms_across(8, drifts=drifts)


def simulated_rows(
    machine: Machine, blocks: int, changes: dict[str, float], names: tuple[str, ...] = NAMES
) -> list[Row]:
    """The primary rows of one simulated run: randomised blocks on one drifting machine."""
    measured = _measured(machine, blocks, changes, names)
    return [row for table in compare(measured, SETTINGS) for row in table.rows]


def _measured(
    machine: Machine, blocks: int, changes: dict[str, float], names: tuple[str, ...]
) -> list[Measurement]:
    return [
        Measurement(
            ("run", block), "node", "steady", name, "peak_rss",
            100.0 * (1 + changes.get(name, 0.0)) * machine.factor(),
        )
        for block in range(blocks)
        for name in machine.random.sample(names, len(names))
    ]  # fmt: skip


def _false_alarms(blocks: int) -> Figure:
    """Share of runs of equal configurations with any verdict of better or worse."""
    machine = Machine(random.Random(SEED + blocks), spread=0.03)
    alarms = sum(
        any(row.verdict in ("better", "worse") for row in simulated_rows(machine, blocks, {}))
        for _ in range(RUNS)
    )
    name = f"A/A: a false verdict, {CANDIDATES} contrasts, {blocks} blocks"
    return Figure.at_most(AREA, name, 100 * alarms / RUNS, "% of runs", 5)


def _false_alarms_across(blocks: int, *, drifts: bool) -> Figure:
    """Share of runs with any verdict of better or worse against an earlier run of the same.

    The test takes trials for independent: with a machine that drifts they are not, which is told.
    """
    machine = Machine(random.Random(SEED + blocks), spread=0.03, drifts=drifts)
    alarms = 0
    for _ in range(RUNS_ACROSS):
        found = across(_run("then", machine, blocks), _run("now", machine, blocks), "then")
        rows = [row for table in found.tables for row in table.rows]
        alarms += any(row.verdict in ("better", "worse") for row in rows)
    noise = "a machine that drifts" if drifts else "independent trials"
    name = f"A/A across two runs: a false verdict, 2 contrasts, {blocks} blocks, {noise}"
    share = 100 * alarms / RUNS_ACROSS
    if drifts:
        return Figure.told(AREA, name, share, "% of runs")
    return Figure.at_most(AREA, name, share, "% of runs", 5)


def _run(run_id: str, machine: Machine, blocks: int) -> MeasuredRun:
    """A simulated run of two equal configurations, as `across` takes it."""
    asked = {"confidence": SETTINGS.confidence, "primary": [*SETTINGS.primary], "margins": {}}
    document: dict[str, Any] = {
        "run_id": run_id, "service": "simulated", "planned": (), "comparison": asked,
    }  # fmt: skip
    return MeasuredRun(document, (), tuple(_measured(machine, blocks, {}, NAMES[:2])))


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
