"""Verdicts, pairing, corrections, and what is told about a run."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import MIXED, RUN_ID, reseal, write_archive
from hypothesis import given
from hypothesis import strategies as st

from results.comparing.compare import (
    Comparison,
    Measurement,
    Row,
    Settings,
    Table,
    compare,
    comparison_rows,
)
from results.comparing.comparison import comparison_of
from results.errors import UserError
from results.record import Finding, TrialRecord
from results.sql.database import open_database

BASE = (100.0, 104.0, 98.0, 101.0, 99.0, 103.0, 97.0, 102.0)
SAVED = [0.70, 0.71, 0.69, 0.72, 0.68, 0.705, 0.695, 0.715]
DEFAULT = Settings(baseline="default")
SECOND = "20260922-000000-abcd"


def measured(
    values: Mapping[str, Sequence[float]],
    metric: str = "peak_rss",
    *,
    run_id: str = "r1",
    workload: str = "steady",
    node_class: str = "linux",
) -> list[Measurement]:
    """The values of each configuration, block by block from 1."""
    return [
        Measurement((run_id, block), node_class, workload, name, metric, value)
        for name, own in values.items()
        for block, value in enumerate(own, 1)
    ]


def scaled(base: Sequence[float], factors: Sequence[float]) -> list[float]:
    return [a * factor for a, factor in zip(base, factors, strict=False)]


def only_row(measurements: Sequence[Measurement], settings: Settings = DEFAULT) -> Row:
    (table,) = compare(measurements, settings)
    (row,) = table.rows
    return row


@pytest.mark.parametrize(
    ("metric", "factors", "verdict"),
    [
        ("peak_rss", SAVED, "better"),
        ("peak_rss", [1 / f for f in SAVED], "worse"),
        ("throughput", SAVED, "worse"),
        ("throughput", [1 / f for f in SAVED], "better"),
        ("peak_rss", [1.1, 0.9, 1.05, 0.97, 1.02, 0.93, 1.01, 0.99], "no difference shown"),
        ("peak_rss", [1.0] * 8, "no difference shown"),
    ],
)
def test_verdict_follows_the_direction_of_the_metric(
    metric: str, factors: list[float], verdict: str
) -> None:
    values = {"default": BASE, "optimised": scaled(BASE, factors)}
    row = only_row(measured(values, metric), Settings("default", primary=(metric,)))
    assert row.verdict == verdict
    assert row.primary
    assert row.pairs == 8


def test_change_is_the_ratio_of_paired_blocks_and_machines_may_drift() -> None:
    # Each block has a level of its own, a hundred times apart; only ratios are alike.
    levels = [10.0**i for i in range(6)]
    row = only_row(measured({"default": levels, "optimised": [0.7 * a for a in levels]}))
    assert row.change is not None
    assert row.change.estimate == pytest.approx(-0.3)
    assert row.change.low == pytest.approx(-0.3)
    assert row.change.high == pytest.approx(-0.3)
    assert row.verdict == "better"
    assert row.relative


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1, 1e9)), min_size=6, max_size=10))
def test_swapped_arms_invert_the_ratio_and_its_bounds(pairs: list[tuple[float, float]]) -> None:
    values = {"a": [p[0] for p in pairs], "b": [p[1] for p in pairs]}
    there = only_row(measured(values), Settings("a")).change
    back = only_row(measured(values), Settings("b")).change
    assert there is not None
    assert back is not None
    assert (1 + there.estimate) * (1 + back.estimate) == pytest.approx(1)
    assert (1 + there.low) * (1 + back.high) == pytest.approx(1)


def test_a_metric_with_zeros_is_compared_by_differences() -> None:
    values = {"default": [0.0] * 6, "optimised": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]}
    row = only_row(measured(values, "error_share"))
    assert not row.relative
    assert row.change is not None
    assert row.change.estimate == pytest.approx(0.035)
    assert row.verdict == "worse"


@pytest.mark.parametrize(("margin", "verdict"), [(0.03, "equivalent (±3 %)"), (0.001, "no diff")])
def test_equivalence_needs_a_declared_margin(margin: float, verdict: str) -> None:
    near = scaled(BASE, [1.01, 0.99, 1.004, 0.997, 1.002, 0.995, 1.006, 0.998])
    values = measured({"default": BASE, "optimised": near})
    assert only_row(values).verdict == "no difference shown"
    asked = Settings("default", margins={"peak_rss": margin})
    assert only_row(values, asked).verdict.startswith(verdict)


@pytest.mark.parametrize("blocks", range(1, 6))
def test_fewer_than_six_blocks_say_so_however_large_the_change(blocks: int) -> None:
    values = {"default": BASE[:blocks], "optimised": [a / 10 for a in BASE[:blocks]]}
    row = only_row(measured(values), Settings("default", margins={"peak_rss": 0.5}))
    assert row.verdict == "needs 6 blocks"
    assert row.change is not None
    assert row.change.estimate == pytest.approx(-0.9)
    assert (row.change.low, row.change.high) == (-math.inf, math.inf)


def test_two_primary_contrasts_are_corrected_and_need_seven_blocks() -> None:
    values = {"default": BASE, "small": scaled(BASE, SAVED), "tiny": scaled(BASE, SAVED)}
    rows = [t.rows[0] for t in compare(measured({k: v[:6] for k, v in values.items()}), DEFAULT)]
    assert [row.verdict for row in rows] == ["needs 7 blocks"] * 2
    rows = [t.rows[0] for t in compare(measured({k: v[:7] for k, v in values.items()}), DEFAULT)]
    assert [row.verdict for row in rows] == ["better"] * 2
    assert [row.p for row in rows] == [pytest.approx(2 / 2**7)] * 2
    assert [row.p_adjusted for row in rows] == [pytest.approx(4 / 2**7)] * 2


def test_correction_can_turn_a_verdict_of_a_primary_row_but_not_of_a_secondary() -> None:
    # One block of eight against the trend: p = 2/128 = 0.0156, times four is above 0.05.
    mostly = scaled(BASE, [0.70, 0.71, 0.69, 0.72, 0.68, 0.705, 0.695, 1.01])
    names = ("a", "b", "c", "d")
    values = {"default": BASE, **dict.fromkeys(names, mostly)}
    found = compare([*measured(values), *measured(values, "cpu_cores")], DEFAULT)
    verdicts = [{r.metric.name: r.verdict for r in table.rows} for table in found]
    assert verdicts == [{"peak_rss": "no difference shown", "cpu_cores": "better"}] * 4
    assert [{r.metric.name: r.primary for r in t.rows} for t in found] == [
        {"peak_rss": True, "cpu_cores": False}
    ] * 4


def test_blocks_that_are_asked_for_are_more_than_there_were() -> None:
    # Clear but for one block, which keeps p at 0.0625.
    almost = scaled(BASE, [0.90, 0.89, 0.91, 0.88, 0.90, 1.0001])
    row = only_row(measured({"default": BASE[:6], "optimised": almost}))
    assert row.verdict == "no difference shown"
    assert row.more_blocks is not None
    assert row.more_blocks > row.pairs


def test_a_metric_without_direction_is_told_without_a_verdict() -> None:
    row = only_row(measured({"default": BASE, "optimised": [4 * a for a in BASE]}, "gc_cycles"))
    assert row.verdict == ""
    assert row.change is not None
    assert row.change.estimate == pytest.approx(3)


def test_only_blocks_with_both_trials_count() -> None:
    values = measured({"default": BASE, "optimised": scaled(BASE, SAVED)})
    gone = {("default", 2), ("optimised", 5)}
    row = only_row([m for m in values if (m.configuration, m.block[1]) not in gone])
    assert row.pairs == 6
    assert row.baseline == 100.5  # of blocks 1, 3, 4, 6, 7, 8


def test_a_metric_that_one_side_lacks_is_invalid_and_not_left_out() -> None:
    values = [
        *measured({"default": BASE, "optimised": scaled(BASE, SAVED)}),
        *measured({"default": BASE}, "peak_cgroup"),
    ]
    (table,) = compare(values, DEFAULT)
    verdicts = {row.metric.name: row.verdict for row in table.rows}
    assert verdicts == {"peak_rss": "better", "peak_cgroup": "invalid (no valid pair)"}
    assert table.blocks == 8


def test_a_figure_that_no_trial_can_tell_says_why() -> None:
    values = measured({"default": BASE, "optimised": BASE})
    values += [replace(m, metric="latency_p999", value=None) for m in values]
    (table,) = compare(values, DEFAULT)
    row = next(row for row in table.rows if row.metric.name == "latency_p999")
    assert (row.verdict, row.baseline, row.change) == ("n/a (< 10k requests)", None, None)


def test_runs_of_different_services_or_baselines_are_not_compared(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "service": "cache",
        "planned": [{"configuration": "default", "baseline": True}],
    }
    other_service = document | {"service": "shop"}
    other_baseline = document | {"planned": [{"configuration": "old", "baseline": True}]}
    for other, words in ((other_service, "services"), (other_baseline, "baselines")):
        with pytest.raises(UserError, match=f"can't be compared: they have {words}"):
            comparison_of(["r1", "r2"], [document, other], [], [])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"confidence": 0.9}, "confidence 0.9 and 0.95"),
        ({"primary": ["throughput"]}, "primary metrics peak_rss and throughput"),
        ({"margins": {"peak_rss": 0.05}}, r"margins \(none\) and peak_rss 0.05"),
    ],
)
def test_runs_that_are_decided_otherwise_are_not_compared_in_either_order(
    tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    write_archive(tmp_path, configurations=TWO)
    write_archive(tmp_path, configurations=TWO, run_id=SECOND, comparison=asked)
    for names in ((RUN_ID, SECOND), (SECOND, RUN_ID)):
        with (
            open_database(tmp_path, names) as database,
            pytest.raises(UserError, match=f"can't be compared: they have {words}"),
        ):
            database.comparison()


def test_one_name_for_two_set_ups_is_told(tmp_path: Path) -> None:
    for run_id, gogc, limit in ((RUN_ID, "50", None), (SECOND, "400", 2**30)):
        own = {"environment": (("GOGC", gogc), ("HEAPGATE_RUN", run_id)), "memory_max_bytes": limit}
        configurations = {"default": {}, "optimised": own}
        write_archive(tmp_path, configurations=configurations, run_id=run_id)
    with open_database(tmp_path, [RUN_ID, SECOND]) as database:
        warnings = database.comparison().warnings
    told = [text for text in warnings if "optimised" in text]
    assert told == [
        "the trials of optimised on linux differ in environment: GOGC=400; GOGC=50",
        f'the trials of optimised on linux differ in limits: {{"memory_max_bytes": {2**30}}}; {{}}',
    ]
    assert not [text for text in warnings if "default" in text]


def test_runs_pair_within_their_own_blocks() -> None:
    first = measured({"default": BASE[:3], "optimised": [50.0] * 3}, run_id="r1")
    second = measured({"default": [10.0] * 3, "optimised": [5.0] * 3}, run_id="r2")
    row = only_row([*first, *second])
    assert row.pairs == 6
    assert row.change is not None
    assert row.change.high < -0.45


def test_node_classes_and_workloads_are_never_mixed() -> None:
    values = {"default": BASE, "optimised": scaled(BASE, SAVED)}
    found = compare(
        [
            *measured(values, node_class="small"),
            *measured(values, node_class="large"),
            *measured(values, node_class="large", workload="burst"),
        ],
        DEFAULT,
    )
    assert [(t.node_class, t.workload, t.blocks) for t in found] == [
        ("large", "burst", 8),
        ("large", "steady", 8),
        ("small", "steady", 8),
    ]


def test_the_order_of_measurements_changes_nothing() -> None:
    values = {"default": BASE, "zeta": scaled(BASE, SAVED), "alpha": BASE[::-1]}
    measurements = [*measured(values), *measured(values, "latency_p99")]
    expected = compare(measurements, DEFAULT)
    random.Random(3).shuffle(measurements)
    assert compare(measurements, DEFAULT) == expected


def test_nothing_to_compare_gives_no_table() -> None:
    assert compare([], DEFAULT) == ()
    assert compare(measured({"default": BASE}), DEFAULT) == ()


# From an archive


def of_archive(folder: Path) -> Comparison:
    with open_database(folder) as database:
        return database.comparison()


def row_of(table: Table, metric: str) -> Row:
    return next(row for row in table.rows if row.metric.name == metric)


TWO = {
    "default": {"factors": (1.0, 1.02, 0.99, 1.01, 0.98, 1.03)},
    "optimised": {"peak_rss_bytes": 100 * 2**20, "factors": (1.0, 1.01, 0.99, 1.02, 0.97, 1.03)},
}


def test_a_whole_run_from_its_archive(tmp_path: Path) -> None:
    comparison = of_archive(write_archive(tmp_path, configurations=TWO))
    (table,) = comparison.tables
    row = row_of(table, "peak_rss")
    assert (row.verdict, row.pairs, row.primary) == ("better", 6, True)
    assert row.change is not None
    assert row.change.estimate == pytest.approx(-0.5, abs=0.01)
    assert row_of(table, "binary_size").verdict == "no difference shown"
    assert comparison.service == "sessioncache"
    assert comparison.run_ids == (RUN_ID,)
    assert comparison.blocks_needed == 6
    assert comparison.builds == {"default": "go1.23.9", "optimised": "go1.23.9"}
    assert comparison.invalid == ()


def test_an_invalid_trial_is_listed_with_its_reason_and_never_counted(tmp_path: Path) -> None:
    bad = "b02-2-optimised-steady"
    comparison = of_archive(write_archive(tmp_path, configurations=TWO, invalid=[bad]))
    (table,) = comparison.tables
    row = row_of(table, "peak_rss")
    assert row.pairs == table.blocks == 5
    assert row.verdict == "needs 6 blocks"
    assert comparison.invalid == ((bad, "too late"),)


def test_a_configuration_that_vanished_is_undecided(tmp_path: Path) -> None:
    three = TWO | {"tuned": {}}
    killed = [f"b{block:02}-3-tuned-steady" for block in range(1, 7)]
    comparison = of_archive(write_archive(tmp_path, configurations=three, invalid=killed))
    assert [table.candidate for table in comparison.tables] == ["optimised"]
    assert comparison.undecided == ["tuned under steady on linux-test has no valid trial"]
    assert comparison.worse == []


def test_a_node_class_and_a_workload_without_any_trial_are_undecided(tmp_path: Path) -> None:
    names = {"default": {}, "optimised": {}}
    gone = [
        f"b{block:02}-{p}-{name}-{workload}@{group}"
        for block in range(1, 7)
        for p, name in enumerate(names, 1)
        for workload, group in (("steady", "windows"), ("burst", "windows"), ("burst", "linux"))
    ]
    archive = write_archive(
        tmp_path, configurations=names, workloads=("steady", "burst"), groups=MIXED, missing=gone
    )
    assert of_archive(archive).missing == (
        f"optimised under burst on {MIXED['linux'].node_class} has no valid trial",
        "optimised under burst on windows has no valid trial",
        "optimised under steady on windows has no valid trial",
    )


def test_a_deciding_figure_that_no_table_has_is_undecided(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, configurations=TWO, comparison={"primary": ["headroom"]})
    assert of_archive(archive).undecided == ["headroom of optimised under steady: no such figure"]


def test_warnings_are_told_once_with_how_many_trials_have_them(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations=TWO)
    with open_database(tmp_path) as database:
        records, (run,) = list(database.records), database.runs
        measurements = database.measurements(run.run_id)
    for record in records[:3]:
        record.findings.append(Finding("node_noisy", "warning", "the hypervisor took a core"))
    records[0].findings.append(Finding("few_requests", "note", "too few"))
    found = comparison_of([run.run_id], [run.document], records, measurements)
    assert found.warnings == ("the hypervisor took a core (in 3 trials)",)


def test_what_a_table_hides_and_its_trials_differ_in_is_told(tmp_path: Path) -> None:
    write_archive(tmp_path, blocks=6)
    paths = sorted(tmp_path.glob("*/trials/*/trial.json"))
    for number, path in enumerate(paths):
        record = TrialRecord.read(path)
        record.node["kernel"] = f"6.{number % 2}"
        record.node["cpu_model"] = f"Xeon @ 2.{number % 2}0GHz"
        path.write_text(record.to_json())
        reseal(path.parent)
    warnings = of_archive(tmp_path).warnings
    assert [w for w in warnings if "differ in kernel: 6.0, 6.1" in w]
    assert [w for w in warnings if "differ in CPU model: Xeon @ 2.00GHz, Xeon @ 2.10GHz" in w]
    assert not [w for w in warnings if "differ in build" in w]


def test_rows_for_sql_have_null_for_bounds_that_do_not_exist(tmp_path: Path) -> None:
    comparison = of_archive(write_archive(tmp_path, configurations=TWO, blocks=3))
    rows = comparison_rows(comparison).to_pylist()
    (peak,) = (row for row in rows if row["metric"] == "peak_rss")
    assert peak["verdict"] == "needs 6 blocks"
    assert peak["is_primary"]
    assert peak["change"] == pytest.approx(-0.5, abs=0.01)
    assert (peak["change_low"], peak["change_high"]) == (None, None)


def test_more_gc_cpu_than_cpu_is_not_told_as_a_figure(tmp_path: Path) -> None:
    configurations = {"default": {}, "busy": {"gc_cycle_cpu_ns": 10**9}}
    root = write_archive(tmp_path / "archive", configurations=configurations, blocks=6)
    with open_database(root) as database:
        comparison = database.comparison()
        shares = database.query(
            "select distinct configuration, gc_cpu_share from gc_overhead order by 1"
        ).to_pylist()
    assert [row["gc_cpu_share"] for row in shares] == [None, pytest.approx(0.1)]
    (table,) = comparison.tables
    row = table.row("gc_cpu_share")
    assert row
    assert row.change is None
    assert any("GC CPU of 6 trials is not told" in text for text in comparison.warnings)
