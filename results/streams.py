"""The names of a trial's streams: a table, or a part of one, as in `requests-2`.

A part is what one node has. Several processes of a node each write a stream of their own, so that
none waits for another: `requests`, `requests.1`; `requests-2`, `requests-2.1`.

Apart from the schemas, which need Arrow: listing an archive does not.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TABLE_NAMES: Final = ("memory", "requests", "gc", "events", "runtime", "profile_files")
_STREAM: Final = re.compile(
    rf"({'|'.join(TABLE_NAMES)})(?:-([1-9][0-9]{{0,3}}))?(?:\.([1-9][0-9]{{0,3}}))?"
)


class Stream(NamedTuple):
    """What a stream's name says."""

    table: str
    part: int = 0
    """0 is the service's own node's, the others come from load nodes."""
    process: int = 0
    """Which of the node's processes writes it."""


def stream_of(table: str, part: int = 0, process: int = 0) -> str:
    """The name of a stream, and of its file without `.arrow`; the first of all is the table's."""
    of_part = f"-{part}" if part else ""
    of_process = f".{process}" if process else ""
    return f"{table}{of_part}{of_process}"


def table_of(stream: str) -> Stream:
    """What a stream's name says: `requests-2.1` is ("requests", 2, 1).

    Raises KeyError for a stream of no table.
    """
    match = _STREAM.fullmatch(stream)
    if match is None:
        raise KeyError(stream)
    return Stream(match[1], int(match[2] or 0), int(match[3] or 0))
