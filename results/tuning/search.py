"""The life of a tuning: begin by the model, search, find the spiral, look longer, confirm.

Pure but for what it is given to measure with: the same answers lead to the same questions, so a
tuning that was interrupted is made again from the archive, and measures only what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from results.errors import RunIncomplete
from results.gomodel import OFF, gogc_goal_bytes, limit_goal_bytes
from results.signoff.objectives import Objective
from results.tuning.budget import BATCH, LONGER, SPIRAL_BATCH, SPIRAL_RUNS, Budget
from results.tuning.front import NEAR, Point, apart, promising, smoothed, spread
from results.tuning.outcomes import Confirmed, Outcome, bound_on, shortfalls
from results.tuning.prior import Bounds, Prior
from results.tuning.settings import Others, Setting, Space, limits_for, whole_mib
from results.tuning.spiral import Spiral, SpiralSearch

ROOM: Final = 0.08
LEVELS: Final = 4
"""What is confirmed keeps its objectives with none of this room, with once of it, and so on."""


COLLECTIONS: Final = 3
"""In a trial with fewer the heap may not have grown to where it would."""


CLOSER: Final = 2
"""Settings that are confirmed besides, where there is time, when the finalists left a gap."""


class Measuring(Protocol):
    """What trials are made with; each returns one outcome for each setting, in order."""

    def short(self, stage: str, settings: Sequence[Setting]) -> list[Outcome]:
        """A short trial of each, in one run."""

    def lengthen(self) -> None:
        """From now on short trials are as long as those of full length."""

    def longer(self, settings: Sequence[Setting]) -> list[Outcome]:
        """A trial of full length of each, in one run."""

    def confirm(self, settings: Sequence[Setting]) -> list[Confirmed]:
        """Full blocks of the configuration as it is written, which comes first, and of each."""


class Telling(Protocol):
    """Whom to tell how it goes."""

    def say(self, text: str) -> None:
        """A line."""

    def so_far(self, outcomes: Sequence[Outcome], found: Sequence[Outcome]) -> None:
        """All outcomes, and those of the last run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a tuning is about.

    `written` is the configuration as the matrix has it; `gogcs` and `limits` are what may be tried,
    no limits for those that the model thinks of, which stay below `most_bytes`.
    """

    written: Setting
    gogcs: tuple[float, ...]
    limits: tuple[float, ...] = ()
    others: tuple[Others, ...] = ((),)
    most_bytes: float = OFF
    memory_metric: str = "peak_rss"
    objectives: tuple[Objective, ...] = ()
    seed: int = 1

    @property
    def blocking(self) -> tuple[Objective, ...]:
        """The objectives that decide; what only warns is shown, and steers nothing."""
        return tuple(o for o in self.objectives if o.severity == "block")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning found. `confirmed` begins with the configuration as it is written."""

    asked: Asked
    outcomes: tuple[Outcome, ...]
    skipped: dict[str, int]
    spiral: Spiral | None
    confirmed: tuple[Confirmed, ...]


@dataclass(slots=True)
class Tuning:
    """One tuning while it goes on."""

    asked: Asked
    budget: Budget
    measuring: Measuring
    telling: Telling
    _outcomes: list[Outcome] = field(default_factory=list)
    _found: Spiral | None = None

    def result(self) -> Tuned:
        """Search until the trials or the time are spent, then confirm. Raises RunIncomplete."""
        self._begin()
        skipped = self._explore(self._space())
        spiral = self._found = self._spiral()
        finalists = self._choose(self._looked_longer(), self.budget.finalists)
        if not finalists:
            raise RunIncomplete("no other setting showed figures that could be confirmed")
        confirmed = self._confirm(finalists)
        closer = self._between(confirmed)
        if closer and self.budget.allows(self.budget.confirming_s(len(closer)), 0.0):
            confirmed += self._confirm(closer)[1:]
        return Tuned(self.asked, tuple(self._outcomes), skipped, spiral, tuple(confirmed))

    # Where to begin

    def _begin(self) -> None:
        """The configuration as it is written, under other GOGCs and the other axes too."""
        written = self.asked.written
        others = [replace(written, others=o) for o in self.asked.others if o != written.others]
        half, twice = (self._gogc_near(written.gogc, factor) for factor in (0.5, 2.0))
        wanted = [written, replace(written, gogc=half), replace(written, gogc=twice), *others]
        settings = [s for s in dict.fromkeys(wanted) if s.bounded]
        (own, *_) = self._measure("first", settings)
        if self.budget.looks_longer and own.collections < COLLECTIONS:
            self.telling.say("too few collections in so short a trial: from now on at full length")
            self.measuring.lengthen()
            self.budget.short_s = self.budget.long_s
            self._outcomes.clear()
            (own, *_) = self._measure("first", settings)
        if own.unusable:
            raise RunIncomplete(f"the configuration as it is written can't be used: {own.unusable}")
        if own.spiral:
            self.telling.say(f"as it is written it does not carry this load well: {own.spiral}")
        if own.point is None:
            figures = {"peak": own.memory_bytes, "p99": own.p99_ns, "GC CPU": own.gc_share}
            missing = [name for name, value in figures.items() if value is None]
            raise RunIncomplete(
                f"a trial has no {' and no '.join(missing)}: is measure long enough for 1,000 "
                "requests?"
            )

    def _gogc_near(self, gogc: float, factor: float) -> float:
        finite = [g for g in self.asked.gogcs if math.isfinite(g)]
        if not finite:
            return gogc
        wanted = gogc * factor if math.isfinite(gogc) else 100 * factor
        return min(finite, key=lambda g: abs(math.log(g / wanted)))

    def _prior(self) -> Prior:
        try:
            return Prior(self._outcomes)
        except ValueError as error:
            raise RunIncomplete(f"{error}: make `measure` longer, or the load larger") from None

    def _space(self) -> Space:
        prior, others = self._prior(), self.asked.written.others
        self.telling.say(f"by the model of Go's collector: {prior.told(others)}")
        limits = self.asked.limits or limits_for(prior.of(others), self.asked.most_bytes)
        return Space(self.asked.gogcs, limits, self.asked.others)

    @property
    def _bounds(self) -> Bounds:
        objectives = self.asked.blocking
        return Bounds(
            bound_on(objectives, self.asked.memory_metric), bound_on(objectives, "gc_cpu_share")
        )

    # The search

    def _explore(self, space: Space) -> dict[str, int]:
        from results.tuning.exploring import Exploring

        budget = self.budget
        exploring = Exploring(space, self._bounds, self._prior(), self.asked.seed)
        kept_s = budget.spiral_s + budget.longer_s + budget.confirm_s
        while (left := budget.trials - len(self._outcomes)) > 0:
            size = left if left <= BATCH + 1 else BATCH
            if not budget.allows(budget.short_run_s(size), kept_s):
                break
            prior = self._prior()
            if self.asked.blocking and len(self._outcomes) > BATCH:
                exploring.close_in(prior, self._outcomes, self._keeps)
            batch = exploring.batch(prior, self._outcomes, size)
            if not batch:
                break
            for outcome in self._measure("search", batch):
                exploring.tell(outcome, self._shortfalls(outcome))
        return exploring.skipped_by_reason

    def _measure(self, stage: str, settings: Sequence[Setting]) -> list[Outcome]:
        found = self.measuring.short(stage, settings)
        self.budget.use(found)
        self._outcomes += found
        self.telling.so_far(self._outcomes, found)
        return found

    def _shortfalls(self, outcome: Outcome) -> dict[str, float]:
        written = self._outcomes[0].values
        return shortfalls(self.asked.blocking, outcome.values, written)

    def _keeps(self, outcome: Outcome) -> bool:
        """Whether a single trial keeps every objective."""
        return max(self._shortfalls(outcome).values(), default=0.0) <= 0

    # The spiral

    def _spiral(self) -> Spiral | None:
        """Bisect over GOMEMLIMIT alone, where the memory to recommend would be."""
        others, prior = self._best_others(), self._prior()
        service = prior.of(others)
        first = prior.spiral_bytes(others)
        most = max(self._outcomes[0].memory_bytes or first, first) * 1.05
        least = whole_mib(service.live_bytes * 0.8)
        if not self.budget.with_spiral or whole_mib(most) <= least:
            return None
        search = SpiralSearch(least, whole_mib(most), first)
        seen: dict[str, None] = {}

        def take(outcome: Outcome) -> None:
            if self._tells_of_spiral(outcome, others, prior):
                search.tell(outcome.setting.memlimit_bytes, spiral=bool(outcome.spiral))
                seen.update({outcome.spiral: None} if outcome.spiral else {})

        for outcome in self._outcomes:
            take(outcome)
        kept_s = self.budget.longer_s + self.budget.confirm_s
        for _ in range(SPIRAL_RUNS):
            cost_s = self.budget.short_run_s(SPIRAL_BATCH)
            if not search.going_on or not self.budget.allows(cost_s, kept_s):
                break
            for outcome in self._measure(
                "spiral", [Setting(OFF, s, others) for s in search.next()]
            ):
                take(outcome)
        return search.found(others, tuple(seen)) if search.answers else None

    def _best_others(self) -> Others:
        """The other axes' values of the setting with the least memory that would do."""
        chosen = self._choose(self._outcomes, 1)
        return chosen[0].others if chosen else self.asked.written.others

    @staticmethod
    def _tells_of_spiral(outcome: Outcome, others: Others, prior: Prior) -> bool:
        """Whether it is the limit that decided when the collector began."""
        setting, service = outcome.setting, prior.of(others)
        if setting.others != others or math.isinf(setting.memlimit_bytes):
            return False
        if outcome.unusable and not outcome.spiral:
            return False
        by_limit = limit_goal_bytes(
            service.live_bytes, service.limited_bytes, setting.memlimit_bytes
        )
        by_gogc = gogc_goal_bytes(service.live_bytes, service.roots_bytes, setting.gogc)
        return float(by_limit) < float(by_gogc)

    # What is confirmed

    def _looked_longer(self) -> Sequence[Outcome]:
        """The promising ones by a trial of full length, where short ones are shorter."""
        if not self.budget.looks_longer:
            return self._outcomes
        settings = self._choose(self._outcomes, LONGER)
        if not settings:
            return self._outcomes
        self.telling.say("longer trials of what is promising")
        found = self.measuring.longer(settings)
        self.budget.use(found)
        self.telling.so_far(self._outcomes, found)
        return found

    def _choose(self, outcomes: Sequence[Outcome], count: int) -> list[Setting]:
        """So many settings apart from each other, of those that may be on the front.

        With objectives: those with the least memory that keep them by nothing, by some room, by
        twice the room and so on, for an interval needs it; then those that keep them by the most,
        or miss them by the least.
        """
        written = self.asked.written
        usable = [o for o in outcomes if self._is_usable(o) and o.setting != written]
        if not self.asked.blocking:
            return _settings(spread(promising(usable, _point), _memory, count))
        by_memory = sorted(usable, key=_memory)
        missed = smoothed([max(self._shortfalls(o).values(), default=0.0) for o in by_memory])
        known = list(zip(missed, by_memory, strict=True))
        least = [next((o for m, o in known if m <= -n * ROOM), None) for n in range(LEVELS)]
        roomy = [o for _, o in sorted(known, key=lambda pair: pair[0])]
        return _settings(apart([o for o in (*least, *roomy) if o], _memory)[:count])

    def _is_usable(self, outcome: Outcome) -> bool:
        return bool(outcome.point) and not outcome.spiral and self._leaves(outcome.setting)

    def _leaves(self, setting: Setting) -> bool:
        return self._found is None or self._found.leaves(setting)

    def _confirm(self, settings: Sequence[Setting]) -> list[Confirmed]:
        self.telling.say(f"confirming {', '.join(s.text for s in settings)}")
        self.budget.used_s += self.budget.confirming_s(len(settings))
        return self.measuring.confirm(settings)

    def _between(self, confirmed: Sequence[Confirmed]) -> list[Setting]:
        """What may hold with less memory than the best so far, and more than what did not."""
        if not self.asked.blocking:
            return []
        known = [(c.point[0], c.holds and self._leaves(c.setting)) for c in confirmed if c.point]
        best = min((memory for memory, holds in known if holds), default=OFF)
        below = max((memory for memory, holds in known if not holds and memory < best), default=0.0)
        done = {c.setting for c in confirmed}
        new = [o for o in self._outcomes if self._is_usable(o) and o.setting not in done]
        pool = [
            o
            for o in sorted(new, key=_memory)
            if below * (1 + NEAR) < _memory(o) < best / (1 + NEAR)
        ]
        return _settings(spread(pool, _memory, CLOSER))


def _point(outcome: Outcome) -> Point | None:
    return outcome.point


def _memory(outcome: Outcome) -> float:
    return outcome.memory_bytes or 0.0


def _settings(outcomes: Sequence[Outcome]) -> list[Setting]:
    return [outcome.setting for outcome in outcomes]
