"""A leak is what grows for certain, goes on, and is more than the baseline's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.answers.common import print_comparison
from results.comparing.tables import markdown_comparison, plain_comparison
from results.judging.leaks import AS_BASELINE, LEAK, NO_LEAK, SECONDS_MIN, leaks_of
from results.judging.steady import LOAD_CHANGES, STEADY, TOO_SHORT
from results.record import Finding, SeriesTrend, TrialRecord
from results.report.page import render_report
from results.sql.database import open_database
from tests.benchmarks.bench_steady import _record, leak_verdicts
from tests.results.archives import MIB, reseal, write_archive

HOUR = 3600.0
FLAT = (-0.5, 0.0, 0.5)
"""MiB an hour: lower bound, estimate, upper bound."""


def heap(
    per_hour: Sequence[float] = FLAT, *, late: float | None = None, **other: Any
) -> SeriesTrend:
    low, slope, high = (value * MIB / HOUR for value in per_hour)
    late_slope = slope if late is None else late * MIB / HOUR
    return replace(
        SeriesTrend(
            series="heap_live", unit="bytes", seconds=HOUR, points=60, level=100.0 * MIB,
            verdict=STEADY, independent=40.0, slope_per_s=slope, slope_low_per_s=low,
            slope_high_per_s=high, late_slope_per_s=late_slope, step=0.0, step_at_s=1.0, step_p=1.0,
        ),
        **other,
    )  # fmt: skip


def verdicts(*, default: Sequence[SeriesTrend], candidate: Sequence[SeriesTrend]) -> list[str]:
    records = [
        _record(block, name, trend)
        for name, trends in (("default", default), ("candidate", candidate))
        for block, trend in enumerate(trends, 1)
    ]
    return [leak.verdict for leak in leaks_of(records)]


GROWS = (8.0, 10.0, 12.0)


@pytest.mark.parametrize(
    ("default", "candidate", "want"),
    [
        pytest.param(heap(), heap(GROWS), [NO_LEAK, LEAK], id="the candidate leaks"),
        pytest.param(heap(GROWS), heap(GROWS), [LEAK, AS_BASELINE], id="both leak alike"),
        pytest.param(heap(GROWS), heap((28, 30, 32)), [LEAK, LEAK], id="it leaks more"),
        pytest.param(heap(GROWS), heap(), [LEAK, NO_LEAK], id="it mends the baseline's leak"),
        pytest.param(heap(), heap(), [NO_LEAK, NO_LEAK], id="none leaks"),
        pytest.param(
            heap(), heap(GROWS, late=1.0), [NO_LEAK, TOO_SHORT], id="it slows down: a cache"
        ),
        pytest.param(
            heap((-30, 5, 40)), heap(GROWS), [TOO_SHORT, TOO_SHORT], id="not more for certain"
        ),
        pytest.param(
            heap(), heap((0.5, 1.0, 1.5)), [NO_LEAK, NO_LEAK], id="growth that does not matter"
        ),
        pytest.param(
            heap(), heap(GROWS, seconds=SECONDS_MIN - 1), [NO_LEAK, TOO_SHORT], id="too short"
        ),
        pytest.param(
            heap(), heap(GROWS, independent=5.0), [NO_LEAK, TOO_SHORT], id="values hang together"
        ),
    ],
)
def test_the_verdict(default: SeriesTrend, candidate: SeriesTrend, want: list[str]) -> None:
    assert verdicts(default=[default], candidate=[candidate]) == want


def test_several_trials_tell_what_one_does_not() -> None:
    wide = heap((-2.0, 10.0, 22.0))
    assert verdicts(default=[heap()], candidate=[wide]) == [NO_LEAK, TOO_SHORT]
    assert verdicts(default=[heap()] * 3, candidate=[wide] * 3) == [NO_LEAK, LEAK]


def test_a_trial_that_says_nothing_does_not_silence_the_others() -> None:
    mute = heap(independent=5.0)
    assert verdicts(default=[heap()] * 3, candidate=[heap(GROWS), heap(GROWS), mute])[1] == LEAK


def test_what_can_not_be_told_says_how_long_would_do() -> None:
    (leak,) = leaks_of([_record(1, "default", heap((-20.0, 0.0, 20.0)))])
    # Its interval is four times as wide as 5 MiB an hour on either side: 4 ** (2 / 3) hours.
    assert leak.needed_s == pytest.approx(HOUR * 4 ** (2 / 3), rel=0.01)
    assert leak.text.endswith("can't tell: too short; 2.5 h of measure would")


def test_the_sentence_has_the_pace_and_what_it_is_against() -> None:
    records = [_record(1, "default", heap()), _record(1, "candidate", heap(GROWS))]
    base, leak = leaks_of(records)
    assert base.text == (
        "default, steady on class: no leak shown; live heap grows by at most 512.0 KiB an hour"
    )
    assert leak.text == (
        "candidate, steady on class: leak: live heap grew by 10.0 MiB an hour (8.0 MiB … 12.0 MiB),"
        " 10.0 MiB more than the baseline's"
    )


def test_invalid_trials_and_loads_that_change_do_not_count() -> None:
    spoiled = _record(1, "default", heap(GROWS))
    spoiled.findings.append(Finding("service_died", "invalid", "died"))
    planned = _record(1, "candidate", heap(GROWS, verdict=LOAD_CHANGES))
    assert leaks_of([spoiled, planned]) == ()


def test_all_of_a_table_are_asked_the_same_series() -> None:
    traced = _record(1, "default", heap(GROWS))
    traced.steady = [heap(GROWS), heap(series="rss")]
    untraced = _record(1, "candidate", heap(GROWS, series="rss"))
    assert [(leak.series, leak.verdict) for leak in leaks_of([traced, untraced])] == [
        ("rss", NO_LEAK),
        ("rss", LEAK),
    ]


def leaking_archive(root: Path) -> Path:
    write_archive(root, configurations={"default": {}, "optimised": {}}, blocks=2)
    for path in root.glob("*/trials/*/trial.json"):
        record = TrialRecord.read(path)
        record.steady = [heap() if record.baseline else heap(GROWS)]
        path.write_text(record.to_json())
        reseal(path.parent)
    return root


def test_compare_report_and_sql_all_tell_it(tmp_path: Path, capsys: Any) -> None:
    from rich.console import Console

    root = leaking_archive(tmp_path)
    with open_database(root) as database:
        comparison = database.comparison()
        rows = database.query("select configuration, verdict from leaks").to_pylist()
        trends = database.query("from trends").to_pylist()
    assert rows == [
        {"configuration": "default", "verdict": NO_LEAK},
        {"configuration": "optimised", "verdict": LEAK},
    ]
    assert sorted({t["slope_per_minute"] for t in trends}) == pytest.approx([0, 10 * MIB / 60])
    (warning,) = [text for text in comparison.warnings if "leak" in text]
    assert "optimised" in warning
    assert "live heap grew by 10.0 MiB an hour" in warning
    print_comparison(root, [], Console(width=300), style="table")
    printed = capsys.readouterr().out
    assert "! optimised, steady on linux-test: leak: live heap grew by 10.0 MiB an hour" in printed
    assert "default, steady on linux-test: no leak shown" in printed
    assert "leak: live heap grew" in markdown_comparison(comparison)
    assert [row["verdict"] for row in plain_comparison(comparison)["leaks"]] == [NO_LEAK, LEAK]
    page = render_report(root, "latest")
    assert "Leaks" in page
    assert "<td>leak</td>" in page.replace('<td class="">', "<td>")


def test_short_runs_are_not_bothered_with_leaks(tmp_path: Path) -> None:
    with open_database(write_archive(tmp_path, blocks=1)) as database:
        comparison = database.comparison()
        (row,) = database.query("from leaks").to_pylist()
    assert comparison.leaks == ()
    assert row["verdict"] == TOO_SHORT


def test_simulated_leaks_are_seen_and_none_is_invented() -> None:
    lengths = (300, 600, 1_800, 3_600)
    innocent = [
        leak_verdicts(number, random.Random(number).choice(lengths), 0.0, "heap_live")
        for number in range(20)
    ]
    # At a rate of 5 % more than four of 20 happen once in 400.
    assert sum(LEAK in found for found in innocent) <= 4
    leaking = [leak_verdicts(number, 3_600, 0.3, "heap_live")[1] for number in range(5)]
    assert leaking.count(LEAK) >= 4
