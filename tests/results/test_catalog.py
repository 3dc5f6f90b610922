"""Tables and views come when they are named: every way to name one finds it, whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import write_archive

from results.errors import UserError
from results.schema import TABLES
from results.sql.database import SHOWN, VIEWS, Database, open_database

OTHER = "20260921-000000-dcba"
ASKED = """
import sys
from pathlib import Path
from results.sql.database import open_database

with open_database(Path(sys.argv[1])) as database:
    print(database.query(sys.argv[2]).to_pylist(), "pyarrow.dataset" in sys.modules)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("catalog")
    write_archive(root, blocks=2)
    return write_archive(root, blocks=1, run_id=OTHER)


@pytest.fixture
def database(archive: Path) -> Iterator[Database]:
    with open_database(archive) as opened:
        yield opened


def counted(database: Database, sql: str) -> int:
    (row,) = database.query(sql).to_pylist()
    return int(next(iter(row.values())))


@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
def test_whatever_is_asked_first_answers_as_when_all_is_there(archive: Path, name: str) -> None:
    sql = f"select count(*) from {name}"
    with open_database(archive) as fresh, open_database(archive) as whole:
        whole.query("show tables")
        assert counted(fresh, sql) == counted(whole, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from REQUESTS",
        'select count(*) from "requests"',
        "select count(*) from main.requests",
        "select count(*) from query_table('req' || 'uests')",
        "select count(*) from query('from req' || 'uests')",
        "with trials as (from requests) select count(*) from trials",
        "select (select count(*) from requests)",
    ],
)
def test_every_way_to_name_a_table_finds_its_rows(database: Database, sql: str) -> None:
    rows = sum(r.rows["requests"] for r in database.records)
    assert counted(database, sql) == rows > 0


def test_a_name_may_come_as_a_parameter(database: Database) -> None:
    rows = sum(r.rows["memory"] for r in database.records)
    with database.stream("select count(*) as n from query_table($t)", {"t": "memory"}) as answer:
        assert answer.read_all().to_pylist() == [{"n": rows}]


def test_a_list_of_what_there_is_has_everything(database: Database) -> None:
    shown = database.query("show tables").column("name").to_pylist()
    assert {*TABLES, *SHOWN, *VIEWS} <= set(shown)
    database.query("from trials")
    views = database.query("select view_name from duckdb_views() where view_name = 'cells'")
    assert views.num_rows == 1


def test_who_mistypes_a_name_is_told_what_is_near(database: Database) -> None:
    with pytest.raises(UserError, match='Did you mean "requests"'):
        database.query("from reqests")
    with pytest.raises(UserError, match='Did you mean "requests"'):
        database.query("from reqests, trials")


def test_a_view_that_was_counted_is_asked_again_by_its_own_sql(database: Database) -> None:
    sql = "select count(*) from trial_metrics where metric = 'latency_p50' and value is not null"
    assert counted(database, sql) == 3
    # Of some of the runs the view's own SQL counts: it needs rows that were not there yet.
    assert counted(database, f"{sql} and run_id = '{OTHER}'") == 1
    assert counted(database, sql) == 3


@pytest.mark.parametrize("name", ["latency_by_second", "cells", "comparison"])
def test_what_is_counted_for_a_query_has_the_querys_time(
    database: Database, archive: Path, name: str
) -> None:
    sql = f"select count(*) from {name}"
    with pytest.raises(UserError, match="stopped after 1e-06 s"):
        database.query(sql, timeout_s=1e-6)
    with open_database(archive) as fresh:
        assert counted(database, sql) == counted(fresh, sql)


def test_a_query_without_rows_looks_for_no_files_of_rows(archive: Path) -> None:
    for sql, rows in {"select count(*) as n from trials": False, "from gc limit 0": True}.items():
        asked = subprocess.run(
            [sys.executable, "-c", ASKED, archive, sql], capture_output=True, text=True, check=True
        )
        assert asked.stdout.split()[-1] == str(rows), asked
