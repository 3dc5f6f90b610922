"""What the reader sees: numbers whole, reasons told, the same every time."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from archives import MIB, write_archive
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from results.comparing.compare import Comparison
from results.comparing.comparison import comparison_of
from results.comparing.tables import markdown_comparison, plain_comparison, print_comparison
from results.metrics import (
    METRICS,
    format_bytes,
    format_change,
    format_time,
    format_value,
    usual_on,
)
from results.sql.database import open_database

DRIFT = (1.0, 1.02, 0.99, 1.01, 0.98, 1.03)
CONFIGURATIONS = {
    "default": {"peak_rss_bytes": 9_000 * MIB, "requests": 10_500, "factors": DRIFT},
    "optimised": {
        "peak_rss_bytes": 4_000 * MIB,
        "requests": 10_500,
        "gc_cycles": 50,
        "failed": 30,
        "factors": DRIFT[::-1],
    },
}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return of_archive(
        write_archive(
            tmp_path_factory.mktemp("archive"),
            configurations=CONFIGURATIONS,
            comparison={"margins": {"throughput": 0.03}},
        )
    )


def of_archive(folder: Path) -> Comparison:
    with open_database(folder) as database:
        (run,) = database.runs
        return comparison_of(
            [run.run_id], [run.document], list(database.records), database.measurements(run.run_id)
        )


def shown(comparison: Comparison, width: int = 100, *, terminal: bool = True) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=terminal, color_system=None)
    print_comparison(comparison, console)
    return screen.getvalue()


def lines_with(text: str, words: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if words in line]


def test_the_terminal_shows_each_number_with_its_unit_interval_and_verdict(
    comparison: Comparison,
) -> None:
    text = shown(comparison)
    assert lines_with(text, "peak RSS") == [
        "● peak RSS 9,045.0 MiB 4,020.0 MiB -55.6 % -57.3 % … -53.7 % better"
    ]
    assert lines_with(text, "GC cycles") == ["GC cycles 20 50 +150.0 % +150.0 % … +150.0 %"]
    assert lines_with(text, "throughput") == [
        "throughput 1,049/s 1,047/s -0.2 % -0.2 % … -0.2 % equivalent (±3 %)"
    ]
    assert lines_with(text, "errors") == ["errors 0.00 % 0.29 % +0.29 pp +0.29 pp … +0.29 pp worse"]


def test_the_head_says_what_was_compared(comparison: Comparison) -> None:
    head = shown(comparison).split("verdict")[0]
    for words in (
        "sessioncache",
        "default (go1.23.9) → optimised (go1.23.9)",
        "steady: ",
        "measured for 10 s",
        "6 of 6 blocks",
        "linux-test",
        "95 % interval",
    ):
        assert words in head


def test_memory_never_stands_without_its_price(comparison: Comparison) -> None:
    text = shown(comparison)
    labels = ("memory", "peak RSS", "what it costs", "GC CPU", "latency p99", "service time p99")
    places = [text.index(label) for label in (*labels, "what it carries", "throughput")]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [84, 100, 140])
def test_no_number_and_no_verdict_is_cut_off(comparison: Comparison, width: int) -> None:
    text = shown(comparison, width)
    assert max(map(cell_len, text.splitlines())) <= width
    words = text.split()
    for word in ("9,045.0", "4,020.0", "+150.0", "difference", "shown", "equivalent", "better"):
        assert word in words
    # An ellipsis stands between the bounds of an interval, and nowhere at the end of a word.
    assert not [word for word in words if word.endswith("…") and word != "…"]


def test_a_hundred_columns_hold_a_row_on_one_line(comparison: Comparison) -> None:
    text = shown(comparison)
    assert lines_with(text, "initial RSS")[0].endswith("no difference shown")


def test_a_long_name_breaks_and_numbers_do_not(tmp_path: Path) -> None:
    long = "optimised-with-a-name-that-goes-on-and-on"
    configurations = {
        "default": CONFIGURATIONS["default"],
        long: CONFIGURATIONS["optimised"],
    }
    text = shown(of_archive(write_archive(tmp_path, configurations=configurations)))
    assert "4,020.0 MiB" in text
    assert lines_with(text, "initial RSS")[0].endswith("no difference shown")


def test_a_pipe_has_no_width_and_no_colours(comparison: Comparison) -> None:
    text = shown(comparison, 40, terminal=False)
    assert lines_with(text, "initial RSS")[0].endswith("no difference shown")
    assert "\x1b" not in text


@pytest.mark.parametrize("render", [shown, markdown_comparison])
def test_too_few_blocks_are_told_where_the_verdict_would_stand(render, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=3)
    text = render(of_archive(archive))
    assert "needs 6 blocks" in lines_with(text, "peak RSS")[0]
    assert "With 3 blocks nothing can be decided: a verdict needs 6 blocks (--trials 6)." in text
    for word in ("no difference shown", "better", "worse"):
        assert word not in text


@pytest.mark.parametrize("render", [shown, markdown_comparison])
def test_only_tables_with_too_few_blocks_are_told_as_undecided(render, tmp_path: Path) -> None:
    three = CONFIGURATIONS | {"tuned": CONFIGURATIONS["optimised"]}
    gone = [f"b{block:02}-3-tuned-steady" for block in range(4, 9)]
    archive = write_archive(tmp_path, configurations=three, blocks=8, missing=gone)
    text = " ".join(render(of_archive(archive)).split())
    assert (
        "With 3 blocks of tuned under steady on linux-test nothing can be decided: a verdict needs "
        "7 blocks (--trials 7)."
    ) in text
    assert "With 3 blocks nothing" not in text
    assert "better" in text


@pytest.mark.parametrize("render", [shown, markdown_comparison])
def test_what_was_planned_and_has_no_table_is_told(render, tmp_path: Path) -> None:
    three = CONFIGURATIONS | {"tuned": CONFIGURATIONS["optimised"]}
    gone = [f"b{block:02}-3-tuned-steady" for block in range(1, 7)]
    comparison = of_archive(write_archive(tmp_path, configurations=three, missing=gone))
    text = " ".join(render(comparison).split())
    assert "not compared: tuned under steady on linux-test has no valid trial" in text
    assert plain_comparison(comparison)["not_compared"] == list(comparison.missing)


@pytest.mark.parametrize("render", [shown, markdown_comparison])
def test_invalid_trials_and_warnings_stand_under_the_table(render, tmp_path: Path) -> None:
    bad = "b02-2-optimised-steady"
    archive = write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=7, invalid=[bad])
    warning = "memory_max_bytes is not in force: not available here: no controller [memory]"
    text = render(replace(of_archive(archive), warnings=(warning,)))
    assert "6 of 7 blocks" in text
    assert warning in text
    (line,) = lines_with(text, bad)
    assert "not counted" in line
    assert line.endswith("too late")


def test_texts_from_outside_are_not_taken_for_markup(comparison: Comparison) -> None:
    odd = replace(
        comparison,
        service="[red]cache[/red]",
        warnings=("closed [/bold] too early",),
        invalid=(("b01", "panic: [x]"),),
    )
    text = shown(odd)
    for words in ("[red]cache[/red]", "closed [/bold] too early", "panic: [x]"):
        assert words in text


def test_nothing_to_compare_is_said(comparison: Comparison) -> None:
    empty = replace(comparison, tables=(), invalid=(("b01-1-default-steady", "died"),))
    text = shown(empty)
    assert "no configuration has valid trials to compare" in text
    assert "not counted: b01-1-default-steady: died" in text


def test_markdown_is_a_table_whose_primary_rows_are_bold(comparison: Comparison) -> None:
    lines = markdown_comparison(comparison).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == "| | default | optimised | change | 95 % interval | verdict |"
    assert {row.count("|") for row in rows} == {7}
    assert [row for row in rows if "**" in row] == [
        "| **peak RSS** | 9,045.0 MiB | 4,020.0 MiB | -55.6 % | -57.3 % … -53.7 % | better |"
    ]
    assert len(rows) == 2 + len(usual_on("linux"))


def test_json_has_every_row_and_no_infinity(tmp_path: Path) -> None:
    bad = "b01-1-default-steady"
    archive = write_archive(tmp_path, configurations=CONFIGURATIONS, blocks=3, invalid=[bad])
    plain = plain_comparison(of_archive(archive))
    plain = json.loads(json.dumps(plain, allow_nan=False))
    assert [row["metric"] for row in plain["rows"]] == [m.name for m in usual_on("linux")]
    assert plain["blocks_needed"] == 6
    assert plain["baseline"] == "default"
    assert plain["invalid"] == [{"trial_id": bad, "reason": "too late"}]
    assert {row["change_low"] for row in plain["rows"]} == {None}


def test_the_same_archive_gives_the_same_bytes(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, configurations=CONFIGURATIONS)
    first, second = of_archive(archive), of_archive(archive)
    assert shown(first) == shown(second)
    assert markdown_comparison(first) == markdown_comparison(second)
    assert json.dumps(plain_comparison(first)) == json.dumps(plain_comparison(second))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("peak_rss", 1_280 * MIB, "1,280.0 MiB"),
        ("peak_rss", 9.99 * 2**30, "10,229.8 MiB"),
        ("peak_rss", 10 * 2**30, "10.0 GiB"),
        ("binary_size", 8_704, "8.5 KiB"),
        ("binary_size", 1_023, "1,023 B"),
        ("latency_p99", 1_234_567, "1.23 ms"),
        ("latency_p99", 999_499_000, "999 ms"),
        ("latency_p99", 999_700_000, "1 s"),
        ("latency_p99", 999_900, "1 ms"),
        ("latency_p99", 43_210, "43.2 µs"),
        ("latency_p99", 2_500e9, "2,500 s"),
        ("gc_cpu_share", 0.0123, "1.23 %"),
        ("gc_cpu_share", 0.25, "25.0 %"),
        ("cpu_cores", 0.8, "0.80"),
        ("throughput", 12_345.6, "12,346/s"),
        ("gc_cycles", 44, "44"),
        ("peak_cgroup", None, "–"),
    ],
)
def test_values_are_shown_with_their_units(name: str, value: float | None, text: str) -> None:
    assert format_value(METRICS[name], value) == text


@given(st.floats(1e-3, 1e15))
def test_times_and_sizes_never_need_an_exponent(value: float) -> None:
    assert "e+" not in format_time(value * 1e3)
    assert "e" not in format_bytes(value)


def test_what_is_shown_as_nothing_has_no_minus() -> None:
    cycles = METRICS["gc_cycles"]
    shown = [format_change(cycles, value, relative=False) for value in (-10.0, -1.0, -0.4, 0.0)]
    assert shown == ["-10", "-1", "+0", "+0"]
    assert format_change(cycles, -0.0001, relative=True) == "+0.0 %"
