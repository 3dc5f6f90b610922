"""Two independent samples: how far one lies from the other, and whether that may be chance.

For runs that shared no blocks, so that nothing of theirs can be paired. Samples are few (a value a
trial): distributions are counted out exactly where that is quick.

Source: M. Hollander, D. Wolfe, E. Chicken, Nonparametric Statistical Methods, 3rd ed., 2014: rank
sum test 4.1 (Wilcoxon 1945; Mann and Whitney 1947), Hodges–Lehmann estimate 4.2, interval 4.3
(Moses). Written here for the reasons that `paired.py` has; tests hold it against SciPy.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Final

from results.statistics.interval import Interval

EXACT_MAX: Final = 40
"""Up to so many values in both samples the distributions are counted out."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the second sample lies above the first; `p` is two-sided.

    The bounds are infinite where the samples are too small for an interval of this confidence.
    """

    shift: Interval
    p: float
    first: int
    second: int


def shift_between(first: Sequence[float], second: Sequence[float], confidence: float) -> Shift:
    """Hodges–Lehmann estimate, its exact interval, and the rank sum test.

    The estimate is the median of all differences of a value of the second and one of the first;
    the bounds are those differences that the distribution of the Mann–Whitney statistic picks.
    Raises ValueError when a sample is empty.
    """
    if not first or not second:
        raise ValueError("a sample is empty")
    differences = sorted(b - a for a in first for b in second)
    rank = _bound_rank(len(first), len(second), confidence)
    low, high = (-math.inf, math.inf) if rank < 1 else (differences[rank - 1], differences[-rank])
    interval = Interval(median(differences), low, high)
    return Shift(interval, _p_value(first, second), len(first), len(second))


def smallest_p(first: int, second: int) -> float:
    """The least two-sided p that samples of these sizes can have, without ties."""
    return min(1.0, 2 / math.comb(first + second, first))


def within(
    first: Sequence[float], second: Sequence[float], low: float, high: float, confidence: float
) -> bool:
    """Two one-sided tests: the interval at level 1 − 2α lies between `low` and `high`."""
    inner = shift_between(first, second, 1 - 2 * (1 - confidence)).shift
    return low < inner.low and inner.high < high


def _bound_rank(m: int, n: int, confidence: float) -> int:
    """The rank of the difference that bounds the interval; below 1 when the samples are too small.

    The largest C with P(U < C) ≤ α/2, U being the Mann–Whitney statistic.
    """
    if m + n > EXACT_MAX:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        return math.floor(m * n / 2 - z * math.sqrt(m * n * (m + n + 1) / 12))
    # A rank sum is the statistic and n (n + 1) / 2.
    counts = _sums_of_chosen(tuple(range(1, m + n + 1)), n)[n * (n + 1) // 2 :]
    allowed = (1 - confidence) / 2 * math.comb(m + n, n)
    below = rank = 0
    for count in counts:
        below += count
        # A hair of tolerance, so that 0.05 in binary does not cost a rank.
        if below > allowed * (1 + 1e-12):
            break
        rank += 1
    return rank


def _p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided rank sum test on mid-ranks, over all ways to deal out the values.

    So ties are exact too. Beyond `EXACT_MAX` by the normal distribution, its variance less by what
    ties take (Hollander and Wolfe 4.1).
    """
    m, n = len(first), len(second)
    ordered = sorted([*first, *second])
    # Mid-ranks are whole or half numbers: doubled, they are whole ones.
    doubled = {v: bisect_left(ordered, v) + bisect_right(ordered, v) + 1 for v in set(ordered)}
    observed = sum(doubled[value] for value in second)
    if m + n <= EXACT_MAX:
        counts = _sums_of_chosen(tuple(doubled[value] for value in ordered), n)
        at_most, at_least = sum(counts[: observed + 1]), sum(counts[observed:])
        return min(1.0, 2 * min(at_most, at_least) / math.comb(m + n, n))
    sizes = [bisect_right(ordered, v) - bisect_left(ordered, v) for v in doubled]
    ties = sum(size**3 - size for size in sizes)
    whole = m + n
    variance = m * n / 12 * (whole + 1 - ties / (whole * (whole - 1)))
    if variance <= 0:
        return 1.0
    distance = abs(observed / 2 - n * (whole + 1) / 2)
    return math.erfc(distance / math.sqrt(2 * variance))


@functools.lru_cache(maxsize=64)
def _sums_of_chosen(ranks: tuple[int, ...], chosen: int) -> list[int]:
    """In how many ways so many of the ranks have the sum 0, 1, 2 …"""
    most = sum(sorted(ranks)[-chosen:])
    ways = [[0] * (most + 1) for _ in range(chosen + 1)]
    ways[0][0] = 1
    for seen, rank in enumerate(ranks, 1):
        for taken in range(min(chosen, seen), 0, -1):
            fewer, these = ways[taken - 1], ways[taken]
            for total in range(most, rank - 1, -1):
                if fewer[total - rank]:
                    these[total] += fewer[total - rank]
    return ways[chosen]
