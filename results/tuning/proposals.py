"""Which setting to try next: Optuna, asked and told.

Its multi-objective tree-structured Parzen estimator with constraints: Y. Ozaki et al.,
Multiobjective tree-structured Parzen estimator for computationally expensive optimization problems,
GECCO 2020. With the same seed and the same answers it proposes the same, so that a search that
was interrupted is made again from what is archived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import optuna

from results.tuning.settings import Setting, Space

STARTUP: Final = 6
"""Answers before the estimator chooses; until then, what the model of Go's collector says."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Proposals:
    """One search of a space. A setting that was proposed is told, or refused."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=STARTUP)
        self._study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
        self._asked: dict[Setting, optuna.Trial] = {}

    def first(self, setting: Setting) -> None:
        """Propose this one before any other."""
        self._study.enqueue_trial(self._parameters(setting))

    def ask(self) -> Setting:
        """The next proposal; it may be one that was made before."""
        trial = self._study.ask()
        space = self._space
        gogc = space.gogcs[trial.suggest_int("gogc", 0, len(space.gogcs) - 1)]
        limit = space.limits[trial.suggest_int("limit", 0, len(space.limits) - 1)]
        places = list(range(len(space.others)))
        others = space.others[trial.suggest_categorical("others", places)]
        setting = Setting(gogc, limit, others)
        if setting in self._asked:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._asked[setting] = trial
        return setting

    def refuse(self, setting: Setting) -> None:
        """It is not measured, or showed nothing."""
        if trial := self._asked.pop(setting, None):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def tell(
        self,
        setting: Setting,
        point: tuple[float, float, float],
        constraints: Mapping[str, float],
    ) -> None:
        """What a proposal showed; constraints are kept at zero and below."""
        trial = self._asked.pop(setting)
        for name, shortfall in constraints.items():
            trial.set_constraint(name, shortfall)
        self._study.tell(trial, point)

    def _parameters(self, setting: Setting) -> dict[str, Any]:
        space = self._space
        return {
            "gogc": space.gogcs.index(setting.gogc),
            "limit": space.limits.index(setting.memlimit_bytes),
            "others": space.others.index(setting.others),
        }
