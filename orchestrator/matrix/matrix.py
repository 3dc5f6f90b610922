"""matrix.yaml → `Matrix`; every error with file, line, column and what would be right."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.matrix import axes
from orchestrator.matrix.arrivals import planned_arrivals
from orchestrator.matrix.meaning import contradictions_in, impossible, meaning_errors
from orchestrator.matrix.model import (
    Comparison,
    Configuration,
    Limits,
    MatrixDocument,
    NodeGroup,
    Service,
    Workload,
    WrittenDefaults,
)
from orchestrator.matrix.policy import Policy, load_policy, policy_of
from orchestrator.matrix.sentences import FoundAt, joined, validation_errors
from orchestrator.matrix.source import MatrixError, Path_, Source, read_source
from workers.spec import ArrivalsSpec
from workloads.shipped import scenario_path

__all__ = ["Matrix", "MatrixError", "load_matrix", "matrix_json_schema"]

THIS_MACHINE = ""
"""The group of nodes of a matrix without `nodes:`."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was checked. Paths in it are absolute.

    `arrivals` are those of each workload in an open loop, worked out for its measure; `policy` is
    the matrix's own together with that of its policy file.
    """

    source: Source
    document: MatrixDocument
    folder: Path
    trials: int
    seed: int
    arrivals: dict[str, ArrivalsSpec] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)

    def with_overrides(self, *, trials: int | None, seed: int | None) -> Matrix:
        """The same matrix with another number of blocks or another seed."""
        return replace(
            self,
            trials=self.trials if trials is None else trials,
            seed=self.seed if seed is None else seed,
        )

    @property
    def service(self) -> NamedService:
        """The service, which always has a name."""
        service = self.document.service
        program = service.binary or (service.command or [""])[0]
        source = service.go.source if service.go else program
        name = service.name or Path(self.folder / source).resolve().name.lower()
        return NamedService(name, service)

    @property
    def configurations(self) -> dict[str, Configuration]:
        """Configurations by name, in the file's order."""
        return self.document.configurations

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return next(name for name, c in self.configurations.items() if c.baseline)

    @property
    def workloads(self) -> dict[str, Workload]:
        """Workloads by name."""
        return self.document.workloads

    def with_one_node(self, group: str, node_class: str) -> Matrix:
        """The same matrix for one more node of a group, of exactly this class."""
        written = self.document.nodes[group]
        node = written.model_copy(update={"count": 1, "node_class": node_class})
        return replace(self, document=self.document.model_copy(update={"nodes": {group: node}}))

    @property
    def groups(self) -> dict[str, NodeGroup]:
        """Groups of nodes by name, their system filled in; `THIS_MACHINE` when none is written."""
        written = self.document.nodes or {THIS_MACHINE: NodeGroup()}
        return {name: _with_system(name, group) for name, group in written.items()}

    @property
    def systems(self) -> list[str]:
        """The operating systems that are measured on, each once."""
        return sorted({group.os or "" for group in self.groups.values()})

    @property
    def this_machine_suffices(self) -> bool:
        """Whether all that is asked for is one Linux node, whichever."""
        return list(self.groups.values()) == [NodeGroup(os="linux")]

    @property
    def comparison(self) -> NamedComparison:
        """How configurations are compared."""
        return NamedComparison(self.document.comparison)

    def environment_of(self, configuration: str) -> dict[str, str]:
        """The variables that the user gave for a configuration, the service's own among them."""
        return self.document.service.env | self.configurations[configuration].env

    def limits_of(self, configuration: str) -> Limits:
        """The limits of a configuration: its own, else those of the matrix."""
        return self.configurations[configuration].limits or self.document.limits

    @property
    def largest_cpus(self) -> float | None:
        """The most processors that any configuration may use; None when one is not limited."""
        asked = [self.limits_of(name).cpus for name in self.configurations]
        limited = [cpus for cpus in asked if cpus is not None]
        return max(limited) if len(limited) == len(asked) else None

    def path(self, text: str) -> Path:
        """A path of the file, made absolute."""
        return (self.folder / os.path.expanduser(text)).resolve()  # noqa: PTH111

    def scenario(self, workload: str) -> Path:
        """The locustfile of a workload."""
        text = self.workloads[workload].scenario
        return scenario_path(text) or self.path(text)

    def error(self, path: Path_, text: str) -> MatrixError:
        """An error at a place in the file, for what is found out later."""
        return self.source.error(self.source.place(path), text)


@dataclass(frozen=True, slots=True)
class NamedService:
    """The service with its name."""

    name: str
    spec: Service


@dataclass(frozen=True, slots=True)
class NamedComparison:
    """The comparison's settings, ready for a run's document."""

    spec: Comparison

    def to_plain(self) -> dict[str, Any]:
        """As JSON."""
        return self.spec.model_dump()


def _with_system(name: str, group: NodeGroup) -> NodeGroup:
    named = name if name in ("linux", "windows") else "linux"
    return group.model_copy(update={"os": group.os or named})


def load_matrix(path: Path, *, relative_to: Path | None = None) -> Matrix:
    """Read and check a matrix. Raises MatrixError with all that is wrong with it.

    `relative_to` is the folder from which its paths count, when that is not its own.
    """
    source = read_source(path)
    folder = (relative_to or path.parent).resolve()
    try:
        document = MatrixDocument.model_validate(axes.expand(source))
    except axes.AxesError as error:
        raise source.error(source.place(error.path), str(error)) from error
    except ValidationError as error:
        found = validation_errors(error)
        raise joined(source, [*found, *_errors_beside(source, folder, found)]) from error
    matrix = Matrix(source, document, folder, document.trials, document.seed)
    arrivals, wrong = planned_arrivals(matrix)
    errors = [*meaning_errors(matrix), *wrong]
    if errors:
        raise joined(source, [(path, text, False) for path, text in errors])
    return replace(matrix, arrivals=arrivals, policy=_policy(matrix))


def _policy(matrix: Matrix) -> Policy:
    document = matrix.document
    own = policy_of(document.objectives, document.waivers)
    if document.policy is None:
        return own
    path = matrix.path(document.policy)
    if not path.is_file():
        raise matrix.error(("policy",), f"there is no policy file {path}")
    shared = load_policy(path)
    for objective in shared.objectives:
        for text in impossible(matrix, objective):
            raise matrix.error(("policy",), text)
    for _, text in contradictions_in(matrix, [*own.objectives, *shared.objectives]):
        raise matrix.error(("policy",), text)  # Its own ones were told before.
    return own + shared


def _errors_beside(source: Source, folder: Path, found: list[FoundAt]) -> list[FoundAt]:
    """What else is wrong, judged without the values that can't be understood.

    So that one reading tells all; nothing is told of what lies around a value that was left out.
    """
    wrong = {path for path, _, _ in found}
    try:
        document = MatrixDocument.model_validate(_without(axes.expand(source), wrong))
    except ValidationError:
        return []
    matrix = Matrix(source, document, folder, document.trials, document.seed)
    return [
        (path, text, False)
        for path, text in [*meaning_errors(matrix), *planned_arrivals(matrix)[1]]
        if not any(w[: len(path)] == path or path[: len(w)] == w for w in wrong)
    ]


def _without(data: Any, wrong: set[Path_], at: Path_ = ()) -> Any:
    """A copy of the data without the values at some paths."""
    if isinstance(data, dict):
        kept = {key: value for key, value in data.items() if (*at, key) not in wrong}
        return {key: _without(value, wrong, (*at, key)) for key, value in kept.items()}
    if isinstance(data, list):
        return [_without(v, wrong, (*at, n)) for n, v in enumerate(data) if (*at, n) not in wrong]
    return data


def matrix_json_schema() -> dict[str, Any]:
    """The JSON Schema of a matrix, its defaults as one would write them."""
    return MatrixDocument.model_json_schema(schema_generator=WrittenDefaults)
