"""Open-loop schedules: when requests are meant to start, drawn before the trial from a seed.

Every shape is one thing here: a rate over time, in pieces that are straight lines. Its integral
Λ(t) is the number of arrivals expected until t, and arrivals are where Λ reaches given amounts:
0, 1, 2, … when evenly spaced, the points of a Poisson process of rate 1 when random. That makes a
Poisson process of that changing rate (inversion: E. Çinlar, Introduction to Stochastic Processes,
1975; S. Ross, Simulation, chapter 5; P. L'Ecuyer, Simulation, 2023, chapter 2). Nothing is summed
up from gap to gap in time, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from workers.spec import ArrivalsSpec, RateSpec

Offsets = npt.NDArray[np.int64]
Amounts = npt.NDArray[np.float64]

CHUNK = 1_000_000
"""So many are drawn at a time: a schedule of a day needs no memory beside itself."""


def schedule(arrivals: ArrivalsSpec, seed: int, measure_ns: int, warmup_ns: int = 0) -> Offsets:
    """Offsets in nanoseconds from the load's first instant, ascending, all before its end.

    A shape runs over measure; warmup has its first rate. Random numbers are PCG64's, seeded with
    `seed`. Every stripe `offsets[i::n]` is drawn from the same seed, so that processes and nodes
    share one schedule without a word between them.
    """
    curve = _Curve([*_warmup(arrivals, warmup_ns), *_measure(arrivals, measure_ns)])
    amounts = _whole(curve.total) if arrivals.evenly else _drawn(curve.total, seed)
    pieces = [curve.offsets(chunk) for chunk in amounts]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)


def _warmup(arrivals: ArrivalsSpec, warmup_ns: int) -> Iterator[RateSpec]:
    rate_rps = arrivals.first_rps
    yield RateSpec(for_ns=warmup_ns, from_rps=rate_rps, to_rps=rate_rps)


def _measure(arrivals: ArrivalsSpec, measure_ns: int) -> tuple[RateSpec, ...]:
    rate_rps = arrivals.rate_rps
    if not arrivals.rates:
        return (RateSpec(for_ns=measure_ns, from_rps=rate_rps, to_rps=rate_rps),)
    planned_ns = sum(rate.for_ns for rate in arrivals.rates)
    if not measure_ns:
        return ()  # a scenario that is only tried has no load
    if planned_ns != measure_ns:
        raise ValueError(f"rates are planned for {planned_ns} ns, measure lasts {measure_ns} ns")
    return arrivals.rates


def _whole(total: float) -> Iterator[Amounts]:
    """0, 1, 2, … below the total; a hair of tolerance, so that 3 s at 333/s are 999."""
    count = int(np.ceil(total - 1e-9 * max(1.0, total)))
    for first in range(0, count, CHUNK):
        yield np.arange(first, min(count, first + CHUNK), dtype=np.float64)


def _drawn(total: float, seed: int) -> Iterator[Amounts]:
    """The points of a Poisson process of rate 1, below the total."""
    random = np.random.default_rng(seed)
    reached = 0.0
    while reached < total:
        left = total - reached
        # Six standard deviations more than expected: more are hardly ever needed.
        count = min(CHUNK, int(left + 6 * np.sqrt(left) + 16))
        points = reached + np.cumsum(random.standard_exponential(count))
        reached = float(points[-1])
        yield points[points < total]


class _Curve:
    """A rate over time, and the inverse of its integral."""

    def __init__(self, rates: list[RateSpec]) -> None:
        self._lengths_ns = np.array([r.for_ns for r in rates], dtype=np.float64)
        self._from = np.array([r.from_rps for r in rates]) / 1e9
        self._slopes = np.array([r.to_rps - r.from_rps for r in rates]) / 1e9
        self._slopes /= np.maximum(self._lengths_ns, 1)
        self._starts_ns = np.cumsum([0, *(r.for_ns for r in rates)])
        expected = [r.arrivals for r in rates]
        self._amounts = np.cumsum([0.0, *expected])

    @property
    def total(self) -> float:
        """Arrivals expected over the whole of it."""
        return float(self._amounts[-1])

    def offsets(self, amounts: Amounts) -> Offsets:
        """The instants at which the integral reaches these amounts, rounded to nanoseconds.

        In a piece it is x = r t + s t² / 2 for the first rate r and the slope s, solved for t in
        the form that loses no digits when s is small. Pieces with a rate of 0 are stepped over.
        """
        piece = np.searchsorted(self._amounts, amounts, side="right") - 1
        piece = np.minimum(piece, len(self._from) - 1)
        beyond, first, slope = (
            amounts - self._amounts[piece],
            self._from[piece],
            self._slopes[piece],
        )
        root = np.sqrt(np.maximum(0.0, first**2 + 2 * slope * beyond))
        within = 2 * beyond / np.maximum(first + root, np.finfo(float).tiny)
        within = np.minimum(within, self._lengths_ns[piece])
        offsets = self._starts_ns[piece] + np.round(within).astype(np.int64)
        return np.asarray(np.minimum(offsets, self._starts_ns[-1] - 1), dtype=np.int64)
