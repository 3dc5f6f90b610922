"""Two ways to carry a series on: Holt's damped trend, and the naive one that it has to beat.

The damped trend is that of statsmodels (exponential smoothing in state-space form, ETS(A, Ad, N):
R. Hyndman, A. Koehler, J. Ord, R. Snyder, Forecasting with Exponential Smoothing, 2008, 2.3 and
6.3; E. Gardner, E. McKenzie, Forecasting trends in time series, Management Science 31, 1985). The
naive one says that everything stays as it was last, with the interval of a random walk
(R. Hyndman, G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 2021, 5.2 and 5.5).
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from results.errors import EnvironmentLacks

NEEDED: Final = "statsmodels"
INSTALL: Final = "pip install 'heapgate[forecast]'"
_ITERATIONS_MAX: Final = 100

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """The next values of a series and half of the width of their intervals."""

    values: Values
    half_widths: Values


Method = Callable[[Values, int, float], Path]
"""A series, how many values ahead, confidence."""


def require_library() -> None:
    """Raises EnvironmentLacks, with what to install, where statsmodels is missing."""
    if importlib.util.find_spec(NEEDED) is None:
        raise EnvironmentLacks(f"a forecast from history needs {NEEDED}: {INSTALL}")


def damped_trend(values: Values, ahead: int, confidence: float) -> Path:
    """Holt's method with a trend that fades."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    # A series that never moved has no likelihood.
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return as_the_last(values, ahead, confidence)
    level, scale = float(values.mean()), float(values.std())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ETSModel(
            _series((values - level) / scale), error="add", trend="add", damped_trend=True
        )
        fitted = model.fit(disp=False, maxiter=_ITERATIONS_MAX)
        found = fitted.get_prediction(start=len(values), end=len(values) + ahead - 1)
        bounds = found.pred_int(alpha=1 - confidence).to_numpy()
        means = np.asarray(found.predicted_mean)
    return Path(level + scale * means, scale * (bounds[:, 1] - bounds[:, 0]) / 2)


def _series(values: Values) -> object:
    """The library tells intervals of pandas' series only."""
    import pandas as pd

    return pd.Series(values)


def as_the_last(values: Values, ahead: int, confidence: float) -> Path:
    """Everything stays as it was last; the interval widens as that of a random walk."""
    steps = np.diff(values)
    spread = math.sqrt(float(np.mean(steps**2))) if len(steps) else 0.0
    reach = _student(confidence, len(steps)) * spread * np.sqrt(np.arange(1, ahead + 1))
    return Path(np.full(ahead, values[-1]), reach)


@cache
def _student(confidence: float, freedom: int) -> float:
    """Two-sided quantile of Student's t; SciPy comes with statsmodels."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, max(1, freedom)))


@dataclass(frozen=True, slots=True)
class Rolled:
    """A method from several origins of a series, each time held against what came after.

    `error` is the mean absolute error, in the series' unit; `widen` the factor by which its
    intervals must be widened to hold as often as they should, 1 at least; `held` how many of
    `points` they held as they were.
    """

    error: float
    widen: float
    held: int
    points: int
    ahead: int


ORIGINS_MAX: Final = 6
ORIGIN_AT_LEAST: Final = 6


def rolling_origin(method: Method, values: Values, ahead: int, confidence: float) -> Rolled:
    """Forecast from earlier runs what later ones showed (L. Tashman, Out-of-sample tests of
    forecasting accuracy, Int. J. Forecasting 16, 2000).

    Intervals of a fitted model take its numbers for the true ones and are too narrow after few
    runs. So the errors seen here, in units of the intervals' own half widths, say by how much to
    widen (split conformal prediction with normalised scores: J. Lei and others, 2018, 5.2).
    """
    errors: list[float] = []
    shares: list[float] = []
    farthest = 0
    for origin in origins(len(values)):
        steps = min(ahead, len(values) - origin)
        path = method(values[:origin], steps, confidence)
        off = np.abs(values[origin : origin + steps] - path.values)
        errors += off.tolist()
        shares += _in_half_widths(off, path.half_widths)
        farthest = max(farthest, steps)
    rank = min(len(shares), math.ceil(confidence * (len(shares) + 1) - 1e-9))
    return Rolled(
        error=float(np.mean(errors)),
        widen=max(1.0, sorted(shares)[rank - 1]),
        held=sum(share <= 1 for share in shares),
        points=len(shares),
        ahead=farthest,
    )


def _in_half_widths(off: Values, half_widths: Values) -> list[float]:
    tiny = 1e-12 * max(1.0, float(np.abs(off).max(initial=0.0)))
    return (off / np.maximum(half_widths, tiny)).tolist() if tiny else []


def origins(runs: int) -> Sequence[int]:
    """From after how many runs to look ahead: the later half, at most ORIGINS_MAX of them."""
    first = max(ORIGIN_AT_LEAST, runs // 2)
    found = np.linspace(first, runs - 1, min(ORIGINS_MAX, runs - first))
    return sorted({round(float(value)) for value in found})
