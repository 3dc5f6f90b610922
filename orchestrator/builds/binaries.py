"""The programs of a run: a toolchain and a build for every configuration, and the launcher."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.bisect.revisions import required_repository, source_commit
from orchestrator.builds import toolchains
from orchestrator.builds.builds import BuildFlags, BuildRequest, Built, build_all, build_launcher
from orchestrator.builds.builds import describe_binary as describe
from orchestrator.builds.toolchains import Toolchain
from orchestrator.matrix.matrix import Matrix
from orchestrator.matrix.model import Build
from orchestrator.progress import Progress
from results.errors import UserError
from results.files import file_digest
from results.metrics import counted
from workers.spec import BinarySpec

Program = tuple[str, str]
"""A configuration and a system."""

_TOLD = ("sha256", "size_bytes", "go_version", "build_info", "build_flags", "commit")


@dataclass(frozen=True, slots=True)
class Binaries:
    """What each configuration runs on each system, and the program that starts it on Linux."""

    launcher: Path
    programs: dict[Program, BinarySpec]

    def of(self, configuration: str, system: str) -> BinarySpec:
        """The program of a configuration."""
        return self.programs[configuration, system]

    def parcels(self, system: str) -> dict[str, Path]:
        """What a node of a system must be sent: files by SHA-256."""
        found = {b.sha256: Path(b.argv0) for (_, s), b in self.programs.items() if s == system}
        if system == "linux":
            found[self.launcher_sha256] = self.launcher
        return {digest: path for digest, path in found.items() if path.is_absolute()}

    @property
    def launcher_sha256(self) -> str:
        """Digest of the launcher."""
        return file_digest(self.launcher)

    def to_plain(self) -> dict[str, dict[str, Any]]:
        """As JSON, for the run's document: by configuration (`default@linux` with two systems)."""
        several = len({system for _, system in self.programs}) > 1
        return {
            f"{name}@{system}" if several else name: {
                "configuration": name,
                "os": system,
                **{field: getattr(binary, field) for field in _TOLD},
            }
            for (name, system), binary in self.programs.items()
        }


def prepare_binaries(matrix: Matrix, progress: Progress) -> Binaries:
    """Fetch the toolchains and build all. Raises UserError with the compiler's own words."""
    service = matrix.document.service
    if service.go:
        chains = _toolchains(matrix, progress)
        binaries = _built(matrix, chains, progress)
        newest = max(chains.values(), key=lambda t: tuple(map(int, t.version.split("."))))
    else:
        newest = toolchains.any_available(progress.step)
        given = _given(matrix)
        binaries = {(name, os): given for name in matrix.configurations for os in matrix.systems}
    progress.step("building the launcher")
    return Binaries(build_launcher(newest), binaries)


def _toolchains(matrix: Matrix, progress: Progress) -> dict[str, Toolchain]:
    """The toolchain of every configuration; one that is not served is told with its place."""
    chains: dict[str, Toolchain] = {}
    found: dict[str, Toolchain] = {}
    for name, configuration in matrix.configurations.items():
        version = configuration.go or ""
        try:
            if version not in chains:
                chains[version] = toolchains.ensure(version, progress=progress.step)
                _tell(chains[version], progress)
        except UserError as error:
            raise matrix.error(("configurations", name, "go"), str(error)) from error
        found[name] = chains[version]
    return found


def _tell(toolchain: Toolchain, progress: Progress) -> None:
    progress.done(f"Go {toolchain.version} ({toolchain.origin}, {toolchain.digest[:12]})")
    if toolchain.note:
        progress.warn(toolchain.note)


def _built(
    matrix: Matrix, chains: dict[str, Toolchain], progress: Progress
) -> dict[Program, BinarySpec]:
    service = matrix.document.service
    assert service.go
    systems = " and ".join(matrix.systems)
    sources = sources_of(matrix)
    progress.step(f"building {matrix.service.name} for {len(chains)} configurations on {systems}")
    built = build_all(
        {
            (name, system): BuildRequest(
                toolchain=chains[name],
                source=sources[name].folder,
                package=service.go.package,
                flags=flags_of(matrix, configuration.build),
                goos=system,
            )
            for name, configuration in matrix.configurations.items()
            for system in matrix.systems
        }
    )
    fresh = len({b.sha256 for b in built.values() if not b.cached})
    made = f"{fresh} new" if fresh else "all from the cache"
    slowest_s = max(b.seconds for b in built.values())
    progress.done(
        f"built {matrix.service.name}: {len({b.sha256 for b in built.values()})} binaries for "
        f"{counted(len(chains), 'configuration')} on {systems}, {made}, {slowest_s:.1f} s"
    )
    return {
        (name, system): replace(_spec(binary, copy=True), commit=sources[name].commit)
        for (name, system), binary in built.items()
    }


@dataclass(frozen=True, slots=True)
class SourceTree:
    """What a configuration is built from: a folder, and its commit where it is in git."""

    folder: Path
    commit: str | None


def sources_of(matrix: Matrix) -> dict[str, SourceTree]:
    """The source of every configuration: as it lies there, or as it is in a revision.

    Raises MatrixError at the `git:` of a configuration whose revision can't be had.
    """
    go = matrix.document.service.go
    assert go
    folder = matrix.path(go.source)
    here = SourceTree(folder, source_commit(folder))
    found = {}
    for name, configuration in matrix.configurations.items():
        found[name] = here
        if configuration.git is not None:
            try:
                repository = required_repository(folder)
                commit = repository.resolve(configuration.git)
                found[name] = SourceTree(repository.source(commit), commit)
            except UserError as error:
                raise matrix.error(("configurations", name, "git"), str(error)) from error
    return found


def flags_of(matrix: Matrix, build: Build) -> BuildFlags:
    """The flags of a configuration, its profile's path made absolute."""
    pgo = build.pgo
    if pgo not in (None, "auto", "off"):
        pgo = str(matrix.path(pgo))
    return BuildFlags(
        ldflags=build.ldflags,
        trimpath=build.trimpath,
        tags=tuple(build.tags),
        gcflags=build.gcflags,
        cgo=build.cgo,
        race=build.race,
        pgo=pgo,
        experiment=tuple(build.experiment),
    )


def _given(matrix: Matrix) -> BinarySpec:
    """A program that is not built here: the user's own binary, or a command of this machine."""
    service = matrix.document.service
    if service.binary:
        return _spec(describe(matrix.path(service.binary)), copy=True)
    assert service.command
    found = shutil.which(service.command[0], path=_search_path(matrix))
    if found is None and matrix.document.nodes:
        # It is looked for on each node; this machine need not have it.
        return BinarySpec(argv0=service.command[0], copy=False, sha256="", size_bytes=0)
    if found is None:
        text = f"there is no command {service.command[0]!r} on this machine's PATH"
        raise matrix.error(("service", "command"), text)
    return _spec(describe(Path(found)), copy=False)


def _search_path(matrix: Matrix) -> str | None:
    return matrix.document.service.env.get("PATH")


def _spec(built: Built, *, copy: bool) -> BinarySpec:
    return BinarySpec(
        argv0=str(built.path),
        copy=copy,
        sha256=built.sha256,
        size_bytes=built.size_bytes,
        go_version=built.go_version,
        build_info=built.build_info,
        toolchain_sha256=built.toolchain_sha256,
        build_flags=built.flags,
    )
