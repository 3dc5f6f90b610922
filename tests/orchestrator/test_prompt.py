"""The prompt of `bench sql`, typed into by a program."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import write_archive
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from orchestrator.answers.prompt import run_prompt, words
from results.sql.database import Database, open_database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    archive = write_archive(tmp_path_factory.mktemp("prompt"), blocks=6)
    with open_database(archive) as opened:
        yield opened


def typed(database: Database, keys: str, history: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=120)
    with create_pipe_input() as terminal:
        terminal.send_text(keys)
        run_prompt(database, console, history, input=terminal, output=DummyOutput())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_queries_are_answered_until_one_leaves(database: Database) -> None:
    text = typed(database, "select count(*) as trials\nfrom trials;\nselect 41 + 1 as n;\n\\q\n")
    assert "1 run, 6 trials" in text
    assert [line.strip() for line in text.splitlines() if line.strip().isdigit()] == ["6", "42"]


def test_an_error_is_told_and_the_prompt_goes_on(database: Database) -> None:
    text = typed(database, "select nope from trials;\ndrop view trials;\nselect 7 as n;\nexit\n")
    assert "nope" in text
    assert "this is DROP" in text
    assert text.rstrip().endswith("7")


def test_views_and_their_columns_can_be_asked_for(database: Database) -> None:
    text = typed(database, "\\d\n\\d requests\n\\?\n\\q\n")
    assert "trial_metrics" in text
    assert "intended_ns" in text
    assert "Tab completes" in text
    known = words()
    assert {"requests", "latency_ns", "group by"} <= set(known)


def test_the_end_of_input_leaves(database: Database) -> None:
    assert "6 trials" in typed(database, "\x04")


def test_queries_are_remembered(database: Database, tmp_path: Path) -> None:
    history = tmp_path / "state" / "sql_history"
    typed(database, "select 1;\n\\q\n", history)
    assert "select 1;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0, "queries are nobody else's business"
    again = typed(database, "\x1b[A\x1b[A\n\\q\n", history)  # twice up: past the word of leave
    assert "1" in [line.strip() for line in again.splitlines()]
