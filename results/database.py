"""The archive as a database: DuckDB in memory, views over the Arrow files, locked down.

The rows stay where they are: a query reads the columns and the trials that it names. Each trial's
file is one fragment of its table, and what is known of the trial (`KEY_COLUMNS`) is attached to
the fragment, so that `where configuration = 'default'` opens only those files. The tables made
from these rows are views in `results/views/*.sql`.

A query sees the archive and nothing else: no files, no network, no Python, no settings.
https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from results.archive import Archive
from results.errors import HeapgateError, UserError
from results.fragments import Trials, read_trials
from results.record import TrialRecord, group_of

if TYPE_CHECKING:
    from results.compare import Comparison, Measurement

SHOWN: Final = ("requests",)
"""The tables of rows that are shown otherwise than they are stored: each has a view's file."""

VIEWS: Final = (
    "runs",
    "trials",
    "phases",
    "builds",
    "findings",
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
    "memory_by_phase",
)
"""The views with a file of their own, beside `COMPARED`; a view uses only those before it."""

COMPARED: Final = ("comparison", "ratios")
"""The views that need statistics."""

PROFILED: Final = ("profiles", "profile_diff", "profile_stacks")
"""The views that need the profiles unpacked."""

TESTED: Final = ("trends", "leaks")
"""The views of what was tested when a trial was sealed; older trials are tested when asked."""

ANSWERED: Final = ("answers", "trial_metrics", "cells")
"""The views that ask every request: `results.percentiles` counts them faster than their SQL."""

QUERY_TIMEOUT_S: Final = 300.0
BATCH_ROWS: Final = 100_000
_ALLOWED = "one SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE or PIVOT is allowed"


class Database:
    """A read-only view of an archive; close it, or use it in a `with`.

    `notes` are what a reader of its answers should know: trials that were cut off, broken files.
    """

    def __init__(self, trials: Trials) -> None:
        self.notes = trials.notes
        self.damage = trials.damage
        self.runs = trials.runs
        self.records = trials.records
        self._compared = False
        self._profiled = False
        self._tested = False
        self._tables = trials.tables
        self._answers: dict[str, pa.Table] = {}
        self._measured: dict[str, list[Measurement]] = {}
        self._spill = tempfile.TemporaryDirectory(prefix="heapgate-sql-")
        self._connection = _connect(Path(self._spill.name))
        for name, table in trials.tables.items():
            self._connection.register(name, table)
        for name in (*SHOWN, *VIEWS):
            self._connection.execute(view_text(name))
        self._connection.execute("set lock_configuration = true")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything."""
        self._connection.close()
        self._spill.cleanup()

    def query(self, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> pa.Table:
        """The whole answer to one query. Raises UserError as `stream` does."""
        with self.stream(sql, timeout_s=timeout_s) as reader:
            return reader.read_all()

    @contextmanager
    def stream(
        self, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S
    ) -> Iterator[pa.RecordBatchReader]:
        """The answer to one query, batch by batch; one at a time.

        Raises UserError for anything but one reading statement, for an error in it, and when the
        answer is not complete after `timeout_s` seconds.
        """
        self._check(sql)
        self._compare_if_asked(sql)
        self._profile_if_asked(sql)
        self._test_if_asked(sql)
        self._answer_if_asked(sql)
        with self._streamed(sql, timeout_s) as reader:
            yield reader

    @contextmanager
    def _streamed(
        self, sql: str, timeout_s: float = QUERY_TIMEOUT_S
    ) -> Iterator[pa.RecordBatchReader]:
        """The answer to one query, everything that it needs being there."""
        with _time_limit(self._connection, timeout_s), _clean_errors():
            relation = self._connection.sql(sql)
            assert relation is not None, "a statement that reads has an answer"
            reader = relation.to_arrow_reader(BATCH_ROWS)
            try:
                yield reader
            finally:
                reader.close()

    def _check(self, sql: str) -> None:
        """Raise UserError unless `sql` is exactly one statement that only reads."""
        with _clean_errors():
            statements = self._connection.extract_statements(sql)
        if len(statements) != 1:
            raise UserError(f"{_ALLOWED}; this is {len(statements)} statements")
        kind = statements[0].type
        if kind == duckdb.StatementType.SELECT:
            return
        # A PIVOT is several statements to DuckDB, but so is CREATE TABLE … AS PIVOT: only what
        # reads can stand in brackets.
        if kind == duckdb.StatementType.MULTI and self._fits_in_brackets(statements[0].query):
            return
        raise UserError(f"{_ALLOWED}; this is {kind.name}")

    def _fits_in_brackets(self, sql: str) -> bool:
        bracketed = f"from ({sql.strip().rstrip(';')}\n)"
        try:
            return len(self._connection.extract_statements(bracketed)) == 1
        except duckdb.Error:
            return False

    def measurements(self, run_id: str) -> list[Measurement]:
        """What a run's counted trials measured, for `results.compare`."""
        if run_id not in self._measured:
            self._measured[run_id] = self._measure(run_id)
        return self._measured[run_id]

    def _measure(self, run_id: str) -> list[Measurement]:
        from results.compare import Measurement

        self._answer([run_id])
        with self._streamed(f"from trial_metrics where run_id = {_quoted(run_id)}") as reader:
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
        from results.comparison import comparison_of

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
        self._connection.register("raw_comparison", self.compared_runs())
        for name in COMPARED:
            self._connection.execute(view_text(name))
        self._compared = True

    def _profile_if_asked(self, sql: str) -> None:
        """So are those of `PROFILED`."""
        if self._profiled or not _names_one(sql, PROFILED):
            return
        self._profiled = True
        for name, table in self.unpacked_profiles().items():
            self._connection.register(name, table)
        for name in PROFILED:
            self._connection.execute(view_text(name))

    def _test_if_asked(self, sql: str) -> None:
        """Trials that were sealed untested are tested when a query names a view of `TESTED`."""
        if self._tested or not _names_one(sql, TESTED):
            return
        self._tested = True
        for name, table in self.tested_trials().items():
            self._connection.register(name, table)

    def _answer_if_asked(self, sql: str) -> None:
        """The requests of all runs are counted for a query that names a view of `ANSWERED`.

        One that names some of the runs is left to the views' own SQL, which reads only these.
        """
        if not _names_one(sql, ANSWERED):
            return
        named = [run.run_id for run in self.runs if run.run_id in sql]
        if named and len(named) < len(self.runs):
            self._connection.execute(_replacing(view_text("answers")))
        else:
            self._answer([run.run_id for run in self.runs])

    def _answer(self, run_ids: Sequence[str]) -> None:
        """Have the view `answers` show these runs, and no others, without its SQL."""
        from results.counted import counted_trials
        from results.percentiles import ANSWERS, answers_table, request_files

        counted, files = counted_trials(self.records), request_files(self._tables)
        with _clean_errors():
            for run_id in run_ids:
                if run_id not in self._answers:
                    self._answers[run_id] = answers_table(
                        [
                            (record, files.get(key, ()))
                            for record in self.records
                            if (key := (record.run_id, record.trial_id)) in counted
                            and record.run_id == run_id
                        ]
                    )
        tables = [self._answers[run_id] for run_id in run_ids]
        self._connection.register("raw_answers", pa.concat_tables([ANSWERS.empty_table(), *tables]))
        self._connection.execute("create or replace view answers as from raw_answers")

    def tested_trials(self) -> dict[str, pa.Table]:
        """The tables behind the views of `TESTED`, with trials that were sealed untested."""
        from results.trendrows import trend_tables

        return trend_tables([self._tested_one(record) for record in self.records])

    def _tested_one(self, record: TrialRecord) -> TrialRecord:
        """A trial with what its series did; `records` stay as they were read."""
        from results.steady import examined

        if not record.valid or record.steady is not None:
            return record
        folder = next(run.path for run in self.runs if run.run_id == record.run_id) / "trials"
        try:
            return replace(record, steady=examined(record, folder / record.trial_id))
        except (OSError, pa.ArrowException):
            return record

    def unpacked_profiles(self) -> dict[str, pa.Table]:
        """The tables behind the views of `PROFILED`; profiles that can't be read are noted."""
        from results.profiles import PPROF_KINDS, profile_tables

        kinds = ", ".join(map(_quoted, PPROF_KINDS))
        files = self.query(f"from profile_files where kind in ({kinds})")
        return profile_tables(files.to_pylist(), self.notes)

    def compared_runs(self) -> pa.Table:
        """The rows of the view `comparison`: each run for itself, its own baseline and blocks."""
        from results.compare import comparison_rows
        from results.comparison import comparison_of

        tables = []
        for run in self.runs:
            records = [record for record in self.records if record.run_id == run.run_id]
            measured = self.measurements(run.run_id)
            rows = comparison_rows(comparison_of([run.run_id], [run.document], records, measured))
            run_ids = pa.array([run.run_id] * rows.num_rows, pa.string())
            tables.append(rows.add_column(0, "run_id", run_ids))
        return pa.concat_tables(tables)


def open_database(
    archive_path: Path, run_ids: Sequence[str] | None = None, *, checked: Path | None = None
) -> Database:
    """Open an archive, or only some of its runs (ids, beginnings of ids, or `latest`).

    Every byte of them is read, but for what the file `checked` says was right within the last day.
    Raises UserError when there is no archive, no run at all, or not the one that was named.
    """
    archive = Archive(archive_path)
    if not run_ids:
        archive.run("latest")
    trials = read_trials(archive, archive.chosen(run_ids or ()), checked)
    if not run_ids:
        gone = (f"{folder.name}: its run.json {why}" for folder, why in archive.unreadable())
        trials.notes.extend(gone)
    return Database(trials)


def view_text(name: str) -> str:
    """The SQL of a view, with its comments."""
    return (resources.files("results") / "views" / f"{name}.sql").read_text(encoding="utf-8")


def _replacing(view: str) -> str:
    return view.replace("create view", "create or replace view")


def _names_one(sql: str, views: Sequence[str]) -> bool:
    return re.search(rf"\b({'|'.join(views)})\b", sql, re.IGNORECASE) is not None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _connect(spill: Path) -> duckdb.DuckDBPyConnection:
    settings: dict[str, Any] = {
        "memory_limit": "50%",
        "temp_directory": str(spill),
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    # Not with the others: it also forbids to choose the temporary directory.
    connection.execute("set enable_external_access = false")
    return connection


@contextmanager
def _time_limit(connection: duckdb.DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    """Interrupt what runs inside after `timeout_s` seconds: DuckDB has no such limit itself."""
    expired = threading.Event()

    def end() -> None:
        expired.set()
        connection.interrupt()

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except UserError as error:
        if not expired.is_set():
            raise
        raise UserError(
            f"the query was stopped after {timeout_s:g} s; ask for less, or give it more time "
            "with --timeout"
        ) from error
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def _clean_errors() -> Iterator[None]:
    """DuckDB's and Arrow's errors as UserError, in their own words."""
    try:
        yield
    except HeapgateError:
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        raise UserError(f"the query failed: {_words(error)}") from error
    except OSError as error:
        # DuckDB's errors in the middle of an answer come through Arrow as OSError without a number;
        # with one it is the writing of the answer that failed.
        if error.errno is not None:
            raise
        raise UserError(f"the query failed: {_words(error)}") from error


def _words(error: Exception) -> str:
    text = str(error).strip()
    with suppress(IndexError):
        text = text.split("\n\nStack Trace")[0].rstrip()
    return text or type(error).__name__
