"""What bounds a question to an archive, and what helps when it needs more: each command knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.answers.lastresort import ending_after
from results.errors import UserError
from results.sql.deadline import Deadline, NeedsMore

if TYPE_CHECKING:
    from results.sql.database import Database


@contextmanager
def bounded(database: Database) -> Iterator[Deadline]:
    """Until when a user's query must be answered; after that, this process is ended."""
    deadline = Deadline.after(database.limits.timeout_s)
    try:
        with ending_after(deadline, database.abandon):
            yield deadline
    except NeedsMore as error:
        raise UserError(
            f"{error}; ask for less, or give it more {error.what} with {error.option}"
        ) from error


@contextmanager
def of_runs(count: int) -> Iterator[None]:
    """What needs the less, the fewer runs are named; one run can't be less."""
    try:
        yield
    except NeedsMore as error:
        if count < 2:
            raise
        raise UserError(f"{error}; name fewer runs") from error
