"""The cache folder: toolchains and builds that can be fetched or made again at any time.

Everything in it is written to a temporary folder first and renamed into place under a lock, so
that a killed run leaves nothing half-made where another looks for something whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from filelock import FileLock
from platformdirs import user_cache_dir

from results.errors import EnvironmentLacks
from results.files import file_digest

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def root() -> Path:
    """The cache folder: `HEAPGATE_CACHE`, or the one that this system gives to a user."""
    chosen = os.environ.get("HEAPGATE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(user_cache_dir("heapgate"))


def folder(*parts: str) -> Path:
    """A folder inside the cache, made when it does not exist."""
    path = root().joinpath(*parts)
    with explained("making"):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time is inside for the same name; the others wait."""
    path = folder("locks") / f"{name}.lock"
    with explained("locking"):
        lock = FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder in the cache (so that a rename out of it is one step), then removed."""
    parent = folder("scratch")
    _remove_abandoned(parent)
    with explained("writing to"):
        path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield path
    finally:
        remove(path)


def put(made: Path, place: Path) -> None:
    """Move a finished folder into its place, instead of what may be there."""
    if place.exists():
        remove(place)
    with explained("writing to"):
        place.parent.mkdir(parents=True, exist_ok=True)
        made.rename(place)


def remove(path: Path) -> None:
    """Remove a folder of the cache: it is gone from its place at once, whatever happens then."""
    doomed = folder("scratch") / f"{os.getpid()}-{secrets.token_hex(6)}"
    with contextlib.suppress(FileNotFoundError), explained("cleaning"):
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear() -> int:
    """Remove all that can be fetched or made again; returns how many bytes that were."""
    kept = {"locks", "scratch"}
    doomed = [p for p in root().glob("*") if p.is_dir() and p.name not in kept]
    size_bytes = sum(_tree_bytes(path) for path in doomed)
    for path in doomed:
        remove(path)
    return size_bytes


def _tree_bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())


def tree_digest(base: Path, parts: Iterable[str]) -> str:
    """SHA-256 over the names and contents of all files below `base/part`, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(p for part in parts for p in (base / part).rglob("*") if p.is_file()):
        total.update(f"{file_digest(path)}  {path.relative_to(base).as_posix()}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn a full disk or a missing permission into what the user can do about it."""
    try:
        yield
    except OSError as error:
        raise lacks(doing, error) from error


def lacks(doing: str, error: OSError) -> EnvironmentLacks:
    """What to tell the user when the cache folder could not be used."""
    if error.errno in _FULL:
        way_out = "the disk is full: free some space (a Go toolchain needs about 500 MB)"
    elif error.errno in _NOT_WRITABLE:
        way_out = "it is not writable for you"
    else:
        way_out = error.strerror or str(error)
    return EnvironmentLacks(
        f"{doing} the cache folder {root()} failed: {way_out}; "
        "or set HEAPGATE_CACHE to a folder elsewhere"
    )


def _remove_abandoned(parent: Path) -> None:
    """Remove what killed runs left: temporary folders whose maker's process id is gone."""
    for left in parent.iterdir():
        maker = left.name.split("-")[0]
        if not (maker.isdigit() and psutil.pid_exists(int(maker))):
            remove(left)
