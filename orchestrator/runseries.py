"""A command that makes one run after the other, as a bisection or the search of a capacity does.

Each is in a process of its own: a process can drive a single run, because Ray and the cores that it
may use stay as the first run left them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from orchestrator import cache
from orchestrator.interrupt import Stop, stop_on_interrupt
from orchestrator.progress import Progress
from orchestrator.progressevents import EventProgress, forward
from results.archive.archive import Archive
from results.errors import (
    EnvironmentLacks,
    HeapgateError,
    Interrupted,
    RunIncomplete,
    UserError,
)

POLL_S = 0.2
READER_S = 5.0
"""A process that holds the pipe open after the run must not hold us."""


@dataclass(frozen=True, slots=True)
class RunSeries:
    """What the runs of a series share: paths in their matrices count from the folder of
    `matrix_path`, and what the user stops is the whole series. `folder` is scratch.
    """

    matrix_path: Path
    archive: Archive
    console: Console
    folder: Path
    stop: Stop

    def run(
        self,
        document: dict[str, Any],
        more: dict[str, Any],
        progress: Progress | None = None,
        resume: str = "",
    ) -> None:
        """One more run of a matrix, marked with `more`; or go on with the run `resume`.

        `progress` is told what happens, else the run prints it itself. What was measured is in the
        archive. Raises as a run does, but not RunIncomplete.
        """
        order = Order(
            text_path=str(write_matrix(document, self.folder)),
            matrix_path=str(self.matrix_path),
            archive=str(self.archive.path),
            more=more,
            to_stderr=self.console.stderr,
            columns=None if self.console.is_terminal else self.console.width,
            resume=resume,
        )
        run_in_process(order, self.folder, self.stop, progress)
        self.stop.check()


@contextmanager
def resumable(matrix_path: Path, archive: Path, console: Console) -> Iterator[RunSeries]:
    """A series that goes on where it was when the user stops it and gives the same command again.

    Raises Interrupted with these words.
    """
    stop = Stop()
    kept = "what was measured is kept, the same command goes on"
    with stop_on_interrupt(stop, lambda: None, kept), cache.scratch() as folder:
        try:
            yield RunSeries(matrix_path.resolve(), Archive.create(archive), console, folder, stop)
        except HeapgateError:
            # An interrupt reaches git and compilers too: what they say then is no news.
            if stop.is_set():
                again = "stopped; the same command goes on where it was"
                raise Interrupted(again) from None
            raise


def write_matrix(document: dict[str, Any], folder: Path) -> Path:
    """The file of a matrix that is made, not written by hand; the one before it goes."""
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def chosen(what: str, asked: str | None, there: list[str], usual: str | None = None) -> str:
    """The one that was named, the usual one, or the only one. Raises UserError."""
    if asked is not None and asked not in there:
        raise UserError(f"there is no {what} {asked!r}; there are: {', '.join(there)}")
    found = asked or usual or (there[0] if len(there) == 1 else None)
    if found is None:
        raise UserError(f"name one with --{what}: {', '.join(there)}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to run: a matrix as text; its paths count from the folder of `matrix_path`.

    `more` is added to the run's document; `to_stderr` is where progress goes, `columns` how wide.
    With `as_events` it goes to whoever gave the order instead (`progressevents`). `resume` is a run
    to go on with, instead of a new one.
    """

    text_path: str
    matrix_path: str
    archive: str
    more: dict[str, Any]
    to_stderr: bool
    columns: int | None
    as_events: bool = False
    resume: str = ""


def run_in_process(
    order: Order, folder: Path, stop: Stop, progress: Progress | None = None
) -> None:
    """Run it, and pass on what asks to stop. Raises as the run did, but not RunIncomplete.

    The process has a session of its own, so that a terminal's Ctrl-C reaches it once,
    through us; it stops when its standard input is closed, and so with us.
    """
    path, answer = folder / "order.json", folder / "answer.json"
    plain = {name: getattr(order, name) for name in order.__slots__}
    path.write_text(json.dumps(plain | {"as_events": progress is not None}))
    answer.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.runseries", str(path), str(answer)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if progress else None,
        start_new_session=True,
        text=True,
    )
    reader = _forward(process, progress) if progress else None
    try:
        _wait(process, stop)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if reader:
            reader.join(READER_S)
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
    _raise_from(answer, process.returncode)


def _forward(process: subprocess.Popen[str], progress: Progress) -> threading.Thread:
    """Pass on what the process tells, beside the waiting for its end."""
    assert process.stdout
    reader = threading.Thread(target=forward, args=(process.stdout, progress), daemon=True)
    reader.start()
    return reader


def _wait(process: subprocess.Popen[str], stop: Stop) -> None:
    told = False
    while process.poll() is None:
        if stop.is_set() and not told:
            process.send_signal(signal.SIGINT)
            told = True
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)


def _raise_from(answer: Path, code: int) -> None:
    try:
        plain = json.loads(answer.read_text())
    except (OSError, ValueError):
        raise RunIncomplete(f"a run ended with code {code}") from None
    for kind in (UserError, EnvironmentLacks, Interrupted):
        if plain["exit_code"] == kind.exit_code:
            raise kind(plain["text"])


def main() -> None:
    """Run what the file that is named first says, and write how it ended into the second."""
    from orchestrator.matrix.matrix import load_matrix
    from orchestrator.output import OutputConsole
    from orchestrator.run import RunOptions, resume_run, run_matrix

    order = Order(**json.loads(Path(sys.argv[1]).read_text()))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    shown: Console | Progress
    if order.as_events:
        # What libraries print must not get between the lines.
        shown, sys.stdout = EventProgress(sys.stdout), sys.stderr
    else:
        shown = OutputConsole(stderr=order.to_stderr, width=order.columns)
    error: HeapgateError | None
    try:
        matrix_path, text_path = Path(order.matrix_path), Path(order.text_path)
        options = RunOptions(Path(order.archive))
        if order.resume:
            error = resume_run(options.archive, order.resume, shown).error
        else:
            matrix = load_matrix(text_path, relative_to=matrix_path.parent)
            error = run_matrix(
                matrix, matrix_path, options, shown, text_path=text_path, more=order.more
            ).error
    except HeapgateError as raised:
        error = raised
    plain = {"exit_code": error.exit_code if error else 0, "text": str(error or "")}
    Path(sys.argv[2]).write_text(json.dumps(plain))


def _stop_with_parent() -> None:
    # Not through sys.stdin: a thread that reads from it when Python ends is fatal.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
