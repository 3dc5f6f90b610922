"""Rows of data for a scenario: from CSV, Arrow or Parquet, none of them used twice by accident.

    from workloads.feeders import Feeder

    accounts = Feeder("accounts.csv")          # beside the locustfile
    …
    account = accounts.next()                  # {"user": "ann", "password": "007"}

Each process of the load, on whichever node, has a share of the rows of its own (a stripe), so no
row is used by two of them, and nothing needs to be coordinated while the load runs. In plain
Locust, and where there is one process, the share is the whole file.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import locust
from locust.exception import StopUser

from workloads.datafiles import MODES, Mode, Row, Stripe, drawn, in_order, own_rows, read_table


class FeederExhausted(StopUser):
    """All rows of this process's share were used: the user that asks for another one is ended."""


class Feeder:
    """A file's rows, one at a time, for all users of a process.

    - `once`: each row at most once in the whole load. After the last one the user that asks is
      ended, and the trial says so; no row is ever used again in silence.
    - `circular`: this process's share in its order, then again from its beginning.
    - `random`: any row of the whole file, drawn by the seed; the same row may be drawn again, by
      others too.

    `shuffle` puts the rows in an order drawn by the seed before they are shared out. All columns of
    a CSV file are text, as written (`007` stays `007`); Arrow and Parquet have types of their own.
    """

    def __init__(self, path: str | Path, *, mode: Mode = "once", shuffle: bool = False) -> None:
        """Read the file; a relative path begins at the folder of the caller's own file.

        Raises ValueError when it can't be read or has too few rows for every process to get one.
        """
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
        self._path = _folder_of_caller() / path
        self._seed = int(os.environ.get("HEAPGATE_SEED", "1"))
        self._stripe = Stripe.of_process()
        self._table = read_table(self._path)
        total = self._table.num_rows
        self._own = own_rows(total, self._stripe, self._seed if shuffle else None)
        if not self._own.size:
            raise ValueError(
                f"{self._path.name} has {total} rows for {self._stripe.count} processes of the "
                "load: it needs at least one for each"
            )
        self._rows = self._told(mode)
        self._said = False

    def _told(self, mode: Mode) -> Iterator[Row]:
        if mode == "random":
            yield from drawn(self._table, self._seed, self._stripe)
        yield from in_order(self._table, self._own)
        while mode == "circular":
            yield from in_order(self._table, self._own)

    def __len__(self) -> int:
        """Rows of this process's share."""
        return len(self._own)

    def next(self) -> Row:
        """The next row, by the names of its columns.

        Raises FeederExhausted, which ends the user that asked, when there is no other one.
        """
        for row in self._rows:
            return row
        error = FeederExhausted(
            f"{self._path.name}: all {len(self)} rows of this process were used; with more rows, "
            'or mode="circular", the load would go on to its end'
        )
        if not self._said:  # Locust itself ends a user without a word
            self._said = True
            locust.events.user_error.fire(
                user_instance=None, exception=error, tb=error.__traceback__
            )
        raise error


def _folder_of_caller() -> Path:
    """The folder of the file that makes the Feeder; the current one for what is no file."""
    frame = inspect.currentframe()
    for _ in range(2):  # ours, then that of Feeder itself
        frame = frame.f_back if frame else None
    return Path(frame.f_globals.get("__file__", "") if frame else "").parent
