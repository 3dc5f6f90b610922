"""The archive as a thing to keep: export, import, verify, gc, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import (
    ArchivePath,
    AsJson,
    RunName,
    RunNames,
    archive_path,
    console,
)

baseline_app = typer.Typer(
    help="Name runs that others are held against: bench compare RUN --against NAME.",
    no_args_is_help=True,
)
PinName = Annotated[str, typer.Argument(metavar="NAME", help="The baseline's name.")]


def export(
    target: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="TARGET",
            help="FILE.duckdb; FILE.tar or .tar.zst; a folder, or s3://BUCKET/PATH, for Parquet.",
        ),
    ],
    run_names: RunNames = None,
    profiles: Annotated[
        bool,
        typer.Option("--profiles", help="Profiles alone, for `go tool pprof` and `go tool trace`."),
    ] = False,
    archive: ArchivePath = None,
) -> None:
    """Copy runs for other engines: one DuckDB file with every view, or a set of Parquet files.

    A tar has plain copies of the runs, for bench import elsewhere. Parquet files may go into an
    object store too, by an address that Arrow knows (s3://, gs://, file://).

    Example: bench export latest -o runs.duckdb
    """
    from orchestrator.answers.keep import print_export

    print_export(archive_path(archive), run_names or [], target, console(), profiles=profiles)


def import_runs(
    source: Annotated[
        Path,
        typer.Argument(help="An archive, a run's folder, or a .tar, .tar.zst, .tar.gz, .zip."),
    ],
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Take runs from elsewhere into the archive, each verified first; nothing is overwritten.

    Example: bench import runs.tar.zst
    """
    from orchestrator.answers.keep import print_import

    print_import(archive_path(archive), source, console(), as_json=as_json)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]... | RECORD...", help="Runs; or records of sign-offs."),
    ] = None,
    binary: Annotated[
        Path | None, typer.Option(help="The build at hand: the record must be about it.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The only key to believe, instead of bench keys ls.")
    ] = None,
    require_go: Annotated[
        bool, typer.Option("--require-go", help="A record that says NO-GO is exit code 1 too.")
    ] = False,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Check that an archive is what was measured: every byte, every row count, every column.

    A signed record is checked with all that it rests on: its signature, its waivers, and every
    figure, made again from the archive. A true record may say NO-GO: see --require-go.

    Example: bench verify latest
    """
    from orchestrator.answers.verify import print_verification

    run_names = names or []
    records = [Path(name) for name in run_names if name.endswith(".json")]
    if records or binary or public_key or require_go:
        from orchestrator.answers.release import verify_records
        from results.errors import UserError

        if len(records) != len(run_names) or not records:
            raise UserError(
                "name runs, or records (….json) with --binary, --public-key and --require-go"
            )
        verify_records(
            archive_path(archive),
            records,
            console(),
            binary=binary,
            public_key=public_key,
            require_go=require_go,
            as_json=as_json,
        )
        return
    print_verification(archive_path(archive), run_names, console(), as_json=as_json)


def gc(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs that ended longer ago: 12h, 90d, 8w.")
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep so many of each service; with no age, all others may go.",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The oldest, until the archive is no larger: 50GiB."),
    ] = None,
    last_too: Annotated[
        bool, typer.Option("--last-too", help="Also the newest run of a service.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove them; else it is only said what would go.")
    ] = False,
    archive: ArchivePath = None,
    as_json: AsJson = False,
) -> None:
    """Say which runs may go, by age, number and size, and remove them with --yes.

    A baseline, a signed run and one that is running never go, nor does the newest of a service.

    Example: bench gc --older-than 90d --keep-last 5
    """
    from orchestrator.answers.keep import collect_garbage

    collect_garbage(
        archive_path(archive),
        console(),
        older_than=older_than,
        keep_last=keep_last,
        max_size=max_size,
        last_too=last_too,
        delete=delete,
        as_json=as_json,
    )


@baseline_app.command("set")
def baseline_set(name: PinName, run_name: RunName = "latest", archive: ArchivePath = None) -> None:
    """Give a run a name, once it is verified; an older run of that name loses it.

    Example: bench baseline set release-1.4 latest
    """
    from orchestrator.answers.keep import set_baseline

    set_baseline(archive_path(archive), name, run_name, console())


@baseline_app.command("ls")
def baseline_ls(archive: ArchivePath = None, as_json: AsJson = False) -> None:
    """List the names, their runs, and whether those are still what was named.

    Example: bench baseline ls
    """
    from orchestrator.answers.keep import print_baselines

    print_baselines(archive_path(archive), console(), as_json=as_json)


@baseline_app.command("unset")
def baseline_unset(name: PinName, archive: ArchivePath = None) -> None:
    """Take a name away; its run stays.

    Example: bench baseline unset release-1.4
    """
    from orchestrator.answers.keep import unset_baseline

    unset_baseline(archive_path(archive), name, console())
