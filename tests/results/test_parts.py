"""The requests of load nodes are files of their own and one table with the others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from archives import MEASURE_S, RUN_ID, WARMUP_REQUESTS, reseal, write_archive

from results.archive.archive import Archive
from results.archive.fragments import read_trials
from results.archive.trialfiles import TableFile, salvaged_table
from results.archive.verify import verify_run
from results.files import SUMS, write_sums
from results.judging.validity import judge
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION, TABLES
from results.sql.database import Database, open_database
from results.sql.export import export
from results.streams import TABLE_NAMES, stream_of, table_of

REQUESTS = 1_000
TRIAL = "b01-1-default-steady"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two blocks whose requests came from the service's own node and from two others."""
    numbers = {"default": {"load_nodes": 2, "requests": REQUESTS}, "optimised": {}}
    return write_archive(tmp_path / "archive", configurations=numbers, blocks=2)


@pytest.fixture
def database(archive: Path):
    with open_database(archive) as opened:
        yield opened


def folder_of(archive: Path) -> Path:
    return archive / RUN_ID / "trials" / TRIAL


def number(database: Database, sql: str) -> int:
    (value,) = database.query(sql).to_pylist()[0].values()
    return int(value)


def test_all_parts_are_one_table(archive: Path, database: Database) -> None:
    where = f"from requests where trial_id = '{TRIAL}'"
    assert sorted(p.name for p in folder_of(archive).glob("requests*")) == [
        "requests-1.arrow",
        "requests-2.arrow",
        "requests.arrow",
    ]
    assert number(database, f"select count(*) {where}") == REQUESTS + WARMUP_REQUESTS
    assert number(
        database, f"select count(distinct intended_ns) {where} and phase = 'measure'"
    ) == (REQUESTS)


def test_each_row_tells_who_sent_it(database: Database) -> None:
    sql = f"select generator, count(*) as n from requests where trial_id = '{TRIAL}' group by 1"
    found = {row["generator"]: row["n"] for row in database.query(sql).to_pylist()}
    assert found == {0: 337, 1: 337, 2: 336}
    assert (
        number(database, "select max(generator) from requests where configuration <> 'default'")
        == 0
    )
    sql = "select generators from trials where trial_id like 'b01%' order by configuration"
    assert [row["generators"] for row in database.query(sql).to_pylist()] == [2, 1]


def test_the_figures_are_those_of_all_parts(database: Database) -> None:
    sql = f"select metric, value from trial_metrics where trial_id = '{TRIAL}'"
    found = {row["metric"]: row["value"] for row in database.query(sql).to_pylist()}
    assert found["throughput"] == pytest.approx((REQUESTS + 1) / MEASURE_S)
    assert found["latency_p99"] == pytest.approx(1_000_000 + 0.99 * (REQUESTS - 1) * 1_000)


@pytest.mark.parametrize("ahead_s", [-3_600, -5, 5, 3_600])
def test_clocks_of_load_nodes_move_no_figure(tmp_path: Path, ahead_s: int) -> None:
    numbers = {"load_nodes": 2, "requests": REQUESTS, "load_clock_ahead_ns": ahead_s * 10**9}
    with open_database(
        write_archive(tmp_path, configurations={"default": numbers}, blocks=1)
    ) as db:
        sql = "select value from trial_metrics where metric = 'throughput'"
        assert db.query(sql)["value"].to_pylist() == [pytest.approx((REQUESTS + 1) / MEASURE_S)]
        seconds = db.query("from latency_by_second")["second"].to_pylist()
        assert seconds == list(range(MEASURE_S))
        # The rows themselves keep the times of the clock that read them.
        spread_ns = number(db, "select max(start_ns) - min(start_ns) from requests")
    assert spread_ns > 2 * abs(ahead_s) * 10**9


def test_verify_counts_and_digests_every_part(archive: Path) -> None:
    (run,) = Archive(archive).runs()
    assert list(verify_run(run)) == []
    part = folder_of(archive) / "requests-2.arrow"
    part.write_bytes(b"\0" + part.read_bytes()[1:])
    assert [d.path for d in verify_run(run)] == [part]


def test_a_part_with_other_rows_than_the_record_counts_is_found(archive: Path) -> None:
    folder = folder_of(archive)
    (folder / "requests-1.arrow").write_bytes((folder / "requests-2.arrow").read_bytes())
    write_sums(folder, [p.name for p in folder.iterdir() if p.name != SUMS])
    (run,) = Archive(archive).runs()
    (damage,) = verify_run(run)
    assert damage.text == "has 336 rows, the record counts 337"


def test_a_part_that_is_not_in_the_record_is_damage_and_not_read(archive: Path) -> None:
    folder = folder_of(archive)
    (folder / "requests-7.arrow").write_bytes((folder / "requests-2.arrow").read_bytes())
    write_sums(folder, [p.name for p in folder.iterdir() if p.name != SUMS])
    (run,) = Archive(archive).runs()
    assert [(d.path.name, d.text) for d in verify_run(run)] == [
        ("requests-7.arrow", "is not in the trial's record")
    ]
    with open_database(archive) as database:
        assert number(database, "select max(generator) from requests") == 2


def test_a_lost_part_makes_its_trial_invalid(archive: Path) -> None:
    (folder_of(archive) / "requests-1.arrow").unlink()
    (record,) = (r for r in Archive(archive).records(RUN_ID) if r.trial_id == TRIAL)
    assert not record.valid
    assert "requests-1.arrow damaged or missing" in record.findings[-1].text


def test_an_export_has_every_part(archive: Path, tmp_path: Path) -> None:
    import duckdb

    opened = Archive(archive)
    target = tmp_path / "lake"
    export(read_trials(opened, opened.runs()), target)
    sql = (
        f"select count(*), count(distinct generator) from read_parquet('{target}/requests/**/*."
        f"parquet', hive_partitioning = true) where trial_id = '{TRIAL}'"
    )
    assert duckdb.sql(sql).fetchall() == [(REQUESTS + WARMUP_REQUESTS, 3)]


def test_processes_of_a_node_are_told_apart(archive: Path) -> None:
    folder = folder_of(archive)
    (folder / "requests-2.arrow").rename(folder / "requests-1.1.arrow")
    record = TrialRecord.read(folder / "trial.json")
    record.rows["requests-1.1"] = record.rows.pop("requests-2")
    (folder / "trial.json").write_text(record.to_json())
    reseal(folder)
    sql = f"select generator, process, count(*) as n from requests where trial_id = '{TRIAL}'"
    with open_database(archive) as database:
        found = database.query(f"{sql} group by all order by all").to_pylist()
    rows = [(row["generator"], row["process"], row["n"]) for row in found]
    assert rows == [(0, 0, 337), (1, 0, 337), (1, 1, 336)]


def test_the_judge_counts_all_parts(archive: Path) -> None:
    record = TrialRecord.read(folder_of(archive) / "trial.json")
    assert judge(record, record.rows, None) == []
    less = record.rows | {"requests-2": record.rows["requests-2"] - 5}
    (finding,) = judge(record, less, None)
    assert (finding.code, finding.level) == ("requests_unrecorded", "invalid")


def test_a_part_that_grew_batch_by_batch_is_read_and_salvaged(tmp_path: Path) -> None:
    path = tmp_path / "requests-3.arrow"
    with pa.ipc.open_file(_one_part(tmp_path)) as opened:
        source = opened.read_all()
    file = TableFile(path, TABLES["requests"])
    for number, batch in enumerate(source.to_batches(), 1):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        assert file.add(number, sink.getvalue().to_pybytes())
    file.sync()
    assert salvaged_table(path.with_suffix(".journal")).num_rows == source.num_rows
    file.close()
    with pa.ipc.open_file(path) as opened:
        assert opened.read_all()["service_ns"].to_pylist() == source["service_ns"].to_pylist()


def _one_part(tmp_path: Path) -> Path:
    """A part as a collector writes it."""
    path = tmp_path / "requests-1.arrow"
    file = TableFile(path, TABLES["requests"])
    schema = TABLES["requests"].arrow
    rows = [
        {"start_ns": 1, "lag_ns": 0, "phase": "measure", "service_ns": n,
         "method": "GET", "name": f"/{n}", "status": 200, "response_bytes": 1, "error": None}
        for n in range(1, 51)
    ]  # fmt: skip
    words = {"phase", "method", "name", "error"}
    columns = [
        pa.array([row[f.name] for row in rows], pa.string() if f.name in words else f.type)
        for f in schema
    ]
    cast = [c.dictionary_encode().cast(f.type) if f.name in words else c
            for c, f in zip(columns, schema, strict=True)]  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(cast, schema=schema))
    file.add(1, sink.getvalue().to_pybytes())
    file.close()
    return path


@pytest.mark.parametrize(
    "name", ["requests", "requests-1", "memory-12", "requests.1", "requests-2.13"]
)
def test_a_stream_is_a_table_or_a_part_of_one(name: str) -> None:
    assert stream_of(*table_of(name)) == name


@pytest.mark.parametrize("name", ["", "request", "requests-", "requests-0", "requests-01", "x-1",
                                  "requests-1-2", "../requests", "requests-99999", "requests.0",
                                  "requests.1-1", "requests.", "requests.1.2"])  # fmt: skip
def test_other_names_belong_to_no_table(name: str) -> None:
    with pytest.raises(KeyError):
        table_of(name)


def test_the_names_of_streams_are_those_of_the_tables() -> None:
    assert set(TABLE_NAMES) == set(TABLES)


def test_every_version_of_a_table_has_the_columns_it_was_born_with() -> None:
    first, now = TABLES["memory"].arrow_of(1), TABLES["memory"].arrow_of(SCHEMA_VERSION)
    assert "commit_bytes" not in first.names
    assert "commit_bytes" in now.names
    assert [name for name in now.names if name in first.names] == first.names
