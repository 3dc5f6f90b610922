"""matrix.yaml → `Matrix`; every error with file, line, column and what would be right."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator import axes, values
from orchestrator.arrivals import planned_arrivals
from orchestrator.meaning import meaning_errors
from orchestrator.model import (
    Comparison,
    Configuration,
    Limits,
    MatrixDocument,
    NodeGroup,
    Service,
    Workload,
    WrittenDefaults,
    known_keys,
)
from orchestrator.source import MatrixError, Path_, Source, read_source
from workers.spec import ArrivalsSpec
from workloads.shipped import scenario_path

__all__ = ["Matrix", "MatrixError", "load_matrix", "matrix_json_schema"]

ERRORS_MAX = 20
THIS_MACHINE = ""
"""The group of nodes of a matrix without `nodes:`."""

_RULES = {
    "missing": "is missing",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must not be empty",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
}
FoundAt = tuple[Path_, str, bool]
"""Where, what is wrong, and whether it is the key rather than its value."""

_NAME_RULE = (
    "use a-z, 0-9, dots, dashes and underscores, 42 of them at most, a letter or digit at both ends"
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was checked. Paths in it are absolute.

    `arrivals` are those of each workload in an open loop, worked out for its measure.
    """

    source: Source
    document: MatrixDocument
    folder: Path
    trials: int
    seed: int
    arrivals: dict[str, ArrivalsSpec] = field(default_factory=dict)

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
        found = _validation_errors(error)
        raise _joined(source, [*found, *_errors_beside(source, folder, found)]) from error
    matrix = Matrix(source, document, folder, document.trials, document.seed)
    arrivals, wrong = planned_arrivals(matrix)
    errors = [*meaning_errors(matrix), *wrong]
    if errors:
        raise _joined(source, [(path, text, False) for path, text in errors])
    return replace(matrix, arrivals=arrivals)


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


def _joined(source: Source, found: list[FoundAt]) -> MatrixError:
    """All errors in the order of the file."""
    placed = [
        (source.key_place(path) if at_key else source.place(path), text)
        for path, text, at_key in found
    ]
    lines = [
        source.line(place, text)
        for place, text in sorted(placed, key=lambda p: (p[0].line, p[0].column))
    ]
    lines = list(dict.fromkeys(lines))
    if len(lines) > ERRORS_MAX:
        lines = [*lines[:ERRORS_MAX], f"… and {len(lines) - ERRORS_MAX} more"]
    return MatrixError("\n".join(lines))


def _validation_errors(error: ValidationError) -> list[FoundAt]:
    found: list[FoundAt] = []
    for detail in error.errors(include_url=False):
        path: Path_ = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "extra_forbidden":
            found.append((path, _unknown_key(path), True))
        else:
            found.append((path, _sentence(detail), "[key]" in detail["loc"]))
    return found


def _unknown_key(path: Path_) -> str:
    key, known = str(path[-1]), known_keys(path[:-1])
    near = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _sentence(detail: ErrorDetails) -> str:
    """Pydantic's finding in our words."""
    kind, name = detail["type"], _name_of(detail["loc"])
    given = values.shortened(detail.get("input"))
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{given} can't be a name: {_NAME_RULE}"
    if kind == "literal_error":
        return f"{name} must be {detail['ctx']['expected']}; {given} is there"
    rule = _RULES.get(kind, detail["msg"].lower()).format(**detail.get("ctx", {}))
    return f"{name} {rule}" + (f"; {given} is there" if kind != "missing" else "")


def _name_of(location: tuple[int | str, ...]) -> str:
    """`'trials'`, or `item 3 of 'arguments'`."""
    if not location:
        return "the file"
    if isinstance(location[-1], int):
        return f"item {location[-1] + 1} of {_name_of(location[:-1])}"
    return repr(location[-1])
