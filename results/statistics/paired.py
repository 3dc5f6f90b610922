"""Paired comparison of few trials: estimate, interval, test, correction, equivalence.

Nothing here assumes a normal distribution. Pairs are few (6 to 50), so distributions are counted
out exactly. Written here because SciPy has no exact test with ties and zeros and takes a second to
import; tests hold it against SciPy where both answer.

Sources: M. Hollander, D. Wolfe, E. Chicken, Nonparametric Statistical Methods, 3rd ed., 2014
(signed-rank test 3.1, Hodges–Lehmann estimate 3.2, interval 3.3);
S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6, 1979;
R. A. Fisher, The Design of Experiments, 1935, section 21 (test of the mean over all signs);
D. Schuirmann, A comparison of the two one-sided tests procedure, J. Pharmacokinetics and
Biopharmaceutics 15, 1987.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from results.statistics.interval import Interval

PAIRS_MAX: Final = 200
EXACT_PAIRS_MAX: Final = 50
BOUNDS_DRAWN: Final = 600
FLIPPED_PAIRS_MAX: Final = 24
"""Up to so many pairs the mean is tested over all sign patterns; some milliseconds."""


@dataclass(frozen=True, slots=True)
class PairedShift:
    """How far the candidate lies from the baseline, over pairs.

    `p` is two-sided. `bounds_hold` is false when the pairs are too few for an interval of this
    confidence: the bounds are then infinite.
    """

    shift: Interval
    p: float
    pairs: int

    @property
    def bounds_hold(self) -> bool:
        """Whether the interval is finite."""
        return math.isfinite(self.shift.low) and math.isfinite(self.shift.high)


def paired_shift(differences: Sequence[float], confidence: float) -> PairedShift:
    """Location of paired differences: Hodges–Lehmann estimate, exact interval, signed-rank test.

    The estimate is the median of all pairwise averages (Walsh averages); the bounds are those
    averages that the distribution of the signed-rank statistic picks. Raises ValueError for none.
    """
    if not differences:
        raise ValueError("there are no pairs")
    walsh = walsh_averages(differences)
    rank = _bound_rank(len(differences), confidence)
    low, high = (-math.inf, math.inf) if rank < 1 else (walsh[rank - 1], walsh[-rank])
    return PairedShift(Interval(median(walsh), low, high), _p_value(differences), len(differences))


def walsh_averages(values: Sequence[float]) -> list[float]:
    """All averages of two values, each with itself too, ascending: n (n + 1) / 2 of them."""
    return sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])


def signed_rank_counts(n: int) -> list[int]:
    """How many of the 2^n sign patterns give each value 0 … n (n + 1) / 2 of the statistic."""
    return _sums_over_signs(range(1, n + 1))


def _sums_over_signs(ranks: Iterable[int]) -> list[int]:
    """How many subsets of the ranks have the sum 0, 1, 2, … up to the sum of all."""
    counts = [1]
    for rank in ranks:
        longer = [0] * (len(counts) + rank)
        for value, count in enumerate(counts):
            longer[value] += count
            longer[value + rank] += count
        counts = longer
    return counts


def _bound_rank(n: int, confidence: float) -> int:
    """The rank of the Walsh average that bounds the interval; below 1 when n is too small.

    The largest C with P(T < C) ≤ α/2, T being the signed-rank statistic.
    """
    if n > EXACT_PAIRS_MAX:
        z = _normal_quantile((1 + confidence) / 2)
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(n * (n + 1) / 4 - z * spread)
    allowed = (1 - confidence) / 2 * 2**n
    below = rank = 0
    for count in signed_rank_counts(n):
        below += count
        # A hair of tolerance, so that 0.05 in binary does not cost a rank.
        if below > allowed * (1 + 1e-12):
            break
        rank += 1
    return rank


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def _p_value(differences: Sequence[float]) -> float:
    """Two-sided signed-rank test on mid-ranks; zeros are ranked and then left out (Pratt).

    Up to EXACT_PAIRS_MAX pairs over all sign patterns, so that ties and zeros are exact too;
    beyond by the normal distribution with the same variance (Hollander and Wolfe 3.1).
    """
    ranks = _mid_ranks([abs(d) for d in differences])
    counted = [(rank, d > 0) for rank, d in zip(ranks, differences, strict=True) if d]
    if not counted:
        return 1.0
    observed = sum(rank for rank, up in counted if up)
    # Mid-ranks are whole or half numbers: doubled, they count as whole ones.
    doubled = [round(2 * rank) for rank, _ in counted]
    if len(counted) <= EXACT_PAIRS_MAX:
        return _exact_p(doubled, round(2 * observed))
    spread = math.sqrt(sum(rank**2 for rank, _ in counted)) / 2
    distance = abs(observed - sum(rank for rank, _ in counted) / 2)
    return math.erfc(distance / spread / math.sqrt(2))


def _mid_ranks(sizes: Sequence[float]) -> list[float]:
    """Ranks from 1, ascending; equal sizes share the mean of theirs."""
    ordered = sorted(sizes)
    return [(bisect_left(ordered, s) + 1 + bisect_right(ordered, s)) / 2 for s in sizes]


def _exact_p(ranks: Sequence[int], observed: int) -> float:
    """Twice the share of sign patterns as far out as `observed` or farther, on its side."""
    counts = _sums_over_signs(ranks)
    total = 1 << len(ranks)
    at_most, at_least = sum(counts[: observed + 1]), sum(counts[observed:])
    return min(1.0, 2 * min(at_most, at_least) / total)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided permutation test of the mean: over all patterns of signs, exact (Fisher).

    The share of patterns whose sum lies as far from zero as the observed one, or farther. No
    verdict rests on it: one outlier moves a mean. None for no pair, and for more than
    FLIPPED_PAIRS_MAX.
    """
    n = len(differences)
    if not 0 < n <= FLIPPED_PAIRS_MAX:
        return None
    # A hair of tolerance: sums in another order differ in their last bits.
    observed = abs(sum(differences)) - 1e-12 * sum(map(abs, differences))
    left, right = _signed_sums(differences[: n // 2]), sorted(_signed_sums(differences[n // 2 :]))
    far = sum(len(right) - bisect_left(right, observed - first) for first in left)
    return min(1.0, 2 * far / (1 << n))


def _signed_sums(values: Sequence[float]) -> list[float]:
    """The sums under all patterns of signs: 2^n of them."""
    sums = [0.0]
    for value in values:
        sums = [total + signed for total in sums for signed in (value, -value)]
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted


def equivalent(differences: Sequence[float], low: float, high: float, confidence: float) -> bool:
    """Two one-sided tests: the interval at level 1 − 2α lies within the margin."""
    inner = paired_shift(differences, 1 - 2 * (1 - confidence)).shift
    return low < inner.low and inner.high < high


def expected_half_width(pairs: int, confidence: float) -> float:
    """Half the width of the interval of `paired_shift`, on average, over normal differences of
    spread 1. Infinite when the pairs are too few.

    By simulation up to EXACT_PAIRS_MAX pairs, to about 3 %; beyond by the signed-rank test's
    efficiency of 3/π against the t test (Hollander and Wolfe 3.1).
    """
    if pairs > EXACT_PAIRS_MAX:
        return _normal_quantile((1 + confidence) / 2) * math.sqrt(math.pi / 3 / pairs)
    bounds = _simulated_bounds(pairs, confidence)
    return sum(high - low for low, high in bounds) / 2 / len(bounds) if bounds else math.inf


def detectable_shift(pairs: int, confidence: float, power: float) -> float:
    """The shift of normal differences of spread 1 whose interval excludes zero so often.

    A shift moves an interval as it is: that often its lower bound must lie above minus the shift.
    Infinite when the pairs are too few; simulated or calculated as `expected_half_width` is.
    """
    if pairs > EXACT_PAIRS_MAX:
        z = _normal_quantile((1 + confidence) / 2) + _normal_quantile(power)
        return z * math.sqrt(math.pi / 3 / pairs)
    lows = sorted(low for low, _ in _simulated_bounds(pairs, confidence))
    return -lows[math.floor((1 - power) * len(lows))] if lows else math.inf


@functools.cache
def _simulated_bounds(pairs: int, confidence: float) -> tuple[tuple[float, float], ...]:
    """Intervals over normal differences of spread 1; none when the pairs are too few."""
    rank = _bound_rank(pairs, confidence)
    if rank < 1:
        return ()
    source, found = random.Random(pairs), []
    for _ in range(BOUNDS_DRAWN):
        walsh = walsh_averages([source.gauss(0, 1) for _ in range(pairs)])
        found.append((walsh[rank - 1], walsh[-rank]))
    return tuple(found)


def median_interval(values: Sequence[float], confidence: float) -> Interval:
    """Median with the interval of order statistics (binomial), exact for any distribution.

    Infinite bounds when the values are too few.
    """
    ordered = sorted(values)
    n, below, rank = len(ordered), 0.0, 0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > (1 - confidence) / 2:
            break
        rank = k + 1
    low, high = (ordered[rank - 1], ordered[n - rank]) if rank else (-math.inf, math.inf)
    return Interval(median(ordered), low, high)


def blocks_at_least(confidence: float, contrasts: int) -> int:
    """The fewest pairs with which any verdict is possible: 2 / 2^n ≤ α / contrasts."""
    return math.ceil(math.log2(2 * max(1, contrasts) / (1 - confidence)) - 1e-9)


def blocks_for(differences: Sequence[float], confidence: float, contrasts: int) -> int | None:
    """About how many pairs would show a shift of this size with this spread (80 % power).

    From the signed-rank test's efficiency against the t test (3/π on normal differences; Hollander
    and Wolfe 3.1). None when more than PAIRS_MAX, or when two pairs don't tell a spread.
    """
    least = blocks_at_least(confidence, contrasts)
    if len(differences) < 2:
        return None
    centre = median(walsh_averages(differences))
    deviations = [(d - centre) ** 2 for d in differences]
    spread = math.sqrt(sum(deviations) / (len(differences) - 1))
    if spread == 0:
        return least if centre else None
    z = _normal_quantile(1 - (1 - confidence) / 2 / max(1, contrasts)) + _normal_quantile(0.8)
    if centre == 0:
        return None
    needed = math.ceil((z * spread / centre) ** 2 * math.pi / 3) + 1
    return max(least, needed) if needed <= PAIRS_MAX else None
