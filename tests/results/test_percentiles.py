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
import pyarrow as pa
import pytest
from archives import RUN_ID, write_archive, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from results.archive.archives import find_archives, read_archives
from results.files import SUMS, write_sums
from results.record import PhaseSpan, TrialRecord
from results.schema import SCHEMA_VERSION
from results.sql.bysecond import SECONDS, TENTHS
from results.sql.database import Database, open_database, view_text
from results.sql.percentiles import ANSWERS, SHARES, quantiles

KEPT = Path(__file__).resolve().parents[1] / "archives"
VIEWS = {"answers": ANSWERS, "latency_by_second": SECONDS, "latency_tenths": TENTHS}
values = st.one_of(st.integers(0, 2_000), st.integers(-5, 2**45))


def plain(database: Database, view: str) -> list[dict[str, Any]]:
    """What the view's SQL says, as a query of its own: it names no view that is counted."""
    sql = view_text(view).partition(f"create view {view} as")[2]
    return rows_of(database.query(sql), view)


def quick(database: Database, view: str) -> list[dict[str, Any]]:
    """The view as anybody asks it."""
    return rows_of(database.query(f"from {view}"), view)


def rows_of(table: pa.Table, view: str) -> list[dict[str, Any]]:
    assert table.schema.names == VIEWS[view].names
    found: list[dict[str, Any]] = table.cast(VIEWS[view]).to_pylist()
    in_order = VIEWS[view] is not ANSWERS
    return found if in_order else sorted(found, key=lambda r: (r["run_id"], r["trial_id"]))


def assert_same(database: Database) -> None:
    """Both ways agree: in everything, but percentiles to the last bit but one."""
    for view in VIEWS:
        assert quick(database, view) == [nearly(row) for row in plain(database, view)], view


def nearly(row: dict[str, Any]) -> dict[str, Any]:
    times = {n: v for n, v in row.items() if n.endswith("_ns") and v}
    return row | {n: pytest.approx(v, rel=3e-16, abs=0) for n, v in times.items()}


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
        assert_same(database)
        assert all(quick(database, view) for view in VIEWS)


def test_requests_of_load_nodes_on_clocks_of_their_own_have_the_same_answers(
    tmp_path: Path,
) -> None:
    shown = {"default": {"load_nodes": 2, "failed": 7}, "other": {"load_clock_ahead_ns": 10**9}}
    write_archive(tmp_path, configurations=shown, blocks=2, repeated=["b01-1-default-steady"])
    with open_database(tmp_path) as database:
        assert_same(database)
        assert [row["failed"] for row in quick(database, "answers")] == [7, 0, 7, 0]


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
        assert_same(database)


def test_a_latency_of_half_an_hour_is_left_to_sql(tmp_path: Path) -> None:
    hour = {"default": {"latency_ns": 1_800 * 10**9}}
    write_archive(tmp_path, configurations=hour, blocks=1)
    with open_database(tmp_path) as database:
        assert_same(database)
        assert quick(database, "latency_by_second")[-1]["latency_max_ns"] > 1_800 * 10**9


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


def test_requests_of_several_archives_are_counted(tmp_path: Path) -> None:
    write_archive(tmp_path / "one")
    write_archive(tmp_path / "two", run_id="20260922-000000-abcd")
    archives = find_archives([tmp_path / "one", tmp_path / "two"])
    with Database(read_archives(archives)) as database:
        assert_same(database)
        asked = database.query(
            "select run_id, sum(requests) as n from answers group by 1 order by 1"
        )
    assert [row["n"] for row in asked.to_pylist()] == [6 * 1_001] * 2


def test_a_trial_without_requests_has_no_answers(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {}}, blocks=1)
    (folder,) = (tmp_path / RUN_ID / "trials").iterdir()
    write_table(folder / "requests.arrow", [])
    record = TrialRecord.read(folder / "trial.json")
    record.rows["requests"] = 0
    (folder / "trial.json").write_text(record.to_json())
    write_sums(folder, (path.name for path in folder.iterdir() if path.name != SUMS))
    with open_database(tmp_path) as database:
        assert_same(database)
        assert not any(quick(database, view) for view in VIEWS)
        metrics = {
            row["metric"]: row["value"] for row in database.query("from trial_metrics").to_pylist()
        }
    assert metrics["latency_p50"] is None
    assert metrics["error_share"] is None
    assert metrics["throughput"] == 0
