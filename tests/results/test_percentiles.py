"""The quick way to a trial's percentiles gives what the view's own SQL gives.

To the last bit where DuckDB is built with fused multiplications, as it is for this machine; a bit
is allowed, so that another build of DuckDB is no fault of the archive.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from archives import RUN_ID, write_archive, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from results.database import Database, open_database, view_text
from results.files import SUMS, write_sums
from results.percentiles import ANSWERS, SHARES, quantiles
from results.record import PhaseSpan, TrialRecord
from results.schema import SCHEMA_VERSION

KEPT = Path(__file__).resolve().parents[1] / "archives"
PLAIN = view_text("answers").partition("create view answers as")[2]
"""What the view says, as a query of its own: it names no view that is answered otherwise."""

values = st.one_of(st.integers(0, 2_000), st.integers(-5, 2**45))


def plain(database: Database) -> list[dict[str, Any]]:
    table = database.query(PLAIN).cast(ANSWERS)
    return table.sort_by([("run_id", "ascending"), ("trial_id", "ascending")]).to_pylist()


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether two tables of answers agree, percentiles to the last bit but one."""

    def rounded(row: dict[str, Any]) -> dict[str, Any]:
        lists = ("latency", "service")
        return row | {n: row[n] and pytest.approx(row[n], rel=3e-16, abs=0) for n in lists}

    return found == [rounded(row) for row in wanted]


def quick(database: Database) -> list[dict[str, Any]]:
    table = database.query("from answers").cast(ANSWERS)
    return table.sort_by([("run_id", "ascending"), ("trial_id", "ascending")]).to_pylist()


@given(st.lists(values, min_size=1, max_size=60))
@settings(deadline=None)
def test_percentiles_are_duckdbs(numbers: list[int]) -> None:
    want = duckdb.sql(
        f"select quantile_cont(n::bigint, {list(SHARES)}) from (select unnest($1) as n)",
        params=[numbers],
    ).fetchall()[0][0]
    found = quantiles(np.sort(np.array(numbers, np.int64)), SHARES)
    assert found == pytest.approx(want, rel=3e-16, abs=0)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_kept_archives_of_every_format_have_the_same_answers(version: int, tmp_path: Path) -> None:
    shutil.copytree(KEPT / f"v{version}", tmp_path / "archive")
    with open_database(tmp_path / "archive") as database:
        found = quick(database)
        assert same(found, plain(database))
        assert found


def test_requests_of_load_nodes_on_clocks_of_their_own_have_the_same_answers(
    tmp_path: Path,
) -> None:
    shown = {"default": {"load_nodes": 2, "failed": 7}, "other": {"load_clock_ahead_ns": 10**9}}
    write_archive(tmp_path, configurations=shown, blocks=2, repeated=["b01-1-default-steady"])
    with open_database(tmp_path) as database:
        found = quick(database)
        assert same(found, plain(database))
        assert [row["failed"] for row in found] == [7, 0, 7, 0]


def drawn_requests(seed: int, measure: PhaseSpan) -> Iterator[dict[str, Any]]:
    """Requests around every bound: of measure, of four bytes, of no lag, of an error."""
    draw = random.Random(seed)
    for _ in range(draw.choice((0, 1, 5, 300))):
        service_ns = draw.choice((0, 999, draw.randrange(10**9), draw.randrange(2**33)))
        bound_ns = draw.choice((measure.start_ns, measure.end_ns)) + draw.choice((-1, 0, 1))
        yield {
            "start_ns": bound_ns - draw.choice((0, service_ns)),
            "lag_ns": draw.choice((None, 0, draw.randrange(10**6), draw.randrange(2**33))),
            "phase": draw.choice(("warmup", "measure", "measure", "measure", "cooldown")),
            "service_ns": service_ns,
            "method": "GET",
            "name": "/session",
            "status": 200,
            "response_bytes": 512,
            "error": draw.choice((None, None, "HTTP 500")),
        }


@pytest.mark.parametrize("seed", range(8))
def test_requests_at_every_bound_have_the_same_answers(seed: int, tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {}, "other": {}}, blocks=2)
    for folder in (tmp_path / RUN_ID / "trials").iterdir():
        record = TrialRecord.read(folder / "trial.json")
        (measure,) = (span for span in record.phases if span.name == "measure")
        rows = list(drawn_requests(seed + record.block + record.position, measure))
        write_table(folder / "requests.arrow", rows)
        record.rows["requests"] = len(rows)
        (folder / "trial.json").write_text(record.to_json())
        write_sums(folder, (path.name for path in folder.iterdir() if path.name != SUMS))
    with open_database(tmp_path) as database:
        assert same(quick(database), plain(database))


def test_the_metrics_of_trials_are_the_same_from_either(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {"failed": 3}, "other": {}})
    write_archive(tmp_path, run_id="20260922-000000-abcd")
    query = f"from trial_metrics where run_id = '{RUN_ID}' order by trial_id, metric"
    with open_database(tmp_path) as database:
        by_sql = database.query(query)
        database.query("from cells")
        assert database.query(query) == by_sql
    with open_database(tmp_path, [RUN_ID]) as database:
        assert database.query(query) == by_sql


def test_a_query_of_all_runs_after_one_of_some_sees_them_all(tmp_path: Path) -> None:
    write_archive(tmp_path)
    write_archive(tmp_path, run_id="20260922-000000-abcd")
    query = "select count(distinct run_id) as runs from answers"
    with open_database(tmp_path) as database:
        assert database.measurements(RUN_ID)
        assert database.query(f"{query} where run_id <> '{RUN_ID}'").to_pylist() == [{"runs": 1}]
        assert database.query(query).to_pylist() == [{"runs": 2}]


def test_a_trial_without_requests_has_no_answers(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {}}, blocks=1)
    (folder,) = (tmp_path / RUN_ID / "trials").iterdir()
    write_table(folder / "requests.arrow", [])
    record = TrialRecord.read(folder / "trial.json")
    record.rows["requests"] = 0
    (folder / "trial.json").write_text(record.to_json())
    write_sums(folder, (path.name for path in folder.iterdir() if path.name != SUMS))
    with open_database(tmp_path) as database:
        assert quick(database) == plain(database) == []
        metrics = {
            row["metric"]: row["value"] for row in database.query("from trial_metrics").to_pylist()
        }
    assert metrics["latency_p50"] is None
    assert metrics["error_share"] is None
    assert metrics["throughput"] == 0
