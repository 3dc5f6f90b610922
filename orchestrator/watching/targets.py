"""Who is to be told how a command ended: addresses from the command line, a file, the environment.

An address is a secret as a whole: with Slack, WeCom or Telegram it is the key itself. So it is kept
in memory, never put into an error, a log or the archive, and no other process inherits it.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from results.errors import UserError

VARIABLE: Final = "HEAPGATE_NOTIFY"
FILE_BYTES_MAX: Final = 64 * 2**10
HIDDEN: Final = "****"


@dataclass(frozen=True, slots=True)
class Target:
    """One address; `name` is what may be told of it."""

    name: str
    url: str = field(repr=False)


def take_targets(urls: Sequence[str], file: Path | None) -> list[Target]:
    """All targets, checked. Raises UserError, without the address, for one that can't be used.

    What starts later finds nothing in the environment or in the arguments any more.
    """
    given = [(f"--notify {number}", url) for number, url in enumerate(urls, 1)]
    _hide_arguments()
    in_environment = os.environ.pop(VARIABLE, "").split()
    given += [(f"${VARIABLE} {number}", url) for number, url in enumerate(in_environment, 1)]
    if file is not None:
        given += _from_file(file)
    return [_target(place, url) for place, url in given]


def _hide_arguments() -> None:
    """Ray writes the command line of its driver into its logs."""
    for index, argument in enumerate(sys.argv):
        if argument.startswith("--notify="):
            sys.argv[index] = f"--notify={HIDDEN}"
        elif index and sys.argv[index - 1] == "--notify":
            sys.argv[index] = HIDDEN


def _from_file(path: Path) -> Iterator[tuple[str, str]]:
    """One address a line, `#` for comments. Refused when others may read it."""
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if (url := line.strip()) and not url.startswith("#"):
            yield f"{path}:{number}", url


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            return file.read(FILE_BYTES_MAX).decode("utf-8")
    except OSError as error:
        raise UserError(f"--notify-file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--notify-file {path}: it is no text") from error


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"--notify-file {path}: it is no ordinary file")
    if sys.platform == "win32":
        return  # who may read a file there is not told by its mode
    if status.st_uid not in (os.geteuid(), 0):
        raise UserError(f"--notify-file {path}: it belongs to somebody else")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            f"--notify-file {path}: others may read or write it, and it has secrets; "
            f"then: chmod 600 {path}"
        )


def _target(place: str, url: str) -> Target:
    from orchestrator.watching.courier import open_service

    service = open_service(url)
    if service is None:
        kind = _kind(url)
        raise UserError(
            f"{place}: {kind} can't be notified: its address is not one that Apprise "
            "understands (the address is not shown, it may be a secret); the forms are listed at "
            "https://github.com/caronc/apprise/wiki"
        )
    return Target(f"{place} ({service.service_name})", url)


def _kind(url: str) -> str:
    """The word before `://`, where it is one that Apprise knows: anything else may be a secret."""
    kind = url.partition("://")[0].lower()
    return f"a target of kind {kind}" if kind in _kinds() else "a target of an unknown kind"


@functools.cache
def _kinds() -> frozenset[str]:
    from apprise import Apprise

    return frozenset(
        word
        for schema in Apprise().details()["schemas"]
        for words in (schema["protocols"], schema["secure_protocols"])
        for word in words or ()
    )
