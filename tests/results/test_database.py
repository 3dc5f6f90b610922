"""The views of an archive whose numbers are known by hand (see `archives.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import EPOCH_NS, MIB, RUN_ID, WARMUP_REQUESTS, write_archive

from results.archive.archive import Archive
from results.errors import UserError
from results.judging.counted import counted_trials
from results.metrics import usual_on
from results.sql.database import COMPARED, PROFILED, Database, open_database
from results.sql.reference import ViewText, described_views, parse_view
from results.statistics.paired import median_interval

PARTIAL = "b03-1-default-steady"
INVALID = "b04-2-optimised-steady"
REPEATED = "b05-1-default-steady"


VIEWS = {view.name: view for view in described_views()}


def rows(database: Database, sql: str) -> list[dict[str, Any]]:
    return database.query(sql).to_pylist()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six blocks of two configurations, one trial cut off, one invalid, one repeated."""
    return write_archive(
        tmp_path_factory.mktemp("known") / "archive",
        configurations={
            "default": {"failed": 1, "factors": (1.0, 1.1, 1.2)},
            "optimised": {"peak_rss_bytes": 120 * MIB, "requests": 999, "binary_bytes": 6_000_000},
        },
        partial=[PARTIAL],
        invalid=[INVALID],
        repeated=[REPEATED],
    )


@pytest.fixture(scope="module")
def database(archive: Path):
    with open_database(archive) as opened:
        yield opened


def metrics(database: Database, trial_id: str) -> dict[str, float | None]:
    found = rows(database, f"select metric, value from trial_metrics where trial_id = '{trial_id}'")
    return {row["metric"]: row["value"] for row in found}


def test_collections_whose_reports_are_torn_count_as_the_average(tmp_path: Path) -> None:
    with open_database(write_archive(tmp_path, configurations={"default": {"gc_torn": 7}})) as torn:
        found = metrics(torn, "b01-1-default-steady")
        (overhead,) = rows(torn, "select * from gc_overhead where block = 1")
    assert (found["gc_cycles"], found["gc_cpu_share"]) == (20, pytest.approx(0.1))
    assert overhead["gc_cpu_ns"] == 20 * 40_000_000
    assert overhead["stopped_ns"] == 20 * 100_000


def test_every_metric_is_what_it_is_by_hand(database: Database) -> None:
    expected = {
        "initial_rss": 100 * MIB,
        "peak_rss": 200 * MIB,
        "peak_cgroup": 210 * MIB,
        # 20 cycles of 40 ms of 8 s; the cycle in warmup and idle mark workers don't count
        "gc_cpu_share": 0.1,
        "gc_cycles": 20,
        # 1 ms + i µs for i in 0..1000: the quantile q is 1 ms + q * 1000 µs
        "latency_p50": 1_500_000,
        "latency_p99": 1_990_000,
        "latency_p999": None,
        # in 10 s 1,001 requests, one of them failed, and one of warmup that was answered in measure
        "throughput": 100.1,
        "error_share": 1 / 1_001,
        "cpu_cores": 0.8,
        "binary_size": 8_000_000,
        "service_p50": 750_000,
        "service_p99": 995_000,
        "service_p999": None,
    }
    found = metrics(database, "b01-1-default-steady")
    # A metric without a value may have a null or no row.
    assert set(found) <= set(expected)
    for name, value in expected.items():
        wanted = value if value is None else pytest.approx(value, rel=1e-6)
        assert found.get(name) == wanted, name


def test_p99_needs_a_thousand_requests(database: Database) -> None:
    found = metrics(database, "b01-2-optimised-steady")
    assert found["latency_p50"] == pytest.approx(1_499_000)
    assert found.get("latency_p99") is None


def test_p999_needs_ten_thousand_requests(tmp_path: Path) -> None:
    numbers = {"default": {"requests": 10_000, "latency_step_ns": 100}}
    with open_database(write_archive(tmp_path / "archive", configurations=numbers, blocks=1)) as db:
        found = metrics(db, "b01-1-default-steady")
    # 1 ms + 0.999 * 9,999 * 100 ns
    assert found["latency_p999"] == pytest.approx(1_998_900.1, abs=1)


def test_only_the_last_valid_attempt_counts(database: Database) -> None:
    found = rows(database, "select trial_id, valid, counted from trials")
    counted = {row["trial_id"]: (row["valid"], row["counted"]) for row in found}
    assert counted[REPEATED] == (False, False)
    assert counted[REPEATED + "~2"] == (True, True)
    assert counted[INVALID] == (False, False)
    assert sum(is_counted for _, is_counted in counted.values()) == 10


def test_the_later_of_two_valid_attempts_counts_in_any_order(archive: Path) -> None:
    records = [r for r in Archive(archive).records(RUN_ID) if r.trial_id.startswith(REPEATED)]
    for record in records:
        record.findings.clear()
    assert len(records) == 2
    for order in (records, records[::-1]):
        assert counted_trials(order) == {(RUN_ID, REPEATED + "~2")}


def test_invalid_trials_are_rows_but_no_result(database: Database) -> None:
    raw = rows(
        database, f"select valid, count(*) n from requests where trial_id='{INVALID}' group by 1"
    )
    assert raw == [{"valid": False, "n": 999 + WARMUP_REQUESTS}]
    assert rows(database, f"select * from trial_metrics where trial_id = '{INVALID}'") == []
    cells = rows(
        database, "select configuration, n from cells where metric = 'peak_rss' order by 1"
    )
    assert cells == [
        {"configuration": "default", "n": 5},
        {"configuration": "optimised", "n": 5},
    ]


def test_a_cell_is_summed_up_over_its_trials(database: Database) -> None:
    # Factors 1, 1.1, 1.2 in turn; block 3 was cut off: 200, 220, 200, 220, 240 MiB
    (cell,) = rows(
        database,
        "select median, min, max, mad from cells"
        " where metric = 'peak_rss' and configuration = 'default'",
    )
    assert {name: round(value / MIB, 3) for name, value in cell.items()} == {
        "median": 220,
        "min": 200,
        "max": 240,
        "mad": 20,
    }


def test_the_median_of_a_cell_has_the_interval_of_order_statistics(tmp_path: Path) -> None:
    factors = (1.0, 1.07, 0.98, 1.01, 1.03, 0.95, 1.1, 0.99, 1.02, 0.97, 1.05, 1.04)
    for blocks in (5, 6, 9, 12):
        run_id = f"202609{blocks:02}-000000-abcd"
        write_archive(
            tmp_path, configurations={"default": {"factors": factors}}, blocks=blocks, run_id=run_id
        )
    with open_database(tmp_path) as database:
        cells = rows(database, "from cells where metric = 'peak_rss' order by n")
        values = rows(database, "from trial_metrics where metric = 'peak_rss'")
    assert (cells[0]["median_low"], cells[0]["median_high"]) == (None, None), "five tell none"
    for cell in cells[1:]:
        own = [row["value"] for row in values if row["run_id"] == cell["run_id"]]
        want = median_interval(own, 0.95)
        assert (cell["median_low"], cell["median_high"]) == (want.low, want.high)


def test_trials_cut_off_are_told_and_left_out(database: Database) -> None:
    assert any(PARTIAL in note for note in database.notes), database.notes
    for table in ("memory", "requests", "gc", "events", "runtime"):
        found = rows(database, f"select count(*) n from {table} where trial_id like '{PARTIAL}%'")
        assert found == [{"n": 0}], table


def test_every_row_knows_its_run_and_its_cell(database: Database) -> None:
    for table in ("memory", "requests", "gc", "events", "runtime"):
        found = rows(
            database,
            "select distinct run_id, workload, block, configuration, node_class, valid"
            f" from {table} where trial_id = 'b02-2-optimised-steady'",
        )
        assert found == [
            {
                "run_id": "20260921-000000-abcd",
                "workload": "steady",
                "block": 2,
                "configuration": "optimised",
                "node_class": "linux-test",
                "valid": True,
            }
        ], table


def test_two_runs_can_be_asked_together_or_alone(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive", blocks=1, run_id="first")
    write_archive(root, blocks=2, run_id="second")
    query = "select run_id, count(*) n from memory group by 1 order by 1"
    with open_database(root) as both:
        assert rows(both, query) == [{"run_id": "first", "n": 150}, {"run_id": "second", "n": 300}]
    with open_database(root, ["second"]) as one:
        assert rows(one, query) == [{"run_id": "second", "n": 300}]


def test_the_same_archive_gives_the_same_answer(archive: Path) -> None:
    answers = []
    for _ in range(2):
        with open_database(archive) as opened:
            answers.append(opened.query("select * from trial_metrics"))
    assert answers[0].equals(answers[1])


def test_an_empty_archive_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs"), open_database(tmp_path) as opened:
        opened.query("select * from runs")


def test_times_stay_whole_nanoseconds(database: Database) -> None:
    found = rows(
        database, "select min(time_ns) t from memory where trial_id='b01-1-default-steady'"
    )
    assert found == [{"t": EPOCH_NS}]


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_a_view_has_the_columns_that_its_comments_tell(database: Database, view: ViewText) -> None:
    found = database.query(f"select * from {view.name} limit 0")
    assert found.column_names == [column.name for column in view.columns]
    assert all(column.meaning for column in view.columns)


@pytest.mark.parametrize("name", sorted(set(VIEWS) - {"limits", "objectives"}))
def test_a_view_has_rows(database: Database, name: str) -> None:
    assert database.query(f"select * from {name} limit 1").num_rows == 1


def test_every_name_that_sql_finds_is_documented(database: Database) -> None:
    found = {row["name"] for row in rows(database, "show tables")}
    assert {name for name in found if not name.startswith("raw_")} <= set(VIEWS)
    assert set(VIEWS) - {*COMPARED, *PROFILED} <= found


def test_the_metrics_are_those_of_the_registry(database: Database) -> None:
    found = rows(database, "select distinct metric from trial_metrics")
    assert {row["metric"] for row in found} == {m.name for m in usual_on("linux")}


def test_a_view_without_its_grain_is_refused() -> None:
    with pytest.raises(ValueError, match="grain"):
        parse_view("x", "create view x as select 1")
    with pytest.raises(ValueError, match="unit"):
        parse_view("x", "-- grain: one x\n-- a | b\ncreate view x as select 1")


def test_the_comparison_is_that_of_each_run(tmp_path: Path) -> None:
    half = {"default": {}, "optimised": {"peak_rss_bytes": 100 * MIB}}
    same = {"default": {}, "optimised": {}}
    root = write_archive(tmp_path / "archive", configurations=half, run_id="half")
    write_archive(root, configurations=same, run_id="same")
    with open_database(root) as opened:
        found = rows(
            opened,
            "select run_id, baseline, configuration, round(change, 6) as change, pairs, verdict"
            " from Comparison where metric = 'peak_rss' order by run_id",
        )
    pair = {"baseline": "default", "configuration": "optimised", "pairs": 6}
    assert found == [
        {"run_id": "half", **pair, "change": -0.5, "verdict": "better"},
        {"run_id": "same", **pair, "change": 0.0, "verdict": "no difference shown"},
    ]


def test_gc_overhead_by_hand(database: Database) -> None:
    (found,) = rows(database, "from gc_overhead where trial_id = 'b01-1-default-steady'")
    assert found["cycles"] == 20
    assert found["gc_cpu_ns"] == 20 * 40_000_000
    assert found["idle_cpu_ns"] == 20 * 100_000_000
    assert found["service_cpu_ns"] == 8_000_000_000
    assert found["stopped_ns"] == 20 * 100_000
    assert found["scavenged_bytes"] == 20 * MIB


def test_a_quiet_collector_is_zero_and_an_unasked_one_is_null(tmp_path: Path) -> None:
    root = write_archive(
        tmp_path / "archive",
        configurations={"quiet": {"gc_cycles": 0}, "unasked": {"gc_cycles": 0, "gc_trace": False}},
        blocks=1,
    )
    with open_database(root) as opened:
        found = rows(
            opened,
            "select configuration, value from trial_metrics where metric = 'gc_cycles' order by 1",
        )
        assert found == [
            {"configuration": "quiet", "value": 0},
            {"configuration": "unasked", "value": None},
        ]


def test_latency_by_second_covers_measure(database: Database) -> None:
    found = rows(
        database,
        "select second, requests, failed, latency_p99_ns, service_p99_ns from latency_by_second"
        " where trial_id = 'b01-1-default-steady' order by second",
    )
    assert [row["second"] for row in found] == list(range(10))
    assert sum(row["requests"] for row in found) == 1_001
    assert [row["failed"] for row in found] == [0] * 9 + [1]
    # A request is served in half of its latency.
    assert all(row["service_p99_ns"] * 2 == pytest.approx(row["latency_p99_ns"]) for row in found)


def test_memory_by_phase_keeps_the_order_of_phases(database: Database) -> None:
    found = rows(
        database,
        "select phase, samples, rss_max_bytes from memory_by_phase"
        " where trial_id = 'b01-1-default-steady'",
    )
    assert [(row["phase"], row["samples"]) for row in found] == [
        ("startup", 10), ("idle", 20), ("warmup", 10), ("measure", 100), ("cooldown", 10),
    ]  # fmt: skip
    assert found[3]["rss_max_bytes"] == 199 * MIB


def test_a_damaged_file_is_told_and_the_rest_is_readable(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive", blocks=2)
    path = next(root.glob("*/trials/b01-*/requests.arrow"))
    path.write_bytes(path.read_bytes()[:-20])
    with open_database(root) as opened:
        assert any("requests.arrow has changed" in note for note in opened.notes)
        assert rows(opened, "select distinct block from requests") == [{"block": 2}]
        assert rows(opened, "select distinct block, valid from memory order by all") == [
            {"block": 1, "valid": False}, {"block": 2, "valid": True},
        ]  # fmt: skip


def test_a_trial_without_a_readable_record_is_told(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive", blocks=2)
    next(root.glob("*/trials/b01-*/trial.json")).write_text("{")
    with open_database(root) as opened:
        assert any("b01-1-default-steady" in note for note in opened.notes)
        assert len(rows(opened, "from trials")) == 1


def test_a_run_of_which_no_trial_is_there_yet_has_empty_views(tmp_path: Path) -> None:
    planned = ["b01-1-default-steady"]
    with open_database(write_archive(tmp_path / "archive", blocks=1, missing=planned)) as opened:
        assert len(rows(opened, "from runs")) == 1
        for name in set(VIEWS) - {"runs", "builds"}:
            assert rows(opened, f"from {name}") == [], name
