"""A run against an earlier one: the right figures, refusals with their reasons, what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, MIXED, RUN_ID, reseal, write_archive
from rich.console import Console

from results.archive.archive import Archive
from results.comparing.across import Across, MeasuredRun, across, trials_at_least
from results.comparing.acrosstables import markdown_across, plain_across, print_across
from results.comparing.compare import Row
from results.errors import UserError
from results.files import RUN_FILES, write_sums
from results.sql.database import open_database
from results.statistics.twosample import smallest_p

LATER = "20260922-000000-abcd"
DRIFT = (1.0, 1.01, 0.99, 1.02, 0.98, 1.005)


def measured(root: Path, run_id: str) -> MeasuredRun:
    with open_database(root, [run_id]) as database:
        (run,) = database.runs
        return MeasuredRun(
            run.document,
            tuple(database.records),
            tuple(database.measurements(run_id)),
            tuple(database.damage),
        )


def two_runs(root: Path, *, now: dict[str, Any] | None = None, **fields: Any) -> Path:
    """An earlier run, and a later one whose default configuration has other numbers."""
    then = {"default": {"factors": DRIFT}, "optimised": {"factors": DRIFT}}
    write_archive(root, configurations=then, **fields)
    later = then | {"default": {"factors": DRIFT, **(now or {})}}
    return write_archive(root, configurations=later, run_id=LATER, **fields)


def compared(root: Path) -> Across:
    return across(measured(root, RUN_ID), measured(root, LATER), "release")


def row_of(found: Across, configuration: str, metric: str) -> Row:
    (table,) = [t for t in found.tables if t.configuration == configuration]
    return next(row for row in table.rows if row.metric.name == metric)


def edit_records(root: Path, run_id: str, change: Callable[[dict[str, Any]], None]) -> None:
    for path in (root / run_id).glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        reseal(path.parent)


def edit_document(root: Path, run_id: str, **fields: Any) -> None:
    path = root / run_id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    write_sums(path.parent, RUN_FILES)


def test_more_memory_than_then_is_worse_and_the_rest_is_not(tmp_path: Path) -> None:
    found = compared(two_runs(tmp_path, now={"peak_rss_bytes": 300 * MIB}))
    row = row_of(found, "default", "peak_rss")
    assert row.verdict == "worse"
    assert row.baseline == pytest.approx(200 * MIB, rel=0.01)
    assert row.candidate == pytest.approx(300 * MIB, rel=0.01)
    assert row.change
    assert row.change.estimate == pytest.approx(0.5, rel=0.02)
    assert row.p == pytest.approx(smallest_p(6, 6))
    assert row_of(found, "optimised", "peak_rss").verdict == "no difference shown"
    assert found.worse == ["peak RSS of default under steady"]


def test_less_is_better(tmp_path: Path) -> None:
    found = compared(two_runs(tmp_path, now={"peak_rss_bytes": 100 * MIB}))
    assert row_of(found, "default", "peak_rss").verdict == "better"
    assert found.worse == []


def test_the_same_within_a_margin_is_equivalent(tmp_path: Path) -> None:
    margins = {"confidence": 0.9, "primary": ["peak_rss"], "margins": {"peak_rss": 0.2}}
    found = compared(two_runs(tmp_path, comparison=margins))
    assert row_of(found, "default", "peak_rss").verdict == "equivalent (±20 %)"


def test_too_few_trials_say_how_many_are_needed(tmp_path: Path) -> None:
    found = compared(two_runs(tmp_path, now={"peak_rss_bytes": 900 * MIB}, blocks=3))
    assert row_of(found, "default", "peak_rss").verdict == "needs 5 trials", "two decide together"
    assert found.worse == []
    assert len(found.undecided) == 2
    assert trials_at_least(0.95, 1) == 4


def test_trials_that_lack_a_figure_do_not_help_to_decide_it(tmp_path: Path) -> None:
    root = two_runs(tmp_path, now={"peak_rss_bytes": 900 * MIB})
    now = measured(root, LATER)
    fewer = tuple(
        replace(m, value=None) if m.metric == "peak_rss" and m.block[1] > 2 else m
        for m in now.measurements
    )
    found = across(measured(root, RUN_ID), replace(now, measurements=fewer), "release")
    row = row_of(found, "default", "peak_rss")
    assert row.verdict == "needs 5 trials", "six values and two can't show what two decide"
    assert row.values == (6, 2)
    assert row_of(found, "default", "latency_p99").verdict == "no difference shown"
    assert any(text.startswith("peak RSS of default") for text in found.undecided)


def test_what_no_trial_counts_of_is_undecided(tmp_path: Path) -> None:
    killed = [f"b{block:02}-2-optimised-steady" for block in range(1, 7)]
    names = {"default": {}, "optimised": {}}
    write_archive(tmp_path, configurations=names)
    write_archive(tmp_path, configurations=names, run_id=LATER, invalid=killed)
    found = compared(tmp_path)
    text = f"optimised under steady on linux-test has no valid trial in {LATER}"
    assert found.left_out == (text,)
    assert text in found.undecided
    both = tmp_path / "both"
    write_archive(both, configurations=names, invalid=killed)
    write_archive(both, configurations=names, run_id=LATER, invalid=killed)
    assert len(compared(both).left_out) == 2, "no row of any table would tell"


def test_what_can_not_be_compared_is_refused_with_its_reason(tmp_path: Path) -> None:
    root = two_runs(tmp_path)
    with pytest.raises(UserError, match="with itself"):
        across(measured(root, RUN_ID), measured(root, RUN_ID), "release")
    edit_document(root, LATER, service="other")
    with pytest.raises(UserError, match=r"measured other, .* sessioncache: two services"):
        compared(root)


def test_another_node_class_is_never_pooled(tmp_path: Path) -> None:
    write_archive(tmp_path, node_class="linux · A")
    write_archive(tmp_path, node_class="linux · B", run_id=LATER)
    with pytest.raises(UserError, match=rf"node class linux · B is not in {RUN_ID}"):
        compared(tmp_path)
    both = tmp_path / "both"
    write_archive(both, groups={"linux": MIXED["linux"]})
    write_archive(both, groups=MIXED, run_id=LATER)
    found = compared(both)
    assert {table.os for table in found.tables} == {"linux"}
    assert found.left_out == (f"system windows is not in {RUN_ID}",)


def test_another_workload_or_other_traffic_of_its_name_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "names", workloads=["steady"])
    write_archive(tmp_path / "names", workloads=["bursts"], run_id=LATER)
    with pytest.raises(UserError, match="workload bursts is not in"):
        compared(tmp_path / "names")
    root = two_runs(tmp_path / "traffic")
    edit_records(root, LATER, lambda r: r["spec"]["load"]["arrivals"].update(rate_rps=200.0))
    with pytest.raises(UserError, match=r"steady is other traffic in .*: rate_rps 100.0, now 200"):
        compared(root)


def test_a_configuration_that_only_one_run_has_is_named(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {}, "old": {}})
    write_archive(tmp_path, configurations={"default": {}, "new": {}}, run_id=LATER)
    found = compared(tmp_path)
    assert set(found.left_out) == {
        f"configuration new is not in {RUN_ID}",
        f"configuration old is not in {LATER}",
    }
    assert [table.configuration for table in found.tables] == ["default"]


def test_what_the_runs_differ_in_is_told(tmp_path: Path) -> None:
    root = two_runs(tmp_path)

    def change(record: dict[str, Any]) -> None:
        record["node"]["kernel"] = "6.18"
        record["versions"]["heapgate"] = "0.2.0"
        record["spec"]["service"]["binary"]["go_version"] = "go1.24.1"
        record["spec"]["service"]["environment"] = [["GOGC", "50"], ["HEAPGATE_RUN", LATER]]

    edit_records(root, LATER, change)
    found = compared(root)
    text = "\n".join(found.warnings)
    assert "in kernel: None, now 6.18" in text
    assert "in Heapgate's version: 0.1.0, now 0.2.0" in text
    assert found.tables[0].changed == (
        "Go go1.23.9, now go1.24.1",
        "environment GOGC=100, now GOGC=50",
    )


def test_a_metric_that_only_one_run_has_gets_no_verdict(tmp_path: Path) -> None:
    root = two_runs(tmp_path, now={"peak_cgroup_bytes": None})
    row = row_of(compared(root), "default", "peak_cgroup")
    assert row.verdict == "n/a (only in the earlier run)"


def test_damage_and_invalid_trials_stand_beside_the_table(tmp_path: Path) -> None:
    root = two_runs(tmp_path)
    first = root / RUN_ID / "trials" / "b01-1-default-steady"
    (first / "memory.arrow").write_bytes((first / "memory.arrow").read_bytes()[:-100])
    (first.with_name("b02-1-default-steady") / "trial.json").write_text("{}")
    found = compared(root)
    text = "\n".join(found.warnings)
    assert "b02-1-default-steady is left out" in text
    assert f"1 trial of {RUN_ID} not counted" in text
    assert (found.tables[0].then, found.tables[0].now) == (4, 6)


def test_every_form_says_that_nothing_is_paired(tmp_path: Path) -> None:
    found = compared(two_runs(tmp_path, now={"peak_rss_bytes": 300 * MIB}))
    console = Console(width=120, record=True, force_terminal=True)
    print_across(found, console)
    text = " ".join(console.export_text().split())
    assert "The runs share no blocks, so trials are not paired" in text
    assert "● peak RSS 199.5 MiB 299.2 MiB +50.0 %" in text or "+50.0 %" in text
    assert "not paired" in markdown_across(found)
    plain = plain_across(found)
    json.dumps(plain, allow_nan=False)
    assert plain["paired"] is False
    assert plain["worse"] == ["peak RSS of default under steady"]


def test_runs_of_other_traffic_are_not_pooled_either(tmp_path: Path) -> None:
    root = two_runs(tmp_path)
    with open_database(root, [RUN_ID, LATER]) as database:
        assert database.comparison().planned_blocks == 12
    edit_records(root, LATER, lambda r: r["spec"]["phases"].update(measure_ns=1))
    with (
        open_database(root, [RUN_ID, LATER]) as database,
        pytest.raises(UserError, match="steady is not the same traffic in all of them: phase mea"),
    ):
        database.comparison()


def test_a_newer_format_is_left_to_a_newer_heapgate(tmp_path: Path) -> None:
    root = two_runs(tmp_path)
    edit_document(root, LATER, schema_version=99, heapgate_version="9.0")
    with pytest.raises(UserError, match=r"written in format 99, by Heapgate 9\.0.*update Heapgate"):
        open_database(root, [LATER])
    with open_database(root) as database:
        assert any("is left out" in note for note in database.notes)
        assert {run.run_id for run in database.runs} == {RUN_ID}
    assert [run.run_id for run in Archive(root).runs()] == [RUN_ID, LATER]


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    evil = "a | b <img src=x> [x](#y) \x1b[31m\n@you"
    for run_id in (RUN_ID, LATER):
        write_archive(tmp_path, configurations={"default": {}, evil: {}}, run_id=run_id)
    text = markdown_across(compared(tmp_path))
    assert "<img" not in text
    assert "@you" not in text
    assert "\x1b" not in text
    assert all(line.count(" | ") <= 5 for line in text.splitlines() if line.startswith("|"))
