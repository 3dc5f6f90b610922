"""What a user's query may do: read the archive, and nothing else."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from archives import write_archive

from results.errors import UserError
from results.sql.database import Database, open_database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory):
    root = write_archive(tmp_path_factory.mktemp("locked") / "archive", blocks=1)
    with open_database(root) as opened:
        yield opened


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1) to '{folder}/stolen.csv'",
        "copy requests to '{folder}/stolen.parquet' (format parquet)",
        "export database '{folder}/stolen'",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from read_text('/etc/pass*')",
        "select * from glob('/etc/*')",
        "select * from '/etc/passwd'",
        "from '/etc/passwd.csv'",
        "attach '{folder}/other.db'",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "set threads = 64",
        "set enable_external_access = true",
        "reset lock_configuration",
        "create table t as select 1",
        "create table t as pivot (select 1 as a, 2 as b) on a using max(b)",
        "explain analyze create table t as select 1",
        "attach ':memory:' as y",
        "use memory",
        "set variable a = 1",
        "prepare x as select 1",
        "begin",
        "insert into runs select * from runs",
        "drop view requests",
        "select 1; select 2",
        "select 1; copy (select 1) to '{folder}/stolen.csv'",
        "call duckdb_settings()",
        "from read_blob('/etc/passwd')",
        "from read_json('/etc/passwd')",
        "from read_parquet('/etc/passwd')",
        "from parquet_metadata('/etc/passwd')",
        "from sniff_csv('/etc/passwd')",
        "from read_duckdb('{folder}/other.db')",
        "from read_csv('http://127.0.0.1:9/a.csv')",
        "from 'https://127.0.0.1:9/a.parquet'",
        "from query('copy (select 1) to ''{folder}/stolen.csv''')",
        "from query('from ''/etc/passwd.csv''')",
        "from query_table('/etc/passwd')",
        "from json_execute_serialized_sql(json_serialize_sql('from read_text(''/etc/passwd'')'))",
        "from duckdb_secrets()",
        "from which_secret('s3://a', 's3')",
        "from enable_logging(storage_path = '{folder}/log')",
        "from enable_profiling('json', save_location = '{folder}/profile.json')",
        "from arrow_scan(1, 2, 3)",
        "from python_arrow_scan(1, 2, 3)",
        "from pandas_scan(1)",
        "from python_map_function((select 1))",
        "from seq_scan()",
        "from sqlite_scan('{folder}/a.db', 't')",
        "from read_xlsx('{folder}/a.xlsx')",
        "explain select 1",
        "create macro f(a) as a",
        "create secret (type s3)",
        "import database '{folder}'",
        "vacuum",
        "merge into runs using runs on true when matched then delete",
        "create or replace view runs as select 1",
        "select 1 into outfile '{folder}/stolen'",
        "select getenv('HOME')",
        "",
        "-- nothing",
        "selec 1",
        "select nothing_like_it from runs",
        "explain analyze copy (select 1) to '{folder}/stolen.csv'",
    ],
)
def test_refused_with_a_clean_message(database: Database, tmp_path: Path, query: str) -> None:
    with pytest.raises(UserError) as caught:
        database.query(query.format(folder=tmp_path))
    assert str(caught.value).strip()
    assert "Traceback" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as n",
        "select 1 as n;",
        "-- a comment\nselect 1 as n",
        "with x as (select 1 as n) select n from x",
        "from (values (1)) t(n)",
        "values (1)",
    ],
)
def test_ordinary_queries_are_answered(database: Database, query: str) -> None:
    assert database.query(query).num_rows == 1


def test_a_pivot_is_a_query(database: Database) -> None:
    table = database.query(
        "pivot (select metric, value from trial_metrics) on metric using first(value)"
    )
    assert table.num_rows == 1
    assert "peak_rss" in table.column_names


def test_an_endless_query_is_ended_and_the_database_lives_on(database: Database) -> None:
    endless = "select sum(a.range + b.range) from range(10000000) a, range(10000000) b"
    with pytest.raises(UserError, match=r"0\.3"):
        database.query(endless, timeout_s=0.3)
    assert database.query("select 1 as n").to_pylist() == [{"n": 1}]


def test_python_variables_are_no_tables(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = pa.table({"secret": [1]})
    monkeypatch.setattr("results.sql.sandbox.secret", secret, raising=False)
    with pytest.raises(UserError, match="secret"):
        database.query("from secret")


def test_settings_are_locked_below_the_check_of_statements_too(database: Database) -> None:
    with pytest.raises(duckdb.Error, match="locked"):
        database._sandbox._connection.execute("set threads = 64")
