"""An archive without runs: every command says so, and none that proves something passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import RUN_ID, write_archive
from bench_command import Workplace

NOTHING = "has no runs yet; try: bench demo"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("empty")
    (root / "archive").mkdir()
    return Workplace(root)


@pytest.mark.parametrize(
    "command",
    [
        "compare", "report", "history", "sql @", "forecast --rate 100/s", "signoff",
        "verify", "verify --json", "export -o x.duckdb", "export -o x.tar", "export -o lake",
    ],
)  # fmt: skip
def test_what_needs_a_run_is_an_error_in_one_sentence(workplace: Workplace, command: str) -> None:
    told = workplace.bench(*(word.replace("@", "select 1") for word in command.split()))
    assert (told.code, told.out) == (2, "")
    assert told.err.count("\n") == 1
    assert NOTHING in told.err
    assert not [path for path in workplace.root.iterdir() if path.name in ("x.duckdb", "x.tar")]


def test_where_nothing_is_to_be_done_that_is_said(workplace: Workplace) -> None:
    for command in (["runs"], ["gc", "--keep-last", "1", "--yes"]):
        told = workplace.bench(*command)
        assert told.code == 0, told.text
        assert "no runs in" in told.out


def test_an_archive_whose_only_run_can_not_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    write_archive(place.archive, blocks=1)
    (place.archive / RUN_ID / "run.json").write_text("{")
    told = place.bench("export", "-o", "x.tar")
    assert told.code == 2
    assert "has no run that can be read: bench verify" in told.err
    assert place.bench("verify").code == 3
