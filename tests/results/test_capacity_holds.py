"""Whether a trial at a rate holds: its limits, its backlog, and what is no answer at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from archives import RUN_ID, write_archive

from results.capacity.holds import held, is_asked
from results.judging import steady
from results.record import Finding, SeriesTrend, TrialRecord
from results.signoff.language import parse_objective

LIMITS = [parse_objective("p99 <= 40ms"), parse_objective("errors <= 1%")]
GOOD = {"latency_p99": 30e6, "error_share": 0.0}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> TrialRecord:
    root = write_archive(tmp_path_factory.mktemp("holds") / "archive", blocks=1)
    (path,) = (root / RUN_ID / "trials").glob("*/trial.json")
    return TrialRecord.read(path)


def invalid(record: TrialRecord, code: str) -> TrialRecord:
    return replace(record, findings=[Finding(code, "invalid", f"it was {code}")])


def test_every_limit_must_be_kept(record: TrialRecord) -> None:
    assert held(record, GOOD, LIMITS, 100).holds is True
    slow = held(record, GOOD | {"latency_p99": 41e6}, LIMITS, 100)
    assert (slow.holds, slow.reason) == (False, "latency p99 41 ms, not p99 <= 40ms")
    assert held(record, GOOD | {"error_share": 0.02}, LIMITS, 100).holds is False


def test_a_figure_that_is_missing_says_nothing(record: TrialRecord) -> None:
    found = held(record, GOOD | {"latency_p99": None}, LIMITS, 100)
    assert found.holds is None
    assert "< 1k requests" in found.reason
    broken = held(record, {"latency_p99": None, "error_share": 0.5}, LIMITS, 100)
    assert broken.holds is False, "one limit is broken, whatever the other is"


def test_a_growing_backlog_does_not_hold(record: TrialRecord) -> None:
    assert record.load
    growing = replace(record, load=replace(record.load, waiting_before=3, waiting_after=90))
    assert held(growing, GOOD, LIMITS, 100).holds is False
    assert held(growing, GOOD, LIMITS, 1_000).holds is True, "less than half a second's arrivals"


def drifting(series: str, slope_per_s: float) -> SeriesTrend:
    unit = steady.KINDS[series].unit
    return SeriesTrend(
        series=series, unit=unit, seconds=30, points=30, level=20e6, verdict=steady.DRIFTS,
        independent=30, slope_per_s=slope_per_s, step=0.0, step_at_s=0.0, step_p=1.0,
    )  # fmt: skip


def test_a_limit_that_is_kept_only_because_the_trial_ended_does_not_hold(
    record: TrialRecord,
) -> None:
    rising = replace(record, steady=[drifting("latency_p99", 0.5e6)])
    found = held(rising, GOOD, LIMITS, 100)
    assert found.holds is False
    assert "no steady state: p99 latency rose" in found.reason
    falling = replace(record, steady=[drifting("latency_p99", -0.5e6)])
    assert held(falling, GOOD, LIMITS, 100).holds is True, "it gets better"
    growing = replace(record, steady=[drifting("rss", 0.5e6)])
    assert held(growing, GOOD, LIMITS, 100).holds is True, "memory is not limited"
    limited = [*LIMITS, parse_objective("peak_rss <= 1GiB")]
    assert held(growing, GOOD | {"peak_rss": 2e7}, limited, 100).holds is False


def test_what_the_node_spoiled_is_no_answer_and_what_the_service_did_is(
    record: TrialRecord,
) -> None:
    late = held(invalid(record, "generator_late"), GOOD, LIMITS, 100)
    assert (late.holds, late.generator_at_its_end) == (None, True)
    spent = held(invalid(record, "generator_saturated"), GOOD, LIMITS, 100)
    assert (spent.holds, spent.generator_at_its_end) == (None, True), "the load was at its end"
    other = held(invalid(record, "samples_missing"), GOOD, LIMITS, 100)
    assert (other.holds, other.generator_at_its_end) == (None, False)
    for code in ("service_saturated", "service_died", "oom_killed", "no_success"):
        assert held(invalid(record, code), GOOD, LIMITS, 100).holds is False, code
    for code in ("never_ready", "start_failed", "setting_differs"):
        unready = held(invalid(record, code), GOOD, LIMITS, 100)
        assert (unready.holds, unready.generator_at_its_end) == (None, False), "no rate helps"


def test_only_limits_that_block_and_are_about_it_are_asked() -> None:
    def asked(text: str, **more: object) -> bool:
        return is_asked(parse_objective(text, **more), "default", "steady")

    assert asked("p99 <= 40ms")
    assert asked("p99 <= 40ms", configurations=("default",), workloads=("steady",))
    assert not asked("p99 <= 40ms", severity="warn")
    assert not asked("p99 <= 40ms", configurations=("optimised",))
    assert not asked("p99 <= 40ms", workloads=("night",))
    assert not asked("p99 not worse by > 5%")
    assert not asked("no_leak")
    assert not asked("throughput >= 100/s")
