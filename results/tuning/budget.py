"""How much measuring a tuning may do, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from results.tuning.outcomes import Outcome

BATCH: Final = 4
"""Settings that are measured in one run."""

LONGER: Final = 6
"""Promising settings that are looked at again in a trial of full length, at most."""

SPIRAL_RUNS: Final = 5
SPIRAL_BATCH: Final = 3


@dataclass(slots=True)
class Budget:
    """Seconds of measuring that may be used. A run costs `run_s` beside its trials.

    `trials` are those of the search, `finalists` the settings that are confirmed in `blocks`;
    `with_spiral`: the death spiral is searched for.
    """

    total_s: float
    run_s: float
    short_s: float
    long_s: float
    blocks: int
    trials: int
    finalists: int
    with_spiral: bool = True
    used_s: float = 0.0

    @property
    def confirm_s(self) -> float:
        """The last run: full blocks of the finalists and of what is written."""
        return self.confirming_s(self.finalists)

    def confirming_s(self, settings: int) -> float:
        """Full blocks of so many settings and of what is written."""
        return self.run_s + (settings + 1) * self.blocks * self.long_s

    @property
    def looks_longer(self) -> bool:
        """Whether a trial of full length is any longer than a short one."""
        return self.long_s > self.short_s * 1.1

    @property
    def longer_s(self) -> float:
        """A trial of full length of what is promising."""
        return self.run_s + LONGER * self.long_s if self.looks_longer else 0.0

    @property
    def spiral_s(self) -> float:
        """The search of the spiral, at most."""
        return SPIRAL_RUNS * self.short_run_s(SPIRAL_BATCH) if self.with_spiral else 0.0

    def short_run_s(self, trials: int) -> float:
        """A run of so many short trials."""
        return self.run_s + trials * self.short_s

    @property
    def least_s(self) -> float:
        """Two runs of the search, then all that comes after it."""
        return 2 * self.short_run_s(BATCH) + self.spiral_s + self.longer_s + self.confirm_s

    @property
    def most_s(self) -> float:
        """What everything takes at most."""
        runs = math.ceil(self.trials / BATCH)
        search_s = runs * self.run_s + self.trials * self.short_s
        return min(search_s + self.spiral_s + self.longer_s + self.confirm_s, self.total_s)

    def use(self, outcomes: Sequence[Outcome]) -> None:
        """A run was made."""
        self.used_s += self.run_s + sum(outcome.took_s for outcome in outcomes)

    def allows(self, seconds: float, kept_s: float) -> bool:
        """Whether so much may be used now, when `kept_s` is kept for what comes later."""
        return self.used_s + seconds + kept_s <= self.total_s
