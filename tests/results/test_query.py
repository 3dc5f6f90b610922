"""Answers in the form that was asked for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archives import write_archive
from rich.console import Console

from results.errors import UserError
from results.sql.database import Database, open_database
from results.sql.query import TABLE_ROWS_MAX, write_result, write_table


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory):
    root = write_archive(tmp_path_factory.mktemp("asked") / "archive", blocks=1)
    with open_database(root) as opened:
        yield opened


def answer(database: Database, sql: str, form: str) -> str:
    stream = io.StringIO()
    with database.stream(sql) as reader:
        write_result(reader, form, stream)
    return stream.getvalue()


def printed(database: Database, sql: str, *, width: int, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    with database.stream(sql) as reader:
        write_table(reader, console)
    return stream.getvalue()


MIXED = """
select 1 as n, 2.5 as x, 'a,"b' as text, null as nothing, true as yes, [1, 2] as list,
       {'k': 'v'} as record, 'nan'::double as nan, 12345678901234567890::hugeint as huge,
       1.25::decimal(9, 2) as exact, date '2026-01-02' as day, '\\x01\\xff'::blob as bytes
"""


def test_json_is_a_list_of_objects_with_whole_values(database: Database) -> None:
    (row,) = json.loads(answer(database, MIXED, "json"))
    assert row == {
        "n": 1,
        "x": 2.5,
        "text": 'a,"b',
        "nothing": None,
        "yes": True,
        "list": [1, 2],
        "record": {"k": "v"},
        "nan": None,
        "huge": 12345678901234567890,
        "exact": 1.25,
        "day": "2026-01-02",
        "bytes": "01ff",
    }


def test_json_of_many_rows_and_of_none(database: Database) -> None:
    many = json.loads(answer(database, "select range as n from range(250000)", "json"))
    assert [row["n"] for row in many] == list(range(250_000))
    assert json.loads(answer(database, "select 1 as n where false", "json")) == []


def test_two_columns_of_one_name_are_both_there(database: Database) -> None:
    (row,) = json.loads(
        answer(database, "select a.n, b.n from (select 1 n) a, (select 2 n) b", "json")
    )
    assert sorted(row.values()) == [1, 2]


def test_csv_goes_back_into_a_reader(database: Database) -> None:
    (row,) = csv.DictReader(io.StringIO(answer(database, MIXED, "csv")))
    assert row["text"] == 'a,"b'
    assert row["nothing"] == ""
    assert row["huge"] == "12345678901234567890"
    assert json.loads(row["list"]) == [1, 2]
    assert row["day"] == "2026-01-02"


def test_csv_of_no_rows_has_its_head(database: Database) -> None:
    assert answer(database, "select 1 as n where false", "csv") == "n\n"


def test_parquet_holds_the_same_rows(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "answer.parquet"
    sql = "select trial_id, latency_ns from requests order by start_ns"
    with path.open("w") as stream, database.stream(sql) as reader:
        write_result(reader, "parquet", stream)
    assert pq.read_table(path).to_pylist() == database.query(sql).to_pylist()


def test_parquet_is_not_thrown_at_a_terminal(database: Database) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(UserError, match="Parquet"), database.stream("select 1") as reader:
        write_result(reader, "parquet", Terminal())


def test_an_unknown_form_names_the_known_ones(database: Database) -> None:
    with pytest.raises(UserError, match="table, csv, json, markdown, parquet, arrow"):
        answer(database, "select 1", "xml")


def test_a_table_in_a_pipe_is_never_cut(database: Database) -> None:
    text = answer(database, f"select '{'x' * 400}' as long, 7 as n", "table")
    assert "x" * 400 in text
    assert "…" not in text


def test_a_wide_table_on_a_terminal_is_told_row_by_row(database: Database) -> None:
    text = printed(database, "from trials", width=80, terminal=True)
    assert "row 1" in text
    assert "b01-1-default-steady" in text
    assert "generator_cpu_share" in text


def test_a_long_table_says_that_there_is_more(database: Database) -> None:
    enough = printed(database, f"from range({TABLE_ROWS_MAX})", width=80, terminal=False)
    assert "only the first" not in enough
    more = printed(database, f"from range({TABLE_ROWS_MAX + 1})", width=80, terminal=False)
    assert f"only the first {TABLE_ROWS_MAX} rows" in more


def test_no_control_sequence_of_the_service_reaches_the_terminal(database: Database) -> None:
    text = printed(
        database, "select 'a' || chr(27) || '[31mred[/]' as name", width=80, terminal=True
    )
    assert "\x1b[31m" not in text
    assert r"a\x1b[31mred[/]" in text


def test_a_timeout_also_ends_an_answer_that_is_being_written(database: Database) -> None:
    endless = "select a.range from range(10000000) a, range(10000000) b"
    with (
        pytest.raises(UserError, match=r"after 0\.5 s"),
        database.stream(endless, timeout_s=0.5) as reader,
    ):
        for _ in reader:
            pass
