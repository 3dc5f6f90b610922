"""The search itself: what Optuna proposes, less what the model says need not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from results.tuning.outcomes import Outcome
from results.tuning.prior import Bounds, Prior
from results.tuning.proposals import Proposals
from results.tuning.settings import Setting, Space

FIRST: Final = 6
"""Settings that the model chooses to begin with."""

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
