"""The death spiral: the GOMEMLIMIT below which the collector takes over.

Found by bisection. A trial near it is partly chance, so the same noisy search is used as for the
largest rate that is carried (`results/capacity/search.py`): its rate is the pressure on the heap,
one over the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from results.capacity.search import Answer, Search
from results.capacity.search import Bounds as SearchBounds
from results.tuning.settings import Setting, whole_mib

State = Literal["found", "below", "above", "wide"]

CLOSENESS: Final = 0.05
"""The interval's ends are to be so close."""

ASIDE: Final = 1.06
"""How far from the first guess the first trials go, as a factor."""

TRIALS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Spiral:
    """Where the spiral begins: in 95 % of the belief between `low_bytes` and `high_bytes`.

    `below`: no limit that was tried is in it, so it begins below `low_bytes` at most; `above`: even
    `high_bytes` is; `wide`: the trials were spent before the interval was as narrow as asked for.
    `reasons` are what was seen in it.
    """

    state: State
    low_bytes: float
    high_bytes: float
    trials: int
    others: tuple[tuple[str, object], ...] = ()
    reasons: tuple[str, ...] = ()

    def margin(self, setting: Setting) -> float | None:
        """How far a setting's limit is above the spiral's upper end, as a fraction of the limit.

        None without a limit.
        """
        limit = setting.memlimit_bytes
        return None if limit == float("inf") else 1 - self.high_bytes / limit

    def leaves(self, setting: Setting) -> bool:
        """Whether a setting is surely outside: its limit is above the spiral's upper end.

        True for other values of the other axes, of which nothing is known.
        """
        limit = setting.memlimit_bytes
        if setting.others != self.others:
            return True
        # The end of one that was not found is a limit that did well.
        return limit >= self.high_bytes if self.state == "below" else limit > self.high_bytes


@dataclass(slots=True)
class SpiralSearch:
    """The search while it goes on; limits in bytes."""

    least_bytes: float
    most_bytes: float
    first_bytes: float
    answers: list[tuple[float, bool]] = field(default_factory=list)
    _search: Search = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError for bounds that leave nothing to search."""
        bounds = SearchBounds(
            1 / self.most_bytes, 1 / self.least_bytes, trials_max=TRIALS_MAX, closeness=CLOSENESS
        )
        first = min(self.most_bytes, max(self.least_bytes, self.first_bytes))
        # Rounding may take one over one to the other side of its own bound.
        pressure = min(bounds.highest_rps, max(bounds.lowest_rps, 1 / first))
        self._search = Search(bounds, pressure)

    def tell(self, limit_bytes: float, *, spiral: bool) -> None:
        """What a trial under a limit showed; outside the bounds it says nothing new."""
        if self.least_bytes <= limit_bytes <= self.most_bytes:
            self.answers.append((limit_bytes, spiral))
            self._search.tell(Answer(1 / limit_bytes, not spiral))

    @property
    def going_on(self) -> bool:
        """Whether another trial may tell more."""
        return self._search.state == "searching"

    def next(self) -> list[float]:
        """The limits to try next, at most three, ascending, in whole MiB."""
        if len({spiral for _, spiral in self.answers}) == 2:
            belief = self._search.interval(0.5)
            wanted = [1 / belief.high, 1 / belief.estimate, 1 / belief.low]
        else:
            first = 1 / self._search.next_rps()
            wanted = [first / ASIDE, first, first * ASIDE]
        bounded = (min(self.most_bytes, max(self.least_bytes, limit)) for limit in wanted)
        return sorted({whole_mib(limit) for limit in bounded})

    def found(self, others: tuple[tuple[str, object], ...], reasons: tuple[str, ...]) -> Spiral:
        """What is known now."""
        interval, state = self._search.interval(), self._search.state
        low, high = 1 / interval.high, 1 / interval.low
        if not any(spiral for _, spiral in self.answers):
            least = min((limit for limit, _ in self.answers), default=self.most_bytes)
            return Spiral("below", least, least, len(self.answers), others, reasons)
        if all(spiral for _, spiral in self.answers):
            most = max(limit for limit, _ in self.answers)
            return Spiral("above", most, most, len(self.answers), others, reasons)
        word: State = "found" if state == "found" else "wide"
        return Spiral(word, low, high, len(self.answers), others, reasons)
