"""How a figure follows from load and heap: lines by least squares, over the terms of Go's guide.

Peak memory is a line over the request rate, over the heap's goal (`results/gomodel.py`), or over
both. The collector's CPU time is in proportion to rate × turns: a collection comes each time the
runway, goal − live, was allocated, and marks live + roots, so its work for an allocated byte is
turns = (live + roots) / (goal − live), which is 100 / GOGC where no limit binds. The rest of the
service's CPU time is a line over the rate.

Least squares by NumPy; a fit keeps its leverage, which says how far a point lies from what was
measured (N. Draper, H. Smith, Applied Regression Analysis, 3rd ed., 1998, 1.4 and 8.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

RATE: Final = "rate"
GOAL: Final = "goal"

TOGETHER: Final = 0.98
"""Of two terms with a greater correlation nobody can tell which one it was."""


class Degenerate(Exception):
    """What was measured does not tell the terms apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A load and a heap: requests per second, the heap's goal in bytes, turns (see above).

    What a law does not ask for may be 0.
    """

    rate_rps: float
    goal_bytes: float = 0.0
    turns: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measured point and its figure; of GC CPU the cores of the collector and of the rest too."""

    point: Point
    value: float
    gc_cores: float = 0.0
    other_cores: float = 0.0


class Fitted(Protocol):
    """A law with its numbers."""

    def value(self, point: Point) -> float:
        """The figure there, in its own unit."""
        ...

    def leverage(self, point: Point) -> float:
        """How far the point lies from what was measured: 0 at least, 1 and more far outside."""
        ...


class Law(Protocol):
    """What can be fitted."""

    @property
    def most(self) -> float:
        """No figure is above it."""
        ...

    def fit(self, rows: Sequence[Row]) -> Fitted:
        """The law of these rows. Raises Degenerate."""
        ...


@dataclass(frozen=True, slots=True)
class _Line:
    """Coefficients over the columns of a design, and the inverse of its normal matrix."""

    coefficients: Matrix
    inverse: Matrix

    def at(self, columns: Sequence[float]) -> float:
        return float(self.coefficients @ np.asarray(columns))

    def leverage(self, columns: Sequence[float]) -> float:
        wanted = np.asarray(columns)
        return float(wanted @ self.inverse @ wanted)


def _line(columns: Sequence[Sequence[float]], values: Sequence[float]) -> _Line:
    design = np.asarray(columns, dtype=np.float64)
    # To one scale: a rate of hundreds stands beside bytes of a billion.
    scale = np.abs(design).max(axis=0)
    if not np.all(scale > 0):
        raise Degenerate
    scaled = design / scale
    if np.linalg.matrix_rank(scaled, tol=1e-3) < scaled.shape[1]:
        raise Degenerate
    if scaled.shape[1] > 2 and _together(scaled[:, 1:]):
        raise Degenerate
    inverse = np.linalg.inv(scaled.T @ scaled)
    coefficients = inverse @ scaled.T @ np.asarray(values, dtype=np.float64)
    return _Line(coefficients / scale, inverse / np.outer(scale, scale))


def _together(columns: Matrix) -> bool:
    """Whether columns went up and down together."""
    if np.any(np.ptp(columns, axis=0) <= 0):
        return True
    return bool(np.linalg.eigvalsh(np.corrcoef(columns.T))[0] < 1 - TOGETHER)


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """A line over rate and goal, as far as `over` names them."""

    over: tuple[str, ...]

    @property
    def most(self) -> float:
        """Memory has no bound here."""
        return math.inf

    def fit(self, rows: Sequence[Row]) -> Fitted:
        """The line of these rows. Raises Degenerate."""
        return _Peak(
            self.over, _line([self.columns(r.point) for r in rows], [r.value for r in rows])
        )

    def columns(self, point: Point) -> list[float]:
        """A row of the design."""
        return _columns(self.over, point)


def _columns(over: Sequence[str], point: Point) -> list[float]:
    of = {RATE: point.rate_rps, GOAL: point.goal_bytes}
    return [1.0, *(of[name] for name in over)]


@dataclass(frozen=True, slots=True)
class _Peak:
    over: tuple[str, ...]
    line: _Line

    def value(self, point: Point) -> float:
        return self.line.at(_columns(self.over, point))

    def leverage(self, point: Point) -> float:
        return self.line.leverage(_columns(self.over, point))


@dataclass(frozen=True, slots=True)
class CollectorShare:
    """GC CPU per CPU of the service; the rest follows the rate where that was varied."""

    over: tuple[str, ...]

    @property
    def most(self) -> float:
        """A share."""
        return 1.0

    def fit(self, rows: Sequence[Row]) -> Fitted:
        """The two lines of these rows. Raises Degenerate."""
        rest = tuple(name for name in self.over if name == RATE)
        return _Share(
            rest,
            _line([[_work(r.point)] for r in rows], [r.gc_cores for r in rows]),
            _line([_columns(rest, r.point) for r in rows], [r.other_cores for r in rows]),
        )


def _work(point: Point) -> float:
    return point.rate_rps * point.turns


@dataclass(frozen=True, slots=True)
class _Share:
    over: tuple[str, ...]
    collector: _Line
    rest: _Line

    def value(self, point: Point) -> float:
        cores = max(0.0, self.collector.at([_work(point)]))
        rest = max(0.0, self.rest.at(_columns(self.over, point)))
        return cores / (cores + rest) if cores + rest > 0 else 0.0

    def leverage(self, point: Point) -> float:
        return max(
            self.collector.leverage([_work(point)]),
            self.rest.leverage(_columns(self.over, point)),
        )
