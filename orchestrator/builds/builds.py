"""Source and flags → a content-addressed binary with its provenance.

A build is found by what goes into it: the files that Go itself lists for it, the toolchain's
digest, the flags, the target and the environment that matters. `go build` runs in an environment
made from scratch, so that neither `GOFLAGS`, `GOMEMLIMIT` nor `go env -w` of the user's shell can
change what is built. `-buildvcs=false`, because a stamped commit would make two binaries of the
same source differ.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator import cache
from orchestrator.builds import buildinfo, gocommand, toolchains
from orchestrator.builds.gocommand import BuildFlags, Target
from orchestrator.builds.toolchains import Toolchain
from results.errors import EnvironmentLacks, UserError
from results.files import file_digest

__all__ = [
    "BuildFlags",
    "BuildRequest",
    "Built",
    "build_all",
    "build_go",
    "build_launcher",
    "describe_binary",
]

Name = TypeVar("Name")
_RECORD = "built.json"
_PARALLEL_BUILDS = 2  # each go build uses all cores by itself; two overlap linking and compiling


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A binary and what is known of how it came to be.

    `build_info` is the text of `go version -m`; `go_version` is such as `go1.22.10` and None for
    what is not a Go program. `seconds` is what getting it took this time, `cached` or not.
    """

    path: Path
    sha256: str
    size_bytes: int
    go_version: str | None
    build_info: str | None
    toolchain_sha256: str | None
    flags: tuple[str, ...]
    cached: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One binary to build: the arguments of `build_go` as data."""

    toolchain: Toolchain
    source: Path
    package: str = "."
    flags: BuildFlags = field(default_factory=BuildFlags)
    goos: str = "linux"
    goarch: str = toolchains.HOST_GOARCH


def build_go(
    toolchain: Toolchain,
    source: Path,
    *,
    package: str = ".",
    flags: BuildFlags | None = None,
    goos: str = "linux",
    goarch: str = toolchains.HOST_GOARCH,
) -> Built:
    """Build the Go program in `source` (a folder in a module), or find it in the cache.

    Raises UserError with the compiler's own words (file and line) when it does not compile, and
    EnvironmentLacks when this machine lacks something: a C compiler, the network, disk space.
    """
    return _build(
        BuildRequest(
            toolchain=toolchain,
            source=source,
            package=package,
            flags=flags or BuildFlags(),
            goos=goos,
            goarch=goarch,
        )
    )


def build_all(requests: Mapping[Name, BuildRequest]) -> dict[Name, Built]:
    """Build several at a time; the same binary asked for twice is built once.

    The first error is raised after the builds already running have ended; the rest don't start.
    """
    with ThreadPoolExecutor(_PARALLEL_BUILDS, thread_name_prefix="build") as pool:
        futures = {name: pool.submit(_build, request) for name, request in requests.items()}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def build_launcher(
    toolchain: Toolchain, *, goos: str = "linux", goarch: str = toolchains.HOST_GOARCH
) -> Path:
    """The small program that starts a service inside its limits: static and stripped."""
    import workers

    source = Path(next(iter(workers.__path__))) / "launcher"
    flags = BuildFlags(ldflags="-s -w", trimpath=True)
    return build_go(toolchain, source, flags=flags, goos=goos, goarch=goarch).path


def describe_binary(path: Path, toolchain: Toolchain | None = None) -> Built:
    """A binary that the user gives as it is.

    `toolchain` may be of any version; without one, any that is here is used (or one is fetched),
    and only when the file looks like a Go program. Raises UserError when it can't be run.
    """
    started = time.monotonic()
    found = path.expanduser().absolute()
    _check_runnable(found)
    info = None
    if buildinfo.looks_like_go(found):
        info = buildinfo.read(found, (toolchain or toolchains.any_available()).go)
    return Built(
        path=found,
        sha256=file_digest(found),
        size_bytes=found.stat().st_size,
        go_version=info.go_version if info else None,
        build_info=info.text if info else None,
        toolchain_sha256=None,
        flags=info.flags if info else (),
        cached=False,
        seconds=time.monotonic() - started,
    )


def _check_runnable(path: Path) -> None:
    if not path.exists():
        raise UserError(f"binary {path}: there is no such file")
    if not path.is_file():
        raise UserError(f"binary {path} is not a file")
    try:
        with path.open("rb") as file:
            windows = file.read(2) == b"MZ"  # Windows keeps no run bit
    except PermissionError as error:
        raise UserError(f"binary {path} is not readable for you") from error
    if not windows and not os.access(path, os.X_OK):
        mode = stat.filemode(path.stat().st_mode)
        raise UserError(f"binary {path} is not executable ({mode}): run `chmod +x {path}`")


def _build(request: BuildRequest) -> Built:
    started = time.monotonic()
    target = Target(request.goos, request.goarch)
    with cache.scratch() as scratch:
        go = gocommand.GoCommand(request.toolchain, request.flags, target, scratch)
        inputs = go.inputs(request.source, request.package)
        place = cache.root() / "builds" / inputs.key
        with cache.locked(f"build-{inputs.key[:32]}"):
            built = _whole(place)
            if built is None:
                made = scratch / "build"
                binary = made / inputs.binary_name
                go.build(inputs, binary)
                _record(made, binary, request, target)
                cache.put(made, place)
                built = dataclasses.replace(_read_back(place), cached=False)
    return dataclasses.replace(built, seconds=time.monotonic() - started)


def _record(made: Path, binary: Path, request: BuildRequest, target: Target) -> None:
    """Check the binary's own build info against what was asked, and write down what it is."""
    info = buildinfo.read(binary, request.toolchain.go)
    if info is None:
        raise buildinfo.WrongBuild(f"{binary.name} was built without Go's build info")
    wanted = gocommand.recorded_settings(request.flags, target)
    info.check(f"go{request.toolchain.version}", wanted, request.flags.experiment)
    facts = {
        "binary": binary.name,
        "sha256": file_digest(binary),
        "size_bytes": binary.stat().st_size,
        "go_version": info.go_version,
        "build_info": info.text,
        "toolchain_sha256": request.toolchain.digest,
        "flags": request.flags.described(),
    }
    with cache.explained("writing to"):
        (made / _RECORD).write_text(json.dumps(facts, indent=1) + "\n")


def _whole(place: Path) -> Built | None:
    """The cached build when its bytes are still those that were built."""
    try:
        built = _read_back(place)
        return built if file_digest(built.path) == built.sha256 else None
    except (OSError, ValueError, KeyError, TypeError, EnvironmentLacks):
        return None


def _read_back(place: Path) -> Built:
    try:
        facts = json.loads((place / _RECORD).read_text())
    except OSError as error:
        raise cache.lacks("reading", error) from error
    return Built(
        path=place / facts.pop("binary"),
        flags=tuple(facts.pop("flags")),
        cached=True,
        seconds=0.0,
        **facts,
    )
