"""What is exported is what the archive says, for engines that know nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from archives import write_archive

from results.archive.archive import Archive
from results.archive.fragments import Trials, read_trials
from results.errors import EnvironmentLacks, UserError
from results.profiles.pprof import costs
from results.schema import TABLES
from results.sql.database import COMPARED, PROFILED, VIEWS, open_database
from results.sql.export import COMPLETE, DERIVED, export, export_packed, export_to_store


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("export"), blocks=6)


@pytest.fixture(scope="module")
def trials(archive: Path) -> Trials:
    opened = Archive(archive)
    return read_trials(opened, opened.runs())


def rows_by_trial(archive: Path) -> dict[str, dict[str, int]]:
    return {
        record["trial_id"]: record["rows"]
        for record in (json.loads(p.read_text()) for p in archive.glob("*/trials/*/trial.json"))
    }


def test_a_duckdb_file_has_every_view_and_answers_alike(
    archive: Path, trials: Trials, tmp_path: Path
) -> None:
    target = tmp_path / "runs.duckdb"
    assert export(trials, target) == target.stat().st_size
    with duckdb.connect(str(target), read_only=True) as connection, open_database(archive) as here:
        for name in (*VIEWS, *TABLES, *COMPARED, *PROFILED):
            sql = f"select count(*) as n from {name}"
            assert connection.sql(sql).fetchall() == [(here.query(sql)["n"][0].as_py(),)], name
        sql = "select * from comparison order by all"
        assert connection.sql(sql).to_arrow_table().to_pylist() == here.query(sql).to_pylist()
    assert list(tmp_path.iterdir()) == [target]


def test_parquet_has_every_row_where_its_folders_say(
    archive: Path, trials: Trials, tmp_path: Path
) -> None:
    target = tmp_path / "lake"
    assert export(trials, target) > 0
    counted = duckdb.sql(
        f"select trial_id, count(*) from read_parquet('{target}/requests/**/*.parquet', "
        "hive_partitioning = true) group by 1"
    ).fetchall()
    assert dict(counted) == {t: rows["requests"] for t, rows in rows_by_trial(archive).items()}
    names = {p.stem for p in target.glob("*.parquet")}
    assert names >= {"runs", "trials", "builds", "nodes", "validity", *DERIVED}


def test_profiles_are_files_again(trials: Trials, tmp_path: Path) -> None:
    target = tmp_path / "profiles"
    export(trials, target, profiles=True)
    (file,) = target.glob("*/b01-1-default-steady/*")
    assert file.name == "heap.pb.gz"
    assert {cost.function for cost in costs(file.read_bytes())} == {"main.main", "main.keep"}
    assert len(list(target.glob("*/*/heap.pb.gz"))) == len(trials.records)


def test_no_profiles_is_said(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive", blocks=1)
    for path in root.glob("*/trials/*/profile_files.arrow"):
        path.unlink()
    opened = Archive(root)
    with pytest.raises(UserError, match="no profiles were taken"):
        export(read_trials(opened, opened.runs()), tmp_path / "profiles", profiles=True)


def test_nothing_is_overwritten_and_nothing_half_made_is_left(
    trials: Trials, tmp_path: Path
) -> None:
    (tmp_path / "there.duckdb").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(trials, tmp_path / "there.duckdb")
    with pytest.raises(EnvironmentLacks, match="can't be written"):
        export(trials, tmp_path / "nowhere" / "runs.duckdb")
    assert [p.name for p in tmp_path.iterdir()] == ["there.duckdb"]


def test_parquet_is_a_hive_dataset_to_other_readers(
    archive: Path, trials: Trials, tmp_path: Path
) -> None:
    import pyarrow.dataset as ds

    export(trials, tmp_path / "lake")
    dataset = ds.dataset(tmp_path / "lake" / "requests", partitioning="hive")
    assert {"run_id", "configuration", "trial_id"} <= set(dataset.schema.names)
    for trial_id, rows in rows_by_trial(archive).items():
        assert dataset.count_rows(filter=ds.field("trial_id") == trial_id) == rows["requests"]
    found = duckdb.sql(
        "select distinct run_id, configuration from "
        f"read_parquet('{tmp_path}/lake/memory/**/*.parquet')"
    ).fetchall()
    assert found == [(trials.runs[0].run_id, "default")]


def test_a_store_gets_the_same_set_and_the_mark_of_its_end_last(
    trials: Trials, tmp_path: Path
) -> None:
    export(trials, tmp_path / "lake")
    assert export_to_store(trials, f"file://{tmp_path}/store/lake") > 0
    here, there = (
        {p.relative_to(root).as_posix(): p.stat().st_size for p in root.rglob("*.parquet")}
        for root in (tmp_path / "lake", tmp_path / "store" / "lake")
    )
    assert here == there
    assert (tmp_path / "store" / "lake" / COMPLETE).read_bytes() == b""
    sql = f"select count(*) from read_parquet('{tmp_path}/store/lake/requests/**/*.parquet')"
    assert duckdb.sql(sql).fetchall()[0][0] > 0
    with pytest.raises(UserError, match="is there already"):
        export_to_store(trials, f"file://{tmp_path}/store/lake")
    with pytest.raises(UserError, match="no address that can be written to"):
        export_to_store(trials, "nosuch://bucket/lake")
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacks, match="can't be written"):
        export_to_store(trials, f"file://{tmp_path}/file/lake")


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.zst"])
def test_runs_are_packed_as_plain_copies(archive: Path, tmp_path: Path, name: str) -> None:
    import tarfile

    import pyarrow as pa

    runs = Archive(archive).runs()
    assert export_packed(runs, tmp_path / name) == (tmp_path / name).stat().st_size
    with (
        pa.input_stream(str(tmp_path / name), compression="zstd" if "zst" in name else None) as raw,
        tarfile.open(fileobj=raw, mode="r|") as tar,
    ):
        found = {m.name: (tar.extractfile(m) or raw).read() for m in tar}
    want = {
        p.relative_to(archive).as_posix(): p.read_bytes() for p in archive.rglob("*") if p.is_file()
    }
    assert found == want
    with pytest.raises(UserError, match="is there already"):
        export_packed(runs, tmp_path / name)


def test_a_run_that_goes_on_is_not_packed(tmp_path: Path) -> None:
    opened = Archive(write_archive(tmp_path / "archive", blocks=1))
    (run,) = opened.runs()
    opened.write_run_document(run.path, run.document | {"status": "running"})
    with pytest.raises(UserError, match="still running"):
        export_packed(opened.runs(), tmp_path / "runs.tar")
    assert not (tmp_path / "runs.tar").exists()
