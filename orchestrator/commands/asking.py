"""What is asked of runs that ended: compare, report, runs, show, history, sql."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import (
    ArchiveNames,
    ArchivePath,
    AsJson,
    RunName,
    archive_path,
    console,
)
from results.errors import UserError


class TableFormat(StrEnum):
    """How `bench sql` prints its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"
    parquet = "parquet"
    arrow = "arrow"


class ReportFormat(StrEnum):
    """What `bench report` writes."""

    html = "html"
    md = "md"
    csv = "csv"
    json = "json"
    png = "png"
    svg = "svg"


def compare(
    run_names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; else the latest.")
    ] = None,
    archive: ArchivePath = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A named baseline, or another run: each configuration then and now.",
        ),
    ] = None,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit 1 when a figure that decides is worse.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every configuration with the baseline, from the archive alone.

    Several runs of one service are compared as one, within each run's blocks.

    Example: bench compare latest --against release-1.4
    """
    style = "json" if as_json else "markdown" if markdown else "table"
    names = run_names or ["latest"]
    if against:
        from orchestrator.answers.keep import print_against

        print_against(
            archive_path(archive),
            names,
            against,
            console(),
            style=style,
            fail_on_worse=fail_on_worse,
        )
        return
    from orchestrator.answers.common import print_comparison

    print_comparison(
        archive_path(archive), names, console(), style=style, fail_on_worse=fail_on_worse
    )


def report(
    run_name: RunName = "latest",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, `-` for standard output."),
    ] = None,
    form: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format", help="A page, the comparison, or a picture; else as the file's name ends."
        ),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(help="One figure of a picture, `memory` or `percentiles` say; else the main."),
    ] = None,
    archive: ArchivePath = None,
) -> None:
    """Write one page about a run: verdict, charts, doubts, provenance. It opens anywhere, offline.

    Example: bench report latest -o report.html
    """
    from orchestrator.answers.common import write_report

    write_report(
        archive_path(archive), run_name, output, form=_form(form, output, figure), figure=figure
    )


def _form(form: ReportFormat | None, output: Path | None, figure: str | None) -> str:
    """What was asked for, or what the file's name ends in; a page if neither tells."""
    ending = output.suffix.removeprefix(".").lower() if output else ""
    known = {one.value for one in ReportFormat}
    chosen = form.value if form else ending if ending in known else "png" if figure else "html"
    if figure is not None and chosen not in ("png", "svg"):
        raise UserError(
            f"--figure chooses a figure of a picture: --format png or svg, not {chosen}"
        )
    return chosen


def runs(archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """List the runs in the archive.

    Example: bench runs
    """
    from orchestrator.answers.common import print_runs

    print_runs(archive_path(archive), console(), as_json=as_json)


def show(
    run_name: RunName = "latest", archive: ArchivePath = None, as_json: AsJson = False
) -> None:
    """Show one run: its builds, trials, limits as read back, and every reason for doubt.

    Example: bench show latest
    """
    from orchestrator.answers.common import print_run_details

    print_run_details(archive_path(archive), run_name, console(), as_json=as_json)


def history(
    service: Annotated[
        str | None, typer.Argument(help="The service; else that of the latest run.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Such as peak_rss; repeat it. Else all.")
    ] = None,
    configuration: Annotated[
        list[str] | None, typer.Option(help="A configuration; repeat it. Else all.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="A workload; repeat it. Else all.")
    ] = None,
    node_class: Annotated[str, typer.Option(help="Part of a node class's name.")] = "",
    since: Annotated[
        str | None, typer.Option(metavar="DATE|RUN", help="Show runs from here on.")
    ] = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Show a service over all its runs: each metric's level, where it shifted, what differs there.

    Example: bench history sessioncache --metric peak_rss --configuration default
    """
    from orchestrator.answers.history import print_history
    from results.comparing.history import Wanted, known_metrics

    wanted = Wanted(
        metrics=known_metrics(metric or []),
        configurations=tuple(configuration or ()),
        workloads=tuple(workload or ()),
        node_class=node_class,
    )
    print_history(archive_path(archive), service, wanted, since, console(), as_json=as_json)


def serve(
    archive: ArchiveNames = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port; without it a free one.", show_default=False),
    ] = 0,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(help="Address to listen on, instead of this machine's own alone."),
    ] = None,
) -> None:
    """Show archives in a browser: runs, reports, trials, SQL, and a run while it goes on.

    It answers this machine only, with the token in the address that it prints, and changes
    nothing. Ctrl-C ends it.

    Example: bench serve --open
    """
    from orchestrator.answers.serve import print_serving

    archives = archive or [str(archive_path(None))]
    print_serving(archives, console(), port=port, listen=listen, open_it=open_it)


def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT statement.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read it from a file.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="For $name in it; repeat it."),
    ] = None,
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = (
        TableFormat.table
    ),
    archive: ArchiveNames = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds it may take.")
    ] = 300.0,
    memory: Annotated[
        str, typer.Option(help="What it may take before it spills to disk: 2GiB, or a share.")
    ] = "50%",
) -> None:
    """Ask archives anything: every request and every sample is a row.

    Without a query it asks for them at a prompt, or reads one from a pipe.

    Views: runs, trials, phases, builds, nodes, memory, requests, gc, events, runtime, validity,
    trial_metrics, cells, comparison, ablation and more; docs/sql.md tells each column.

    Example: bench sql "select configuration, count(*) from requests group by 1"
    """
    from orchestrator.answers.sql import ask_for_queries, print_query
    from results.sql.database import Limits
    from results.sql.parameters import read_parameters

    archives, limits = archive or [str(archive_path(None))], Limits(timeout_s, memory)
    parameters = read_parameters(param or [])
    if query is None and file is None and sys.stdin.isatty():
        if parameters:
            raise UserError("--param is for a query, and there is none; the prompt has no $name")
        ask_for_queries(archives, console(), limits)
        return
    text = _one_query(query, file)
    print_query(archives, text, parameters, console(), form=output.value, limits=limits)


def _one_query(query: str | None, file: Path | None) -> str:
    if query is not None and file is not None:
        raise UserError("give one query, either as an argument or with -f FILE")
    if query is None and file is None:
        return sys.stdin.read()
    if file is None:
        return query or ""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text") from error
