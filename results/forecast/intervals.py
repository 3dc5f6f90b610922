"""Prediction intervals by leaving out what was measured, level by level.

The method is CV+ (R. Barber, E. Candès, A. Ramdas, R. Tibshirani, Predictive inference with the
jackknife+, Annals of Statistics 49, 2021, section 3): each fold is left out, the law is fitted to
the rest, and the errors of the left-out rows are put around what that fit says of the point; the
interval lies between two order statistics of all these. It is where one more trial there would
fall, not where the mean lies.

Two things are particular here. A fold is a whole level (all trials at one rate, say), because the
question is about a level that was not measured: trials that are left out one by one have neighbours
at the same rate, and look too easy. And an error is taken relative to the size of the figure and to
the fit's own leverage (normalised scores: J. Lei and others, Distribution-free predictive inference
for regression, J. Am. Stat. Assoc. 113, 2018, 5.2), so that the interval grows where a point lies
outside of what was measured.

No method knows of a bend that lies beyond what was measured: outside, the interval is right only as
far as the law goes on. `tests/benchmarks/bench_forecast.py` counts how often intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from results.forecast.laws import Degenerate, Fitted, Law, Point, Row
from results.statistics.interval import Interval

SIZE_FLOOR: Final = 0.1
"""A figure near zero is taken for this share of the typical one: else its errors look endless."""


@dataclass(frozen=True, slots=True)
class Fold:
    """What is left out together: a level of one dimension, or a single row."""

    dimension: str
    at: float
    rows: tuple[int, ...]


def rows_at_least(confidence: float) -> int:
    """The fewest left-out errors with which an interval of this confidence is finite."""
    return math.ceil(confidence / (1 - confidence) - 1e-9)


class Predictor:
    """A law fitted to all rows and to all but each fold; asked at any number of points."""

    def __init__(self, law: Law, rows: Sequence[Row], folds: Sequence[Fold]) -> None:
        """Raises Degenerate where what is left does not tell the law's terms."""
        if not folds:
            raise Degenerate
        self._most = law.most
        self._whole = law.fit(rows)
        self._floor = SIZE_FLOOR * median(abs(row.value) for row in rows) or 1.0
        self._left_out = [_left_out(law, rows, fold, self._floor) for fold in folds]

    def at(self, point: Point, confidence: float) -> Interval:
        """The figure at a point, with its interval.

        With fewer errors than `rows_at_least` the greatest is taken: the interval is then narrower
        than its confidence says, so ask for no forecast of so few.
        """
        lows, highs = [], []
        for fitted, errors in self._left_out:
            there = fitted.value(point)
            reach = _scale(there, fitted.leverage(point), self._floor)
            lows += [there - error * reach for error in errors]
            highs += [there + error * reach for error in errors]
        rank = min(len(highs), math.ceil(confidence * (len(highs) + 1) - 1e-9))
        low, high = sorted(lows)[-rank], sorted(highs)[rank - 1]
        estimate = self._whole.value(point)
        # The fit of all may lie outside when few folds disagree.
        bounds = estimate, min(low, estimate), max(high, estimate)
        return Interval(*(min(max(0.0, bound), self._most) for bound in bounds))


def _left_out(
    law: Law, rows: Sequence[Row], fold: Fold, floor: float
) -> tuple[Fitted, list[float]]:
    """The law without a fold, and how far off it is of each row of the fold, in its own scale."""
    fitted = law.fit([row for index, row in enumerate(rows) if index not in fold.rows])
    errors = []
    for row in (rows[index] for index in fold.rows):
        expected = fitted.value(row.point)
        scale = _scale(expected, fitted.leverage(row.point), floor)
        errors.append(abs(row.value - expected) / scale)
    return fitted, errors


def _scale(value: float, leverage: float, floor: float) -> float:
    return max(abs(value), floor) * math.sqrt(1 + leverage)
