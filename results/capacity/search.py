"""Where is the rate that is just carried? A search that is told only "it held" or "it did not".

Near that rate a trial's answer is partly chance, so no answer rules a rate out; each moves belief.
The chance that a trial holds at rate r is taken to fall from one to zero around the capacity C:

    P(holds at r) = ε/2 + (1 - ε) / (1 + (r / C)^(1/w))

with an unknown width w (the noise of a trial in terms of its rate) and a small share ε of answers
that have nothing to do with the rate. Belief about C and w is a table of weights, begun evenly over
the logarithm of both, and updated by Bayes' rule. The next rate is where C lies half the time: the
probabilistic bisection of M. Horstein (Sequential transmission using noiseless feedback, IEEE
Trans. Information Theory 9, 1963), as R. Waeber, P. Frazier and S. Henderson treat it (Bisection
search with noisy responses, SIAM J. Control and Optimization 51, 2013), with a noise that is not
known and not the same everywhere; but a long tail on one side is looked into. Before there is a
rate that held and one that did not, rates are doubled or halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from results.statistics.interval import Interval

WIDTHS: Final = np.geomspace(0.003, 0.2, 12)
LAPSE: Final = 0.02
POINTS: Final = 1_200
DOUBLING: Final = 2.0
TAIL: Final = 3.0
"""So many times as long as the other side of the interval is a tail."""

BEYOND: Final = 2.0
"""How far beyond the rates that may be tried the capacity may lie."""

State = Literal["searching", "found", "below", "above", "spent"]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one trial at a rate said."""

    rate_rps: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be tried: rates, how often, and how narrow the interval is to become.

    `closeness` is the ratio of its ends less one: 0.1 asks for ends within 10 % of each other.
    """

    lowest_rps: float
    highest_rps: float
    trials_max: int
    closeness: float = 0.10
    confidence: float = 0.95


class Search:
    """One search; it holds nothing but the answers, so it can be made again from them."""

    def __init__(self, bounds: Bounds, first_rps: float, answers: Sequence[Answer] = ()) -> None:
        """Raises ValueError for bounds that leave nothing to search."""
        if not 0 < bounds.lowest_rps < bounds.highest_rps:
            raise ValueError("the lowest rate must be above zero and below the highest")
        if not bounds.lowest_rps <= first_rps <= bounds.highest_rps:
            raise ValueError("the first rate must lie between the lowest and the highest")
        self._bounds = bounds
        self._first_rps = first_rps
        self._logs = np.linspace(
            math.log(bounds.lowest_rps / BEYOND), math.log(bounds.highest_rps * BEYOND), POINTS
        )
        self._weights: Weights = np.full(
            (len(WIDTHS), POINTS), 1 / (len(WIDTHS) * POINTS), dtype=np.float64
        )
        self.answers: list[Answer] = []
        for answer in answers:
            self.tell(answer)

    def tell(self, answer: Answer) -> None:
        """Take in what a trial said."""
        self.answers.append(answer)
        holds = self._chance(answer.rate_rps)
        self._weights *= holds if answer.holds else 1 - holds
        self._weights /= self._weights.sum()

    def next_rps(self) -> float:
        """The rate to try next."""
        held = [a.rate_rps for a in self.answers if a.holds]
        failed = [a.rate_rps for a in self.answers if not a.holds]
        if not self.answers:
            return self._first_rps
        if not failed:
            return min(self._bounds.highest_rps, max(held) * DOUBLING)
        if not held:
            return max(self._bounds.lowest_rps, min(failed) / DOUBLING)
        return self._within(self._most_telling_rps())

    def _most_telling_rps(self) -> float:
        """Where belief is halved; with a long tail on one side, the quartile on that side.

        A tail is what is left of the thought that one answer had nothing to do with its rate: a
        rate that held once, with failures all above it, is worth a second trial.
        """
        middle, whole = self.interval(0.5), self.interval()
        below = math.log(whole.estimate / whole.low)
        above = math.log(whole.high / whole.estimate)
        if below > TAIL * above:
            return middle.low
        return middle.high if above > TAIL * below else middle.estimate

    @property
    def state(self) -> State:
        """Whether to go on; `below` and `above`: the capacity lies outside of what may be tried."""
        lowest, highest = self._bounds.lowest_rps, self._bounds.highest_rps
        if self._agree(lowest, holds=False):
            return "below"
        if self._agree(highest, holds=True):
            return "above"
        interval = self.interval()
        both = len({answer.holds for answer in self.answers}) == 2
        if both and interval.high / interval.low - 1 <= self._bounds.closeness:
            return "found"
        return "spent" if len(self.answers) >= self._bounds.trials_max else "searching"

    def interval(self, level: float | None = None) -> Interval:
        """Where the capacity lies, in requests per second, with so much of the belief."""
        level = self._bounds.confidence if level is None else level
        sums = np.cumsum(self._weights.sum(axis=0))
        places = np.searchsorted(sums, [0.5, (1 - level) / 2, (1 + level) / 2])
        ends = np.exp(self._logs[np.minimum(places, POINTS - 1)])
        return Interval(*(float(end) for end in ends))

    @property
    def contradicts_itself(self) -> bool:
        """Whether a clearly higher rate held where a lower one did not, again and again.

        Under the best of the models such answers have a chance below one in a hundred: the service
        does not simply carry less the more it gets.
        """
        if len(self.answers) < 4:
            return False
        log_chance = sum(
            np.log(np.where(a.holds, self._chance(a.rate_rps), 1 - self._chance(a.rate_rps)))
            for a in self.answers
        )
        return bool(np.max(log_chance) < math.log(0.01) + _usual(len(self.answers)))

    def _agree(self, rate_rps: float, *, holds: bool) -> bool:
        """Whether two trials at a rate said so, and none otherwise."""
        there = [a.holds for a in self.answers if math.isclose(a.rate_rps, rate_rps)]
        return len(there) >= 2 and set(there) == {holds}

    def _chance(self, rate_rps: float) -> Weights:
        """P(holds) for every width and capacity of the table."""
        distance = (self._logs[None, :] - math.log(rate_rps)) / WIDTHS[:, None]
        held = 1 / (1 + np.exp(-np.clip(distance, -60, 60)))
        return np.asarray(LAPSE / 2 + (1 - LAPSE) * held, dtype=np.float64)

    def _within(self, rate_rps: float) -> float:
        return min(self._bounds.highest_rps, max(self._bounds.lowest_rps, rate_rps))


def _usual(answers: int) -> float:
    """Log chance of as many answers of a search that goes as it should: mostly coin flips."""
    return answers * math.log(0.5)
