"""Folders of the cgroup file system: making them, their members, their counters, their removal."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from pathlib import Path

from workers.limits.limiter import LimitsUnavailable

PARENT_NAME = "heapgate"
REMOVE_TIMEOUT_S = 5.0
_REMOVE_POLL_S = 0.005
_READ_BYTES = 16_384
_SAFE_NAME = re.compile(r"(?!\.)[\w.~+@-]+")


def group_folder(base: Path, run_id: str, trial_id: str) -> Path:
    """`base`/heapgate/<run>/<trial>. Raises ValueError for a name that could leave that folder."""
    for name in (run_id, trial_id):
        if not _SAFE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of a control group")
    return base / PARENT_NAME / run_id / trial_id


def make_folder(folder: Path) -> None:
    """Make a group afresh. Raises LimitsUnavailable when this user may not.

    What a killed run left in a group of this name is ended first. The sweep of another process
    may remove an empty parent in between: hence the rounds.
    """
    if not remove_tree(folder):
        raise LimitsUnavailable(f"control group {folder} is left from before and stays busy")
    for _ in range(5):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LimitsUnavailable(f"control group {folder} can't be made: {error}") from error
        return
    raise LimitsUnavailable(f"control group {folder} can't be made: its parent keeps vanishing")


def members(folder: Path) -> list[int]:
    """Process ids in a group; none when it is gone. The file is opened afresh each time: v1 may
    answer from a list that is up to a second old to a reader that keeps it open.
    """
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_bytes().split()]
    except OSError:
        return []


def remove_tree(folder: Path) -> bool:
    """Kill the members of a group and of those below it, and remove them all; True when gone."""
    deadline_s = time.monotonic() + REMOVE_TIMEOUT_S
    while not _remove_once(folder):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_REMOVE_POLL_S)
    return True


def _remove_once(folder: Path) -> bool:
    for path, _folders, _files in os.walk(folder, topdown=False):
        for pid in members(Path(path)):
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def remove_empty_parents(folder: Path) -> None:
    """Remove the run's group and the common parent when nothing else is in them."""
    for parent in (folder.parent, folder.parent.parent):
        try:
            parent.rmdir()
        except OSError:
            return


class CounterFile:
    """One small file of a group, kept open: reading it again is a single system call."""

    __slots__ = ("_fd",)

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Open the file; one that does not exist or may not be read is always None."""
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    @property
    def opened(self) -> bool:
        """Whether the file is there and open."""
        return self._fd >= 0

    def read(self) -> bytes | None:
        """The whole text, or None when the file or its group is gone."""
        if self._fd < 0:
            return None
        try:
            return os.pread(self._fd, _READ_BYTES, 0)
        except OSError:
            return None

    def write(self, text: bytes) -> bool:
        """Write; False when that is not possible."""
        if self._fd < 0:
            return False
        try:
            os.pwrite(self._fd, text, 0)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def number_in(text: bytes | None) -> int | None:
    """The text as one number; None when it is none (`max`, for example)."""
    try:
        return int(text) if text else None
    except ValueError:
        return None


def value_of(text: bytes | None, key: bytes) -> int | None:
    """The number after `key` in a flat-keyed file (`key value` lines); None when it is absent."""
    if text is None:
        return None
    wanted = key + b" "
    start = 0 if text.startswith(wanted) else text.find(b"\n" + wanted) + 1
    if start == 0 and not text.startswith(wanted):
        return None
    start += len(wanted)
    end = text.find(b"\n", start)
    try:
        return int(text[start:] if end < 0 else text[start:end])
    except ValueError:
        return None


def explain(error: OSError) -> str:
    """The system's words for an error, with what they mean for control groups."""
    if error.errno == errno.EBUSY:
        return (
            "processes live in the very group that would have to be divided; "
            "start bench in a group of its own, as systemd-run does"
        )
    return error.strerror or str(error)
