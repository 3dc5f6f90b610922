"""What `bench sql` prints: the answer to one query, or to many at a prompt."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import cache
from orchestrator.answers.bounds import bounded
from orchestrator.answers.common import tell
from orchestrator.answers.lastresort import bound_memory

if TYPE_CHECKING:
    from rich.console import Console

    from results.sql.database import Database, Limits


def print_query(
    archives: Sequence[str | Path],
    sql: str,
    parameters: Mapping[str, Any],
    console: Console,
    *,
    form: str,
    limits: Limits,
) -> None:
    """The answer to a user's query; what the archives lack is told beside it."""
    from results.sql.query import write_result, write_table

    with _opened(archives, limits) as database:
        tell(database.notes)
        with (
            bounded(database) as deadline,
            database.stream(sql, parameters, deadline=deadline) as answer,
        ):
            if form == "table":
                write_table(answer, console)
            else:
                write_result(answer, form, sys.stdout)


def ask_for_queries(archives: Sequence[str | Path], console: Console, limits: Limits) -> None:
    """A prompt for queries, until the user leaves it."""
    from orchestrator.answers.prompt import run_prompt
    from workers.leases import state_folder

    with _opened(archives, limits) as database:
        tell(database.notes)
        run_prompt(database, console, state_folder() / "sql_history")


def _opened(archives: Sequence[str | Path], limits: Limits) -> Database:
    from results.sql.database import open_archives

    database = open_archives(archives, checked=_checked, limits=limits)
    bound_memory(database.memory_bytes)
    return database


def _checked(archive_path: Path) -> Path:
    """Where it is kept which trials of an archive were found right lately."""
    name = hashlib.sha256(str(archive_path.absolute()).encode(errors="surrogateescape"))
    return cache.root() / "checked" / f"{name.hexdigest()[:16]}.json"
