"""An archive for other engines: one DuckDB file with every view, or a set of Parquet files; and the
profiles of its trials as the files that Go's own tools read.

All hold copies: the archive itself is only read. They appear whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from results.database import COMPARED, PROFILED, SHOWN, TESTED, VIEWS, Database, view_text
from results.errors import EnvironmentLacks, UserError
from results.fragments import Trials
from results.schema import TABLES

TIMEOUT_S = 24 * 3600.0
PARTITIONS = ("run_id", "configuration", "trial_id")
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
        _whole_or_nothing(trials, target, write)
    except (OSError, duckdb.IOException) as error:
        raise EnvironmentLacks(f"{target} can't be written: {error}") from error
    paths = target.rglob("*") if target.is_dir() else [target]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _whole_or_nothing(trials: Trials, target: Path, write: Callable[[Trials, Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        made = Path(folder) / target.name
        write(trials, made)
        shutil.move(made, target)


def _write_duckdb(trials: Trials, target: Path) -> None:
    with Database(trials) as database:
        made = {
            "raw_comparison": database.compared_runs(),
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
    with Database(trials) as database:
        for name in SHOWN:
            with database.stream(f"from {name}", timeout_s=TIMEOUT_S) as rows:
                _write_rows(rows, target / name)
        for name in DERIVED:
            pq.write_table(database.query(f"from {name}"), target / f"{name}.parquet")


def _write_profiles(trials: Trials, target: Path) -> None:
    """One file for each profile, found by its folders: run/trial/kind."""
    with Database(trials) as database:
        files = database.query("from profile_files", timeout_s=TIMEOUT_S).to_pylist()
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
