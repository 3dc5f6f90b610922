"""What comes next: search, confirm in fresh processes, overload. It holds only what was tried.

The search's answer is the interval of `search.py`. Its lower bound is the figure that one would
sign, so that is tried again in a fresh process, and the upper bound beside it, one step above. A
lower bound that does not hold then is one more answer: the search goes on from there while there is
something left to spend. What is confirmed is always the answer as it stands: an answer to the
search makes a confirmation before it void.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from results.capacity.holds import Held
from results.capacity.overload import Overload
from results.capacity.search import Answer, Bounds, Search
from results.statistics.interval import Interval

SPOILED_MAX: Final = 3
"""A rate at which nothing could be said so often in a row ends that part of the search."""

CONFIRMING: Final = 2
"""Trials that are kept back for confirmation: at the lower bound and one step above."""

WIDE: Final = 2.0
"""Ends of an interval that are further apart than this say little: the search goes first."""

OVERLOADS_MAX: Final = 2
"""An overload that says nothing is tried once more."""

End = Literal["searching", "found", "spent", "below", "above", "generator", "stuck"]


class Purpose(StrEnum):
    """What a trial is made for."""

    search = "search"
    confirm = "confirm"
    above = "above"
    overload = "overload"


@dataclass(frozen=True, slots=True)
class Step:
    """A trial that comes next; for an overload the rate is that before it."""

    purpose: Purpose
    rate_rps: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial that was made; `values` are its metrics by name.

    `disturbed`: others used the service's processor cores meanwhile.
    """

    run_id: str
    purpose: Purpose
    rate_rps: float
    held: Held
    values: Mapping[str, float | None] = field(default_factory=dict)
    took_ns: int = 0
    disturbed: bool = False


@dataclass(frozen=True, slots=True)
class Purse:
    """What may still be spent: a number of trials, and a time in which each takes so long."""

    trials: int
    time_ns: float = math.inf
    trial_ns: int = 0
    overload_ns: int = 0

    def affords(self, trials: int, overloads: int = 0) -> bool:
        """Whether it is enough for so many."""
        needed_ns = trials * self.trial_ns + overloads * self.overload_ns
        return trials + overloads <= self.trials and needed_ns <= self.time_ns


class Course:
    """One configuration's way from the first trial to the last."""

    def __init__(
        self, configuration: str, bounds: Bounds, first_rps: float, *, with_overload: bool = True
    ) -> None:
        """Raises ValueError for bounds that leave nothing to search."""
        self.configuration = configuration
        self.bounds = bounds
        self.search = Search(bounds, first_rps)
        self.tried: list[Tried] = []
        self.overloads: list[Overload] = []
        self._with_overload = with_overload
        self._forgiven = 0

    def take(self, tried: Tried) -> None:
        """Take in what a trial said; whatever it was made for, it is an answer."""
        self.tried.append(tried)
        if tried.held.holds is not None:
            self.search.tell(Answer(tried.rate_rps, tried.held.holds))

    def take_overload(self, overload: Overload) -> None:
        """Take in an overload: no answer, for its rate was not one."""
        self.overloads.append(overload)

    @property
    def trials(self) -> int:
        """Trials that were made, of every kind."""
        return len(self.tried) + len(self.overloads)

    @property
    def spent_ns(self) -> int:
        """What they took together."""
        return sum(t.took_ns for t in self.tried) + sum(o.took_ns for o in self.overloads)

    def next_step(self, purse: Purse) -> Step | None:
        """What to do next with what is left; None when there is nothing more to learn."""
        ahead = int(self._overload_is_due)
        trials, overloads = self._kept_back
        if self.end == "searching" and purse.affords(1 + trials, overloads):
            return Step(Purpose.search, written_rate(self.search.next_rps()))
        if self.end in ("below", "stuck") or not self._has_held:
            return None
        if self.confirmation is None:
            due = purse.affords(1) and self._confirmation_is_due
            return Step(Purpose.confirm, self.lower_rps) if due else None
        if self._above_is_due and purse.affords(1, ahead):
            return Step(Purpose.above, self.above_rps)
        if self._overload_is_due and purse.affords(0, 1):
            return Step(Purpose.overload, self.lower_rps)
        return None

    @property
    def end(self) -> End:
        """How the search ended, if it did; a `searching` that goes on no more ran out of means."""
        if self.stuck:
            return "stuck"
        if self.generator_rps is not None:
            return "generator"
        state = self.search.state
        return "searching" if state == "spent" else state

    @property
    def interval(self) -> Interval:
        """Where the capacity lies, in requests per second."""
        return self.search.interval()

    @property
    def bracketed(self) -> bool:
        """Whether a rate held and one did not: before that its interval has an open end."""
        return len({answer.holds for answer in self.search.answers}) == 2

    @property
    def lower_rps(self) -> float:
        """The rate that one would sign: what was confirmed, else what is to be confirmed."""
        if confirmed := self.confirmation:
            return confirmed.rate_rps
        if self.generator_rps is not None:
            return self.generator_rps
        return self._within(written_rate(self.interval.low, math.floor))

    @property
    def above_rps(self) -> float:
        """One step above it: the interval's upper bound."""
        return self._within(written_rate(self.interval.high, math.ceil))

    @property
    def confirmation(self) -> Tried | None:
        """The fresh process that held at the lower bound of the answer as it stands."""
        if self.search.state == "above":
            highest = self.bounds.highest_rps
            return next(t for t in reversed(self.tried) if math.isclose(t.rate_rps, highest))
        for tried in reversed(self.tried):
            if tried.purpose != Purpose.above and tried.held.holds is not None:
                confirms = tried.purpose == Purpose.confirm and tried.held.holds
                return tried if confirms else None
        return None

    @property
    def refuted(self) -> Tried | None:
        """The last confirmation that did not hold; None when there was none."""
        failed = (t for t in reversed(self.tried) if t.purpose == Purpose.confirm)
        return next((t for t in failed if t.held.holds is False), None)

    @property
    def step_above(self) -> Tried | None:
        """What was tried one step above the confirmed rate; None where nothing was, or said."""
        tried = [t for t in self._since_confirmation if t.held.holds is not None]
        return tried[-1] if tried else None

    @property
    def overload(self) -> Overload | None:
        """The overload that began at the confirmed rate and said something."""
        own = [o for o in self._overloads_here if not o.spoiled]
        return own[-1] if own else None

    @property
    def generator_rps(self) -> float | None:
        """The most that held, where the load generator could send no more."""
        last = _spoiled(self.tried, Purpose.search)
        if not last or not all(t.held.generator_at_its_end for t in last):
            return None
        return max((t.rate_rps for t in self.tried if t.held.holds), default=None)

    @property
    def stuck(self) -> str:
        """Why trials said nothing again and again; empty when they did not."""
        last = _spoiled(self.tried[self._forgiven :], Purpose.search)
        return last[-1].held.reason if last and self.generator_rps is None else ""

    @property
    def unconfirmed(self) -> str:
        """Why the answer as it stands is not confirmed; empty when it is, or there is none."""
        if self.confirmation or self.end in ("below", "stuck"):
            return ""
        if not self._has_held:
            return "no rate held"
        if last := _spoiled(self.tried, Purpose.confirm):
            return last[-1].held.reason
        if refuted := self.refuted:
            return f"at {refuted.rate_rps:,.0f}/s a fresh process did not hold: " + (
                refuted.held.reason
            )
        return "no trial was left for it"

    def forgive(self) -> None:
        """Let what said nothing until now not end the search: the command is called again."""
        self._forgiven = len(self.tried)

    def at_capacity(self, metric: str) -> float | None:
        """A metric of the trial that held at the highest rate; None without one."""
        own = [t for t in self.tried if t.held.holds]
        return max(own, key=lambda t: t.rate_rps).values.get(metric) if own else None

    @property
    def _has_held(self) -> bool:
        return any(answer.holds for answer in self.search.answers)

    @property
    def _kept_back(self) -> tuple[int, int]:
        """Trials and overloads that the search leaves for what comes after it.

        Until a rate held there is nothing to keep anything back for; and while the answer is wide,
        a further trial tells more than what lies a step above it or beyond.
        """
        if not self._has_held:
            return 0, 0
        if not self.bracketed or self.interval.high > WIDE * self.interval.low:
            return 1, 0
        return CONFIRMING, int(self._overload_is_due)

    @property
    def _confirmation_is_due(self) -> bool:
        if _spoiled(self.tried[self._forgiven :], Purpose.confirm):
            return False
        return self.end != "generator" or self.refuted is None

    @property
    def _above_is_due(self) -> bool:
        if self.end in ("above", "generator") or self.above_rps <= self.lower_rps:
            return False
        return self.step_above is None and len(self._since_confirmation) < SPOILED_MAX

    @property
    def _since_confirmation(self) -> list[Tried]:
        confirmed = self.confirmation
        if confirmed is None:
            return []
        return [t for t in self.tried[self.tried.index(confirmed) :] if t.purpose == Purpose.above]

    @property
    def _overload_is_due(self) -> bool:
        """Beyond a rate that is no capacity there is no telling what an overload is."""
        if not self._with_overload or self.end in ("above", "below", "generator", "stuck"):
            return False
        return self.overload is None and len(self._overloads_here) < OVERLOADS_MAX

    @property
    def _overloads_here(self) -> list[Overload]:
        confirmed = self.confirmation
        rate_rps = confirmed.rate_rps if confirmed else 0.0
        return [o for o in self.overloads if math.isclose(o.base_rps, rate_rps)]

    def _within(self, rate_rps: float) -> float:
        return min(self.bounds.highest_rps, max(self.bounds.lowest_rps, rate_rps))


def written_rate(rate_rps: float, to_whole: Callable[[float], float] = round) -> float:
    """A rate as one writes it: three digits, and what is measured is what is told.

    `to_whole` is `round`, `math.floor` or `math.ceil`.
    """
    if rate_rps <= 0:
        return 0.0
    exponent = math.floor(math.log10(rate_rps)) - 2
    digits = float(f"{rate_rps / 10.0**exponent:.9f}")
    return float(f"{to_whole(digits) * 10.0**exponent:.3g}")


def _spoiled(tried: Sequence[Tried], purpose: Purpose) -> Sequence[Tried]:
    """The last trials made for a purpose, when so many in a row said nothing; else none."""
    last = [t for t in tried if t.purpose == purpose][-SPOILED_MAX:]
    spoiled = len(last) == SPOILED_MAX and all(t.held.holds is None for t in last)
    return last if spoiled else ()
