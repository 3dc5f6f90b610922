"""An archive for other engines: one DuckDB file with every view, or a set of Parquet files; and the
profiles of its trials as the files that Go's own tools read.

All hold copies: the archive itself is only read. They appear whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from results.archive.archive import RunEntry
from results.archive.fragments import Trials
from results.archive.packing import pack_runs
from results.errors import EnvironmentLacks, UserError
from results.schema import TABLES
from results.sql.database import (
    COMPARED,
    PROFILED,
    SHOWN,
    TESTED,
    VIEWS,
    Database,
    Limits,
    view_text,
)

LIMITS: Final = Limits(timeout_s=24 * 3600.0)
"""An export may take as long as it takes: there is no option to give it more time."""

PARTITIONS = ("run_id", "configuration", "trial_id")
COMPLETE: Final = "_SUCCESS"
"""The last file of a set in an object store; readers of Parquet pass over names like this."""

OPTIONS: Final = {
    # A file that is small is then one request, not three, and there at once or not at all.
    "s3": {"allow_delayed_open": "true"},
    # Arrow's own patience is a quarter of an hour.
    "gs": {"retry_limit_seconds": "60"},
}
"""What Arrow is asked for with an address that does not say otherwise."""

ANONYMOUS: Final = "anonymous"
"""The user of a `gs://` address that goes without credentials: no secret."""

DERIVED = ("trial_metrics", "cells", *COMPARED, *PROFILED, *TESTED)
"""Views that a set of Parquet files has as files: what an engine without our views needs most."""


def export(trials: Trials, target: Path, *, profiles: bool = False) -> int:
    """Write `target`: a DuckDB file when it ends in `.duckdb`, else a folder of Parquet files.

    With `profiles` it is a folder of these alone. Returns its size in bytes. Raises UserError when
    it exists, or there are no profiles, EnvironmentLacks when it can't be written.
    """
    if target.exists():
        raise UserError(f"{target} is there already; choose another with -o")
    write = _write_duckdb if target.suffix == ".duckdb" else _write_parquet
    if profiles:
        write = _write_profiles
    try:
        _whole_or_nothing(target, lambda made: write(trials, made))
    except (OSError, duckdb.IOException) as error:
        raise EnvironmentLacks(f"{target} can't be written: {error}") from error
    paths = target.rglob("*") if target.is_dir() else [target]
    return sum(path.stat().st_size for path in paths if path.is_file())


def export_packed(runs: Sequence[RunEntry], target: Path) -> int:
    """Write plain copies of runs into one `.tar` or `.tar.zst`, for `bench import` elsewhere.

    Returns its size in bytes. Raises UserError when it exists or a run goes on, EnvironmentLacks
    when it can't be written.
    """
    if target.exists():
        raise UserError(f"{target} is there already; choose another with -o")
    for run in runs:
        if run.status == "running":
            raise UserError(f"{run.run_id} is still running; export it when it has ended")
    try:
        _whole_or_nothing(target, lambda made: pack_runs(runs, made))
    except OSError as error:
        raise EnvironmentLacks(f"{target} can't be written: {error}") from error
    return target.stat().st_size


def is_address(target: str) -> bool:
    """Whether a target is not a path but an address of a store: `s3://…`, `gs://…`, `file://…`."""
    return "://" in target


def export_to_store(trials: Trials, address: str) -> int:
    """Write the set of Parquet files into an object store, by an address that Arrow knows.

    It is made here first. A store knows no renaming, so `_SUCCESS` is written last: a set without
    it is not whole. Who may write there is for the store's own environment to tell: an address
    with a key in it is refused. Returns the size in bytes. Raises UserError for an address that is
    none, or where something is already; EnvironmentLacks when the store can't be reached or
    written to.
    """
    _forbid_secrets(address)
    store, path = _store_of(address)
    try:
        _require_bucket(store, path, address)
        if _is_taken(store, path):
            raise UserError(f"{address} is there already; choose another with -o")
        with tempfile.TemporaryDirectory(prefix="heapgate-export-") as folder:
            made = Path(folder) / "set"
            size_bytes = export(trials, made)
            store.create_dir(path)
            pyarrow.fs.copy_files(str(made), path, pyarrow.fs.LocalFileSystem(), store)
            with store.open_output_stream(f"{path}/{COMPLETE}"):
                pass
    except (OSError, pa.ArrowException) as error:
        raise EnvironmentLacks(f"{address} can't be written: {error}") from error
    return size_bytes


def _forbid_secrets(address: str) -> None:
    """An address is printed and kept in a shell's history. What is refused is not repeated."""
    parts = urlsplit(address)
    asked = {name.lower() for name in parse_qs(parts.query)}
    user, at, _ = parts.netloc.rpartition("@")
    if (at and user != ANONYMOUS) or asked & {"access_key", "secret_key", "session_token"}:
        raise UserError(
            "the address has a key or a password in it: give these by the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
            "GOOGLE_APPLICATION_CREDENTIALS)"
        )


def _store_of(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    parts = urlsplit(address)
    more = [parts.query, *(f"{k}={v}" for k, v in OPTIONS.get(parts.scheme, {}).items()
                           if k not in parse_qs(parts.query))]  # fmt: skip
    whole = parts._replace(query="&".join(filter(None, more)))
    try:
        store, path = pyarrow.fs.FileSystem.from_uri(urlunsplit(whole))
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{address} is no address that can be written to: {error}") from error
    except OSError as error:
        raise EnvironmentLacks(f"{address} can't be reached: {error}") from error
    return store, path


def _require_bucket(store: pyarrow.fs.FileSystem, path: str, address: str) -> None:
    """Arrow would make a bucket of a misspelt name where it may."""
    bucket = path.partition("/")[0]
    if bucket and store.get_file_info(bucket).type == pyarrow.fs.FileType.NotFound:
        raise EnvironmentLacks(f"{address} can't be written: there is no bucket {bucket!r}")


def _is_taken(store: pyarrow.fs.FileSystem, path: str) -> bool:
    nothing = pyarrow.fs.FileType.NotFound
    if store.get_file_info(path).type == nothing:
        return False
    below = pyarrow.fs.FileSelector(path, recursive=False, allow_not_found=True)
    return store.get_file_info(path).is_file or bool(store.get_file_info(below))


def _whole_or_nothing(target: Path, write: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        made = Path(folder) / target.name
        write(made)
        shutil.move(made, target)


def _write_duckdb(trials: Trials, target: Path) -> None:
    with Database(trials, LIMITS) as database:
        made = {
            **database.compared_runs(),
            **database.unpacked_profiles(),
            **database.tested_trials(),
        }
    connection = duckdb.connect(str(target))
    try:
        for name, table in (trials.tables | made).items():
            connection.register("source", table)
            connection.execute(f'create table "{name}" as from source')
            connection.unregister("source")
        for name in (*SHOWN, *VIEWS, *COMPARED, *PROFILED):
            connection.execute(view_text(name))
    finally:
        connection.close()


def _write_parquet(trials: Trials, target: Path) -> None:
    target.mkdir()
    for name, table in trials.tables.items():
        if name in TABLES:
            _write_rows(table, target / name)
        elif not name.startswith(tuple(f"raw_{shown}" for shown in SHOWN)):
            assert isinstance(table, pa.Table)
            pq.write_table(table, target / f"{name.removeprefix('raw_')}.parquet")
    with Database(trials, LIMITS) as database:
        for name in SHOWN:
            with database.stream(f"from {name}") as rows:
                _write_rows(rows, target / name)
        for name in DERIVED:
            pq.write_table(database.query(f"from {name}"), target / f"{name}.parquet")


def _write_profiles(trials: Trials, target: Path) -> None:
    """One file for each profile, found by its folders: run/trial/kind."""
    with Database(trials, LIMITS) as database:
        files = database.query("from profile_files").to_pylist()
    if not files:
        raise UserError("no profiles were taken; the matrix asks for them with `profiles:`")
    for file in files:
        folder = target / file["run_id"] / file["trial_id"]
        folder.mkdir(parents=True, exist_ok=True)
        ending = "trace" if file["kind"] == "trace" else f"{file['kind']}.pb.gz"
        (folder / ending).write_bytes(file["content"])


def _write_rows(table: pa.Table | pa.RecordBatchReader | ds.Dataset, folder: Path) -> None:
    """One file for each trial, found by its folders: run_id=…/configuration=…/trial_id=…"""
    keys = pa.schema([pa.field(name, pa.string()) for name in PARTITIONS])
    options = ds.ParquetFileFormat().make_write_options(compression="zstd")
    ds.write_dataset(
        table,
        folder,
        format="parquet",
        file_options=options,
        partitioning=ds.partitioning(keys, flavor="hive"),
        max_partitions=100_000,
        max_open_files=64,
    )
