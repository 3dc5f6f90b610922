"""What decides on a release: sign-off and its keys, and how much load is carried."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import (
    ArchivePath,
    AsJson,
    MatrixPath,
    Notify,
    NotifyFile,
    RunName,
    announcing,
    archive_path,
    console,
)

keys_app = typer.Typer(
    help="Keys to sign a sign-off with, and whose signatures are believed.", no_args_is_help=True
)


class SignOffFormat(StrEnum):
    """How `bench signoff` prints its decision."""

    table = "table"
    md = "md"
    junit = "junit"
    json = "json"
    github = "github"
    html = "html"


def signoff(
    run_name: RunName = "latest",
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", "-c", help="Which one is to be shipped; else the only."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Objectives and waivers, instead of the run's own.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Private key to sign with; else $HEAPGATE_SIGNING_KEY, else the only."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A file to write, by its ending: .html a page, .md, .xml JUnit, .json the record "
            "(else in the run's folder). May be repeated.",
        ),
    ] = None,
    form: Annotated[SignOffFormat, typer.Option("--format", help="How to print.")] = (
        SignOffFormat.table
    ),
    archive: ArchivePath = None,
) -> None:
    """Decide whether a configuration holds its objectives, and sign the record of it.

    The exit code is 0 for GO and 1 for NO-GO. CAN'T TELL blocks too, unless somebody answers for
    it with a waiver.

    Example: bench signoff latest -o signoff.html
    """
    from orchestrator.answers.release import sign_off

    sign_off(
        archive_path(archive),
        run_name,
        console(),
        configuration=configuration,
        policy_path=policy,
        key_path=key,
        outputs=output or (),
        form=form.value,
    )


def capacity(
    matrix: MatrixPath,
    workload: Annotated[
        str | None, typer.Option(help="Under which workload; else the only one.")
    ] = None,
    lowest: Annotated[
        str | None, typer.Option(metavar="RATE", help="The lowest rate to try, such as 50/s.")
    ] = None,
    highest: Annotated[
        str | None, typer.Option(metavar="RATE", help="The highest rate to try.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=4, max=100, help="Of each configuration, at most; else 15, or what --budget allows."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long all of it may take, such as 30m."),
    ] = None,
    within: Annotated[
        str, typer.Option(metavar="SHARE", help="Stop when the interval's ends are so close.")
    ] = "10%",
    overload: Annotated[
        bool, typer.Option("--overload/--no-overload", help="Then 1.3 times that, and back.")
    ] = True,
    archive: ArchivePath = None,
    notify: Notify = None,
    notify_file: NotifyFile = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest rate at which each configuration still holds its objectives.

    The answer is confirmed in fresh processes; then comes an overload, and whether the service
    recovers from it. Every trial is a run in the archive: when it is stopped, the same command
    goes on.

    Example: bench capacity matrix.yaml --budget 30m
    """
    with announcing(f"bench capacity {matrix}", notify, notify_file, as_json=as_json) as word:
        from orchestrator.capacity.answers import print_capacity

        print_capacity(
            matrix,
            archive_path(archive),
            console(error=as_json),
            word.print_to(console()),
            workload=workload,
            lowest=lowest,
            highest=highest,
            trials=trials,
            budget=budget,
            within=within,
            overload=overload,
            as_json=as_json,
        )


class ForecastFormat(StrEnum):
    """How `bench forecast` prints."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


def forecast(
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="At this request rate, such as 1200/s.")
    ] = None,
    live: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With so much alive, such as 800MiB.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="With this GOGC or GOMEMLIMIT; repeat it."),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(metavar="SERVICE", help="Instead: where a service's history goes on to."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="DATE", help="With --history: until this day.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="With --history: so many runs ahead.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Such as peak_rss or gc_cpu; repeat it. Else these two; in time all."),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option("--configuration", "-c", help="A configuration; repeat it. Else all."),
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="Trials of this workload alone; repeat it.")
    ] = None,
    node_class: Annotated[str, typer.Option(help="Part of a node class's name.")] = "",
    service: Annotated[
        str | None, typer.Option(help="Of which service; else that of the latest run.")
    ] = None,
    confidence: Annotated[
        str, typer.Option(metavar="SHARE", help="Of the intervals, from 50% to 99%.")
    ] = "90%",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A picture too: .svg or .png.")
    ] = None,
    form: Annotated[ForecastFormat, typer.Option("--format", help="How to print.")] = (
        ForecastFormat.table
    ),
    archive: ArchivePath = None,
) -> None:
    """Tell memory and GC CPU at a load that was not measured, or in time, with its interval.

    Each forecast shows how its method does on what was measured. It is a figure to plan with: no
    sign-off rests on one. What lies too far out, or is told by too few trials, is refused.

    Example: bench forecast --rate 1200/s
    """
    from orchestrator.answers import forecast as forecastanswers

    if history is not None or by is not None or runs is not None:
        forecastanswers.print_continued(
            archive_path(archive),
            history or service,
            forecastanswers.wanted(metric, configuration, workload, node_class),
            console(),
            by=by,
            runs=runs,
            confidence=confidence,
            form=form.value,
            output=output,
        )
        return
    asked = forecastanswers.asked_for(
        metrics=metric or (),
        configurations=configuration or (),
        workloads=workload or (),
        node_class=node_class,
        rate=rate,
        live=live,
        environment=env or (),
        confidence=confidence,
    )
    forecastanswers.print_forecast(
        archive_path(archive), service, asked, console(), form=form.value, output=output
    )


@keys_app.command("new")
def keys_new(name: Annotated[str, typer.Argument(help="Whose key it is.")]) -> None:
    """Make a key pair. An Ed25519 key of ssh-keygen does as well.

    Example: bench keys new release-manager
    """
    from orchestrator.answers.release import new_key

    new_key(name, console())


@keys_app.command("ls")
def keys_ls(as_json: AsJson = False) -> None:
    """List the keys that are trusted here.

    Example: bench keys ls
    """
    from orchestrator.answers.release import print_keys

    print_keys(console(), as_json=as_json)


@keys_app.command("trust")
def keys_trust(
    file: Annotated[Path, typer.Argument(help="The .pub file that somebody gave you.")],
    name: Annotated[str | None, typer.Option(help="Whose it is; else the file's name.")] = None,
) -> None:
    """Believe the signatures of somebody's key from now on.

    Example: bench keys trust release-manager.pub
    """
    from orchestrator.answers.release import trust_key

    trust_key(file, name, console())
