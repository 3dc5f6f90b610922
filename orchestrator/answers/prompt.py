"""`bench sql` without a query: a prompt with history and completion, until Ctrl-D."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import FuzzyCompleter, WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer
from rich.console import Console

from orchestrator.answers.bounds import bounded
from results.errors import UserError
from results.metrics import counted
from results.sql.database import Database
from results.sql.query import write_table
from results.sql.reference import described_views

KEYWORDS = (
    *("select", "from", "where", "group by", "order by", "limit", "having", "join", "using"),
    *("count(*)", "quantile_cont(", "median(", "filter (where", "case when", "with", "pivot"),
    *("describe", "summarize", "distinct", "between", "is null", "partition by", "over ("),
)
HELP = """\
One query, ended by a semicolon. Tab completes, the arrows bring earlier queries back.
  \\d          the views       \\d VIEW     its columns
  \\q          leave           Ctrl-C      forget the line, or stop the query"""
_DESCRIBED = re.compile(r"\\d\s+(\w+)")


def run_prompt(database: Database, console: Console, history: Path | None, **terminal: Any) -> None:
    """Ask, answer, ask again. `terminal` is for tests: prompt_toolkit's input and output."""
    session: PromptSession[str] = PromptSession(
        history=_history(history),
        completer=FuzzyCompleter(WordCompleter(words(), ignore_case=True)),
        complete_while_typing=False,
        lexer=PygmentsLexer(SqlLexer),
        multiline=Condition(lambda: not _is_done(session.default_buffer.text)),
        prompt_continuation="   … ",
        **terminal,
    )
    console.print(f"{_counted(database)}; \\d lists the views, \\? helps", highlight=False)
    for line in _lines(session):
        try:
            _obey(line, database, console)
        except UserError as error:
            console.print(str(error), style="red", highlight=False, markup=False)
        except KeyboardInterrupt:
            console.print("stopped", style="yellow")


def words() -> list[str]:
    """What can be completed: views, their columns, and the words of SQL.

    As documented: to ask the database for the columns of `comparison` would make it compare.
    """
    views = described_views()
    columns = {column.name for view in views for column in view.columns}
    return [*(view.name for view in views), *sorted(columns), *KEYWORDS]


def _counted(database: Database) -> str:
    archives = len({run.path.parent for run in database.runs})
    where = f" in {archives} archives" if archives > 1 else ""
    runs, trials = counted(len(database.runs), "run"), counted(len(database.records), "trial")
    return f"{runs}, {trials}{where}"


def _history(path: Path | None) -> History:
    """Earlier queries, where this user can write; else only those of this time."""
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            return FileHistory(str(path))
    except OSError:
        pass
    return InMemoryHistory()


def _is_done(text: str) -> bool:
    stripped = text.strip()
    return stripped.endswith(";") or stripped.startswith("\\") or stripped in ("", "exit", "quit")


def _lines(session: PromptSession[str]) -> Iterator[str]:
    """What the user enters, until Ctrl-D or a word of leave."""
    while True:
        try:
            line = session.prompt("sql> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line.rstrip(";") in ("\\q", "exit", "quit"):
            return
        if line:
            yield line


def _obey(line: str, database: Database, console: Console) -> None:
    described = _DESCRIBED.fullmatch(line)
    if line in ("\\?", "\\h", "\\help"):
        console.print(HELP, highlight=False, markup=False)
        return
    if line == "\\d":
        _list_views(console)
        return
    sql = f"describe {described[1]}" if described else line
    with (
        bounded(database) as deadline,
        database.stream(sql, deadline=deadline) as answer,
    ):
        write_table(answer, console)


def _list_views(console: Console) -> None:
    for view in sorted(described_views(), key=lambda view: view.name):
        console.print(f"{view.name:<20} {view.grain}", highlight=False, markup=False)
