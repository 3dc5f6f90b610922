"""Which GOGC and GOMEMLIMIT to run a service with."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import (
    ArchivePath,
    MatrixPath,
    Notify,
    NotifyFile,
    announcing,
    archive_path,
    console,
)


class TuneFormat(StrEnum):
    """How `bench tune` prints what it found."""

    table = "table"
    md = "md"
    json = "json"


def tune(
    matrix: MatrixPath,
    workload: Annotated[
        str | None, typer.Option(help="Under which workload; else the only one.")
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", "-c", help="Which one to tune; else the baseline."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OBJECTIVE", help="As in the matrix, such as 'p99 <= 40ms'; may be repeated."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=8, max=500, help="Short trials of the search, at most.")
    ] = 24,
    finalists: Annotated[
        int, typer.Option(min=1, max=12, help="Settings that are confirmed in full blocks.")
    ] = 4,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may measure, such as 30m.")
    ] = "30m",
    spiral: Annotated[
        bool,
        typer.Option("--spiral/--no-spiral", help="Find where the collector takes over too."),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A picture too: .svg, .png or .html.")
    ] = None,
    form: Annotated[TuneFormat, typer.Option("--format", help="How to print.")] = TuneFormat.table,
    archive: ArchivePath = None,
    notify: Notify = None,
    notify_file: NotifyFile = None,
) -> None:
    """Find the GOGC and GOMEMLIMIT with the least memory that keeps the objectives.

    Short trials look for the front of memory, p99 and GC CPU, and for the GOMEMLIMIT below which
    the collector takes over; full blocks confirm what is recommended. When it is stopped, the same
    command goes on.

    Example: bench tune matrix.yaml --require 'p99 <= 40ms' -o front.svg
    """
    as_json = form != TuneFormat.table
    with announcing(f"bench tune {matrix}", notify, notify_file, as_json=as_json) as word:
        from orchestrator.tune.answers import print_tuning

        print_tuning(
            matrix,
            archive_path(archive),
            console(error=as_json),
            word.print_to(console()),
            workload=workload,
            configuration=configuration,
            require=require or [],
            trials=trials,
            finalists=finalists,
            budget=budget,
            spiral=spiral,
            output=output,
            form=form.value,
        )
