"""The one setting to run with, how far it is from what kills it, and how to write it down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.signoff.objectives import PASS
from results.tuning.outcomes import Confirmed
from results.tuning.settings import MIB, Setting
from results.tuning.spiral import Spiral

HEADROOM: Final = 0.10
"""What stays free below a hard limit: Go's guide asks for 5 to 10 %."""

RULE: Final = "the least memory that keeps every objective by its interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to run with.

    `limit_bytes` is the hard limit: the matrix's own when `limit_given`, else the least that leaves
    `HEADROOM` above the greatest peak of all trials and above GOMEMLIMIT. Margins are fractions: of
    the hard limit that the greatest peak leaves free, and of GOMEMLIMIT above the spiral.
    """

    confirmed: Confirmed
    limit_bytes: float
    limit_given: bool
    limit_margin: float
    spiral_margin: float | None


def recommend(
    confirmed: Sequence[Confirmed], spiral: Spiral | None, limit_bytes: float | None
) -> Recommendation | None:
    """By `RULE`, of what the spiral leaves; None when there is nothing, or no objective."""
    left = [c for c in confirmed if spiral is None or spiral.leaves(c.setting)]
    holding = [c for c in left if c.holds and c.point]
    if not holding:
        return None
    best = min(holding, key=lambda c: c.point or ())
    given = limit_bytes is not None
    size = limit_bytes if limit_bytes is not None else _least_limit(best)
    greatest = best.greatest_bytes or 0.0
    return Recommendation(
        confirmed=best,
        limit_bytes=size,
        limit_given=given,
        limit_margin=1 - greatest / size,
        spiral_margin=_spiral_margin(best.setting, spiral),
    )


def why_nothing(confirmed: Sequence[Confirmed]) -> str:
    """Why nothing is recommended although there are objectives."""
    if any(own.word == PASS for own in confirmed):
        return "what keeps every objective is in the death spiral, or has no margin to it"
    return "no setting that was confirmed keeps every objective by its interval"


def _least_limit(best: Confirmed) -> float:
    limit = best.setting.memlimit_bytes
    greatest = max(best.greatest_bytes or 0.0, limit if math.isfinite(limit) else 0.0)
    return math.ceil(greatest / (1 - HEADROOM) / MIB) * float(MIB)


def _spiral_margin(setting: Setting, spiral: Spiral | None) -> float | None:
    if spiral is None or spiral.others != setting.others:
        return None
    return spiral.margin(setting)


def variables(setting: Setting) -> dict[str, str]:
    """The variables to set: GOGC, GOMEMLIMIT unless it is off, and other axes' own."""
    own = setting.environment
    if own["GOMEMLIMIT"] == "off":
        del own["GOMEMLIMIT"]
    return own | {
        name.removeprefix("env."): str(value)
        for name, value in setting.others
        if name.startswith("env.")
    }


def elsewhere(setting: Setting) -> dict[str, Any]:
    """Other axes' values that are no variables: the Go release, flags of the build."""
    return {name: value for name, value in setting.others if not name.startswith("env.")}


def snippets(best: Recommendation, service: str) -> dict[str, str]:
    """Ready to paste: `environment`, `kubernetes` (into the container), `compose`."""
    import yaml

    own = variables(best.confirmed.setting)
    mib = math.ceil(best.limit_bytes / MIB)
    kubernetes = {
        "env": [{"name": name, "value": value} for name, value in own.items()],
        "resources": {"limits": {"memory": f"{mib}Mi"}},
    }
    limits = {"resources": {"limits": {"memory": f"{mib}M"}}}
    compose = {"services": {service: {"environment": own, "deploy": limits}}}
    return {
        "environment": "".join(f"{name}={value}\n" for name, value in own.items()),
        "kubernetes": yaml.safe_dump(kubernetes, sort_keys=False),
        "compose": yaml.safe_dump(compose, sort_keys=False),
    }
