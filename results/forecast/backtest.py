"""Would the forecasts have been right about what was measured? Each level from the others.

A forecast is only worth what its method has shown: every level is predicted from all others, with
the very interval that would have been printed, and held against the trials that were measured at
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from results.forecast.intervals import Predictor
from results.forecast.laws import Degenerate, Law, Row
from results.forecast.levels import Dimension, folds_of
from results.statistics.interval import Interval

ERROR_MAX: Final = {"memory": 0.10, "price": 0.25}
"""By group of metrics: with a greater median error a forecast is not to be trusted."""

HELD_SLACK: Final = 0.20
"""Nor when so much less of the trials lay within their intervals than the confidence says."""

WIDTH_MAX: Final = 1.0
"""Nor when its interval is wider than this share of the figure itself."""


@dataclass(frozen=True, slots=True)
class LevelTest:
    """One level, predicted from the others: medians over its trials, and how many held."""

    dimension: str
    at: float
    predicted: Interval
    measured: float
    error: float
    held: int
    trials: int


@dataclass(frozen=True, slots=True)
class Backtest:
    """All levels. `error` is the median over the trials of |predicted − measured| / measured."""

    levels: tuple[LevelTest, ...]
    error: float

    @property
    def held(self) -> int:
        """Trials within the interval that was made without their level."""
        return sum(level.held for level in self.levels)

    @property
    def trials(self) -> int:
        """Trials that were predicted; one counts in each dimension."""
        return sum(level.trials for level in self.levels)


def back_test(
    law: Law, rows: Sequence[Row], dimensions: Sequence[Dimension], confidence: float
) -> Backtest:
    """Predict each level from the others. Raises Degenerate where the others don't tell enough."""
    tests, errors = [], []
    for fold in folds_of(dimensions, len(rows)):
        rest = [index for index in range(len(rows)) if index not in fold.rows]
        known = [rows[index] for index in rest]
        folds = folds_of([dimension.of(rest) for dimension in dimensions], len(rest))
        predictor = Predictor(law, known, folds)
        found = [(predictor.at(rows[i].point, confidence), rows[i].value) for i in fold.rows]
        own = [_error(interval.estimate, value) for interval, value in found]
        errors += own
        tests.append(
            LevelTest(
                dimension=fold.dimension,
                at=fold.at,
                predicted=_median([interval for interval, _ in found]),
                measured=median(value for _, value in found),
                error=median(own),
                held=sum(interval.low <= value <= interval.high for interval, value in found),
                trials=len(found),
            )
        )
    if not tests:
        raise Degenerate
    return Backtest(tuple(tests), median(errors))


def _error(predicted: float, measured: float) -> float:
    if measured == 0:
        return 0.0 if predicted == 0 else 1.0
    return abs(predicted - measured) / abs(measured)


def _median(found: Sequence[Interval]) -> Interval:
    return Interval(
        median(i.estimate for i in found),
        median(i.low for i in found),
        median(i.high for i in found),
    )


def doubts(
    test: Backtest,
    found: Interval,
    group: str,
    dimensions: Sequence[Dimension],
    confidence: float,
) -> list[str]:
    """Why a forecast is not to be trusted, after its back-test; empty when nothing speaks against.

    Where the forecast lies outside of what was measured, the level at that end must be within the
    bound by itself.
    """
    most = ERROR_MAX[group]
    why = []
    if found.high - found.low > WIDTH_MAX * found.estimate:
        why.append("the interval is wider than the figure")
    if test.error > most:
        why.append(
            f"levels that were measured are missed by {test.error * 100:.0f} % (at most "
            f"{most * 100:.0f} %)"
        )
    if test.held / test.trials < confidence - HELD_SLACK:
        why.append(
            f"{test.held} of {test.trials} trials lay within their intervals (at least "
            f"{(confidence - HELD_SLACK) * 100:.0f} %)"
        )
    for dimension in dimensions:
        end = _end(test, dimension)
        if end and end.error > most and test.error <= most:
            why.append(
                f"the nearest measured {dimension.name}, {dimension.show(end.at)}, is missed by "
                f"{end.error * 100:.0f} % (at most {most * 100:.0f} %)"
            )
    return why


def _end(test: Backtest, dimension: Dimension) -> LevelTest | None:
    """The outermost level on the side of a forecast that lies outside; None for one inside."""
    own = [level for level in test.levels if level.dimension == dimension.name]
    if not own or dimension.beyond == 1.0:
        return None
    return own[-1] if dimension.asked > dimension.highest else own[0]
