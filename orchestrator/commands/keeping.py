"""The archive as a thing to keep: export, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import ArchivePath, AsJson, RunNames, archive_path, console


def export(
    target: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.duckdb, or a folder for Parquet files.")
    ],
    run_names: RunNames = None,
    profiles: Annotated[
        bool,
        typer.Option("--profiles", help="Profiles alone, for `go tool pprof` and `go tool trace`."),
    ] = False,
    archive: ArchivePath = None,
) -> None:
    """Copy runs for other engines: one DuckDB file with every view, or a set of Parquet files.

    Example: bench export latest -o runs.duckdb
    """
    from orchestrator.answers import print_export

    print_export(archive_path(archive), run_names or [], target, console(), profiles=profiles)


def verify(
    run_names: RunNames = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Check that an archive is what was measured: every byte, every row count, every column.

    Example: bench verify latest
    """
    from orchestrator.answers import print_verification

    print_verification(archive_path(archive), run_names or [], console(), as_json=as_json)
