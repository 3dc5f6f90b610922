"""Views of every request that are counted outside SQL: the same rows, many times faster.

The SQL of these views says what they are, and answers for other engines (`export.py`). It
also answers a query that names some of the runs, because it reads only those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from results.archive.fragments import Trials
from results.judging.counted import counted_trials
from results.sql.bysecond import Unfit, seconds_tables
from results.sql.deadline import NEVER, Deadline
from results.sql.percentiles import answers_table
from results.sql.requestfiles import TrialFiles, of_trials

QUICK: Final = {
    "answers": ("answers", "trial_metrics", "cells"),
    "latency_by_second": ("latency_by_second",),
    "latency_tenths": ("latency_tenths",),
}
"""The views that are counted, each with those that ask it."""


class Counted:
    """The rows of the views of `QUICK`; each run is counted when it is asked for, and once."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self._made: dict[tuple[str, str], pa.Table] = {}
        self.deadline = NEVER

    @contextmanager
    def within(self, deadline: Deadline) -> Iterator[None]:
        """What is counted inside is counted by then, or UserError is raised."""
        self.deadline = deadline
        try:
            yield
        finally:
            self.deadline = NEVER

    def rows(self, view: str, run_ids: Sequence[str]) -> pa.Table | None:
        """The rows of a view for some runs; None when its SQL has to answer.

        Raises OSError or ArrowException for a file that can't be read, UserError as `within` says.
        """
        try:
            for run_id in run_ids:
                if (view, run_id) not in self._made:
                    self._count(view, run_id)
        except Unfit:
            return None
        return pa.concat_tables([self._made[view, run_id] for run_id in sorted(run_ids)])

    def _count(self, view: str, run_id: str) -> None:
        if view == "answers":
            made = {view: answers_table(self._files(run_id, counted_only=True))}
        else:
            tables = seconds_tables(self._files(run_id))
            made = dict(zip(("latency_by_second", "latency_tenths"), tables, strict=True))
        self._made |= {(name, run_id): table for name, table in made.items()}

    def _files(self, run_id: str, *, counted_only: bool = False) -> list[TrialFiles]:
        of_run = (record for record in self._trials.records if record.run_id == run_id)
        records = sorted(of_run, key=lambda record: record.trial_id)
        if counted_only:
            counted = counted_trials(self._trials.records)
            records = [r for r in records if (r.run_id, r.trial_id) in counted]
        return of_trials(self._trials.files, records, self.deadline)
