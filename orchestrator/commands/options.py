"""What several commands share: their arguments, where they print, which archive they mean."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.watching.notify import Word

PIPE_COLUMNS = 120
"""A pipe has no width; this much keeps a row of a table on one line."""

MatrixPath = Annotated[Path, typer.Argument(help="The matrix file.", show_default=False)]
ArchivePath = Annotated[
    Path | None,
    typer.Option("--archive", "-a", help="Folder of runs; else $HEAPGATE_ARCHIVE, else ./archive."),
]
ArchiveNames = Annotated[
    list[str] | None,
    typer.Option(
        "--archive",
        "-a",
        metavar="FOLDER|PATTERN",
        help="Folder of runs, or a pattern such as 'nightly/*'; repeat it. "
        "Else $HEAPGATE_ARCHIVE, else ./archive.",
    ),
]
RunNames = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs; else all of them.")
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

MetricsAt = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="ADDRESS:PORT",
        help="Serve live metrics for Prometheus there, such as 127.0.0.1:9464; else at "
        "$HEAPGATE_METRICS, else not at all.",
    ),
]
Notify = Annotated[
    list[str] | None,
    typer.Option(
        "--notify",
        metavar="URL",
        help="Tell this address how it ended, by Apprise: mailto://, slack://, json:// …; may be "
        "repeated. Others on this machine see it: $HEAPGATE_NOTIFY and --notify-file hide it.",
    ),
]
NotifyFile = Annotated[
    Path | None,
    typer.Option(
        "--notify-file", metavar="FILE", help="A file of such addresses that only you can read."
    ),
]


@contextmanager
def announcing(
    command: str, urls: Sequence[str] | None, file: Path | None, *, as_json: bool = False
) -> Iterator[Word]:
    """Whoever is to be told learns how what is done meanwhile ended.

    Raises UserError, before anything is done, for an address that can't be used.
    """
    from orchestrator.watching.notify import announced, told_of
    from orchestrator.watching.targets import take_targets

    targets = take_targets(urls or (), file)
    if targets:
        console(error=as_json).print(told_of(targets), highlight=False, markup=False)
    with announced(command, targets) as word:
        yield word


def console(*, error: bool = False) -> Console:
    """Where a command prints; into a pipe in lines of a fixed width."""
    from orchestrator.output import OutputConsole

    made = OutputConsole(stderr=error)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_COLUMNS
    return made


def print_json(document: Any) -> None:
    """Print what a program reads."""
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def archive_path(archive: Path | None) -> Path:
    """The archive that a command means."""
    from results.archive.archive import default_archive

    return archive or default_archive()
