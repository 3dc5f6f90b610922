"""Which trials of an archive are still what was sealed: every byte of their files, by SHA-256.

An Arrow file is read as it lies there: a flipped bit in it may be another number, a missing word,
or memory that is not its own. So no file is read before its digest is right.

That costs under a second per gigabyte. A query over a whole archive may skip what was found right
within the last day and was not written to since, as its size and times tell; what a comparison, a
report or a sign-off rests on is always read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Final

from results.files import SUMS, file_digest, read_sums, write_whole

BELIEVED_S: Final = 24 * 3600
_SETTLED_S: Final = 2.0
"""What was written less than this ago may change again within one tick of the file's clock."""


def threads() -> int:
    """How many files are read side by side: hashing lets go of Python's lock."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def damaged_files(folder: Path, names: Iterable[str] = ()) -> dict[str, str]:
    """What is wrong in a sealed folder: file name → why, in words. Reads every byte.

    Files that are there and have no digest are wrong too: tables, and those of these `names`.
    """
    try:
        known = read_sums(folder)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return {SUMS: f"can't be read: {why}"}
    present = {path.name for path in folder.iterdir() if path.suffix == ".arrow"}
    found = {}
    for name in sorted({*known, *present, *names}):
        if why := _wrong(folder / name, known.get(name)):
            found[name] = why
    return found


def _wrong(path: Path, known: str | None) -> str:
    if known is None:
        return "has come since the folder was sealed"
    try:
        if not path.is_file():
            return "is gone"
        return "" if file_digest(path) == known else "has changed since it was sealed"
    except OSError as error:
        return f"can't be read: {error.strerror or error}"


def damaged_trials(
    folders: Sequence[Path], checked: Path | None = None
) -> dict[Path, dict[str, str]]:
    """Of sealed trials, those with damage: folder → file name → why, in words.

    `checked` is a file that says what was found right lately: that is believed as long as nobody
    writes to it, and what is found right now is added. Without one every byte is read.
    """
    if checked is None:
        return _damaged(folders)
    known = _Checked(checked)
    asked = [folder for folder in folders if not known.is_believed(folder)]
    before = {folder: known.state_of(folder) for folder in asked}
    found = _damaged(asked)
    known.remember({folder: state for folder, state in before.items() if folder not in found})
    return found


def _damaged(folders: Sequence[Path]) -> dict[Path, dict[str, str]]:
    with ThreadPoolExecutor(threads()) as pool:
        found = zip(folders, pool.map(damaged_files, folders), strict=True)
        return {folder: wrong for folder, wrong in found if wrong}


class _Checked:
    """The trials that were found right: what their files looked like then, and when it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now_s = time.time()
        self._known = dict(self._read())

    def _read(self) -> Iterator[tuple[str, tuple[str, float]]]:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            for name, (state, checked_s) in json.loads(self._path.read_bytes()).items():
                if 0 <= self._now_s - float(checked_s) < BELIEVED_S:
                    yield str(name), (str(state), float(checked_s))

    def is_believed(self, folder: Path) -> bool:
        """Whether it was found right lately and looks the same now."""
        known = self._known.get(str(folder))
        return known is not None and known[0] == self.state_of(folder)

    def state_of(self, folder: Path) -> str:
        """What changes whenever a file is written; empty for one that has just been."""
        lines = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=attrgetter("name")):
                # Asked of the file: what Windows keeps in the folder may be older.
                about = os.stat(entry.path)  # noqa: PTH116
                if self._now_s - max(about.st_mtime, about.st_ctime) < _SETTLED_S:
                    return ""
                numbers = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
                lines.append(f"{entry.name} {numbers}")
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()

    def remember(self, states: dict[Path, str]) -> None:
        """Note what was found right now; where that can't be written, it is asked again."""
        right = {str(folder): (state, self._now_s) for folder, state in states.items() if state}
        if right:
            with contextlib.suppress(OSError, UnicodeEncodeError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._path, json.dumps(self._known | right) + "\n")


def digest_of_run(run: Path) -> str:
    """One SHA-256 for all that is sealed of a run: over the digests of its `SHA256SUMS` files.

    It says which bytes the run claims to be; whether it still is them, `damaged_files` tells.
    Raises OSError.
    """
    lines = [f"{file_digest(path)}  {path.relative_to(run).as_posix()}\n" for path in _sums_of(run)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sums_of(run: Path) -> Iterable[Path]:
    return [run / SUMS, *sorted((run / "trials").glob(f"*/{SUMS}"))]
