"""What is exported is what the archive says, for engines that know nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from archives import write_archive

from results.archive import Archive
from results.database import COMPARED, PROFILED, VIEWS, open_database
from results.errors import EnvironmentLacks, UserError
from results.export import DERIVED, export
from results.fragments import Trials, read_trials
from results.pprof import costs
from results.schema import TABLES


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
