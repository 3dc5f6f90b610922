"""The search itself: what Optuna proposes, less what the model says need not be measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from results.tuning.outcomes import Outcome
from results.tuning.prior import Bounds, Prior
from results.tuning.proposals import Proposals
from results.tuning.settings import Setting, Space

FIRST: Final = 6
"""Settings that the model chooses to begin with."""

CLOSING: Final = 2
"""Combinations of the other axes whose edge is looked for in each run."""

ASKED_MAX: Final = 60
"""Proposals in a row that bring nothing new: then the search is over."""


class Exploring:
    """One search of a space; `skipped` says what was not measured, and why."""

    def __init__(self, space: Space, bounds: Bounds, prior: Prior, seed: int) -> None:
        self._space = space
        self._bounds = bounds
        self._proposed: dict[Setting, Setting] = {}
        self._proposals = Proposals(space, seed)
        self.skipped: dict[Setting, str] = {}
        for setting in prior.first(space, bounds, FIRST):
            self._proposals.first(setting)

    def batch(self, prior: Prior, outcomes: Sequence[Outcome], count: int) -> list[Setting]:
        """Up to `count` proposals that are new and, by the model, worth a trial."""
        found: list[Setting] = []
        known = {outcome.setting for outcome in outcomes}
        for _ in range(ASKED_MAX):
            proposed = self._proposals.ask()
            setting = prior.plain(proposed, self._space) if proposed.bounded else proposed
            if setting in found:
                if proposed != self._proposed[setting]:
                    self._proposals.refuse(proposed)
                continue
            pending = [Outcome(setting=s) for s in found]
            reason = prior.skip(setting, [*outcomes, *pending], self._bounds)
            if setting in known or reason:
                if setting not in known:
                    self.skipped.setdefault(setting, reason)
                self._proposals.refuse(proposed)
                continue
            found.append(setting)
            self._proposed[setting] = proposed
            self.skipped.pop(setting, None)
            if len(found) == count:
                break
        return found

    def close_in(
        self, prior: Prior, outcomes: Sequence[Outcome], keeps: Callable[[Outcome], bool]
    ) -> None:
        """Propose next what lies between the least memory that keeps the objectives and the most
        below it that does not, by the model: for the best combinations of the other axes.

        More room for the heap never makes the collector's price larger, so on one such line the
        edge lies between them.
        """
        known = {outcome.setting for outcome in outcomes}
        edges = []
        for others in self._space.others:
            own = [o for o in outcomes if o.setting.others == others and o.point]
            holding = [o.memory_bytes or 0.0 for o in own if keeps(o) and not o.spiral]
            if holding:
                edges.append((min(holding), others, own))
        for best, others, own in sorted(edges, key=lambda edge: edge[0])[:CLOSING]:
            sizes = [o.memory_bytes or 0.0 for o in own if not keeps(o) or o.spiral]
            below = max((size for size in sizes if size < best), default=0.0)
            new = [
                s
                for s in self._space
                if s.others == others and s not in known and below < prior.memory_bytes(s) < best
                and not prior.skip(s, outcomes, self._bounds)
            ]  # fmt: skip
            if new:
                least = below or min(map(prior.memory_bytes, new))
                middle = math.sqrt(least * best)
                self._proposals.first(
                    min(new, key=lambda s: abs(math.log(prior.memory_bytes(s) / middle)))
                )

    def tell(self, outcome: Outcome, shortfalls: Mapping[str, float]) -> None:
        """What a setting of a batch showed."""
        proposed = self._proposed[outcome.setting]
        if outcome.point is None:
            self._proposals.refuse(proposed)
        else:
            self._proposals.tell(proposed, outcome.point, shortfalls)

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        """How many settings were not measured for each reason."""
        return dict(sorted(Counter(self.skipped.values()).items()))
