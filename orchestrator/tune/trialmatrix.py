"""What a tuning asks: which settings may be tried, and the matrix of each of its runs."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from orchestrator.builds.binaries import prepare_binaries
from orchestrator.matrix import axes, values
from orchestrator.matrix.arrivals import recordings
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.plan import estimate_ns
from orchestrator.progress import Progress
from orchestrator.runseries import chosen, write_matrix
from results.errors import UserError
from results.files import file_digest
from results.gomodel import GOGC_DEFAULT, OFF
from results.metrics import named_on
from results.signoff.language import parse_objective
from results.signoff.objectives import Objective
from results.statistics.paired import blocks_at_least
from results.tuning.budget import Budget
from results.tuning.search import Asked
from results.tuning.settings import GOGCS, Others, Setting

RUN_S: Final = 9.0
"""What a run takes beside its trials: Ray, the collector, the scenario's check."""

SHARE: Final = 4
"""A short trial measures so many times less long than one of full length."""

SHORTEST_NS: Final = 2_000_000_000
REQUESTS: Final = 1_200
"""Without 1,000 requests a trial has no p99; arrivals are chance."""

TUNED: Final = ("env.GOGC", "env.GOMEMLIMIT")
UNASKED: Final = {
    "no_leak": "a tuning is too short for it",
    "capacity": "that is a search of its own: bench capacity",
}
"""Kinds of objectives that no trial of a tuning can tell, and why."""

BELOW_LIMIT: Final = 0.95
"""GOMEMLIMIT stays below this share of a hard limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line says."""

    workload: str | None = None
    configuration: str | None = None
    require: Sequence[str] = ()
    trials: int = 24
    finalists: int = 4
    budget_ns: int = 30 * 60 * 10**9
    with_spiral: bool = True


class Question:
    """A tuning of one configuration under one workload."""

    def __init__(self, matrix_path: Path, wanted: Wanted) -> None:
        """Raises UserError for what can't be meant."""
        self.matrix_path = matrix_path.resolve()
        self.wanted = wanted
        self.matrix = load_matrix(matrix_path)
        matrix = self.matrix
        _check_can_be_tuned(matrix)
        self.workload = chosen("workload", wanted.workload, list(matrix.workloads))
        self.configuration = chosen(
            "configuration", wanted.configuration, _written_names(matrix), matrix.baseline
        )
        self.memory_metric = named_on(matrix.systems[0], ["peak_rss"])[0]
        self.hard_limit_bytes = matrix.limits_of(self.configuration).memory_max
        self.short_ns = _short_ns(matrix, self.workload)
        own = tuple(_own_objectives(self))
        self.unasked = tuple(o for o in own if o.kind in UNASKED)
        asked = (o for o in own if o.kind not in UNASKED)
        self.objectives = (*asked, *_required(wanted.require))
        self.asked = self._asked()

    @property
    def rate_rps(self) -> float:
        """What comes in an open loop; infinite in a closed one."""
        arrivals = self.matrix.arrivals.get(self.workload)
        return arrivals.rate_rps if arrivals else math.inf

    def _asked(self) -> Asked:
        matrix = self.matrix
        written = matrix.source.data.get("axes") or {}
        combined = axes.combinations(written) if written else []
        gogcs = tuple(sorted({_gogc(str(c["env.GOGC"])) for c in combined if "env.GOGC" in c}))
        limits = {str(c["env.GOMEMLIMIT"]) for c in combined if "env.GOMEMLIMIT" in c}
        others = _others(combined)
        limit = self.hard_limit_bytes
        return Asked(
            written=self._written(others),
            gogcs=gogcs or GOGCS,
            limits=tuple(sorted(_memlimit(text, limit) for text in limits)),
            others=others,
            most_bytes=OFF if limit is None else limit * BELOW_LIMIT,
            memory_metric=self.memory_metric,
            objectives=self.objectives,
            seed=matrix.seed,
        )

    def _written(self, others: tuple[Others, ...]) -> Setting:
        """The configuration as it is written; of other axes the values that it has, or the first
        ones.
        """
        environment = self.matrix.environment_of(self.configuration)
        own = self._own()
        fitting = [o for o in others if axes.with_settings(own, dict(o)) == own]
        gogc = _gogc(environment["GOGC"]) if "GOGC" in environment else GOGC_DEFAULT
        limit = _memlimit(environment.get("GOMEMLIMIT", "off"), self.hard_limit_bytes)
        return Setting(gogc, limit, (fitting or list(others))[0])

    def _own(self) -> dict[str, Any]:
        own = self.matrix.source.data["configurations"][self.configuration] or {}
        return {key: value for key, value in copy.deepcopy(own).items() if key != "baseline"}

    # The matrices

    def short(self, settings: Sequence[Setting], number: int) -> dict[str, Any]:
        """One block of short trials."""
        document = self.longer(settings, number)
        (traffic,) = document["workloads"].values()
        document["workloads"] = {self.workload: traffic | self._shortened()}
        return document

    def _shortened(self) -> dict[str, str]:
        workload = self.matrix.workloads[self.workload]
        share = self.short_ns / workload.measure
        warmup_ns = min(workload.warmup, max(10**9, round(workload.warmup * share)))
        lengths = {
            "idle": min(workload.idle, 10**9),
            "warmup": warmup_ns,
            "measure": self.short_ns,
            "cooldown": min(workload.cooldown, 10**9),
        }
        return {name: values.duration_text(ns) for name, ns in lengths.items()}

    def lengthen(self) -> None:
        """From now on short trials measure as long as the matrix says."""
        self.short_ns = self.matrix.workloads[self.workload].measure

    def longer(self, settings: Sequence[Setting], number: int) -> dict[str, Any]:
        """One block of trials as long as the matrix says."""
        named = {setting.name: self._configuration(setting) for setting in settings}
        next(iter(named.values()))["baseline"] = True
        # One configuration alone must be asked something.
        asked = ["errors <= 100%"] if len(named) == 1 else []
        return self._document(named, asked, 1, number)

    def confirming(self, settings: Sequence[Setting], number: int) -> dict[str, Any]:
        """Full blocks of the configuration as it is written, and of settings."""
        named = {setting.name: self._configuration(setting) for setting in settings}
        whole = {self.configuration: self._own() | {"baseline": True}, **named}
        asked = [
            {"require": objective.text, "severity": objective.severity}
            | {"configurations": list(whole if objective.kind == "limit" else named)}
            for objective in self.objectives
        ]
        return self._document(whole, asked, self.blocks, number)

    def _configuration(self, setting: Setting) -> dict[str, Any]:
        made = axes.with_settings(self._own(), dict(setting.others))
        return made | {"env": (made.get("env") or {}) | setting.environment}

    def _document(
        self, named: dict[str, Any], objectives: list[Any], blocks: int, number: int
    ) -> dict[str, Any]:
        data = copy.deepcopy(self.matrix.source.data)
        kept = ("service", "limits", "nodes", "sampling")
        comparison = self.matrix.document.comparison
        return {key: data[key] for key in kept if key in data} | {
            "configurations": named,
            "workloads": {self.workload: data["workloads"][self.workload]},
            "objectives": objectives,
            "comparison": {
                "primary": [self.memory_metric],
                "confidence": str(comparison.confidence),
            },
            "trials": blocks,
            "seed": self.matrix.seed + number,
        }

    @property
    def blocks(self) -> int:
        """Blocks of the confirmation: the matrix's own, enough for an interval."""
        least = blocks_at_least(self.matrix.document.comparison.confidence, 1)
        return max(least, self.matrix.trials)

    def load(self, document: dict[str, Any], folder: Path) -> Matrix:
        """A document as a matrix, by a file in a folder."""
        path = write_matrix(document, folder)
        return load_matrix(path, relative_to=self.matrix_path.parent)

    # What all runs have in common

    def key(self, folder: Path, progress: Progress) -> str:
        """A digest of all that decides what a trial of a setting shows. Builds the service."""
        written = self.asked.written
        settings = [Setting(written.gogc, written.memlimit_bytes, o) for o in self.asked.others]
        document = self.short(settings, 0)
        matrix = self.load(document, folder)
        builds = prepare_binaries(matrix, progress).to_plain()
        traffic = [matrix.scenario(self.workload), *recordings(matrix)]
        parts = [
            self._document({}, [], 0, 0),
            [self.configuration, self._own()],
            {name: build["sha256"] for name, build in builds.items()},
            [file_digest(path) for path in traffic],
            version("heapgate"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def budget(self, folder: Path) -> Budget:
        """What may be measured. Raises UserError when nothing could be confirmed in the time."""
        short_s, long_s = (
            estimate_ns(self.load(document, folder)) / 1e9
            for document in (self.short([self.asked.written], 0), self.longer([Setting()], 0))
        )
        wanted = self.wanted
        return Budget(
            wanted.budget_ns / 1e9, RUN_S, short_s, long_s, self.blocks, wanted.trials,
            wanted.finalists, wanted.with_spiral,
        )  # fmt: skip


def _check_can_be_tuned(matrix: Matrix) -> None:
    if matrix.document.service.command is not None:
        raise matrix.error(("service",), "GOGC and GOMEMLIMIT are settings of a Go service")
    if not matrix.document.gc_trace:
        raise matrix.error(("gc_trace",), "without the GC trace there is nothing to tune by")
    if len(matrix.groups) > 1:
        raise UserError("a tuning measures on one group of nodes; leave the others out")


def _written_names(matrix: Matrix) -> list[str]:
    """Configurations that somebody wrote; those of the axes are what is searched."""
    return list(matrix.source.data["configurations"])


def _short_ns(matrix: Matrix, workload: str) -> int:
    """How long a short trial measures: a part of measure, with enough requests for a p99.

    Raises UserError when measure itself is too short for that.
    """
    measure_ns = matrix.workloads[workload].measure
    arrivals = matrix.arrivals.get(workload)
    if arrivals is None:
        return measure_ns  # in a closed loop nobody knows how many requests will come
    enough_ns = math.ceil(REQUESTS / arrivals.rate_rps * 10) * 10**8
    if arrivals.rate_rps * measure_ns / 1e9 < REQUESTS / 1.1:
        raise matrix.error(
            ("workloads", workload, "measure"),
            f"too few requests for a p99: measure for at least {values.duration_text(enough_ns)}",
        )
    if arrivals.rates:
        return measure_ns  # a part of a changing rate is another workload
    return min(measure_ns, max(measure_ns // SHARE, enough_ns, SHORTEST_NS))


def _own_objectives(question: Question) -> Iterator[Objective]:
    """Those of the matrix that are about the workload and the configuration."""
    for objective in question.matrix.policy.objectives:
        about = not objective.configurations or question.configuration in objective.configurations
        here = not objective.workloads or question.workload in objective.workloads
        if about and here:
            yield objective


def _required(texts: Sequence[str]) -> Iterator[Objective]:
    for text in texts:
        try:
            objective = parse_objective(text)
        except ValueError as error:
            raise UserError(f"--require: {error}") from error
        if objective.kind in UNASKED:
            raise UserError(f"--require: {objective.text}: {UNASKED[objective.kind]}")
        yield objective


def unasked_text(objective: Objective) -> str:
    """As in `not asked: no_leak: a tuning is too short for it`."""
    return f"not asked: {objective.text}: {UNASKED[objective.kind]}"


def _others(combined: list[dict[str, Any]]) -> tuple[Others, ...]:
    """Combinations of what is neither GOGC nor GOMEMLIMIT, each once."""
    found: list[Others] = []
    for combination in combined:
        own = tuple((k, v) for k, v in combination.items() if k not in TUNED)
        if own not in found:
            found.append(own)
    return tuple(found) or ((),)


def _gogc(text: str) -> float:
    return OFF if values.gogc(text) == "off" else float(text)


def _memlimit(text: str, hard_limit_bytes: int | None) -> float:
    if text.endswith("%"):
        return (hard_limit_bytes or 0) * values.share(text) or OFF
    size_bytes = values.gomemlimit_bytes(values.gomemlimit(text))
    return OFF if size_bytes is None else float(size_bytes)
