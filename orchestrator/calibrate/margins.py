"""Can the margins of a matrix be shown at all? Judged by this machine's own noise.

The noise was that of short trials of a shipped service: a user's own service may be noisier, and
longer trials are quieter. What comes from many requests or much processor time is taken to become
quieter with the root of the time, as if nothing else made noise; so a margin is refused only when
even that is not enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.calibrate.calibration import Calibration, Standing, standing_here
from orchestrator.matrix.matrix import Matrix, MatrixError
from results.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Narrow:
    """A margin that so many blocks can't show."""

    metric: str
    margin: float
    floor: float
    enough_blocks: int | None


def check_margins(matrix: Matrix, *, below_noise: bool) -> list[str]:
    """What to know about a matrix's margins and this machine.

    Raises MatrixError, with its place, for one below the noise floor, unless that is wanted.
    """
    if matrix.document.nodes:
        return []  # this machine says nothing about others
    standing = standing_here()
    if standing.calibration is None:
        return list(_without(matrix, standing))
    narrow = list(_narrow(matrix, standing.calibration))
    lines = [_refusal(matrix, standing, found) for found in narrow]
    if lines and not below_noise:
        raise MatrixError("\n".join(lines))
    return [*lines, *_rates(matrix, standing.calibration)]


def _without(matrix: Matrix, standing: Standing) -> Iterator[str]:
    if matrix.document.comparison.margins:
        others = " of such hardware" if standing.others else ""
        yield (
            f"there is no calibration{others} that says whether the margins can be shown here: "
            "bench calibrate"
        )


def _narrow(matrix: Matrix, calibration: Calibration) -> Iterator[Narrow]:
    comparison = matrix.document.comparison
    for metric, margin in comparison.margins.items():
        noise = calibration.noise_in(metric)
        if noise is None or not noise.relative:
            continue
        shrink = _shrink(matrix, calibration, metric)
        floor = noise.floor(matrix.trials, comparison.confidence, shrink)
        if margin < floor and math.isfinite(floor):
            enough = noise.blocks_for_margin(margin, comparison.confidence, shrink)
            yield Narrow(metric, margin, floor, enough)


def _shrink(matrix: Matrix, calibration: Calibration, metric: str) -> float:
    """How much of the noise is left, at best, in the longest measure of the matrix."""
    if METRICS[metric].group not in ("price", "load"):
        return 1.0
    longest_ns = max(workload.measure for workload in matrix.workloads.values())
    return min(1.0, math.sqrt(calibration.measure_ns / longest_ns))


def _refusal(matrix: Matrix, standing: Standing, found: Narrow) -> str:
    calibration = standing.calibration
    assert calibration
    blocks, enough = matrix.trials, found.enough_blocks
    help_ = f"about {enough} blocks or " if enough else ""
    old = f" ({standing.age})" if standing.age else ""
    return matrix.source.line(
        matrix.source.place(("comparison", "margins", found.metric)),
        f"a margin of {found.margin * 100:g}% for {found.metric} is below this machine's noise "
        f"floor: with {blocks} blocks, two equal configurations are told apart from ±"
        f"{found.floor * 100:.2g}% only (calibrated {calibration.made}{old}); {help_}a margin of "
        f"{_rounded_up(found.floor)} would do, or a quieter machine; --below-noise goes on all "
        "the same",
    )


def _rounded_up(floor: float) -> str:
    """A margin above the floor, with two digits."""
    digits = 1 - math.floor(math.log10(floor * 100))
    return f"{math.ceil(floor * 100 * 10**digits) / 10**digits:g}%"


def _rates(matrix: Matrix, calibration: Calibration) -> Iterator[str]:
    """Workloads beyond what this machine's generator could do against the null server."""
    highest = calibration.open_rps
    for name, arrivals in matrix.arrivals.items():
        if highest and arrivals.peak_rps > highest:
            yield (
                f"{name} asks for {arrivals.peak_rps:,.0f}/s: the most that this machine's "
                f"generator made in a valid trial was {highest:,.0f}/s (calibrated "
                f"{calibration.made})"
            )
