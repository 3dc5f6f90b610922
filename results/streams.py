"""The names of a trial's streams: a table, or a part of one, as in `requests-2`.

Apart from the schemas, which need Arrow: listing an archive does not.
"""

from __future__ import annotations

import re
from typing import Final

TABLE_NAMES: Final = ("memory", "requests", "gc", "events", "runtime")
_STREAM: Final = re.compile(rf"({'|'.join(TABLE_NAMES)})(?:-([1-9][0-9]{{0,3}}))?")


def stream_of(table: str, part: int) -> str:
    """The name of a part's stream, and of its file without `.arrow`; part 0 is the table itself."""
    return f"{table}-{part}" if part else table


def table_of(stream: str) -> tuple[str, int]:
    """The table that a stream belongs to, and its part: `requests-2` is ("requests", 2).

    Part 0 is the service's own node's, the others come from load nodes. Raises KeyError for a
    stream of no table.
    """
    match = _STREAM.fullmatch(stream)
    if match is None:
        raise KeyError(stream)
    return match[1], int(match[2] or 0)
