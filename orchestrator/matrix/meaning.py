"""What is well-formed in a matrix and yet can't be meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.bisect.revisions import required_repository
from orchestrator.matrix import values
from orchestrator.matrix.model import Build, Configuration, ObjectiveItem, WaiverItem
from orchestrator.matrix.policy import contradictions, policy_of
from orchestrator.matrix.source import Path_
from results.errors import UserError
from results.judging.leaks import SECONDS_MIN
from results.metrics import METRICS, format_time
from results.signoff.language import parse_objective
from results.signoff.objectives import Objective
from workloads.shipped import shipped_scenarios

if TYPE_CHECKING:
    from orchestrator.matrix.matrix import Matrix

Found = Iterator[tuple[Path_, str]]
_SYSTEMS = ("linux", "windows")
_NOT_BUILT = "only a service with `go:` is built"


def meaning_errors(matrix: Matrix) -> Found:
    """What is well-formed and yet can't be meant."""
    yield from _baseline_errors(matrix)
    yield from _service_errors(matrix)
    for name, configuration in matrix.configurations.items():
        yield from _configuration_errors(matrix, name, configuration)
    for name in matrix.workloads:
        yield from _scenario_errors(matrix, name)
    for name in matrix.document.nodes:
        yield from _node_group_errors(matrix, name)
    yield from _profile_errors(matrix)
    yield from _objective_errors(matrix)
    yield from _ambiguous_names(matrix)


def _node_group_errors(matrix: Matrix, name: str) -> Found:
    group, service = matrix.groups[name], matrix.document.service
    at: Path_ = ("nodes", name)
    if name in _SYSTEMS and group.os != name:
        yield (*at, "os"), f"a group called {name!r} whose system is {group.os} misleads: rename it"
    for label in ("os", "heapgate-node"):
        if label in group.labels:
            yield (*at, "labels", label), f"the label {label!r} is Heapgate's own; write `os:`"
    if service.binary is not None and len(matrix.systems) > 1:
        both = " and ".join(matrix.systems)
        yield at, f"one `binary:` can't run on {both}; make a matrix of each, or build with `go:`"
    told = [*service.arguments, *service.env.values()]
    if group.load and any("127.0.0.1" in text or "localhost" in text for text in told):
        yield (
            (*at, "load"),
            "load from other nodes can't reach a service that listens on 127.0.0.1; "
            "write {host} in its arguments",
        )


def _profile_errors(matrix: Matrix) -> Found:
    profiles = matrix.document.profiles
    for name, workload in matrix.workloads.items():
        if profiles and profiles.trace and profiles.trace > workload.measure:
            yield ("profiles", "trace"), f"the trace is longer than measure of workload {name!r}"


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
    held = matrix.document.objectives or matrix.document.policy
    if len(matrix.configurations) == 1 and names and not held:
        yield (
            ("configurations",),
            "one configuration alone can't be compared: add another, or what it must hold "
            "(`objectives:`)",
        )


def _service_errors(matrix: Matrix) -> Found:
    service = matrix.document.service
    if service.go:
        folder = matrix.path(service.go.source)
        at: Path_ = ("service", "go", "source")
        if not _is_folder(folder):
            yield at, f"there is no folder {service.go.source!r} (looked for {folder})"
        elif not _is_file(folder / "go.mod"):
            yield at, f"{folder} has no go.mod: it is not the folder of a Go module"
        else:
            yield from _package_errors(folder, service.go.package)
    if service.binary is not None and not _is_file(matrix.path(service.binary)):
        path = matrix.path(service.binary)
        yield ("service", "binary"), f"there is no program {service.binary!r} (looked for {path})"
    yield from _port_errors(matrix)
    yield from _environment_errors(matrix, service.env, ("service", "env"))
    yield from _argument_errors(matrix, service.arguments, ("service", "arguments"))


def _port_errors(matrix: Matrix) -> Found:
    """A service that is not told the port that is chosen for a trial can't be found there."""
    service = matrix.document.service
    if service.port is not None:
        return
    common = [*service.arguments, *(service.command or []), *service.env.values()]
    for name, configuration in matrix.configurations.items():
        told = [*common, *configuration.arguments, *configuration.env.values()]
        if not any("{port}" in text for text in told):
            yield (
                ("service",),
                f"{name!r} is not told where to listen: write {{port}} into arguments or env, or "
                "`port: 8080` if the service always listens there",
            )
            return


def _package_errors(folder: Path, package: str) -> Found:
    """A package below the module; any other import path is left to the compiler."""
    if package != "." and not package.startswith("./"):
        return
    program = folder / package
    if not _is_folder(program):
        yield ("service", "go", "package"), f"there is no package {package!r} in {folder}"
    elif not any(program.glob("*.go")):
        at: Path_ = ("service", "go", "source" if package == "." else "package")
        yield at, f"{program} has no .go file; is the program in another `package:`?"


def _configuration_errors(matrix: Matrix, name: str, configuration: Configuration) -> Found:
    at: Path_ = ("configurations", name)
    is_go = matrix.document.service.go is not None
    if is_go and configuration.go is None:
        yield at, f'{name!r} needs a Go version to be built with, such as `go: "1.23"`'
    if not is_go and configuration.go is not None:
        yield (*at, "go"), f"{_NOT_BUILT}; a finished program has its version"
    if not is_go and configuration.build != Build():
        yield (*at, "build"), _NOT_BUILT
    if configuration.git is not None:
        yield from _revision_errors(matrix, configuration.git, (*at, "git"))
    yield from _build_errors(matrix, configuration.build, (*at, "build"))
    yield from _environment_errors(matrix, configuration.env, (*at, "env"))
    yield from _argument_errors(matrix, configuration.arguments, (*at, "arguments"))
    yield from _share_errors(matrix, name, (*at, "env", "GOMEMLIMIT"))


def _revision_errors(matrix: Matrix, revision: str, at: Path_) -> Found:
    service = matrix.document.service
    if service.go is None:
        yield at, _NOT_BUILT
        return
    folder = matrix.path(service.go.source)
    if not _is_folder(folder):
        return  # told already
    try:
        required_repository(folder).resolve(revision)
    except UserError as error:
        yield at, str(error)


def _build_errors(matrix: Matrix, build: Build, at: Path_) -> Found:
    if build.race and not build.cgo:
        yield (*at, "race"), "`race: true` needs `cgo: true` too: the detector is C code"
    for key in ("ldflags", "gcflags"):
        if values.is_jvm_flag(getattr(build, key)):
            text = f"{getattr(build, key)!r} is for the Java virtual machine; a Go service has none"
            yield (*at, key), text
    if build.pgo not in (None, "auto", "off") and not _is_file(matrix.path(build.pgo)):
        yield (*at, "pgo"), f"there is no profile {build.pgo!r}; write auto, off or its path"


def _share_errors(matrix: Matrix, name: str, at: Path_) -> Found:
    limit = matrix.environment_of(name).get("GOMEMLIMIT", "")
    if limit.endswith("%") and matrix.limits_of(name).memory_max is None:
        if "GOMEMLIMIT" not in matrix.configurations[name].env:
            at = ("service", "env", "GOMEMLIMIT")
        yield at, f"GOMEMLIMIT {limit} is a share of limits.memory_max, which is not set"


def _environment_errors(matrix: Matrix, environment: dict[str, str], at: Path_) -> Found:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            yield (*at, name), f"{name!r} can't be the name of a variable"
        if name in ("HEAPGATE_RUN", "HEAPGATE_PAD"):
            yield (*at, name), f"{name} is set by Heapgate itself"
        # A command may be of any runtime; all else is a Go program.
        is_go = matrix.document.service.command is None
        if is_go and (name in values.JVM_VARIABLES or values.is_jvm_flag(value)):
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
    if _is_file(matrix.scenario(workload)):
        return
    shipped = shipped_scenarios()
    near = difflib.get_close_matches(text, shipped, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped are: {', '.join(shipped)}"
    if os.sep in text or text.endswith(".py"):
        hint = f"looked for {matrix.path(text)}"
    yield ("workloads", workload, "scenario"), f"there is no scenario {text!r}; {hint}"


def _objective_errors(matrix: Matrix) -> Found:
    """Objectives about nothing in this matrix, and those that can't all hold."""
    items = matrix.document.objectives
    for number, item in enumerate(items):
        at: Path_ = ("objectives", number)
        yield from _names(matrix, item, at)
        if parse_objective(item.require).kind == "change" and len(matrix.configurations) == 1:
            yield at, "there is no other configuration to compare the baseline with"
        if item in items[:number]:
            yield at, f"the objective {item.require!r} is there twice"
        objective = parse_objective(
            item.require,
            configurations=tuple(item.configurations),
            workloads=tuple(item.workloads),
        )
        for text in impossible(matrix, objective):
            yield at, text
    for number, text in contradictions_in(matrix, policy_of(items, ()).objectives):
        yield ("objectives", number), text
    known = {item.require for item in items}
    for number, waiver in enumerate(matrix.document.waivers):
        at = ("waivers", number)
        yield from _names(matrix, waiver, at)
        if waiver.objective not in known and matrix.document.policy is None:
            near = difflib.get_close_matches(waiver.objective, known, 1, 0.3)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield (*at, "objective"), f"there is no objective {waiver.objective!r}{hint}"


def impossible(matrix: Matrix, objective: Objective) -> Iterator[str]:
    """Why an objective can't be decided in this matrix, whatever is measured."""
    if objective.metric and METRICS[objective.metric].needs_limit:
        for name in _held(matrix, objective):
            if name in matrix.configurations and matrix.limits_of(name).memory_max is None:
                yield (
                    f"{objective.text!r} is about a share of limits.memory_max, which is not set "
                    f"for {name!r}"
                )
    if objective.kind == "no_leak":
        yield from _too_short_for_a_leak(matrix, objective)
    if objective.kind == "capacity":
        for name in objective.workloads or matrix.workloads:
            if name in matrix.workloads and matrix.workloads[name].arrivals is None:
                yield (
                    f"{name!r} is a closed loop, which slows down with the service: it has no "
                    "capacity; name workloads with `arrivals:` in `workloads:`"
                )


def _too_short_for_a_leak(matrix: Matrix, objective: Objective) -> Iterator[str]:
    asked_s = max(objective.bound, SECONDS_MIN)
    for name in objective.workloads or matrix.workloads:
        if name in matrix.workloads and matrix.workloads[name].measure < asked_s * 1e9:
            had, needed = (
                format_time(ns) for ns in (matrix.workloads[name].measure, asked_s * 1e9)
            )
            yield (
                f"{objective.text!r} needs {needed} of `measure` to be told, {name!r} has {had}; "
                "name workloads that are long enough in `workloads:`"
            )


def _held(matrix: Matrix, objective: Objective) -> list[str]:
    """The configurations that an objective is about, and what it compares them with."""
    candidates = [name for name, c in matrix.configurations.items() if not c.baseline]
    held = list(objective.configurations) or candidates or list(matrix.configurations)
    if objective.kind == "change":
        held += [name for name, c in matrix.configurations.items() if c.baseline]
    return list(dict.fromkeys(held))


def _names(matrix: Matrix, item: ObjectiveItem | WaiverItem, at: Path_) -> Found:
    asked = {
        "configurations": (item.configurations, list(matrix.configurations)),
        "workloads": (item.workloads, list(matrix.workloads)),
    }
    for key, (names, known) in asked.items():
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                yield (*at, key), f"there is no {key[:-1]} {name!r}; {hint}"


def contradictions_in(matrix: Matrix, objectives: Sequence[Objective]) -> Iterator[tuple[int, str]]:
    """Objectives that can't both hold in this matrix, by number."""
    return contradictions([replace(o, configurations=tuple(_held(matrix, o))) for o in objectives])


def _ambiguous_names(matrix: Matrix) -> Found:
    """A trial is named after its configuration and workload: no two may be named alike."""
    seen: dict[str, tuple[str, str]] = {}
    for workload in matrix.workloads:
        for name in matrix.configurations:
            first = seen.setdefault(f"{name}-{workload}", (name, workload))
            if first != (name, workload):
                yield (
                    ("workloads", workload),
                    f"{name!r} with {workload!r} is named like {first[0]!r} with {first[1]!r} in "
                    "trials: choose another name",
                )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
