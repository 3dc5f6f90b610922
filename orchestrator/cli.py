"""The `bench` command: parse, call, print. No logic.

Nothing heavy is imported at the top, so that `bench --help` answers at once.
"""

from __future__ import annotations

import io
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.errors import EnvironmentLacks, HeapgateError, ReaderGone, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.run import RunResult

app = typer.Typer(
    name="bench",
    help="Measure what a memory configuration of a Go service saves, costs and carries.",
    epilog="First time? Try: bench demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


PIPE_COLUMNS = 120
"""A pipe has no width; this much keeps a row of a table on one line."""


class TableFormat(StrEnum):
    """How `bench sql` prints its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class ReportFormat(StrEnum):
    """What `bench report` writes."""

    html = "html"
    md = "md"
    csv = "csv"
    json = "json"


MatrixPath = Annotated[Path, typer.Argument(help="The matrix file.", show_default=False)]
ArchivePath = Annotated[
    Path | None,
    typer.Option("--archive", "-a", help="Folder of runs; else $HEAPGATE_ARCHIVE, else ./archive."),
]
RunName = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before a very large run.")]
Trials = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="Number of blocks, instead of the matrix's own."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Seed, instead of the matrix's own.")
]


BelowNoise = Annotated[
    bool,
    typer.Option("--below-noise", help="Accept margins below this machine's noise floor."),
]


def _console(*, error: bool = False) -> Console:
    from orchestrator.output import OutputConsole

    console = OutputConsole(stderr=error)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_COLUMNS
    return console


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def _archive_path(archive: Path | None) -> Path:
    from results.archive import default_archive

    return archive or default_archive()


def _finish(result: RunResult, *, as_json: bool) -> None:
    """Print the comparison of a run that ended, and leave with its exit code."""
    from orchestrator.answers import print_run

    print_run(result, _console(), as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.callback()
def _before_every_command() -> None:
    """Clean up after a run that was killed, whatever command comes next."""
    from orchestrator.leftovers import announce_sweep

    announce_sweep()


@app.command()
def run(
    matrix: MatrixPath,
    archive: ArchivePath = None,
    trials: Trials = None,
    seed: Seed = None,
    yes: Yes = False,
    below_noise: BelowNoise = False,
    as_json: AsJson = False,
) -> None:
    """Run a matrix: plan, build, measure every trial, compare.

    Example: bench run matrix.yaml --trials 10
    """
    from orchestrator.run import RunOptions, start_run

    options = RunOptions(_archive_path(archive), trials, seed, yes, below_noise)
    _finish(start_run(matrix, options, _console(error=as_json)), as_json=as_json)


@app.command()
def demo(archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """Run the shipped demonstration: Go 1.22 as it comes against a tuned Go 1.23.

    Example: bench demo
    """
    from workloads.shipped import matrix_path

    run(matrix_path("demo"), archive, below_noise=True, as_json=as_json)


@app.command()
def plan(
    matrix: MatrixPath,
    trials: Trials = None,
    seed: Seed = None,
    below_noise: BelowNoise = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do, in which order and for how long, and do nothing.

    Example: bench plan matrix.yaml
    """
    from orchestrator.matrix import load_matrix
    from orchestrator.plananswers import print_plan

    planned = load_matrix(matrix).with_overrides(trials=trials, seed=seed)
    print_plan(planned, _console(), as_json=as_json, below_noise=below_noise)


@app.command()
def resume(
    run_name: RunName = "latest",
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Finish a run: run only the trials that are missing or invalid.

    Example: bench resume latest
    """
    from orchestrator.run import resume_run

    console = _console(error=as_json)
    _finish(resume_run(_archive_path(archive), run_name, console), as_json=as_json)


@app.command()
def compare(
    run_names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; else the latest.")
    ] = None,
    archive: ArchivePath = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every configuration with the baseline, from the archive alone.

    Example: bench compare latest --markdown
    """
    from orchestrator.answers import print_comparison

    print_comparison(
        _archive_path(archive),
        run_names or ["latest"],
        _console(),
        style="json" if as_json else "markdown" if markdown else "table",
    )


@app.command()
def report(
    run_name: RunName = "latest",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, `-` for standard output."),
    ] = None,
    form: Annotated[
        ReportFormat, typer.Option("--format", help="A page, or only the comparison.")
    ] = ReportFormat.html,
    archive: ArchivePath = None,
) -> None:
    """Write one page about a run: verdict, charts, doubts, provenance. It opens anywhere, offline.

    Example: bench report latest -o report.html
    """
    from orchestrator.answers import write_report

    write_report(_archive_path(archive), run_name, output, form=form.value)


@app.command()
def runs(archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """List the runs in the archive.

    Example: bench runs
    """
    from orchestrator.answers import print_runs

    print_runs(_archive_path(archive), _console(), as_json=as_json)


@app.command()
def show(
    run_name: RunName = "latest", archive: ArchivePath = None, as_json: AsJson = False
) -> None:
    """Show one run: its builds, trials, limits as read back, and every reason for doubt.

    Example: bench show latest
    """
    from orchestrator.answers import print_run_details

    print_run_details(_archive_path(archive), run_name, _console(), as_json=as_json)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT statement.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read it from a file.")] = None,
    output: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = (
        TableFormat.table
    ),
    archive: ArchivePath = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds it may take.")
    ] = 300.0,
) -> None:
    """Ask the archive anything: every request and every sample is a row.

    Without a query it asks for them at a prompt, or reads one from a pipe.

    Views: runs, trials, phases, builds, memory, requests, gc, events, runtime, findings,
    trial_metrics, cells, comparison and more; docs/sql.md tells each column.

    Example: bench sql "select configuration, count(*) from requests group by 1"
    """
    from orchestrator.answers import ask_for_queries, print_query

    if query is None and file is None and sys.stdin.isatty():
        ask_for_queries(_archive_path(archive), _console(), timeout_s=timeout_s)
        return
    text = _one_query(query, file)
    print_query(_archive_path(archive), text, _console(), form=output.value, timeout_s=timeout_s)


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


@app.command()
def export(
    target: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.duckdb, or a folder for Parquet files.")
    ],
    run_names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; else all of them.")
    ] = None,
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

    print_export(_archive_path(archive), run_names or [], target, _console(), profiles=profiles)


@app.command()
def verify(
    run_names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; else all of them.")
    ] = None,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Check that an archive is what was measured: every byte, every row count, every column.

    Example: bench verify latest
    """
    from orchestrator.answers import print_verification

    print_verification(_archive_path(archive), run_names or [], _console(), as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can and can't measure, and what to do about it.

    Example: bench doctor
    """
    from orchestrator.answers import print_doctor

    print_doctor(_console(), as_json=as_json)


@app.command()
def calibrate(
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of three: fewer and shorter trials.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine itself: what its load generator can make, and how noisy it is.

    Two equal configurations are compared: what differs is noise. Margins below it are refused.

    Example: bench calibrate --quick
    """
    from orchestrator.calibrate import QUICK, USUAL
    from orchestrator.calibrate import calibrate as measure
    from orchestrator.calibrateanswers import print_calibration

    made = measure(_console(error=as_json), QUICK if quick else USUAL)
    print_calibration(made, _console(), as_json=as_json)


@app.command()
def init(
    service: Annotated[Path, typer.Argument(help="Folder of your Go service.")] = Path(),
    target: Annotated[Path, typer.Option("--output", "-o", help="Matrix to write.")] = (
        Path("matrix.yaml")
    ),
) -> None:
    """Write a commented matrix and a first scenario for your own service.

    Example: bench init ./my-service -o matrix.yaml
    """
    from orchestrator.starter import write_starter_matrix

    scenario = write_starter_matrix(service, target)
    typer.echo(f"wrote {target}" + (f" and {scenario}" if scenario else ""))
    typer.echo(f"look through it, then: bench plan {target}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the matrix, for editors that complete and check as you type.

    Example: bench schema > matrix.schema.json
    """
    from orchestrator.matrix import matrix_json_schema

    _print_json(matrix_json_schema())


@app.command()
def clean(
    cache: Annotated[
        bool, typer.Option("--cache", help="Also remove cached toolchains and builds.")
    ] = False,
) -> None:
    """Remove what killed runs left behind; runs in the archive are never touched.

    Example: bench clean --cache
    """
    from orchestrator.answers import print_clean

    print_clean(_console(), cache=cache)


node_app = typer.Typer(
    help="Make a cluster of several machines, Linux and Windows, and look after it.",
    no_args_is_help=True,
)
app.add_typer(node_app, name="node")

Foreground = Annotated[
    bool, typer.Option("--foreground", help="Stay, for a service manager; else run detached.")
]
AuthorityDays = Annotated[
    float, typer.Option("--days", min=0.01, help="How long a new authority is valid.")
]


@node_app.command("head")
def node_head(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="This machine's address for the nodes; else 127.0.0.1."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Where nodes join; else 7420; 0: any free one."),
    ] = None,
    days: AuthorityDays = 365.0,
    foreground: Foreground = False,
) -> None:
    """Make this machine the head of a cluster, and print the line that joins another to it.

    Example: bench node head --listen 10.0.0.1
    """
    from orchestrator.membership.answers import start_head

    start_head(_console(), listen, port, days=days, foreground=foreground)


@node_app.command("join")
def node_join(
    head: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS:PORT]", help="The head's; none: as it joined before, after a restart."
        ),
    ] = None,
    secret: Annotated[Path, typer.Option(help="The secret file, copied from the head.")] = (
        Path("cluster.secret")
    ),
    name: Annotated[str | None, typer.Option(help="Its name; else the machine's own.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="To choose nodes by; repeat it.")
    ] = None,
    foreground: Foreground = False,
) -> None:
    """Make this machine a node of a cluster.

    Example: bench node join 10.0.0.1:7420 --secret cluster.secret --label rack=a
    """
    from orchestrator.membership.answers import join, labels_from

    labels = labels_from(label or [])
    join(_console(), head, secret, name, labels, foreground=foreground)


@node_app.command("ls")
def node_ls(as_json: AsJson = False) -> None:
    """List the cluster's nodes: what they are, can limit, how their clocks stand, what they do.

    Example: bench node ls
    """
    from orchestrator.membership.answers import print_nodes

    print_nodes(_console(), as_json=as_json)


@node_app.command("leave")
def node_leave() -> None:
    """End this machine's part in a cluster; on the head, the head too.

    Example: bench node leave
    """
    from orchestrator.membership.answers import leave

    leave(_console())


@node_app.command("drain")
def node_drain(
    node: Annotated[str, typer.Argument(help="The node's name.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it take trials again.")] = False,
) -> None:
    """Start no new trials on a node; the one that runs there ends as planned.

    Example: bench node drain rack-a-3
    """
    from orchestrator.membership.answers import drain

    drain(_console(), node, undo=undo)


@node_app.command("rotate")
def node_rotate(days: AuthorityDays = 365.0) -> None:
    """Make a new authority, new tokens and certificates; every node must join again.

    Example: bench node rotate
    """
    from orchestrator.membership.answers import rotate

    rotate(_console(), days=days)


def main() -> None:
    """Entry point: expected errors become one clear message and a documented exit code."""
    _allow_any_character()
    sys.exit(_exit_code())


def _allow_any_character() -> None:
    """Into a pipe or file, Windows writes in a code page that lacks some of what is printed."""
    if sys.platform == "win32":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")


def _exit_code() -> str | int | None:
    try:
        app()
    except SystemExit as end:
        # Typer makes 1 of a pipe whose reader has gone; here 1 means a regression.
        code = 0 if isinstance(end.__context__, BrokenPipeError) else end.code
        return _flushed() or code
    except ReaderGone:
        return 0
    except HeapgateError as error:
        sys.stderr.write(f"{error}\n")
        return _flushed() or error.exit_code
    except OSError as error:
        return _lacking(error)
    return 0


def _flushed() -> int:
    """Write what is still held back; not 0 when that fails, though not for lack of a reader."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        return _lacking(error)
    return 0


def _lacking(error: OSError) -> int:
    """Something of this machine failed where nobody expected it: a full disk, as a rule."""
    _discard_output()
    sys.stderr.write(f"{error.filename or 'writing'}: {error.strerror or error}\n")
    return EnvironmentLacks.exit_code


def _discard_output() -> None:
    from orchestrator.output import discard_output

    discard_output()


if __name__ == "__main__":
    main()
