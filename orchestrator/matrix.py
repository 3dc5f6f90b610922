"""matrix.yaml → `Matrix`; every error with file, line, column and what would be right."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator import axes, values
from orchestrator.model import (
    Comparison,
    Configuration,
    Limits,
    MatrixDocument,
    Service,
    Workload,
    known_keys,
)
from orchestrator.source import MatrixError, Path_, Source, read_source
from workloads.shipped import scenario_path, shipped_scenarios

__all__ = ["Matrix", "MatrixError", "load_matrix", "matrix_json_schema"]

ERRORS_MAX = 20
Found = Iterator[tuple[Path_, str]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was checked. Paths in it are absolute."""

    source: Source
    document: MatrixDocument
    folder: Path
    trials: int
    seed: int

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

    @property
    def comparison(self) -> NamedComparison:
        """How configurations are compared."""
        return NamedComparison(self.document.comparison)

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
        return (self.folder / Path(text).expanduser()).resolve()

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
        raise _joined(source, _validation_errors(error)) from error
    matrix = Matrix(source, document, folder, document.trials, document.seed)
    found = list(_meaning_errors(matrix))
    if found:
        raise _joined(source, [(path, text, False) for path, text in found])
    return matrix


def matrix_json_schema() -> dict[str, Any]:
    """The JSON Schema of a matrix."""
    return MatrixDocument.model_json_schema()


def _joined(source: Source, found: list[tuple[Path_, str, bool]]) -> MatrixError:
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


def _validation_errors(error: ValidationError) -> list[tuple[Path_, str, bool]]:
    found: list[tuple[Path_, str, bool]] = []
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
    kind, name = detail["type"], str(detail["loc"][-1]) if detail["loc"] else "the file"
    given = detail.get("input")
    if kind == "missing":
        return f"{name!r} is missing"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{given!r} can't be a name: use a-z, 0-9, dots, dashes and underscores"
    if kind == "literal_error" and "nodes" in detail["loc"]:
        return "a run on one machine has one Linux node: write `linux: 1` or leave it out"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"{name!r} must be a mapping of keys"
    return f"{name}: {detail['msg'].lower()}; {given!r} is there"


def _meaning_errors(matrix: Matrix) -> Found:
    """What is well-formed and yet can't be meant."""
    yield from _baseline_errors(matrix)
    yield from _service_errors(matrix)
    for name, configuration in matrix.configurations.items():
        yield from _configuration_errors(matrix, name, configuration)
    for name in matrix.workloads:
        yield from _scenario_errors(matrix, name)


def _baseline_errors(matrix: Matrix) -> Found:
    names = [name for name, c in matrix.configurations.items() if c.baseline]
    if not names:
        first = next(iter(matrix.configurations))
        yield (
            ("configurations",),
            f"no configuration is the baseline; write `baseline: true` in one, such as {first!r}",
        )
    for name in names[1:]:
        yield (
            ("configurations", name, "baseline"),
            f"{name!r} is a second baseline beside {names[0]!r}; exactly one is wanted",
        )
    if len(matrix.configurations) == 1 and names:
        yield ("configurations",), "one configuration alone can't be compared: add another"


def _service_errors(matrix: Matrix) -> Found:
    service = matrix.document.service
    if service.go:
        folder = matrix.path(service.go.source)
        at: Path_ = ("service", "go", "source")
        if not folder.is_dir():
            yield at, f"there is no folder {service.go.source!r} (looked for {folder})"
        elif not (folder / "go.mod").is_file():
            yield at, f"{folder} has no go.mod: it is not the folder of a Go module"
    if service.binary and not matrix.path(service.binary).is_file():
        yield ("service", "binary"), f"there is no program {service.binary!r}"
    yield from _environment_errors(matrix, service.env, ("service", "env"))
    yield from _argument_errors(matrix, service.arguments, ("service", "arguments"))


def _configuration_errors(matrix: Matrix, name: str, configuration: Configuration) -> Found:
    at: Path_ = ("configurations", name)
    is_go = matrix.document.service.go is not None
    if is_go and configuration.go is None:
        yield at, f'{name!r} needs a Go version to be built with, such as `go: "1.23"`'
    if not is_go and configuration.go is not None:
        yield (*at, "go"), "only a service with `go:` is built; a finished program has its version"
    if not is_go and configuration.build != type(configuration.build)():
        yield (*at, "build"), "only a service with `go:` is built"
    if configuration.build.race and not configuration.build.cgo:
        yield (*at, "build", "race"), "`race: true` needs `cgo: true` too: the detector is C code"
    yield from _environment_errors(matrix, configuration.env, (*at, "env"))
    yield from _argument_errors(matrix, configuration.arguments, (*at, "arguments"))
    yield from _share_errors(matrix, name, (*at, "env", "GOMEMLIMIT"))


def _share_errors(matrix: Matrix, name: str, at: Path_) -> Found:
    limit = matrix.configurations[name].env.get("GOMEMLIMIT", "")
    if limit.endswith("%") and matrix.limits_of(name).memory_max is None:
        yield at, f"GOMEMLIMIT {limit} is a share of limits.memory_max, which is not set"


def _environment_errors(matrix: Matrix, environment: dict[str, str], at: Path_) -> Found:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            yield (*at, name), f"{name!r} can't be the name of a variable"
        if name in ("HEAPGATE_RUN", "HEAPGATE_PAD"):
            yield (*at, name), f"{name} is set by Heapgate itself"
        if matrix.document.service.command is not None:
            continue  # any other runtime may know these
        if name in values.JVM_VARIABLES or values.is_jvm_flag(value):
            yield (*at, name), f"{name} is for the Java virtual machine; a Go service has none"
        check = values.GO_VARIABLES.get(name)
        try:
            if check:
                check(value)
        except ValueError as error:
            yield (*at, name), str(error)


def _argument_errors(matrix: Matrix, arguments: list[str], at: Path_) -> Found:
    if matrix.document.service.command is not None:
        return
    for number, argument in enumerate(arguments):
        if values.is_jvm_flag(argument):
            text = f"{argument} is a flag of the Java virtual machine; a Go service has none"
            yield (*at, number), text


def _scenario_errors(matrix: Matrix, workload: str) -> Found:
    text = matrix.workloads[workload].scenario
    if matrix.scenario(workload).is_file():
        return
    shipped = shipped_scenarios()
    near = difflib.get_close_matches(text, shipped, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped are: {', '.join(shipped)}"
    if os.sep in text or text.endswith(".py"):
        hint = f"looked for {matrix.path(text)}"
    yield ("workloads", workload, "scenario"), f"there is no scenario {text!r}; {hint}"
