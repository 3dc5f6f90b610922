"""Archives of every earlier version of the format are still read, checked and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results.archive.archive import Archive
from results.archive.verify import verify_run
from results.schema import SCHEMA_VERSION, TABLES
from results.sql.database import COMPARED, PROFILED, VIEWS, open_database

KEPT = sorted((Path(__file__).resolve().parents[1] / "archives").glob("v*"))


def records(archive: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in sorted(archive.glob("*/trials/*/trial.json"))]


def test_there_is_one_of_each_version() -> None:
    assert [path.name for path in KEPT] == [f"v{n}" for n in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_it_is_as_it_was_measured(archive: Path) -> None:
    (run,) = Archive(archive).runs()
    assert list(verify_run(run)) == []


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_every_view_answers(archive: Path) -> None:
    with open_database(archive) as database:
        assert database.notes == []
        for name in (*VIEWS, *TABLES, *COMPARED, *PROFILED):
            assert database.query(f"select count(*) as n from {name}")["n"][0].as_py() is not None
        counted = database.query(
            "select trial_id, count(*) as rows from requests group by all order by all"
        ).to_pylist()
    assert counted == [
        {"trial_id": r["trial_id"], "rows": r["rows"]["requests"]}  # type: ignore[index]
        for r in records(archive)
    ]


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_lag_latency_and_intended_start_fit_in_every_version(archive: Path) -> None:
    with open_database(archive) as database:
        found = database.query(
            "select count(*) as n, count(*) filter (start_ns = intended_ns + lag_ns) as started, "
            "count(*) filter (latency_ns = service_ns + lag_ns) as answered from requests"
        ).to_pylist()[0]
    assert found["n"] > 0
    assert found["started"] == found["answered"] == found["n"]


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_it_is_compared(archive: Path) -> None:
    with open_database(archive) as database:
        tables = database.comparison().tables
    assert tables
    for table in tables:
        peak = next(row for row in table.rows if row.metric.kind == "peak_resident")
        assert peak.pairs == 2
        assert peak.baseline and peak.candidate and peak.candidate < peak.baseline


def test_what_the_first_format_lacks_is_null() -> None:
    with open_database(KEPT[0]) as database:
        found = database.query(
            "select count(*) as n, count(commit_bytes) as commit, count(rss_bytes) as rss "
            "from memory"
        ).to_pylist()[0]
        trials = database.query("from trials").to_pylist()
    assert (found["commit"], found["rss"]) == (0, found["n"])
    assert {(t["os"], t["clock_offset_ns"], t["generators"]) for t in trials} == {
        ("linux", None, 1)
    }
