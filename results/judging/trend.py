"""Trend and change point of one series whose values depend on each other.

Neighbouring values of memory and latency are alike, so a test that takes them for independent sees
trends everywhere. Here the noise is estimated from what a simple curve leaves of the series, its
dependence is kept by resampling whole blocks, and what short blocks still miss is put back.

Sources: H. Theil, A rank-invariant method of linear and polynomial regression analysis, Proc. Kon.
Ned. Akad. Wetensch. 53, 1950; P. K. Sen, Estimates of the regression coefficient based on Kendall's
tau, J. Am. Stat. Assoc. 63, 1968 (slope); H. R. Künsch, The jackknife and the bootstrap for general
stationary observations, Ann. Statist. 17, 1989; D. N. Politis, J. P. Romano, A circular
block-resampling procedure for stationary data, in Exploring the Limits of Bootstrap, 1992 (blocks);
D. W. K. Andrews, Heteroskedasticity and autocorrelation consistent covariance matrix estimation,
Econometrica 59, 1991 (their length); F. H. C. Marriott, J. A. Pope, Bias in the estimation of
autocorrelations, Biometrika 41, 1954; E. S. Page, A test for a change in a parameter occurring at
an unknown point, Biometrika 42, 1955 (cumulative sums); M. Abramowitz, I. Stegun, Handbook of
Mathematical Functions, 1964, 26.7.5 (Student's t).

Written here because a change point library has no test for dependent values and takes a second to
import; tests hold it against SciPy and ruptures where they answer the same question.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from results.statistics.interval import Interval

Values = NDArray[np.float64]

POINTS_MIN: Final = 12
"""Of fewer values nothing is said."""

EDGE: Final = 0.1
"""A change in the first or the last tenth can't be told from a few odd values."""

FAR_BETTER: Final = 3.0
"""By this factor a step or a bend must leave less (in squares) than a line, to be taken."""

_SLOPE_DRAWS: Final = 200
_STEP_DRAWS: Final = 500
_DEPENDENCE_MAX: Final = 0.95
_FREEDOM_MIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """The most likely change of level: by how much, before which value, and its p-value."""

    size: float
    index: int
    p: float


@dataclass(frozen=True, slots=True)
class Trend:
    """What a series does over time: its slope per unit of time, and its largest step.

    `independent` is about how many independent values would tell as much.
    """

    slope: Interval
    step: Step
    independent: float


@dataclass(frozen=True, slots=True)
class _Noise:
    """What is left of a series when its curve is taken out.

    `wider` is by how much its blocks, resampled, show too little spread; `freedom` is the number of
    independent values less the two that a line takes.
    """

    left: Values
    block: int
    wider: float
    freedom: float


def trend(times: Values, values: Values, confidence: float, seed: int) -> Trend:
    """Slope with its interval, and the largest step with its p-value.

    Values are about evenly spaced and at least `POINTS_MIN`; the same seed gives the same answer
    on every machine. Raises ValueError for fewer.
    """
    if len(values) < POINTS_MIN:
        raise ValueError(f"{len(values)} values are too few for a trend")
    noise = _noise(times, values)
    draw = random.Random(seed)
    slope = theil_sen(times, values)
    half = _half_width(times, noise, confidence, draw)
    step = _step(values, noise, draw)
    return Trend(Interval(slope, slope - half, slope + half), step, noise.freedom + 2)


def theil_sen(times: Values, values: Values) -> float:
    """The median of the slopes of all pairs of values."""
    earlier, later = np.triu_indices(len(values), 1)
    return float(np.median((values[later] - values[earlier]) / (times[later] - times[earlier])))


def _half_width(times: Values, noise: _Noise, confidence: float, draw: random.Random) -> float:
    """Half the width of the slope's interval."""
    earlier, later = np.triu_indices(len(times), 1)
    drawn = _resampled(noise, _SLOPE_DRAWS, draw)
    slopes = np.median(
        (drawn[:, later] - drawn[:, earlier]) / (times[later] - times[earlier]), axis=1
    )
    return float(np.std(slopes)) * noise.wider * _t_quantile((1 + confidence) / 2, noise.freedom)


def _step(values: Values, noise: _Noise, draw: random.Random) -> Step:
    """The split with the greatest difference of means, against what noise alone would show."""
    distances = _distances(values[np.newaxis, :])[0]
    index = int(np.argmax(distances)) + 1
    by_chance = _distances(_resampled(noise, _STEP_DRAWS, draw)).max(axis=1) * noise.wider
    # Few independent values: their spread is as uncertain as Student's t makes it.
    by_chance *= _t_quantile(0.975, noise.freedom) / _t_quantile(0.975, math.inf)
    above = int(np.count_nonzero(by_chance >= distances[index - 1]))
    size = float(np.median(values[index:]) - np.median(values[:index]))
    return Step(size, index, (above + 1) / (_STEP_DRAWS + 1))


def _distances(rows: Values) -> Values:
    """For each row and each split of it, how far apart the means are, weighted by their lengths.

    The splits within `EDGE` of an end count as no distance.
    """
    n = rows.shape[1]
    before = np.arange(1, n)
    sums = np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1)[:, :-1]
    distances: Values = np.abs(sums) / np.sqrt(before * (n - before) / n)
    edge = max(2, round(n * EDGE))
    distances[:, : edge - 1] = 0.0
    distances[:, n - edge :] = 0.0
    return distances


def _noise(times: Values, values: Values) -> _Noise:
    left, taken = _left_of_curve(times, values)
    n = len(left)
    dependence = _dependence(left, taken)
    block = min(max(1, math.ceil(_block_length(dependence, n))), n // 4)
    freedom = max(_FREEDOM_MIN, n * (1 - dependence) / (1 + dependence) - 2)
    return _Noise(left, block, _missed(dependence, block) * math.sqrt(n / (n - taken)), freedom)


def _left_of_curve(times: Values, values: Values) -> tuple[Values, int]:
    """What a line leaves, or a step or a bend when it fits far better; how many figures that took.

    A curve that is missed would pass for dependent noise and hide itself; a curve that is fitted
    to noise would hide that.
    """
    index = int(np.argmax(_distances(values[np.newaxis, :])[0])) + 1
    after = np.arange(len(values)) >= index
    line = np.polynomial.Polynomial.fit(times, values, 1)
    bend = np.polynomial.Polynomial.fit(times, values, 3)
    choices = (
        (values - line(times), 2, 1.0),
        (values - np.where(after, values[after].mean(), values[~after].mean()), 3, FAR_BETTER),
        (values - bend(times), 4, FAR_BETTER),
    )
    left, taken, _ = min(choices, key=lambda choice: float(choice[0] @ choice[0]) * choice[2])
    return left - left.mean(), taken


def _dependence(left: Values, taken: int) -> float:
    """Correlation of neighbours, its bias by the curve put right, 0 … `_DEPENDENCE_MAX`."""
    squares = float(left @ left)
    if squares <= 0:
        return 0.0
    n = len(left)
    seen = float(left[1:] @ left[:-1]) / squares
    unbiased = (n * seen + taken) / (n - 2 * taken)
    return min(max(unbiased, 0.0), _DEPENDENCE_MAX)


def _block_length(dependence: float, n: int) -> float:
    """Andrews's rule for a first-order autoregression."""
    return float((math.sqrt(6) * dependence / (1 - dependence**2)) ** (2 / 3) * n ** (1 / 3))


def _missed(dependence: float, block: int) -> float:
    """True spread of a sum per what blocks of this length show, in a first-order autoregression."""
    lags = np.arange(1, block)
    shown = 1 + 2 * float(np.sum((1 - lags / block) * dependence**lags))
    return math.sqrt((1 + dependence) / (1 - dependence) / shown)


def _resampled(noise: _Noise, draws: int, draw: random.Random) -> Values:
    """Rows of noise, each put together from blocks that begin anywhere and go round."""
    n = len(noise.left)
    blocks = -(-n // noise.block)
    # Python's own numbers: NumPy's may change with its version.
    starts = np.array([int(draw.random() * n) for _ in range(draws * blocks)])
    places = starts.reshape(draws, blocks, 1) + np.arange(noise.block)
    rows: Values = noise.left[places.reshape(draws, -1)[:, :n] % n]
    return rows


def _t_quantile(p: float, freedom: float) -> float:
    """Student's t by its expansion around the normal quantile; within 1 % from 5 degrees on."""
    z = NormalDist().inv_cdf(p)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
