"""This machine and a first matrix for it: doctor, calibrate, init, schema, clean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import (
    AsJson,
    Notify,
    NotifyFile,
    announcing,
    console,
    print_json,
)

metrics_app = typer.Typer(
    help="What Prometheus and Grafana need to watch runs (`bench run --metrics`).",
    no_args_is_help=True,
)


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can and can't measure, and what to do about it.

    Example: bench doctor
    """
    from orchestrator.answers.common import print_doctor

    print_doctor(console(), as_json=as_json)


def calibrate(
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of three: fewer and shorter trials.")
    ] = False,
    notify: Notify = None,
    notify_file: NotifyFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine itself: what its load generator can make, and how noisy it is.

    Two equal configurations are compared: what differs is noise. Margins below it are refused.

    Example: bench calibrate --quick
    """
    from orchestrator.calibrate.answers import print_calibration
    from orchestrator.calibrate.calibrate import QUICK, USUAL
    from orchestrator.calibrate.calibrate import calibrate as measure

    with announcing("bench calibrate", notify, notify_file, as_json=as_json) as word:
        made = measure(console(error=as_json), QUICK if quick else USUAL)
        print_calibration(made, word.print_to(console()), as_json=as_json)


def init(
    service: Annotated[Path, typer.Argument(help="Folder of your Go service.")] = Path(),
    target: Annotated[Path, typer.Option("--output", "-o", help="Matrix to write.")] = (
        Path("matrix.yaml")
    ),
) -> None:
    """Write a commented matrix and a first scenario for your own service.

    Example: bench init ./my-service -o matrix.yaml
    """
    from orchestrator.matrix.starter import write_starter_matrix

    scenario = write_starter_matrix(service, target)
    typer.echo(f"wrote {target}" + (f" and {scenario}" if scenario else ""))
    typer.echo(f"look through it, then: bench plan {target}")


def schema() -> None:
    """Print the JSON Schema of the matrix, for editors that complete and check as you type.

    Example: bench schema > matrix.schema.json
    """
    from orchestrator.matrix.matrix import matrix_json_schema

    print_json(matrix_json_schema())


def clean(
    cache: Annotated[
        bool, typer.Option("--cache", help="Also remove cached toolchains and builds.")
    ] = False,
) -> None:
    """Remove what killed runs left behind; runs in the archive are never touched.

    Example: bench clean --cache
    """
    from orchestrator.answers.common import print_clean

    print_clean(console(), cache=cache)


@metrics_app.command("init")
def metrics_init(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to; it is made.")
    ] = Path("monitoring"),
    address: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Where runs serve their metrics.")
    ] = "127.0.0.1:9464",
) -> None:
    """Write a scrape configuration and alerts for Prometheus, and a dashboard for Grafana.

    Example: bench metrics init -o monitoring
    """
    from orchestrator.watching.setup import write_setup

    for path in write_setup(folder, address):
        typer.echo(f"wrote {path}")
    typer.echo(f"then: prometheus --config.file={folder / 'prometheus.yml'}")


@metrics_app.command("ls")
def metrics_ls(as_json: AsJson = False) -> None:
    """List the live metrics of a run: kind, unit, labels, meaning.

    Example: bench metrics ls
    """
    from orchestrator.watching.setup import print_metrics

    print_metrics(console(), as_json=as_json)
