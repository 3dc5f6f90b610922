"""Open-loop schedules: when requests are meant to start, drawn before the trial from a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.spec import ArrivalsSpec

Offsets = npt.NDArray[np.int64]


def schedule(arrivals: ArrivalsSpec, seed: int, duration_ns: int) -> Offsets:
    """Offsets in nanoseconds from the first instant, ascending, all below `duration_ns`.

    `constant` is evenly spaced from 0; `poisson` has independent exponential gaps (a Poisson
    process: L'Ecuyer, Simulation, 2023, chapter 2), drawn from PCG64 seeded with `seed`.
    """
    if arrivals.kind == "constant":
        count = int(np.ceil(duration_ns * arrivals.rate_rps / 1e9 - 1e-9))
        offsets = np.round(np.arange(count) * (1e9 / arrivals.rate_rps)).astype(np.int64)
    else:
        offsets = _poisson(arrivals.rate_rps, np.random.default_rng(seed), duration_ns)
    return offsets[offsets < duration_ns]


def _poisson(rate_rps: float, random: np.random.Generator, duration_ns: int) -> Offsets:
    expected = duration_ns * rate_rps / 1e9
    # Six standard deviations more than expected: more are hardly ever needed.
    count = int(expected + 6 * np.sqrt(expected) + 16)
    instants = np.cumsum(random.exponential(1e9 / rate_rps, count))
    while instants[-1] < duration_ns:
        more = instants[-1] + np.cumsum(random.exponential(1e9 / rate_rps, count))
        instants = np.concatenate([instants, more])
    return instants.astype(np.int64)
