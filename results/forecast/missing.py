"""What would have to be measured before a forecast is possible, as lines of a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from results.forecast.intervals import rows_at_least
from results.forecast.levels import APART, LEVELS_AT_LEAST, Dimension
from results.forecast.observations import Observation
from results.metrics import counted

LEFT_SHARE: Final = 0.75
"""Of the trials that an interval needs, how many must be left when a level is left out: the
intervals of a back-test are a little narrower than their confidence says, so it is the stricter."""


def trials_per_level(levels: int, confidence: float) -> int:
    """How many trials each level needs."""
    needed = rows_at_least(confidence)
    return math.ceil(max(needed / levels, LEFT_SHARE * needed / max(1, levels - 1)))


def lacking(
    dimensions: Sequence[Dimension], trials: int, base: Observation, confidence: float
) -> str:
    """What is missing, and the lines that would measure it; empty when nothing is."""
    few = [d for d in dimensions if len(d.levels) < LEVELS_AT_LEAST]
    if few:
        return "\n".join(_levels_missing(d, base, confidence) for d in few)
    largest = max((len(level) for d in dimensions for level in d.levels), default=0)
    needed = rows_at_least(confidence)
    left = math.ceil(LEFT_SHARE * needed)
    if trials >= needed and trials - largest >= left:
        return ""
    levels = min((len(d.levels) for d in dimensions), default=1)
    more = max(trials_per_level(levels, confidence), trials // levels + 1)
    return (
        f"{counted(trials, 'trial')} at {counted(levels, 'level')} are too few: "
        f"{confidence * 100:g} % needs {needed} in all, and {left} besides those of any one level. "
        f"In the matrix:\ntrials: {more}"
    )


def _levels_missing(dimension: Dimension, base: Observation, confidence: float) -> str:
    short = LEVELS_AT_LEAST - len(dimension.levels)
    measured = ", ".join(dimension.show(value) for value in dimension.level_values)
    wanted = _spread(dimension, short)
    told = (
        f"it needs {counted(LEVELS_AT_LEAST, 'level')} of {dimension.name}, and there "
        f"{'is' if len(dimension.levels) == 1 else 'are'} {len(dimension.levels)} ({measured}): "
        f"{short} {'is' if short == 1 else 'are'} missing. In the matrix:"
    )
    return "\n".join([told, *lines_for(dimension, wanted, base), _trials_line(confidence)])


def _trials_line(confidence: float) -> str:
    return f"trials: {trials_per_level(LEVELS_AT_LEAST, confidence)}"


def _spread(dimension: Dimension, count: int) -> list[float]:
    """Values that are not measured yet: what is asked for, then the middle of the widest gap."""
    known = list(dimension.level_values)
    found = []
    for _ in range(count):
        if all(not value / APART < dimension.asked < value * APART for value in known):
            wanted = dimension.asked
        else:
            wanted = _between(sorted(known))
        known.append(wanted)
        found.append(wanted)
    return sorted(found)


def _between(known: Sequence[float]) -> float:
    """In the middle of the widest gap, by ratio; half as much where there is but one."""
    if len(known) == 1:
        return known[0] / 2
    gaps = [(high / low, low) for low, high in pairwise(known) if low > 0]
    ratio, low = max(gaps)
    return low * math.sqrt(ratio)


def lines_for(dimension: Dimension, values: Sequence[float], base: Observation) -> list[str]:
    """The lines of a matrix that measure these values of a dimension."""
    if dimension.name == "rate":
        return ["workloads:", *(_workload(value, base) for value in values)]
    if dimension.name == "live heap":
        sizes = " and ".join(dimension.show(value) for value in values)
        return [
            f"configurations:  # your service's own setting of what it keeps: about {sizes} alive",
            f"  {base.configuration}: {{…}}",
        ]
    return ["configurations:", *(_configuration(value, base) for value in values)]


def _workload(rate: float, base: Observation) -> str:
    rate = float(f"{rate:.2g}") if rate >= 10 else rate
    scenario, measure = base.facts["scenario"], base.facts["measure"].replace(" ", "")
    kind = base.facts["arrivals"]
    arrivals = f"arrivals: {{{kind}: {rate:g}/s}}"
    if kind == "closed loop":
        arrivals = f"users: …  # as many as make {rate:g}/s"
    return f"  at{rate:g}: {{scenario: {scenario}, {arrivals}, measure: {measure}}}"


def _configuration(gogc: float, base: Observation) -> str:
    whole = max(1, round(gogc))
    return f"  gogc{whole}: {{…, env: {{GOGC: {whole}}}}}  # else as {base.configuration}"
