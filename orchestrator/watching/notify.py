"""Word of how a command ended, to whoever asked for it. It changes nothing of that end.

What can't be delivered in `WITHIN_S` is told in one warning; the exit code stays what it was.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestrator.progress import format_seconds
from orchestrator.watching.targets import Target
from results.errors import HeapgateError
from results.metrics import counted

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.run import RunResult

WITHIN_S: Final = 20.0
"""The end of a command waits no longer, for all its targets together."""

PRINTED_MAX: Final = 2_500
"""Characters of an answer, its end. Some services refuse or cut what is longer."""

ENDS: Final = {
    0: ("done", "success"),
    1: ("done: an objective failed, or something is worse", "warning"),
    2: ("refused", "failure"),
    3: ("incomplete", "failure"),
    4: ("this machine lacks something", "failure"),
    130: ("stopped", "warning"),
}
"""What an exit code means, and Apprise's kind of message for it."""


@dataclass(slots=True)
class Word:
    """What will be told of one command; whoever knows more while it runs adds it."""

    command: str
    wanted: bool = True
    """Whether anybody is to be told."""

    began_s: float = field(default_factory=time.monotonic)
    exit_code: int = 0
    crashed: bool = False
    error: str = ""
    found: list[str] = field(default_factory=list)
    """What came of it, and how to look at it."""

    printed: Console | None = None
    """Where its answer is printed, if that is the best account of it."""

    def end(self, error: BaseException) -> None:
        """It ended with an error, or with an exit code."""
        if isinstance(error, KeyboardInterrupt):
            self.exit_code = 130
        elif isinstance(error, OSError):
            self.exit_code = 4
        else:
            self.exit_code = int(getattr(error, "exit_code", 1))
            self.crashed = not hasattr(error, "exit_code")
        # A traceback's text is for whoever sees the terminal.
        self.error = str(error) if isinstance(error, HeapgateError) else self.error

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.command}: {self._end[0]}"

    @property
    def kind(self) -> str:
        """Apprise's kind of message."""
        return self._end[1]

    @property
    def _end(self) -> tuple[str, str]:
        failed = ("failed unexpectedly", "failure")
        return failed if self.crashed else ENDS.get(self.exit_code, failed)

    @property
    def text(self) -> str:
        """The message."""
        lasted = format_seconds(time.monotonic() - self.began_s)
        lines = [
            f"{self.command} on {platform.node()} ended with exit code {self.exit_code} "
            f"after {lasted}.",
            *self.found,
        ]
        if self.error and self.error not in self.found:
            lines.append(self.error)
        if self.printed is not None:
            printed = self.printed.export_text(clear=False).rstrip()
            lines.append(printed if len(printed) <= PRINTED_MAX else f"…{printed[-PRINTED_MAX:]}")
        return "\n".join(line for line in lines if line)

    def print_to(self, console: Console) -> Console:
        """Tell what this console prints, too."""
        if self.wanted:
            console.record = True
            self.printed = console
        return console

    def run(self, result: RunResult) -> None:
        """Tell of a run: the verdict, its trials, where to look."""
        from orchestrator.watching.account import account_of_run

        if not self.wanted:
            return
        self.error = str(result.error or "")
        with suppress(Exception):  # nothing here may change how the command ends
            self.found = account_of_run(result)


@contextmanager
def announced(command: str, targets: Sequence[Target]) -> Iterator[Word]:
    """Tell the targets how what is done meanwhile ended, whatever that is."""
    word = Word(command, wanted=bool(targets))
    try:
        yield word
    except BaseException as error:
        word.end(error)
        raise
    finally:
        if targets:
            _tell(word, targets)


def _tell(word: Word, targets: Sequence[Target]) -> None:
    try:
        problems = deliver(word.title, word.text, word.kind, targets)
    except KeyboardInterrupt:
        problems = ["stopped before all were told"]
    except Exception as error:  # nothing here may change how the command ends
        problems = [f"{type(error).__name__}"]
    if problems:
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"warning: not notified: {'; '.join(problems)}\n")


def deliver(
    title: str, text: str, kind: str, targets: Sequence[Target], within_s: float = WITHIN_S
) -> list[str]:
    """Send to all at the same time; whom it did not reach, and why, without any address."""
    order = {"title": title, "text": text, "kind": kind, "urls": [t.url for t in targets]}
    silent = "it could not be told"
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.watching.courier"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            out, _ = process.communicate(json.dumps(order).encode(), timeout=within_s)
        except subprocess.TimeoutExpired:
            silent = f"no answer within {within_s:g} s"
            process.kill()
            out, _ = process.communicate()
        finally:
            process.kill()
    answers = dict(_answer(line) for line in out.splitlines())
    problems = [(target.name, answers.get(n, silent)) for n, target in enumerate(targets)]
    return [f"{name}: {problem}" for name, problem in problems if problem]


def _answer(line: bytes) -> tuple[int, str]:
    plain: dict[str, Any] = json.loads(line)
    return plain["index"], plain["problem"]


def told_of(targets: Sequence[Target]) -> str:
    """A line for the user: who will be told."""
    names = ", ".join(target.name for target in targets)
    return f"{counted(len(targets), 'target')} will be told how it ends: {names}"
