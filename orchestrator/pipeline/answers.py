"""What `bench ci` prints: the files that were written, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import print_json
from orchestrator.pipeline.files import pipeline_files, write_files
from orchestrator.pipeline.project import read_project
from orchestrator.pipeline.remaining import steps_left


def write_pipeline(
    matrix: Path,
    target: str,
    console: Console,
    *,
    root: Path | None,
    configuration: str | None,
    labels: Sequence[str],
    install: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the files of a pipeline, and say what remains."""
    project = read_project(
        matrix, root, configuration=configuration, labels=labels, install=install
    )
    files = pipeline_files(target, project)
    write_files(project.root, files, force=force)
    written = [str(path) for path in files]
    steps = steps_left(target, project, written)
    if as_json:
        print_json({"root": str(project.root), "written": written, "left_to_do": steps})
        return
    for path in written:
        console.print(f"wrote {escape(path)}", highlight=False, soft_wrap=True)
    console.print("what is left to do:", highlight=False)
    for number, step in enumerate(steps, 1):
        console.print(f"  {number}. {escape(step)}", highlight=False, soft_wrap=True)
