"""Forecasts: what simulated services with a known law make of them, and what is refused."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from results.errors import UserError
from results.forecast.forecast import Refused, forecast, metric_names
from results.forecast.levels import APART, BEYOND_MAX, SLACK, levels_of
from results.forecast.observations import Observation, gogc_of, memlimit_of
from results.forecast.subjects import Asked, Subject, subjects
from results.gomodel import OFF
from results.metrics import METRICS
from tests.benchmarks.bench_forecast import MIB, held, observed, straight, trials_at

PEAK, GC_CPU = METRICS["peak_rss"], METRICS["gc_cpu_share"]
RATES = (100.0, 200.0, 300.0, 400.0)


def exact(rates: Sequence[float] = RATES, trials: int = 3, **changed) -> list[Observation]:
    """Trials that lie on the law."""
    source = random.Random(1)
    return [
        observed(source, rate, straight(rate), spread=0.0, **{"rate_rps": rate, **changed})
        for rate in rates
        for _ in range(trials)
    ]


def heaps(gogcs=(50, 100, 200), lives=(64,), trials=4, per_goal=1.1) -> list[Observation]:
    """Trials at 100/s whose peak is 20 MiB and a multiple of the heap's goal."""
    source = random.Random(2)
    return [
        replace(
            observed(
                source,
                100,
                20 * MIB + per_goal * live * MIB * (1 + gogc / 100),
                spread=0.0,
                gogc=gogc,
                live_mib=live,
                gc_cores=0.05 * 100 / gogc,
                configuration=f"gogc{gogc}",
            ),
            rate_rps=100.0,
        )
        for gogc in gogcs
        for live in lives
        for _ in range(trials)
    ]


def told(found: Sequence[Observation], metric=PEAK, **asked):
    wanted = Asked(metrics=(metric.name,), **asked)
    (subject,) = subjects(found, wanted)
    return forecast(subject, metric, wanted)


def refusal(found: Sequence[Observation], metric=PEAK, **asked) -> str:
    with pytest.raises(Refused) as caught:
        told(found, metric, **asked)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("noise", ["normal", "slow-downs", "heavy tails"])
def test_intervals_hold_as_often_as_they_say(noise: str) -> None:
    source = random.Random(7)
    asked = [source.uniform(60, 790) for _ in range(60)]
    hits = sum(held(source, RATES, 3, at, straight, noise) for at in asked)
    # Nine of ten, and chance: of 60 at 90 % fewer than 47 are seen once in 600 times.
    assert hits >= 47


def test_what_follows_a_law_exactly_is_told_exactly() -> None:
    found = told(exact(), rate_rps=600.0)
    assert found.found.estimate == pytest.approx(straight(600))
    assert found.found.high - found.found.low < 1
    assert found.backtest.error < 1e-9
    assert found.backtest.held == found.backtest.trials == 12
    assert found.beyond == pytest.approx(1.5)
    assert found.verdict == "fits what was measured"


def test_another_gogc_follows_the_guide() -> None:
    found = told(heaps(), gogc=75.0, configurations=("gogc100",))
    assert found.found.estimate == pytest.approx(20 * MIB + 1.1 * 64 * MIB * 1.75)
    share = told(heaps(), GC_CPU, gogc=75.0, configurations=("gogc100",)).found.estimate
    cores = 0.05 * 100 / 75
    assert share == pytest.approx(cores / (cores + 0.4))


def test_another_live_heap_follows_the_guide() -> None:
    trials = heaps(gogcs=(100,), lives=(64, 128, 256))
    assert told(trials, live_bytes=400.0 * MIB).found.estimate == pytest.approx(900 * MIB)
    both = told(heaps(lives=(64, 128, 256)), live_bytes=400.0 * MIB, gogc=75.0,
                configurations=("gogc100",))  # fmt: skip
    assert both.found.estimate == pytest.approx(20 * MIB + 1.1 * 400 * MIB * 1.75)


def test_a_memory_limit_that_binds_sets_the_goal() -> None:
    trials = heaps()
    limit = 160.0 * MIB
    found = told(trials, memlimit_bytes=limit, configurations=("gogc200",))
    # The model takes what is resident besides the heap (20 MiB) off, and Go's headroom of 3 %.
    goal = (limit - 20 * MIB) * 0.97
    assert found.found.estimate == pytest.approx(20 * MIB + 1.1 * goal, rel=0.02)
    assert any("no trial had a limit" in note for note in found.notes)
    loose = told(trials, memlimit_bytes=2.0**30, configurations=("gogc100",))
    assert any("would not bind there" in note for note in loose.notes)


@given(rate=st.floats(1, 5_000))
@settings(max_examples=60, deadline=None)
def test_nothing_is_forecast_farther_out_than_twice_what_was_measured(rate: float) -> None:
    if 100 / BEYOND_MAX / SLACK <= rate <= 400 * BEYOND_MAX * SLACK:
        assert told(exact(), rate_rps=rate).found.estimate == pytest.approx(straight(rate))
    else:
        text = refusal(exact(), rate_rps=rate)
        assert "measured was 100/s to 400/s" in text
        assert "50/s to 800/s" in text


def test_a_gogc_or_a_live_heap_too_far_out_is_refused() -> None:
    own = {"configurations": ("gogc100",)}
    assert "measured was 50 to 200" in refusal(heaps(), gogc=20.0, **own)
    assert "GOGC of off" in refusal(heaps(), gogc=OFF, **own)
    assert "GOGC" in refusal(heaps(), GC_CPU, memlimit_bytes=90.0 * MIB, **own)
    trials = heaps(gogcs=(100,), lives=(64, 128, 256))
    assert "64.0 MiB to 256.0 MiB" in refusal(trials, live_bytes=600.0 * MIB)


def test_what_is_said_to_be_missing_is_enough() -> None:
    found = exact(rates=(100.0, 200.0), trials=2)
    text = refusal(found, rate_rps=350.0)
    assert "needs 3 levels of rate, and there are 2 (100/s, 200/s): 1 is missing" in text
    lines = yaml.safe_load(text.partition("In the matrix:\n")[2])
    rates = [
        float(re.sub("/s$", "", workload["arrivals"]["poisson"]))
        for workload in lines["workloads"].values()
    ]
    assert rates == [350.0]
    more = exact(rates=(100.0, 200.0, *rates), trials=lines["trials"])
    assert told(more, rate_rps=350.0).found.estimate == pytest.approx(straight(350))


def test_too_few_trials_are_counted() -> None:
    text = refusal(exact(trials=1), rate_rps=350.0)
    assert "4 trials at 4 levels are too few: 90 % needs 9 in all" in text
    needed = yaml.safe_load(text.partition("In the matrix:\n")[2])["trials"]
    told(exact(trials=needed), rate_rps=350.0)
    strict = yaml.safe_load(
        refusal(exact(trials=needed), rate_rps=350.0, confidence=0.95).partition("matrix:\n")[2]
    )["trials"]
    told(exact(trials=strict), rate_rps=350.0, confidence=0.95)


def test_a_missing_gogc_is_named_as_a_configuration() -> None:
    text = refusal(heaps(gogcs=(100,)), gogc=75.0)
    assert "GOGC: 75" in text
    assert "2 are missing" in text


def test_a_law_that_does_not_fit_is_not_to_be_trusted() -> None:
    source = random.Random(3)
    found = trials_at(source, RATES, 3, lambda rate: 50 * MIB + (rate / 100) ** 3 * 10 * MIB)
    own = told(found, rate_rps=700.0)
    assert own.verdict.startswith("not to be trusted: ")
    assert own.backtest.error > 0.10


def test_a_miss_at_the_near_end_alone_is_enough_to_doubt() -> None:
    source = random.Random(3)
    found = trials_at(
        source,
        (50, 70, 150, 250, *RATES),
        3,
        lambda rate: straight(rate) * (1 + 0.2 * (rate > 350)),
    )
    own = told(found, rate_rps=600.0)
    assert "not to be trusted: the nearest measured rate, 40" in own.verdict
    inside = told(found, rate_rps=150.0)
    assert "nearest" not in inside.verdict


def test_noise_as_large_as_the_figure_is_not_to_be_trusted() -> None:
    source = random.Random(4)
    found = [observed(source, r, straight(r), spread=0.6) for r in RATES for _ in range(3)]
    assert "the interval is wider than the figure" in told(found, rate_rps=600.0).verdict


def test_what_was_varied_together_is_not_told_apart() -> None:
    source = random.Random(5)
    found = [
        observed(source, rate, straight(rate), live_mib=rate)
        for rate in (64.0, 128.0, 256.0)
        for _ in range(4)
    ]
    text = refusal(found, rate_rps=200.0, live_bytes=100.0 * MIB)
    assert "rate and live heap were varied together" in text


def test_of_several_rates_one_must_be_named() -> None:
    found = [replace(o, rate_rps=r) for r in (100.0, 300.0) for o in heaps()]
    assert "--rate or --workload" in refusal(found, gogc=75.0, configurations=("gogc100",))


def test_trials_of_another_program_are_left_out_and_told() -> None:
    other = [
        replace(o, facts={**o.facts, "program": "old"}, metrics={"peak_rss": 1.0}) for o in exact()
    ]
    found = told([*other, *exact()], rate_rps=600.0)
    assert found.found.estimate == pytest.approx(straight(600))
    assert "12 trials of default left out, as they were measured with other program" in found.notes


def test_what_was_measured_need_not_be_forecast() -> None:
    assert any(
        "read what was measured there" in note for note in told(exact(), rate_rps=200.0).notes
    )


def test_trials_without_a_report_of_collections_tell_memory_at_a_rate_only() -> None:
    blind = [replace(o, heap=None) for o in exact()]
    assert told(blind, rate_rps=600.0).found.estimate == pytest.approx(straight(600))
    for metric, asked in ((GC_CPU, {"rate_rps": 600.0}), (PEAK, {"live_bytes": 100.0 * MIB})):
        assert "gc_trace" in refusal(blind, metric, **asked)


def test_the_order_of_the_trials_does_not_matter() -> None:
    source = random.Random(6)
    found = trials_at(source, RATES, 3, straight)
    asked = Asked(metrics=("peak_rss",), rate_rps=600.0)
    first = forecast(Subject(base=found[0], trials=tuple(found)), PEAK, asked).found
    source.shuffle(found)
    second = forecast(Subject(base=found[0], trials=tuple(found)), PEAK, asked).found
    assert (second.estimate, second.low, second.high) == pytest.approx(
        (first.estimate, first.low, first.high)
    )


@given(values=st.lists(st.floats(0.1, 1e12), min_size=1, max_size=40))
def test_levels_hold_every_value_once_and_lie_apart(values: list[float]) -> None:
    levels = levels_of(values)
    assert sorted(index for level in levels for index in level) == list(range(len(values)))
    for level in levels:
        assert all(values[b] <= values[a] * APART for a, b in pairwise(level))
    for below, above in pairwise(levels):
        assert values[above[0]] > values[below[-1]] * APART


def test_unknown_names_are_refused() -> None:
    assert metric_names(("peak_rss", "gc_cpu")) == ("peak_rss", "gc_cpu_share")
    with pytest.raises(UserError, match="latency_p99' can't be forecast"):
        metric_names(("latency_p99",))
    with pytest.raises(UserError, match="there are default × steady"):
        subjects(exact(), Asked(configurations=("nothing",), rate_rps=1.0))


def test_the_collectors_settings_are_read_as_go_reads_them() -> None:
    assert [gogc_of(t) for t in (None, "50", "off", "-1", "30%")] == [100, 50, OFF, OFF, 100]
    assert [memlimit_of(t) for t in (None, "off", "64MiB", "1000")] == [OFF, OFF, 64 * MIB, 1000]
