"""Where the level of a history of runs shifted; what was once settled stays as it is.

The runs are taken one after the other. At each, the best split of the segment that is still open is
sought and tested; a split with `SETTLE_RUNS` runs after it is settled, and a new segment begins
there. So no later run moves or removes a settled change: the settled changes of a history are the
first ones of the same history with more runs. Splits with fewer runs after them are `fresh`: the
next runs may move or refute them.

The test is Student's t on the two sides of the split, as in Hunter (M. Fleming and others, Hunter:
using change point detection to hunt for performance regressions, ICPE 2023), which took it in place
of the permutations of E-divisive (D. Matteson, N. James, A nonparametric approach for multiple
change point analysis, J. Am. Stat. Assoc. 109, 2014): few runs can tell a large shift, and the
answer is the same each time. Two things are put right here. Neighbouring runs are alike: the error
is widened by their estimated correlation, which few runs tell badly, so that it is drawn towards a
usual one. And the best of many splits is asked again with every run: the level of the test is that
which keeps the false alarms of simulated histories below 5 % (`tests/benchmarks/bench_history.py`).

Written here because a search library finds splits and tests none, and the search for one split is a
line of NumPy; tests hold it against ruptures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SIDE_RUNS: Final = 3
"""The fewest runs on either side of a change."""

SETTLE_RUNS: Final = 5
"""With so many runs after it a change is settled."""

WINDOW_RUNS: Final = 30
"""Of a longer segment only its latest runs are asked."""

P_MAX: Final = 0.0002
LEAST_CHANGE: Final = 0.01
"""A smaller change is none, as a share of the level."""

_USUAL_DEPENDENCE: Final = 0.5
_USUAL_WEIGHT: Final = 25
_DEPENDENCE_MAX: Final = 0.8
_NO_NOISE: Final = 1e-9
"""Values that agree are taken to differ by this share: rounding."""


@dataclass(frozen=True, slots=True)
class Split:
    """A change of level before the value at `index`; `settled` when no later run can move it."""

    index: int
    p: float
    settled: bool


def find_changes(values: Sequence[float], errors: Sequence[float]) -> list[Split]:
    """The changes of level in a history, the oldest first.

    `errors` are the standard errors of the values as far as they are known from within a run, in
    the same unit; 0 where they are not.
    """
    level, error = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    found: list[Split] = []
    begin, fresh = 0, None
    for end in range(2 * SIDE_RUNS, len(level) + 1):
        fresh = None
        low = max(begin, end - WINDOW_RUNS)
        split = _tested(level[low:end], error[low:end])
        if split is None:
            continue
        index, p = low + split[0], split[1]
        if end - index >= SETTLE_RUNS:
            found.append(Split(index, p, settled=True))
            begin = index
        else:
            fresh = Split(index, p, settled=False)
    return [*found, fresh] if fresh else found


def _tested(values: Values, errors: Values) -> tuple[int, float] | None:
    """The best split of a window and its p-value, when it is a change; else None."""
    if len(values) < 2 * SIDE_RUNS:
        return None
    if (values > 0).all():
        values, errors, least = np.log(values), errors / values, math.log1p(LEAST_CHANGE)
    else:
        least = 0.0
    floor = max(float(np.mean(errors**2)), (_NO_NOISE * float(np.abs(values).max())) ** 2)
    index, distance = best_split(values, floor)
    size = abs(float(np.median(values[index:]) - np.median(values[:index])))
    if size <= least:
        return None
    dependence = _dependence(values, index)
    narrower = math.sqrt((1 - dependence) / (1 + dependence))
    p = student_p(distance * narrower, len(values) - 2)
    return (index, p) if p <= P_MAX else None


def best_split(values: Values, floor: float = 0.0) -> tuple[int, float]:
    """The split whose sides are farthest apart, and Student's t there.

    `floor` is the least variance that is believed: values may agree by chance.
    """
    n = len(values)
    before = np.arange(1, n)
    centred = values - values.mean()
    sums = np.cumsum(centred)[:-1]
    distances = np.abs(sums) / np.sqrt(before * (n - before) / n)
    distances[: SIDE_RUNS - 1] = -1.0
    distances[n - SIDE_RUNS :] = -1.0
    index = int(np.argmax(distances)) + 1
    left = _without_levels(values, index)
    variance = max(float(left @ left) / (n - 2), floor)
    if variance <= 0:
        return index, math.inf if distances[index - 1] > 0 else 0.0
    return index, float(distances[index - 1]) / math.sqrt(variance)


def _without_levels(values: Values, index: int) -> Values:
    sides = values[:index], values[index:]
    return np.concatenate([side - side.mean() for side in sides])


def _dependence(values: Values, index: int) -> float:
    """Correlation of neighbouring runs: as seen, its bias put right, drawn to the usual one."""
    left = _without_levels(values, index)
    n, squares = len(left), float(left @ left)
    seen = float(left[1:] @ left[:-1]) / squares if squares > 0 else 0.0
    # Two levels were taken out: each makes neighbours look the less alike, the more so as they are.
    unbiased = seen + (2 + 4 * max(seen, 0.0)) / n
    drawn = (n * unbiased + _USUAL_WEIGHT * _USUAL_DEPENDENCE) / (n + _USUAL_WEIGHT)
    return min(max(drawn, 0.0), _DEPENDENCE_MAX)


def student_p(t: float, freedom: int) -> float:
    """Two-sided p-value of Student's t for whole degrees of freedom, exact.

    M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4.
    """
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, freedom // 2 + 1):
            total += term
            term *= cosine**2 * 2 * k / (2 * k + 1)
        inside = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(freedom // 2):
            total += term
            term *= cosine**2 * (2 * k + 1) / (2 * k + 2)
        inside = sine * total
    return max(0.0, 1 - inside)
