"""Where a user's query runs: in memory, locked down, one reading statement, bounded.

A query sees the tables that are registered and nothing else: no files, no network, no Python, no
settings. What it can't hold in memory it spills to a folder of its own, which goes with it.
https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
from filelock import FileLock, Timeout

from results.errors import HeapgateError, UserError
from results.sql.deadline import Deadline, NeedsMore
from results.sql.parameters import check_parameters

QUERY_TIMEOUT_S: Final = 300.0
MEMORY: Final = "50%"
BATCH_ROWS: Final = 100_000
SPILL_PREFIX: Final = "heapgate-sql-"
_AGAIN_S: Final = 0.1
_ADVICE: Final = "\n\nPossible solutions"
"""DuckDB's own, to what needs more memory."""

_MEMORY: Final = ("memory", "--memory")
_ALLOWED = "one SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE or PIVOT is allowed"


class Sandbox:
    """A connection that only reads what is registered; close it.

    `memory` is the most that queries take before they spill, as `2GiB` or as a share of the
    machine's: `50%`. They spill at most half of what is free on the disk of temporary files.
    """

    def __init__(self, memory: str = MEMORY) -> None:
        self._spill = SpillFolder()
        try:
            self._connection = _connect(self._spill.path, memory)
        except BaseException:
            self._spill.remove()
            raise

    def register(self, tables: Mapping[str, Any]) -> None:
        """Let queries find Arrow tables and datasets by these names."""
        for name, table in tables.items():
            self._connection.register(name, table)

    def execute(self, sql: str) -> None:
        """Run a statement of our own: it makes a view."""
        self._connection.execute(sql)

    def lock(self) -> None:
        """From here on no setting can be changed, by nobody."""
        self._connection.execute("set lock_configuration = true")

    def close(self) -> None:
        """Free everything."""
        self._connection.close()
        self._spill.remove()

    def abandon(self) -> None:
        """Remove what was spilled, though a query may be running: the process is about to end."""
        self._spill.remove()

    @property
    def memory_bytes(self) -> int:
        """The most that queries take before they spill."""
        asked = "select parse_formatted_bytes(current_setting('memory_limit'))"
        # All of it: a result that is left half read keeps the connection.
        ((found,),) = self._connection.execute(asked).fetchall()
        return int(found)

    def check(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """Raise UserError unless `sql` is one statement that only reads, with these parameters."""
        with clean_errors():
            statements = self._connection.extract_statements(sql)
        if len(statements) != 1:
            raise UserError(f"{_ALLOWED}; this is {len(statements)} statements")
        (statement,) = statements
        kind = statement.type
        # A PIVOT is several statements to DuckDB, but so is CREATE TABLE … AS PIVOT: only what
        # reads can stand in brackets.
        reads = kind == duckdb.StatementType.SELECT or (
            kind == duckdb.StatementType.MULTI and self._fits_in_brackets(statement.query)
        )
        if not reads:
            raise UserError(f"{_ALLOWED}; this is {kind.name}")
        check_parameters(statement.named_parameters, parameters)

    def _fits_in_brackets(self, sql: str) -> bool:
        bracketed = f"from ({sql.strip().rstrip(';')}\n)"
        try:
            return len(self._connection.extract_statements(bracketed)) == 1
        except duckdb.Error:
            return False

    @contextmanager
    def answer(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        deadline: Deadline,
        missed: Callable[[], None] | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """The answer to a query that was checked, batch by batch. Raises UserError.

        Where it names what is not there, `missed` is called, if given, and it is tried once more.
        """
        with time_limit(self._connection, deadline), clean_errors():
            try:
                reader = self._asked(sql, parameters)
            except duckdb.CatalogException:
                if missed is None:
                    raise
                missed()
                reader = self._asked(sql, parameters)
            try:
                yield pa.RecordBatchReader.from_batches(reader.schema, _counting(reader, deadline))
            finally:
                reader.close()

    def _asked(self, sql: str, parameters: Mapping[str, Any]) -> pa.RecordBatchReader:
        relation = self._connection.sql(sql, params=dict(parameters) or None)
        assert relation is not None, "a statement that reads has an answer"
        return relation.to_arrow_reader(BATCH_ROWS)


def _counting(reader: pa.RecordBatchReader, deadline: Deadline) -> Iterator[pa.RecordBatch]:
    """The batches of an answer, and time counts only while one is awaited."""
    try:
        for batch in reader:
            deadline.pause()
            yield batch
            deadline.resume()
    finally:
        deadline.pause()


class SpillFolder:
    """A temporary folder of this process; what killed ones left behind goes first.

    A lock tells whose process lives: the system lets go of it, however the process ends.
    """

    def __init__(self) -> None:
        remove_left_spills()
        name = f"{SPILL_PREFIX}{secrets.token_hex(8)}"
        self.path = Path(tempfile.gettempdir()) / name
        self._lock = FileLock(_lock_of(self.path))
        # Before there is a folder: one without its lock would be taken for a left one.
        self._lock.acquire()
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        _lock_of(self.path).unlink(missing_ok=True)


def remove_left_spills() -> None:
    """Remove the folders of processes that were killed in the middle of a query."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SPILL_PREFIX}*"):
        lock = _lock_of(folder)
        if not lock.exists():
            continue  # not of this form: a lock itself, say
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _connect(spill: Path, memory: str) -> duckdb.DuckDBPyConnection:
    settings: dict[str, Any] = {
        "memory_limit": memory,
        "temp_directory": str(spill),
        "max_temp_directory_size": f"{shutil.disk_usage(spill).free // 2}B",
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "python_enable_replacements": False,
    }
    try:
        connection = duckdb.connect(":memory:", config=settings)
    except duckdb.Error as error:
        raise UserError(f"memory of {memory!r} for queries: {_words(error)}") from error
    # Not with the others: it also forbids to choose the temporary directory.
    connection.execute("set enable_external_access = false")
    return connection


@contextmanager
def time_limit(connection: duckdb.DuckDBPyConnection, deadline: Deadline) -> Iterator[None]:
    """Interrupt what runs inside when its time is over: DuckDB has no such limit itself.

    Ctrl-C interrupts it too. It is told again and again: one statement of a user may be several to
    DuckDB, and a function that makes one huge value hears nothing before it is done.
    """
    done, expired = threading.Event(), threading.Event()

    def watch(signals: socket.socket | None) -> None:
        stopped = False
        while not done.wait(min(_AGAIN_S, deadline.seconds)):
            if deadline.is_over:
                expired.set()
            stopped = stopped or _is_stopped(signals)
            if stopped or expired.is_set():
                connection.interrupt()

    with _signals() as signals:
        watcher = threading.Thread(target=watch, args=[signals], name="query-limit", daemon=True)
        watcher.start()
        try:
            yield
        except UserError as error:
            if not expired.is_set():
                raise
            raise deadline.error() from error
        except RuntimeError as error:
            # DuckDB's word for Ctrl-C, where it noticed by itself.
            if str(error) != "Query interrupted":
                raise
            raise KeyboardInterrupt from error
        finally:
            done.set()
            watcher.join()


@contextmanager
def _signals() -> Iterator[socket.socket | None]:
    """Where the numbers of this process's signals arrive, even while it is inside a query.

    Python itself handles a signal only between two of its own steps, and a query is one.
    None where this is not the main thread: that one alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()


def _is_stopped(signals: socket.socket | None) -> bool:
    if signals is None:
        return False
    try:
        return signal.SIGINT in signals.recv(64)
    except OSError:
        return False


@contextmanager
def clean_errors() -> Iterator[None]:
    """DuckDB's and Arrow's errors as UserError, in their own words."""
    try:
        yield
    except HeapgateError:
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        raise _failed(error) from error
    except MemoryError as error:
        text = "the query failed: its answer needs more memory than it may have"
        raise NeedsMore(text, *_MEMORY) from error
    except OSError as error:
        # DuckDB's errors in the middle of an answer come through Arrow as OSError without a number;
        # with one it is the writing of the answer that failed.
        if error.errno is not None:
            raise
        raise _failed(error) from error


def _failed(error: Exception) -> UserError:
    text = f"the query failed: {_words(error)}"
    return NeedsMore(text, *_MEMORY) if _ADVICE in str(error) else UserError(text)


def _words(error: Exception) -> str:
    """An error's own words, without advice that can't be taken here: to set this or that."""
    text = str(error).strip().partition(_ADVICE)[0].partition("\n\nStack Trace")[0].rstrip()
    return text or type(error).__name__
