"""Heapgate in a team's pipeline."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.commands.options import AsJson, console

ci_app = typer.Typer(help="Heapgate in a pipeline, before a release.", no_args_is_help=True)


class PipelineTarget(StrEnum):
    """Whose pipeline it is."""

    github = "github"
    gitlab = "gitlab"
    container = "container"


@ci_app.callback()
def _of_ci() -> None:
    """Keeps `init` a command of its own: Typer would merge an only one into its group."""


@ci_app.command("init")
def ci_init(
    target: Annotated[
        PipelineTarget,
        typer.Option("--for", help="A workflow, a job, or the image of a machine that runs it."),
    ],
    matrix: Annotated[Path, typer.Argument(help="The matrix to measure.")] = Path("matrix.yaml"),
    configuration: Annotated[
        str | None,
        typer.Option("--configuration", "-c", help="Which one is to be shipped; else the only."),
    ] = None,
    runner: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="Label (GitHub) or tag (GitLab) of your machine; repeatable."
        ),
    ] = None,
    install: Annotated[
        str | None,
        typer.Option(metavar="REQUIREMENT", help="What pip installs there; else this version."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The repository; else the one that the matrix lies in.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write what a pipeline needs to measure a matrix and decide on a release.

    Files that exist are never written over without --force.

    Example: bench ci init --for github --runner heapgate
    """
    from orchestrator.pipeline.answers import write_pipeline

    write_pipeline(
        matrix,
        target.value,
        console(),
        root=root,
        configuration=configuration,
        labels=runner or (),
        install=install,
        force=force,
        as_json=as_json,
    )
