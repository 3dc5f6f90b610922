"""The matrix of a search → what is asked of it, and the matrices of its single trials."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from orchestrator.matrix import axes
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.matrix.model import ARRIVAL_KINDS
from orchestrator.plan import OVERHEAD_NS
from orchestrator.runseries import chosen
from results.capacity.course import written_rate
from results.capacity.holds import is_asked
from results.capacity.search import Bounds
from results.errors import UserError
from results.files import file_digest
from results.signoff.objectives import Objective

SPAN: Final = 32.0
"""Without bounds of the user's own, rates from the matrix's rate ÷ this to its × this."""

REQUESTS_FOR: Final = {"p99": 1_000, "p999": 10_000}
"""Requests without which a trial has no such percentile (`results/views/trial_metrics.sql`)."""

RUN_NS: Final = 7_000_000_000
"""What a run takes beyond its trial: a process, Ray and the collector, as measured."""

OVERLOAD: Final = 1.3
"""How many times the capacity an overload is."""

BESIDE: Final = frozenset({"trials", "comparison", "objectives", "policy", "waivers"})
"""Sections of a matrix that are not the search's; the limits that it asks for are told apart."""

PART_S: Final = 2
"""Seconds that each part of an overload's trial lasts at least."""

TRIALS: Final = 15
"""Of each configuration, when neither trials nor time are asked for."""

TRIALS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; rates in requests per second.

    `trials` are of each configuration and of every kind, `budget_ns` is for all of them together.
    """

    workload: str | None = None
    lowest_rps: float | None = None
    highest_rps: float | None = None
    trials: int | None = None
    budget_ns: int | None = None
    closeness: float = 0.10
    with_overload: bool = True

    @property
    def trials_max(self) -> int:
        """The most trials of each configuration."""
        return self.trials or (TRIALS_MAX if self.budget_ns else TRIALS)


class Question:
    """What a search is about: a workload, what must hold, and the rates that may be tried."""

    def __init__(self, matrix_path: Path, asked: Asked) -> None:
        """Raises UserError for what can't be meant."""
        self.asked = asked
        self.matrix_path = matrix_path.resolve()
        self.matrix = load_matrix(matrix_path)
        self.workload = _workload(self.matrix, asked.workload)
        self.objectives = _objectives(self.matrix, self.workload)
        self.bounds, self.first_rps = _bounds(self.matrix, self.workload, asked)
        self.key = self._key()

    @property
    def trial_ns(self) -> int:
        """What a trial takes, with the run that it is."""
        own = self.matrix.workloads[self.workload]
        return own.idle + own.warmup + own.measure + own.cooldown + OVERHEAD_NS + RUN_NS

    @property
    def overload_ns(self) -> int:
        """What the trial of an overload takes, with its run."""
        more_s = sum(self.overload_parts_s) - self.matrix.workloads[self.workload].measure / 1e9
        return self.trial_ns + round(more_s * 1e9)

    @property
    def overload_parts_s(self) -> tuple[int, int, int]:
        """Seconds before, in and after an overload: half of measure, as much, and all of it."""
        measure_s = self.matrix.workloads[self.workload].measure / 1e9
        half_s = max(PART_S, math.ceil(measure_s / 2))
        return half_s, half_s, max(2 * PART_S, math.ceil(measure_s))

    def asked_of(self, configuration: str) -> Sequence[Objective]:
        """What a configuration must hold."""
        return [o for o in self.objectives if is_asked(o, configuration, self.workload)]

    def trial(self, configuration: str, rate_rps: float, number: int) -> dict[str, Any]:
        """The matrix of one trial: one configuration, one block, one rate."""
        return self._document(configuration, number, {self._kind: f"{rate_rps:g}/s"})

    def overload(
        self, configuration: str, base_rps: float, peak_rps: float, number: int
    ) -> dict[str, Any]:
        """The matrix of an overload's trial: a rate, a higher one, and the rate before."""
        rates = (base_rps, peak_rps, base_rps)
        steps = [
            {"rate": f"{rate_rps:g}/s", "for": f"{part_s}s"}
            for rate_rps, part_s in zip(rates, self.overload_parts_s, strict=True)
        ]
        spacing = "even" if self._kind == "constant" else "random"
        document = self._document(configuration, number, {"steps": steps, "spacing": spacing})
        document["workloads"][self.workload]["measure"] = f"{sum(self.overload_parts_s)}s"
        return document

    @property
    def _arrivals(self) -> dict[str, Any]:
        written = axes.expand(self.matrix.source)
        return dict(written["workloads"][self.workload].get("arrivals") or {})

    @property
    def _kind(self) -> str:
        return "constant" if "constant" in self._arrivals else "poisson"

    def _document(
        self, configuration: str, number: int, arrivals: dict[str, Any]
    ) -> dict[str, Any]:
        written = copy.deepcopy(axes.expand(self.matrix.source))
        for key in ("axes", "waivers", "policy"):
            written.pop(key, None)
        own = written["configurations"][configuration] or {}
        traffic = written["workloads"][self.workload]
        kept = {k: v for k, v in self._arrivals.items() if k not in (*ARRIVAL_KINDS, "spacing")}
        traffic["arrivals"] = kept | arrivals
        return written | {
            "configurations": {configuration: own | {"baseline": True}},
            "workloads": {self.workload: traffic},
            "objectives": [objective.text for objective in self.asked_of(configuration)],
            "trials": 1,
            "seed": self.matrix.seed + number,
        }

    def _key(self) -> str:
        """What all runs of this search have in common, and no other's."""
        document, bounds = axes.expand(self.matrix.source), self.bounds
        names = list(self.matrix.configurations)
        limits = [o for o in self.objectives if any(is_asked(o, n, self.workload) for n in names)]
        parts = [
            {key: value for key, value in document.items() if key not in BESIDE},
            [objective.to_plain() for objective in limits],
            [self.workload, bounds.lowest_rps, bounds.highest_rps, self.first_rps],
            file_digest(self.matrix.scenario(self.workload)),
            version("heapgate"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _workload(matrix: Matrix, asked: str | None) -> str:
    """The workload to search under. Raises UserError when it is not clear, or a closed loop."""
    name = chosen("workload", asked, list(matrix.workloads))
    if matrix.workloads[name].arrivals is None:
        raise matrix.error(
            ("workloads", name),
            "a closed loop slows down with the service: it has no capacity; write `arrivals:`",
        )
    return name


def _objectives(matrix: Matrix, workload: str) -> Sequence[Objective]:
    own = matrix.policy.objectives
    for name in matrix.configurations:
        if not any(is_asked(objective, name, workload) for objective in own):
            raise matrix.error(
                ("configurations", name),
                "it has no limit that could be reached; write for example "
                "`objectives: [p99 <= 40ms, errors <= 0.1%]`",
            )
    return own


def _bounds(matrix: Matrix, workload: str, asked: Asked) -> tuple[Bounds, float]:
    """What may be tried, and where to begin: at the matrix's own mean rate.

    As written rates: the lowest and the highest are tried as they are, and known again.
    """
    first_rps = written_rate(matrix.arrivals[workload].rate_rps)
    least_rps = max(first_rps / SPAN, _enough_rps(matrix, workload))
    lowest_rps = written_rate(asked.lowest_rps or least_rps, math.ceil)
    highest_rps = written_rate(asked.highest_rps or first_rps * SPAN, math.floor)
    if lowest_rps >= highest_rps:
        why = f"--lowest {lowest_rps:g}/s must be below --highest {highest_rps:g}/s"
        if asked.lowest_rps is None:
            why = (
                f"rates below {lowest_rps:g}/s give too few requests in `measure` for the "
                f"percentiles that are limited, and none above {highest_rps:g}/s is to be tried: "
                "make `measure` longer, or name a higher --highest"
            )
        raise UserError(why)
    bounds = Bounds(
        lowest_rps,
        highest_rps,
        trials_max=asked.trials_max,
        closeness=asked.closeness,
        confidence=matrix.document.comparison.confidence,
    )
    return bounds, min(highest_rps, max(lowest_rps, first_rps))


def _enough_rps(matrix: Matrix, workload: str) -> float:
    """The rate below which a trial has too few requests for the percentiles that are asked."""
    asked = {
        o.metric
        for o in matrix.policy.objectives
        if any(is_asked(o, name, workload) for name in matrix.configurations)
    }
    needed = max((REQUESTS_FOR.get(name.rpartition("_")[2], 0) for name in asked), default=0)
    return 1.2 * needed / (matrix.workloads[workload].measure / 1e9)
