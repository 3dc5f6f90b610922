"""What takes a run apart on the page: factor by factor, and profiles call by call."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from archives import EPOCH_NS, MIB, pprof, write_archive, write_table
from hypothesis import given
from hypothesis import strategies as st

from results.files import SUMS, write_sums
from results.report.data import ReportData, read_report
from results.report.figure import Figure
from results.report.figures import figures
from results.report.flames import NARROWEST, ROWS_MAX, Flame, flames, short_name
from results.report.waterfall import Bundle, bundles, steps, told_factor, told_step
from results.sql.database import open_database

SERVE = ("net/http.(*conn).serve", "main.(*server).put")
ENVIRONMENTS = {
    "default": {},
    "gogc": {"GOGC": "30"},
    "limit": {"GOMEMLIMIT": "240MiB"},
    "both": {"GOGC": "30", "GOMEMLIMIT": "240MiB"},
    "more": {"GOGC": "30", "GOMEMLIMIT": "240MiB", "GODEBUG": "x=1"},
}
PEAKS = {"default": 400, "gogc": 300, "limit": 200, "both": 180, "more": 100}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """Two factors, both alone and together, and a configuration with a third one beside them."""
    root = write_archive(
        tmp_path_factory.mktemp("factors"),
        configurations={name: {"peak_rss_bytes": peak * MIB} for name, peak in PEAKS.items()},
        blocks=2,
    )
    for path in root.glob("*/trials/*/trial.json"):
        record = json.loads(path.read_text())
        record["spec"]["service"]["environment"] = list(
            ENVIRONMENTS[record["configuration"]].items()
        )
        path.write_text(json.dumps(record))
        kept = 40 if record["configuration"] == "both" else 100
        write_profile(path.parent, {(*SERVE, "main.keep"): kept * MIB, ("main.main",): MIB})
        write_sums(path.parent, {file.name for file in path.parent.iterdir()} - {SUMS})
    with open_database(root, ["latest"]) as database:
        return read_report(database)


def write_profile(folder: Path, stacks: dict[tuple[str, ...], int]) -> None:
    row = {"time_ns": EPOCH_NS, "phase": "cooldown", "kind": "heap", "reason": "end"}
    row |= {"took_ns": 1, "resident_bytes": None, "content": pprof(stacks)}
    write_table(folder / "profile_files.arrow", [row])


def figure(data: ReportData, name: str) -> Figure:
    return next(one for one in figures(data) if one.name == name)


# Factors


def test_a_bundle_is_taken_apart_by_those_that_set_one_of_its_factors(data: ReportData) -> None:
    found = {bundle.configuration: bundle for bundle in bundles(data.records, data.configurations)}
    assert set(found) == {"both", "more"}
    parts = ((("env.GOGC", "30"), "gogc"), (("env.GOMEMLIMIT", "240MiB"), "limit"))
    assert found["both"] == Bundle("both", parts, ())
    assert found["more"] == Bundle("more", parts, ("env.GODEBUG",))


def test_steps_lead_from_the_baseline_to_the_bundle(data: ReportData) -> None:
    """400 → 300 → 150 MiB if factors did not meet; together they need 180: a fifth more."""
    both = next(b for b in bundles(data.records, data.configurations) if b.configuration == "both")
    rows = data.answers["comparison"].rows.to_pylist()
    peaks = {row["configuration"]: row for row in rows if row["metric"] == "peak_rss"}
    found = steps(both, peaks, "default")
    assert [step.kind for step in found] == ["whole", "factor", "factor", "rest", "whole"]
    assert [step.end for step in found] == pytest.approx([1, 0.75, 0.375, 0.45, 0.45])
    assert [told_step(step) for step in found[1:]] == ["−25.0 %", "−50.0 %", "+20.0 %", "−55.0 %"]
    del peaks["limit"]
    assert steps(both, peaks, "default") == []


def test_the_waterfall_stands_beside_its_price(data: ReportData) -> None:
    made = figure(data, "waterfall-both-0")
    (chart,) = made.charts
    assert "GOGC=30 −25.0 %" in chart.description
    (grid,) = made.grids
    assert [row[0] for row in grid.rows] == [
        "GOGC=30", "GOMEMLIMIT=240MiB", "all of them (both)"
    ]  # fmt: skip
    assert grid.heads[:2] == ("factor", "peak RSS")
    assert grid.rows[0][1] == "(−25.0 %)", "with two blocks nothing is shown"


def test_configurations_without_a_factor_of_their_own_have_no_waterfall(tmp_path: Path) -> None:
    root = write_archive(tmp_path, configurations={"default": {}, "a": {}, "b": {}}, blocks=1)
    with open_database(root, ["latest"]) as database:
        names = [one.name for one in figures(read_report(database))]
    assert not [name for name in names if name.startswith("waterfall")]


@pytest.mark.parametrize(
    ("factor", "want"),
    [
        (("go", "1.23.9"), "Go 1.23.9"),
        (("env.GOGC", "30"), "GOGC=30"),
        (("build", "ldflags=-s -w trimpath=true"), "flags ldflags=-s -w trimpath=true"),
        (("limits.memory_max_bytes", "1024"), "memory_max_bytes=1024"),
    ],
)
def test_a_factor_is_told_as_it_was_written(factor: tuple[str, str], want: str) -> None:
    assert told_factor(factor) == want


# Profiles


def drawn(stacks: dict[str, dict[tuple[str, ...], float]]) -> list[Flame]:
    rows: list[dict[str, Any]] = [
        {"configuration": name, "unit": "bytes", "calls": list(calls), "value": value}
        for name, own in stacks.items()
        for calls, value in own.items()
    ]
    return flames(rows, list(stacks), "default")


def test_pictures_share_a_scale_and_tell_the_change(data: ReportData) -> None:
    made = figure(data, "profile-heap-0")
    by_name = {flame.configuration: flame for flame in made.flames}
    assert list(by_name) == data.configurations
    default, both = by_name["default"].frames, by_name["both"].frames
    assert default[0].label == "default: 101.0 MiB"
    assert default[0].width == 100
    assert both[0].width == pytest.approx(41 / 101 * 100, abs=0.01)
    keep = next(frame for frame in both if frame.label == "main.keep")
    assert keep.told == "main.keep: 40.0 MiB, 60.0 MiB (60 %) less than default"
    assert keep.mark == "less3"
    assert keep.path == next(frame.path for frame in default if frame.label == "main.keep")
    assert {frame.mark for frame in default} == {""}
    (grid,) = made.grids
    assert ("both", "main.keep", "100.0 MiB", "40.0 MiB", "−60.0 MiB", "−60.0 MiB") in grid.rows


def test_what_the_baseline_does_not_call_is_new() -> None:
    _, other = drawn({"default": {("a",): 10.0}, "other": {("a",): 10.0, ("b",): 5.0}})
    assert [(f.label, f.mark) for f in other.frames[1:]] == [("a", ""), ("b", "new")]
    assert other.frames[2].told == "b: 5 B, none in default"


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(tuple),
        st.floats(1, 1e9),
        min_size=1,
        max_size=20,
    )
)
def test_calls_lie_inside_their_callers(stacks: dict[tuple[str, ...], float]) -> None:
    (flame,) = drawn({"default": stacks})
    for row in range(1, flame.rows):
        above = [(f.left, f.left + f.width) for f in flame.frames if f.row == row - 1]
        level = sorted((f.left, f.left + f.width) for f in flame.frames if f.row == row)
        for left, right in level:
            assert any(a - 0.01 <= left and right <= b + 0.01 for a, b in above)
        for (_, right), (left, _) in pairwise(level):
            assert right <= left + 0.01
    assert all(f.width >= NARROWEST * 100 - 0.001 for f in flame.frames)


def test_a_stack_without_end_is_cut() -> None:
    (flame,) = drawn({"default": {tuple(f"f{i}" for i in range(5_000)): 1.0}})
    assert flame.rows == ROWS_MAX + 1


def test_names_lose_the_path_of_their_package_only() -> None:
    assert short_name("net/http.(*conn).serve") == "http.(*conn).serve"
    assert short_name("a.com/b.Copy[c.com/d.E]") == "b.Copy[c.com/d.E]"
