"""What the model of Go's collector says before anything is measured: where to begin, what to skip.

The model knows memory and the collector's CPU time, no latency. It is fitted to what was measured
so far, for each combination of the other axes on its own where that has trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from results.gomodel import OFF, GoService, fit
from results.metrics import format_bytes
from results.tuning.outcomes import SPIRAL_SHARE, Outcome
from results.tuning.settings import Others, Setting, Space

FIRST_SHARE: Final = 0.4
"""The least memory that is tried first is where the model expects this share."""

SAME_GOAL: Final = 0.015
"""Two settings whose heap goals are nearer than this are the same to the service."""

FAR_MEMORY: Final = 1.15
FAR_SHARE: Final = 1.5
"""Beyond a bound, or another setting, by these factors is far: the model may be wrong by less."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the objectives that the model can judge; infinite for none."""

    memory_bytes: float = OFF
    gc_share: float = OFF


class Prior:
    """The model, fitted to the outcomes so far."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        """Raises ValueError when no trial had a collection."""
        measured = [o for o in outcomes if o.measured and o.measured.tells]
        self._all = fit(o.measured for o in measured if o.measured)
        groups = {o.setting.others for o in measured}
        self._own = {
            others: fit(o.measured for o in measured if o.measured and o.setting.others == others)
            for others in groups
        }

    def of(self, others: Others) -> GoService:
        """The service under these values of the other axes."""
        return self._own.get(others, self._all)

    def goal_bytes(self, setting: Setting) -> float:
        """The heap's goal that the model expects."""
        return float(self.of(setting.others).heap_goal_bytes(setting.gogc, setting.memlimit_bytes))

    def memory_bytes(self, setting: Setting) -> float:
        """The peak of memory that the model expects."""
        return float(self.of(setting.others).peak_bytes(setting.gogc, setting.memlimit_bytes))

    def gc_share(self, setting: Setting) -> float:
        """The collector's share of CPU time that the model expects."""
        return float(self.of(setting.others).gc_cpu_share(setting.gogc, setting.memlimit_bytes))

    def mark_share(self, setting: Setting) -> float:
        """The share of time in which the model expects a collection to go on."""
        return float(self.of(setting.others).mark_share(setting.gogc, setting.memlimit_bytes))

    def spiral_bytes(self, others: Others) -> float:
        """Where the model expects the death spiral: the GOMEMLIMIT."""
        service = self.of(others)
        return max(
            service.memlimit_for_gc_share(SPIRAL_SHARE),
            service.memlimit_for_mark_share(SPIRAL_SHARE),
        )

    def plain(self, setting: Setting, space: Space) -> Setting:
        """The same without a limit that changes nothing, for GOGC collects earlier."""
        without = Setting(setting.gogc, OFF, setting.others)
        same = without.bounded and self.goal_bytes(without) <= self.goal_bytes(setting)
        return without if same and OFF in space.limits else setting

    def first(self, space: Space, bounds: Bounds, count: int) -> list[Setting]:
        """Where to begin: about `count` settings along what the model takes for the front.

        Their heap goals are evenly apart in ratio; every second one is reached by GOGC, the others
        by GOMEMLIMIT alone.
        """
        found: dict[Setting, None] = {}
        each = max(2, math.ceil(count / len(space.others)))
        for others in space.others:
            known = [s for s in space if s.others == others and self._worth(s, bounds)]
            found |= dict.fromkeys(self._along(known, each))
        return list(found)

    def _worth(self, setting: Setting, bounds: Bounds) -> bool:
        within = self.memory_bytes(setting) <= bounds.memory_bytes * FAR_MEMORY
        return within and self.gc_share(setting) <= min(FIRST_SHARE, bounds.gc_share * FAR_SHARE)

    def _along(self, known: Sequence[Setting], count: int) -> Iterator[Setting]:
        by_gogc = [s for s in known if math.isinf(s.memlimit_bytes)]
        by_limit = [s for s in known if math.isinf(s.gogc)]
        goals = [self.goal_bytes(s) for s in (*by_gogc, *by_limit)]
        if not goals:
            return
        least, most = min(goals), max(goals)
        for n in range(count):
            wanted = least * (most / least) ** (n / max(1, count - 1))
            own = (by_limit, by_gogc) if n % 2 else (by_gogc, by_limit)
            yield min(own[0] or own[1], key=lambda s: abs(math.log(self.goal_bytes(s) / wanted)))

    def skip(self, setting: Setting, outcomes: Iterable[Outcome], bounds: Bounds) -> str:
        """Why a setting need not be measured; empty when it should be."""
        if not setting.bounded:
            return "nothing bounds the heap"
        memory, share = self.memory_bytes(setting), self.gc_share(setting)
        if max(share, self.mark_share(setting)) >= SPIRAL_SHARE:
            return "the collector would take over"
        if memory > bounds.memory_bytes * FAR_MEMORY or share > bounds.gc_share * FAR_SHARE:
            return "far beyond an objective"
        goal = self.goal_bytes(setting)
        for outcome in outcomes:
            if outcome.setting.others == setting.others and self._same(outcome.setting, goal):
                return "the same heap goal as one that was measured"
            point = outcome.point
            if point and point[0] * FAR_MEMORY < memory and point[2] * FAR_SHARE < share:
                return "far dominated by one that was measured"
        return ""

    def _same(self, other: Setting, goal: float) -> bool:
        return abs(self.goal_bytes(other) / goal - 1) < SAME_GOAL

    def told(self, others: Others = ()) -> str:
        """The fitted service in a line."""
        service = self.of(others)
        return (
            f"{format_bytes(service.live_bytes)} stay alive, "
            f"{format_bytes(service.allocation_rate)}/s are allocated, a collection takes "
            f"{service.cycle_cpu_s * 1e3:.3g} ms of CPU time"
        )
