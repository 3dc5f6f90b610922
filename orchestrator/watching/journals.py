"""What only the rows of a run tell, read from what its collector writes.

Read when a scraper asks, at most once a second, and only what has come since.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from results.archive.archive import PARTIAL
from results.serve.tail import TrialTail
from results.streams import table_of

READ_EVERY_S: Final = 1.0


class Journals:
    """The trials of one run, open ones and sealed ones. One thread at a time."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._read_s = -READ_EVERY_S
        self._sealed: dict[str, tuple[Counter[str], int]] = {}
        self.tails: dict[str, TrialTail] = {}
        """By trial; those that are open."""

        self.rows: Counter[str] = Counter()
        """Table → rows of all trials."""

        self.size_bytes = 0

    def update(self) -> None:
        """Read what has come, unless that was just done."""
        if time.monotonic() - self._read_s < READ_EVERY_S:
            return
        self._update()
        self._read_s = time.monotonic()

    def _update(self) -> None:
        folders = list(self._trials.glob("*/"))
        tails: dict[str, TrialTail] = {}
        for folder in folders:
            if folder.name.endswith(PARTIAL):
                trial_id = folder.name.removesuffix(PARTIAL)
                tails[trial_id] = self.tails.get(trial_id) or TrialTail(folder)
                tails[trial_id].update()
            elif folder.name not in self._sealed:
                with suppress(OSError, ValueError, KeyError):  # it is being put in place
                    self._sealed[folder.name] = _rows_of(folder), _size_of(folder)
        rows = Counter[str]()
        for counted in (*(t.rows for t in tails.values()), *(r for r, _ in self._sealed.values())):
            rows.update(counted)
        # A trial that is being sealed is in neither for a moment: what only grows must not shrink.
        self.rows = rows | self.rows
        self.size_bytes = sum(size for _, size in self._sealed.values()) + sum(
            _size_of(tail.folder) for tail in tails.values()
        )
        self.tails = tails


def _rows_of(folder: Path) -> Counter[str]:
    streams = json.loads((folder / "trial.json").read_bytes())["rows"]
    rows = Counter[str]()
    for stream, count in streams.items():
        rows[table_of(stream).table] += count
    return rows


def _size_of(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        with suppress(OSError):
            size += path.stat().st_size
    return size
