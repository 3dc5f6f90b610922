"""One run on Linux and Windows: tables by node class, and across systems nothing but ratios."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from archives import LINUX, MIB, MIXED, RUN_ID, WINDOWS, Place, write_archive
from rich.cells import cell_len
from rich.console import Console

from results.archive.archive import Archive
from results.comparing.compare import Comparison, Measurement, Settings, compare
from results.comparing.ratios import ACROSS_SYSTEMS, ratio_tables
from results.comparing.tables import markdown_comparison, plain_comparison, print_comparison
from results.metrics import METRICS, SYSTEMS, named_on, usual_on
from results.report.page import render_report
from results.sql.database import Database, open_database

DRIFT = (1.0, 1.02, 0.99, 1.01, 0.98, 1.03)
CONFIGURATIONS = {
    "default": {"factors": DRIFT},
    "optimised": {
        "peak_rss_bytes": 100 * MIB,
        "initial_rss_bytes": 80 * MIB,
        "peak_working_set_bytes": 108 * MIB,
        "initial_working_set_bytes": 72 * MIB,
        "peak_commit_bytes": 144 * MIB,
        "initial_commit_bytes": 88 * MIB,
        "peak_job_bytes": 150 * MIB,
        "gc_cycles": 40,
        "factors": DRIFT,
    },
}
ONLY_LINUX = {"initial_rss", "peak_rss", "peak_cgroup"}
ONLY_WINDOWS = {
    "initial_working_set",
    "initial_commit",
    "peak_working_set",
    "peak_commit",
    "peak_job",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(
        tmp_path_factory.mktemp("mixed"), configurations=CONFIGURATIONS, blocks=7, groups=MIXED
    )


@pytest.fixture(scope="module")
def database(archive: Path):
    with open_database(archive) as opened:
        yield opened


@pytest.fixture(scope="module")
def comparison(database: Database) -> Comparison:
    return database.comparison()


def rows(database: Database, sql: str) -> list[dict[str, Any]]:
    return database.query(sql).to_pylist()


def compared(folder: Path) -> Comparison:
    with open_database(folder) as database:
        return database.comparison()


def shown(comparison: Comparison) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=True, color_system=None)
    print_comparison(comparison, console)
    return screen.getvalue()


def test_a_trial_has_the_metrics_of_its_system(database: Database) -> None:
    sql = "select os, list(distinct metric) as names from trial_metrics join trials using (run_id, "
    found = {row["os"]: set(row["names"]) for row in rows(database, f"{sql}trial_id) group by 1")}
    assert found == {system: {m.name for m in usual_on(system)} for system in SYSTEMS}
    assert found["linux"] - found["windows"] == ONLY_LINUX
    assert found["windows"] - found["linux"] == ONLY_WINDOWS


def test_the_metrics_of_windows_are_what_they_are_by_hand(database: Database) -> None:
    sql = "select metric, value from trial_metrics where trial_id = 'b01-1-default-steady@windows'"
    found = {row["metric"]: row["value"] for row in rows(database, sql)}
    expected = {
        # The first half of idle shows half of it, and must not count.
        "initial_working_set": 90 * MIB,
        "initial_commit": 110 * MIB,
        "peak_working_set": 180 * MIB,
        "peak_commit": 240 * MIB,
        "peak_job": 250 * MIB,
        "gc_cpu_share": 0.1,
        "throughput": 100.2,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


@pytest.mark.parametrize(
    ("rose", "peak", "source"), [(True, 180, "kernel"), (False, 179, "samples")]
)
def test_a_mark_that_did_not_rise_in_measure_is_not_its_peak(
    tmp_path: Path, rose: bool, peak: int, source: str
) -> None:
    numbers = {"default": {"marks_rose": rose}}
    groups = {"windows": WINDOWS}
    with open_database(
        write_archive(tmp_path, configurations=numbers, blocks=1, groups=groups)
    ) as db:
        (trial,) = rows(db, "from trials")
        sql = "select metric, value from trial_metrics where metric like 'peak%'"
        values = {row["metric"]: row["value"] for row in rows(db, sql)}
    assert (trial["peak_working_set_bytes"], trial["peak_working_set_from"]) == (peak * MIB, source)
    assert trial["peak_commit_from"] == source
    assert values["peak_working_set"] == peak * MIB
    assert values["peak_job"] == (250 * MIB if rose else None)


def test_memory_by_phase_has_what_windows_tells(database: Database) -> None:
    sql = "from memory_by_phase where trial_id = 'b01-1-default-steady@windows'"
    (measure,) = (row for row in rows(database, sql) if row["phase"] == "measure")
    assert measure["rss_max_bytes"] is None
    assert measure["working_set_max_bytes"] == 179 * MIB
    assert measure["private_working_set_max_bytes"] == 169 * MIB
    assert measure["commit_max_bytes"] == 239 * MIB
    assert (measure["peak_commit_bytes"], measure["job_peak_bytes"]) == (240 * MIB, 250 * MIB)
    assert measure["page_faults"] == 1_000
    assert measure["pagefile_used_max_bytes"] == 5 * MIB
    assert measure["system_commit_limit_bytes"] > measure["system_commit_max_bytes"] > 0


def test_trials_tell_system_node_wine_and_clock(database: Database) -> None:
    sql = "select distinct os, wine, node_id, clock_offset_ns, clock_error_ns from trials"
    found = {(r["os"], r["wine"], r["node_id"]) for r in rows(database, sql)}
    assert found == {
        ("linux", None, "node-1a2b3c4d"),
        ("windows", "8.0", "node-5e6f7a8b"),
        ("windows", "8.0", "node-9c0d1e2f"),
    }
    assert {(r["clock_offset_ns"], r["clock_error_ns"]) for r in rows(database, sql)} == {
        (-40_000, 300)
    }


def test_each_class_has_a_table_of_its_own_system(comparison: Comparison) -> None:
    linux, windows = comparison.tables
    assert (linux.os, windows.os) == ("linux", "windows")
    assert {r.metric.name for r in linux.rows} == {m.name for m in usual_on("linux")}
    assert {r.metric.name for r in windows.rows} == {m.name for m in usual_on("windows")}
    assert windows.nodes == ("node-5e6f7a8b", "node-9c0d1e2f")
    assert (windows.blocks, linux.blocks) == (7, 7)
    assert comparison.planned_on(windows.node_class) == 7


def test_what_decides_on_windows_is_the_counterpart(comparison: Comparison) -> None:
    primary = [[r.metric.name for r in t.rows if r.primary] for t in comparison.tables]
    assert primary == [["peak_rss"], ["peak_working_set"]]
    assert [t.row(n[0]).verdict for t, n in zip(comparison.tables, primary, strict=True)] == [
        "better",
        "better",
    ]


@pytest.mark.parametrize(
    ("system", "named", "found"),
    [
        ("linux", ["peak_rss"], ("peak_rss",)),
        ("windows", ["peak_rss"], ("peak_working_set",)),
        ("linux", ["peak_working_set"], ("peak_rss",)),
        (
            "windows",
            ["peak_rss", "peak_working_set", "latency_p99"],
            ("peak_working_set", "latency_p99"),
        ),
        ("windows", ["peak_cgroup"], ("peak_job",)),
        ("linux", ["peak_commit"], ()),
        ("windows", ["peak_commit"], ("peak_commit",)),
    ],
)
def test_a_named_metric_stands_for_its_counterpart(
    system: str, named: list[str], found: tuple[str, ...]
) -> None:
    assert named_on(system, named) == found


def test_counterparts_have_one_kind_and_agree_in_direction() -> None:
    kinds: dict[str, list[Any]] = {}
    for metric in METRICS.values():
        kinds.setdefault(metric.kind, []).append(metric)
    for metrics in kinds.values():
        systems = [system for metric in metrics for system in metric.systems]
        assert len(systems) == len(set(systems)), "one on each system"
        assert len({(metric.direction, metric.unit) for metric in metrics}) == 1


def test_a_margin_holds_for_the_metric_that_it_names_alone(tmp_path: Path) -> None:
    asked = {"margins": {"peak_rss": 0.05}}
    same = {"default": {}, "other": {}}
    archive = write_archive(tmp_path, configurations=same, blocks=7, groups=MIXED, comparison=asked)
    linux, windows = compared(archive).tables
    assert linux.row("peak_rss").verdict == "equivalent (±5 %)"
    assert windows.row("peak_working_set").verdict == "no difference shown"


def measured(block: int, configuration: str, value: float, place: tuple[str, str]) -> Measurement:
    return Measurement(("r1", block), "linux", "steady", configuration, "peak_rss", value, place)


@pytest.mark.parametrize("other", [("", "node-2"), ("b", "node-1")])
def test_trials_of_one_block_on_two_nodes_or_in_two_groups_are_never_paired(
    other: tuple[str, str],
) -> None:
    here = ("", "node-1")
    found = [
        measured(1, "default", 100.0, here),
        measured(1, "optimised", 1.0, other),
        measured(2, "default", 100.0, here),
        measured(2, "optimised", 50.0, here),
    ]
    (table,) = compare(found, Settings("default"))
    (row,) = table.rows
    assert (row.pairs, row.baseline, row.candidate) == (1, 100.0, 50.0)
    assert table.nodes == ("node-1",)


def test_two_groups_of_one_class_both_give_their_blocks(tmp_path: Path) -> None:
    groups = {"a": LINUX, "b": Place(node_class=LINUX.node_class, nodes=("node-2",))}
    archive = write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=4, groups=groups)
    comparison = compared(archive)
    (table,) = comparison.tables
    assert table.blocks == comparison.planned_on(table.node_class) == 8
    assert "8 of 8 blocks" in shown(comparison)
    assert "node-1a2b3c4d and node-2" in shown(comparison)


def test_several_builds_for_several_systems_are_no_residue(comparison: Comparison) -> None:
    assert not [text for text in comparison.warnings if "builds" in text]
    assert comparison.builds == {"default": "go1.23.9", "optimised": "go1.23.9"}


def test_the_sql_view_has_ratios_and_no_sizes(database: Database) -> None:
    sql = "from ratios where kind = 'peak_resident'"
    found = {row["os"]: row for row in rows(database, sql)}
    assert {row["metric"] for row in found.values()} == {"peak_rss", "peak_working_set"}
    assert found["linux"]["ratio"] == pytest.approx(0.5)
    assert found["windows"]["ratio"] == pytest.approx(0.6)
    assert found["windows"]["ratio_low"] == pytest.approx(0.6)
    columns = database.query("from ratios limit 0").column_names
    assert not [name for name in columns if "value" in name or "bytes" in name]


def test_ratios_stand_side_by_side_for_counterparts(comparison: Comparison) -> None:
    (table,) = ratio_tables(comparison)
    texts = {row.kind: [r.text if r else None for r in row.ratios] for row in table.rows}
    assert texts["peak_resident"] == ["0.50 (0.50 … 0.50)", "0.60 (0.60 … 0.60)"]
    assert texts["initial_resident"] == ["0.80 (0.80 … 0.80)", "0.80 (0.80 … 0.80)"]
    assert texts["peak_commit"] == [None, "0.60 (0.60 … 0.60)"]
    assert texts["gc_cpu_share"] == ["2.00 (2.00 … 2.00)", "2.00 (2.00 … 2.00)"]
    assert {"latency_p50", "latency_p99", "throughput", "binary_size"} <= texts.keys()


def test_one_system_alone_has_no_ratios_to_tell(tmp_path: Path) -> None:
    two = {"a": LINUX, "b": Place(node_class="linux · another", nodes=("node-2",))}
    comparison = compared(
        write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=7, groups=two)
    )
    assert len(comparison.tables) == 2
    assert ratio_tables(comparison) == ()
    assert "ratios only" not in shown(comparison)
    assert plain_comparison(comparison)["ratios"] == []


def test_the_terminal_names_system_class_and_nodes_and_nothing_is_cut_off(
    comparison: Comparison,
) -> None:
    text = shown(comparison)
    assert max(map(cell_len, text.splitlines())) <= 100
    heads = text.splitlines()
    assert "linux · AMD EPYC 7B13 · 2 cores · 24 GiB · node-1a2b3c4d" in heads
    windows = (
        "windows · AMD EPYC 7B13 · 2 cores · 24 GiB · Wine 8.0 · node-5e6f7a8b and node-9c0d1e2f"
    )
    assert windows in heads
    flat = " ".join(text.split())
    assert ACROSS_SYSTEMS in flat
    assert "peak resident memory 0.50 (0.50 … 0.50) 0.60 (0.60 … 0.60)" in flat
    assert text.index("peak working set") < text.index("ratios only")
    assert "memory is counted by Wine there" in flat


def test_no_row_and_no_cell_holds_figures_of_two_systems(comparison: Comparison) -> None:
    for text in (shown(comparison), markdown_comparison(comparison)):
        for line in text.splitlines():
            assert not ("RSS" in line and "working set" in line and "MiB" in line)
    above, below = shown(comparison).split("ratios only", 1)
    assert "MiB" in above
    assert "MiB" not in below.split(ACROSS_SYSTEMS[:20])[0]


def test_markdown_and_json_have_the_ratios(comparison: Comparison) -> None:
    text = markdown_comparison(comparison)
    assert "| peak resident memory | 0.50 (0.50 … 0.50) | 0.60 (0.60 … 0.60) |" in text
    assert ACROSS_SYSTEMS in text
    plain = json.loads(json.dumps(plain_comparison(comparison), allow_nan=False))
    found = [r for r in plain["ratios"] if r["kind"] == "peak_resident"]
    assert [(r["metric"], r["ratio"]) for r in found] == [
        ("peak_rss", pytest.approx(0.5)),
        ("peak_working_set", pytest.approx(0.6)),
    ]


def test_too_few_blocks_have_ratios_without_bounds(tmp_path: Path) -> None:
    comparison = compared(
        write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=2, groups=MIXED)
    )
    (table,) = ratio_tables(comparison)
    peak = next(row for row in table.rows if row.kind == "peak_resident")
    assert [ratio.text for ratio in peak.ratios if ratio] == ["0.50", "0.60"]
    assert {
        r["ratio_low"] for r in json.loads(json.dumps(plain_comparison(comparison)))["ratios"]
    } == {None}


def test_the_page_has_both_systems_the_ratios_and_commit_over_time(archive: Path) -> None:
    page = render_report(archive, "latest")
    for words in (
        "optimised against default on Linux",
        "optimised against default on Windows",
        "Across systems: ratios only",
        "0.60 (0.60 … 0.60)",
        "Commit over time",
        "initial working set",
        "Wine 8.0",
        "default (windows)",
    ):
        assert words in page, words
    text = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert text
    charts = json.loads(text[1])
    commit = charts["commit-1"]["tables"]["samples"]["commit_bytes"]
    # Below the kernel's mark by one MiB in each of the blocks.
    assert max(commit) == round(240 * MIB * 1.03) - MIB
    assert "commit-0" not in charts


def test_builds_are_listed_by_system(database: Database) -> None:
    found = rows(database, "select configuration, os from builds order by all")
    assert [(r["configuration"], r["os"]) for r in found] == [
        (name, system) for name in ("default", "optimised") for system in ("linux", "windows")
    ]


def test_a_trial_of_a_group_is_found_by_its_name(archive: Path) -> None:
    records = Archive(archive).records(RUN_ID)
    assert {r.os for r in records if r.trial_id.endswith("@windows")} == {"windows"}
