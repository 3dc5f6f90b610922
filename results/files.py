"""Small files written whole, renaming and removing, and the digests of a folder's files.

On Windows a file that anybody has open (a virus scanner, a process that is just ending) can't be
replaced or removed. So both are tried again for a while; on Linux the first try decides.

Each trial's folder and each run's folder has a `SHA256SUMS` in the form of coreutils, so that
`sha256sum -c SHA256SUMS` checks it without Heapgate. It is written last, when a trial is sealed and
whenever a run's document changes; the logs of a run are not in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
RUN_FILES = ("matrix.yaml", "run.json")
PATIENCE_S = 2.0 if sys.platform == "win32" else 0.0
_PAUSE_S = 0.01
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)")


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, even after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of these files of a folder. Raises OSError."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in sorted(names)]
    write_whole(folder / SUMS, "".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """File name → digest, as written. Raises OSError, or ValueError for another form."""
    found = {}
    text = (folder / SUMS).read_bytes().decode("ascii")
    if not text.endswith("\n"):
        raise ValueError("it does not end with a line's end")
    for line in text[:-1].split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line[:80]!r} is no digest with a name")
        found[match[2]] = match[1]
    return found


def sync_file(path: Path) -> None:
    """Return when a file's bytes are on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk; Windows does that by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a file, over an older one of that name if there is one. Raises OSError."""

    def rename() -> bool:
        temporary.replace(target)
        return True

    _patiently(rename)


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that is in it; False when something of it stays."""

    def remove() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    return _patiently(remove)


def _patiently(step: Callable[[], bool]) -> bool:
    """Try until it succeeds or the patience is over, when its last outcome is the answer."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        over = time.monotonic() >= deadline_s
        try:
            if (done := step()) or over:
                return done
        except PermissionError:
            if over:
                raise
        time.sleep(_PAUSE_S)
