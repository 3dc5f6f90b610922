"""Arrivals of a matrix → what a node is told: a rate over measure, in straight pieces."""

from __future__ import annotations

import math
from itertools import pairwise

from orchestrator.matrix import values
from orchestrator.matrix.model import Arrivals, Ramp, Spikes, Step
from workers.spec import ArrivalsSpec, RateSpec

ARRIVALS_MAX = 100_000_000
"""In a trial; a day at a thousand a second is less. They are drawn and held by each generator."""

PIECES_MAX = 10_000
"""Every trial's record holds the whole rate."""

Pieces = tuple[RateSpec, ...]


class ShapeError(ValueError):
    """Arrivals that can't be made; `at` is the place within `arrivals:` that is to blame."""

    def __init__(self, text: str, *at: str) -> None:
        super().__init__(text)
        self.at = at


def arrivals_spec(
    arrivals: Arrivals, warmup_ns: int, measure_ns: int, recorded: Pieces = ()
) -> ArrivalsSpec:
    """What a node is told. `recorded` is the rate of a replay, from its file.

    Raises ShapeError for what can't be made in this time.
    """
    rates = pieces_of(arrivals, measure_ns, recorded)
    spec = ArrivalsSpec(
        kind=arrivals.kind,  # type: ignore[arg-type]
        rate_rps=_mean_rps(arrivals, rates, measure_ns),
        in_flight_max=arrivals.in_flight_max,
        spacing=(arrivals.spacing or "random") if rates else None,
        rates=rates,
    )
    _check_count(spec, warmup_ns, measure_ns)
    return spec


def _mean_rps(arrivals: Arrivals, rates: Pieces, measure_ns: int) -> float:
    if rates:
        return sum(piece.arrivals for piece in rates) * 1e9 / measure_ns
    return arrivals.constant or arrivals.poisson or 0.0


def _check_count(spec: ArrivalsSpec, warmup_ns: int, measure_ns: int) -> None:
    """A load of nothing measures nothing, and one of billions is never made."""
    measured = spec.rate_rps * measure_ns / 1e9
    expected = measured + spec.first_rps * warmup_ns / 1e9
    if measured < 1:
        long = values.duration_text(measure_ns)
        raise ShapeError(f"no request would start: {measured:.2g} in {long} of measure", spec.kind)
    if expected > ARRIVALS_MAX:
        raise ShapeError(
            f"{expected:,.0f} requests in a trial are more than the {ARRIVALS_MAX:,} that can be "
            "planned: lower the rate, or measure for less long",
            spec.kind,
        )


def pieces_of(arrivals: Arrivals, measure_ns: int, recorded: Pieces = ()) -> Pieces:
    """The rate over measure, without gaps; empty when it stays what it is."""
    if arrivals.ramp:
        return _ramp(arrivals.ramp, measure_ns)
    if arrivals.steps:
        return _steps(arrivals.steps, measure_ns)
    if arrivals.spikes:
        return _spikes(arrivals.spikes, measure_ns)
    return recorded


def held(for_ns: int, rate_rps: float) -> RateSpec:
    """A rate that stays."""
    return RateSpec(for_ns=for_ns, from_rps=rate_rps, to_rps=rate_rps)


def _ramp(ramp: Ramp, measure_ns: int) -> Pieces:
    return (RateSpec(for_ns=measure_ns, from_rps=ramp.from_, to_rps=ramp.to),)


def _steps(steps: list[Step], measure_ns: int) -> Pieces:
    told_ns = sum(step.for_ or 0 for step in steps)
    sharing = sum(step.for_ is None for step in steps)
    left_ns = measure_ns - told_ns
    long, measured = values.duration_text(told_ns), values.duration_text(measure_ns)
    if sharing and left_ns < sharing:
        raise ShapeError(
            f"the steps with `for` take {long} of measure's {measured}: none is left", "steps"
        )
    if not sharing and left_ns:
        raise ShapeError(f"the steps take {long} together, but measure lasts {measured}", "steps")
    shares = iter(_split(left_ns, sharing))
    return tuple(held(step.for_ or next(shares), step.rate) for step in steps)


def _split(total: int, parts: int) -> list[int]:
    """Whole parts of a whole, as equal as can be."""
    if not parts:
        return []
    return [b - a for a, b in pairwise(total * n // parts for n in range(parts + 1))]


def _spikes(spikes: Spikes, measure_ns: int) -> Pieces:
    """Base, peak, base in each period, so that measure begins and ends quietly."""
    if spikes.every > measure_ns:
        every, measured = values.duration_text(spikes.every), values.duration_text(measure_ns)
        raise ShapeError(f"measure's {measured} have no spike: one comes every {every}", "spikes")
    if measure_ns // spikes.every * 2 >= PIECES_MAX:
        raise ShapeError(f"there are more than {PIECES_MAX // 2:,} spikes in a trial", "spikes")
    before_ns = (spikes.every - spikes.for_) // 2
    pieces, at_ns = [], 0
    for start_ns in range(before_ns, measure_ns, spikes.every):
        end_ns = min(start_ns + spikes.for_, measure_ns)
        pieces += [held(start_ns - at_ns, spikes.base), held(end_ns - start_ns, spikes.peak)]
        at_ns = end_ns
    pieces.append(held(measure_ns - at_ns, spikes.base))
    return tuple(piece for piece in pieces if piece.for_ns)


def outline(spec: ArrivalsSpec, columns: int = 40) -> str:
    """A shape in one line of text: the highest rate in each of equal parts of measure."""
    blocks = "▁▂▃▄▅▆▇█"
    highest, column_ns = [0.0] * columns, sum(piece.for_ns for piece in spec.rates) / columns
    start_ns = 0
    for piece in spec.rates:
        end_ns = start_ns + piece.for_ns
        for column in range(int(start_ns / column_ns), min(columns, math.ceil(end_ns / column_ns))):
            inside = (
                max(start_ns, column * column_ns) - start_ns,
                min(end_ns, (column + 1) * column_ns) - start_ns,
            )
            slope = (piece.to_rps - piece.from_rps) / piece.for_ns
            highest[column] = max(highest[column], *(piece.from_rps + slope * x for x in inside))
        start_ns = end_ns
    return "".join(blocks[round(rate / spec.peak_rps * 7)] for rate in highest)
