"""The archive as a database: DuckDB in memory, views over the Arrow files, locked down.

The rows stay where they are: a query reads the columns and the trials that it names. Each trial's
file is one fragment of its table, and what is known of the trial (`KEY_COLUMNS`) is attached to
the fragment, so that `where configuration = 'default'` opens only those files. The tables made
from these rows are views in `results/views/*.sql`.

A query sees the archive and nothing else (`results/sql/sandbox.py`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from results.archive.archive import Archive
from results.archive.archives import Checked, find_archives, read_archives
from results.archive.fragments import Trials
from results.record import TrialRecord, group_of
from results.sql.catalog import Catalog
from results.sql.deadline import NEVER, Deadline
from results.sql.quick import QUICK, Counted
from results.sql.sandbox import MEMORY, QUERY_TIMEOUT_S, Sandbox, clean_errors

if TYPE_CHECKING:
    from results.comparing.compare import Comparison, Measurement
    from results.sql.answer import Answer

SHOWN: Final = ("requests",)
"""The tables of rows that are shown otherwise than they are stored: each has a view's file."""

VIEWS: Final = (
    "runs",
    "trials",
    "phases",
    "builds",
    "nodes",
    "validity",
    "limits",
    "trends",
    "leaks",
    "gc_overhead",
    "scavenges",
    "requests_during_gc",
    "answers",
    "trial_metrics",
    "cells",
    "latency_by_second",
    "latency_tenths",
    "memory_by_phase",
)
"""The views with a file of their own, beside `COMPARED`; a view uses only those before it."""

COMPARED: Final = ("comparison", "ratios", "ablation", "objectives")
"""The views that need statistics."""

PROFILED: Final = ("profiles", "profile_diff", "profile_stacks")
"""The views that need the profiles unpacked."""

TESTED: Final = ("trends", "leaks")
"""The views of what was tested when a trial was sealed; older trials are tested when asked."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a query may take, and the most memory before it spills: `2GiB`, or a share."""

    timeout_s: float = QUERY_TIMEOUT_S
    memory: str = MEMORY


class Database:
    """A read-only view of archives; close it, or use it in a `with`.

    `notes` are what a reader of its answers should know: trials that were cut off, broken files.
    """

    def __init__(self, trials: Trials, limits: Limits | None = None) -> None:
        self.notes = trials.notes
        self.damage = trials.damage
        self.runs = trials.runs
        self.records = trials.records
        self._compared = False
        self._profiled = False
        self._tested = False
        self._counted = Counted(trials)
        self._measured: dict[str, list[Measurement]] = {}
        self.limits = limits or Limits()
        self._sandbox = Sandbox(self.limits.memory)
        self._sandbox.lock()
        self._catalog = Catalog(self._sandbox, trials.tables, _texts((*SHOWN, *VIEWS)))

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything."""
        self._sandbox.close()

    def abandon(self) -> None:
        """Remove what would be left behind when this process is ended in the midst of a query."""
        self._sandbox.abandon()

    @property
    def memory_bytes(self) -> int:
        """The most that queries take before they spill."""
        return self._sandbox.memory_bytes

    def sql(self, query: str, /, **parameters: Any) -> Answer:
        """The whole answer to one query, with values for its `$name`s. Raises as `stream` does."""
        from results.sql.answer import Answer

        return Answer(self.query(query, parameters))

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> pa.Table:
        """The whole answer to one query. Raises UserError as `stream` does."""
        with self.stream(sql, parameters, timeout_s=timeout_s) as reader:
            return reader.read_all()

    @contextmanager
    def stream(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        deadline: Deadline | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """The answer to one query, batch by batch; one at a time.

        Raises UserError for anything but one reading statement, for an error in it, for a parameter
        that is missing or not asked for; NeedsMore when the answer is not complete after
        `timeout_s` seconds (else those of the database's own limits) or by `deadline`. The time
        between two batches, in which its reader does something with it, does not count.
        """
        self._sandbox.check(sql, parameters or {})
        asked = " ".join([sql, *map(str, (parameters or {}).values())])
        if deadline is None:
            deadline = Deadline.after(self.limits.timeout_s if timeout_s is None else timeout_s)
        with self._counted.within(deadline):
            self._compare_if_asked(asked)
            self._profile_if_asked(asked)
            self._test_if_asked(asked)
            self._count_if_asked(asked)
        with self._answer(sql, parameters or {}, deadline, asked) as reader:
            yield reader

    @contextmanager
    def _answer(
        self, sql: str, parameters: Mapping[str, Any], deadline: Deadline, asked: str
    ) -> Iterator[pa.RecordBatchReader]:
        with clean_errors():
            self._catalog.provide(asked)
        # A name may be put together within the query; and who mistypes one is told what is near.
        missed = self._catalog.provide_all
        with self._sandbox.answer(sql, parameters, deadline, missed) as reader:
            yield reader

    def measurements(self, run_id: str) -> list[Measurement]:
        """What a run's counted trials measured, for `results.comparing.compare`."""
        if run_id not in self._measured:
            self._measured[run_id] = self._measure(run_id)
        return self._measured[run_id]

    def _measure(self, run_id: str) -> list[Measurement]:
        from results.comparing.compare import Measurement

        self._count("answers", [run_id])
        sql = "from trial_metrics where run_id = $run_id"
        deadline = self._counted.deadline
        if deadline is NEVER:
            deadline = Deadline.after(self.limits.timeout_s)
        with self._answer(sql, {"run_id": run_id}, deadline, sql) as reader:
            table = reader.read_all()
        records = {(r.run_id, r.trial_id): r for r in self.records}
        return [
            Measurement(
                block=(run_id, row["block"]),
                node_class=row["node_class"],
                workload=row["workload"],
                configuration=row["configuration"],
                metric=row["metric"],
                value=row["value"],
                place=(group_of(row["trial_id"]), record.node_id),
                os=record.os,
            )
            for row in table.to_pylist()
            if (record := records[run_id, row["trial_id"]])
        ]

    def comparison(self) -> Comparison:
        """All runs of this database compared as one. Raises UserError when they don't fit."""
        from results.comparing.comparison import comparison_of

        measured = [m for run in self.runs for m in self.measurements(run.run_id)]
        return comparison_of(
            [run.run_id for run in self.runs],
            [run.document for run in self.runs],
            self.records,
            measured,
            self.damage,
        )

    def _compare_if_asked(self, sql: str) -> None:
        """The views of `COMPARED` are only made for a query that names one of them."""
        if self._compared or not _names_one(sql, COMPARED):
            return
        self._catalog.put(self.compared_runs())
        self._catalog.define(_texts(COMPARED))
        self._compared = True

    def _profile_if_asked(self, sql: str) -> None:
        """So are those of `PROFILED`."""
        if self._profiled or not _names_one(sql, PROFILED):
            return
        self._profiled = True
        self._catalog.put(self.unpacked_profiles())
        self._catalog.define(_texts(PROFILED))

    def _test_if_asked(self, sql: str) -> None:
        """Trials that were sealed untested are tested when a query names a view of `TESTED`."""
        if self._tested or not _names_one(sql, TESTED):
            return
        self._tested = True
        self._catalog.put(self.tested_trials())

    def _count_if_asked(self, sql: str) -> None:
        """What needs every request is counted for a query of all runs that names such a view.

        One that names some of the runs is left to the views' own SQL, which reads only these.
        """
        named = [run.run_id for run in self.runs if run.run_id in sql]
        every = not named or len(named) == len(self.runs)
        for view, asked_by in QUICK.items():
            if _names_one(sql, asked_by):
                self._count(view, [run.run_id for run in self.runs] if every else None)

    def _count(self, view: str, run_ids: Sequence[str] | None) -> None:
        """Have a view of `QUICK` show what was counted of these runs; None: what its SQL finds."""
        with clean_errors():
            rows = self._counted.rows(view, run_ids) if run_ids else None
        if rows is None:
            self._catalog.define(_texts([view]))
        else:
            self._catalog.put({f"raw_{view}": rows})
            self._catalog.define({view: f"create view {view} as from raw_{view}"})

    def tested_trials(self) -> dict[str, pa.Table]:
        """The tables behind the views of `TESTED`, with trials that were sealed untested."""
        from results.judging.trendrows import trend_tables

        return trend_tables([self._tested_one(record) for record in self.records])

    def _tested_one(self, record: TrialRecord) -> TrialRecord:
        """A trial with what its series did; `records` stay as they were read."""
        from results.judging.steady import examined

        if not record.valid or record.steady is not None:
            return record
        folder = next(run.path for run in self.runs if run.run_id == record.run_id) / "trials"
        try:
            return replace(record, steady=examined(record, folder / record.trial_id))
        except (OSError, pa.ArrowException):
            return record

    def unpacked_profiles(self) -> dict[str, pa.Table]:
        """The tables behind the views of `PROFILED`; profiles that can't be read are noted."""
        from results.profiles.profiles import PPROF_KINDS, profile_tables

        kinds = ", ".join(map(_quoted, PPROF_KINDS))
        files = self.query(f"from profile_files where kind in ({kinds})")
        return profile_tables(files.to_pylist(), self.notes)

    def compared_runs(self) -> dict[str, pa.Table]:
        """The tables behind the views of `COMPARED`: each run for itself, its own blocks."""
        from results.comparing.ablation import ablation_rows
        from results.comparing.compare import comparison_rows
        from results.comparing.comparison import comparison_of
        from results.signoff.rows import objective_rows

        found: dict[str, list[pa.Table]] = defaultdict(list)
        for run in self.runs:
            records = [record for record in self.records if record.run_id == run.run_id]
            measured = self.measurements(run.run_id)
            compared = comparison_of([run.run_id], [run.document], records, measured)
            rows = {
                "raw_comparison": comparison_rows(compared),
                "raw_ablation": ablation_rows(compared, records, measured),
                "raw_objectives": objective_rows(run, compared, records, measured),
            }
            for name, table in rows.items():
                run_ids = pa.array([run.run_id] * table.num_rows, pa.string())
                found[name].append(table.add_column(0, "run_id", run_ids))
        return {name: pa.concat_tables(tables) for name, tables in found.items()}


def open_database(
    archive_path: Path, run_ids: Sequence[str] | None = None, *, checked: Path | None = None
) -> Database:
    """Open an archive, or only some of its runs (ids, beginnings of ids, or `latest`).

    Every byte of them is read, but for what the file `checked` says was right within the last day.
    Raises UserError when there is no archive, no run at all, or not the one that was named.
    """
    archives = [Archive(archive_path)]
    kept = None if checked is None else lambda _: checked
    return Database(read_archives(archives, run_ids or (), kept))


def open_archives(
    archives: Sequence[str | Path],
    run_ids: Sequence[str] = (),
    *,
    checked: Checked | None = None,
    limits: Limits | None = None,
    leave_out: bool = False,
) -> Database:
    """Open several archives as one (`results/archive/archives.py`). Raises as `open_database` does.

    With `leave_out` a run that lies in two of them and differs is missing, instead of an error.
    """
    found = find_archives(archives)
    return Database(read_archives(found, run_ids, checked, leave_out=leave_out), limits)


def view_text(name: str) -> str:
    """The SQL of a view, with its comments."""
    return (resources.files("results") / "views" / f"{name}.sql").read_text(encoding="utf-8")


def _texts(names: Iterable[str]) -> dict[str, str]:
    return {name: view_text(name) for name in names}


def _names_one(sql: str, views: Sequence[str]) -> bool:
    return re.search(rf"\b({'|'.join(views)})\b", sql, re.IGNORECASE) is not None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
