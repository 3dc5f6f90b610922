"""What was measured, kept and answered: archive, SQL views, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from results.sql.database import Database

__all__ = ["open"]


def open(
    archives: str | Path | Sequence[str | Path] | None = None,
    runs: Sequence[str] = (),
    *,
    timeout_s: float = 300.0,
    memory: str = "50%",
) -> Database:
    """Open archives for queries: folders, or patterns of folders; else the usual one.

    `runs` are ids, beginnings of ids, or `latest`; else all. A query is stopped after `timeout_s`
    seconds; beyond `memory` (`2GiB`, or a share of the machine's) it spills to a temporary folder.
    Every file of the runs is read once, to see that it is what was sealed. Raises UserError where
    there is no archive, or not the run that was named.
    """
    from results.archive.archive import default_archive
    from results.sql.database import Limits, open_archives

    if archives is None:
        archives = default_archive()
    named = [archives] if isinstance(archives, (str, Path)) else list(archives)
    return open_archives(named, runs, limits=Limits(timeout_s=timeout_s, memory=memory))
