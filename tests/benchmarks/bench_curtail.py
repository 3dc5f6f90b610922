"""Does a run that ends early decide as the whole one? Simulated runs, through the real decisions.

Each run is looked at after every block, as `bench run --stop-early` does, and then measured to its
end all the same. The noise is that of `bench_statistics.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from results.signoff.curtail import LOST, MET, OPEN, outlook_of
from results.signoff.language import parse_objective
from results.signoff.objectives import CANT_TELL, PASS, decide, decisions_in
from tests.benchmarks.bench_statistics import Machine
from tests.benchmarks.figures import Figure
from tests.results.begun import Values, after

AREA = "signoff"
RUNS = 300
SEED = 20_262
SPREAD = 0.015
MIB = 2.0**20
LIMIT = "peak_rss <= 100MiB"
CHANGE = "peak_rss better by >= 30%"


@dataclass(frozen=True, slots=True)
class Case:
    """A service whose typical trial has so much memory, where the baseline has 150 MiB."""

    name: str
    objective: str
    typical_mib: float


CASES = (
    Case("a limit, clear pass", LIMIT, 85),
    Case("a limit, borderline", LIMIT, 100),
    Case("a limit, clear fail", LIMIT, 115),
    Case("a change, clear pass", CHANGE, 85),
    Case("a change, borderline", CHANGE, 105),
    Case("a change, clear fail", CHANGE, 125),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: what it came to early, after how many blocks, and what the whole one says."""

    early: str
    blocks: int
    word: str
    word_early: str

    @property
    def agrees(self) -> bool:
        """Whether it passes exactly where the whole run does, and says nothing else besides."""
        same = self.early == OPEN or (self.early == MET) == (self.word == PASS)
        return same and self.word_early in (self.word, CANT_TELL)


def simulated(case: Case, planned: int, source: random.Random) -> Seen:
    """One run to its end, looked at after every block."""
    machine = Machine(source, SPREAD)
    values = [
        (150 * MIB * machine.factor(), case.typical_mib * MIB * machine.factor())
        for _ in range(planned)
    ]
    objective = parse_objective(case.objective)
    (last,) = decide([objective], after(values, planned, "peak_rss"))
    for blocks in range(1, planned + 1):
        early = _outlook(case, values[:blocks], planned)
        if early != OPEN:
            break
    (said,) = decide([objective], after(values[:blocks], planned, "peak_rss", early=True))
    return Seen(early, blocks, last.word, said.word)


def _outlook(case: Case, values: Values, planned: int) -> str:
    evidence = after(values, planned, "peak_rss")
    (decision,) = decisions_in([parse_objective(case.objective)], evidence)
    return outlook_of(decision, evidence)


def figures() -> Iterator[Figure]:
    """How often both agree, and the share of blocks that is saved."""
    source, wrong = random.Random(SEED), 0
    for planned in (8, 12, 20):
        for case in CASES:
            seen = [simulated(case, planned, source) for _ in range(RUNS)]
            wrong += sum(not run.agrees for run in seen)
            saved = 100 * (1 - sum(run.blocks for run in seen) / len(seen) / planned)
            passed = 100 * sum(run.word == PASS for run in seen) / len(seen)
            lost = 100 * sum(run.early == LOST for run in seen) / len(seen)
            name = f"early end: {case.name}, {planned} blocks planned"
            yield Figure.told(AREA, f"{name}: blocks saved", saved, "%")
            yield Figure.told(AREA, f"{name}: PASS of the whole run", passed, "% of runs")
            yield Figure.told(AREA, f"{name}: given up early", lost, "% of runs")
    name = f"early end: runs of {18 * RUNS:,} that decide otherwise than the whole one"
    yield Figure.at_most(AREA, name, wrong, "", 0)
