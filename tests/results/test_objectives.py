"""Objectives are decided on the interval: PASS, FAIL, or how many trials would tell."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from results.comparing.compare import Measurement, Settings, compare
from results.record import Finding, TrialRecord
from results.schema import SCHEMA_VERSION
from results.signoff.language import parse_objective
from results.signoff.objectives import CANT_TELL, FAIL, PASS, Decision, Evidence, Objective, decide

MIB = 2**20
MS = 1_000_000.0


def record(configuration: str, block: int, *codes: str) -> TrialRecord:
    """A trial that is invalid for these reasons, or valid without any."""
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id="r1", trial_id=f"b{block}-{configuration}",
        block=block, position=1, attempt=1, configuration=configuration,
        baseline=configuration == "default", workload="steady", node_id="n", node_class="linux",
        started_ns=1, finished_ns=2, spec={}, node={"os": "linux"}, versions={}, clock={},
        findings=[Finding(code, "invalid", code) for code in codes],
    )  # fmt: skip


def evidence(
    values: Mapping[str, Sequence[float | None]],
    metric: str = "peak_rss",
    spoiled: Mapping[tuple[str, int], str] | None = None,
) -> Evidence:
    """Each configuration's values, block by block."""
    reasons = spoiled or {}
    records = [
        record(name, block, *([reasons[name, block]] if (name, block) in reasons else []))
        for name, own in values.items()
        for block in range(1, len(own) + 1)
    ]
    valid = {(r.configuration, r.block) for r in records if r.valid}
    found = [
        Measurement(("r1", block), "linux", "steady", name, metric, value)
        for name, own in values.items()
        for block, value in enumerate(own, 1)
        if (name, block) in valid
    ]
    tables = compare(found, Settings("default"))
    return Evidence(found, tables, [], records, "default", 0.95)


def decided(text: str, evidence: Evidence, **more: object) -> Decision:
    (decision,) = decide([parse_objective(text, **more)], evidence)
    return decision


def around(centre: float, spread: float = 0.01, count: int = 8) -> list[float]:
    """Values close to a centre, the same at each call."""
    source = random.Random(7)
    return [centre * (1 + source.uniform(-spread, spread)) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "metric", "centre", "word"),
    [
        ("peak_rss <= 100MiB", "peak_rss", 90 * MIB, PASS),
        ("peak_rss <= 100MiB", "peak_rss", 110 * MIB, FAIL),
        ("peak_rss <= 100MiB", "peak_rss", 100 * MIB, CANT_TELL),
        ("p99 <= 40ms", "latency_p99", 39 * MS, PASS),
        ("errors <= 0.1%", "error_share", 0.002, FAIL),
        ("throughput >= 800/s", "throughput", 900, PASS),
        ("throughput >= 800/s", "throughput", 700, FAIL),
        ("gc_cycles >= 5", "gc_cycles", 9, PASS),
    ],
)
def test_a_limit_is_held_by_the_whole_interval_of_the_median(
    text: str, metric: str, centre: float, word: str
) -> None:
    found = decided(text, evidence({"default": around(1), "new": around(centre)}, metric))
    assert found.word == word, found.reason
    assert found.trials == 8
    assert found.cell.configuration == "new"
    assert (found.trials_needed is None) == (word != CANT_TELL)
    assert found.blocks == (word != PASS)


@pytest.mark.parametrize(
    ("text", "factor", "word"),
    [
        ("peak_rss better by >= 30%", 0.6, PASS),
        ("peak_rss better by >= 30%", 0.8, FAIL),
        ("peak_rss better by >= 30%", 0.7, CANT_TELL),
        ("peak_rss not worse by > 5%", 1.0, PASS),
        ("peak_rss not worse by > 5%", 1.2, FAIL),
        ("peak_rss not worse by > 5%", 0.5, PASS),
        ("throughput better by >= 10%", 1.3, PASS),
        ("throughput better by >= 10%", 1.0, FAIL),
        ("throughput not worse by > 5%", 0.8, FAIL),
        ("throughput not worse by > 5%", 0.99, PASS),
    ],
)
def test_a_change_is_judged_by_the_interval_within_blocks(
    text: str, factor: float, word: str
) -> None:
    base = around(100, 0.2)
    candidate = [b * f for b, f in zip(base, around(factor, 0.02), strict=True)]
    metric = text.split(maxsplit=1)[0]
    found = decided(text, evidence({"default": base, "new": candidate}, metric))
    assert found.word == word, found.reason


def test_too_few_trials_decide_nothing_and_how_many_would_is_told() -> None:
    few = evidence({"default": around(1, count=4), "new": around(50 * MIB, count=4)})
    found = decided("peak_rss <= 100MiB", few)
    assert (found.word, found.trials_needed) == (CANT_TELL, 6)
    assert "too few trials" in found.reason
    found = decided("peak_rss not worse by > 5%", few)
    assert (found.word, found.trials_needed) == (CANT_TELL, 6)


def test_a_service_that_died_in_one_trial_does_not_pass_by_the_others() -> None:
    values = {"default": around(1), "new": around(90 * MIB)}
    died = evidence(values, spoiled={("new", 3): "service_died"})
    found = decided("peak_rss <= 100MiB", died)
    assert found.word == CANT_TELL
    assert "service_died" in found.reason
    node = evidence(values, spoiled={("new", 3): "samples_missing"})
    assert decided("peak_rss <= 100MiB", node).word == PASS, "the node's doing, not the service's"
    other = evidence(values, spoiled={("default", 3): "service_died"})
    assert decided("peak_rss <= 100MiB", other).word == PASS, "another configuration's trial"


def test_a_single_trial_beyond_the_limit_is_told() -> None:
    values = [*around(90 * MIB, count=11), 120.0 * MIB]
    found = decided("peak_rss <= 100MiB", evidence({"default": around(1, count=12), "new": values}))
    assert found.word == PASS
    assert "1 of 12 trials alone broke it" in found.reason


def test_what_no_trial_can_tell_is_never_a_pass() -> None:
    nothing = evidence({"default": [None] * 8, "new": [None] * 8}, "latency_p99")
    found = decided("p99 <= 40ms", nothing)
    assert found.word == CANT_TELL
    assert "< 1k requests" in found.reason
    zero = evidence({"default": [0.0] * 8, "new": [0.0] * 8}, "error_share")
    assert decided("errors not worse by > 5%", zero).word == PASS, "none before, none now"
    assert decided("errors better by >= 5%", zero).word == CANT_TELL
    more = evidence({"default": [0.0] * 8, "new": around(0.01)}, "error_share")
    assert decided("errors not worse by > 5%", more).word == CANT_TELL
    usual = evidence({"default": around(1), "new": around(1)})
    assert decided("no_leak", usual).word == CANT_TELL
    assert decided("peak_commit <= 1GiB", usual).word == CANT_TELL, "no figure of this system"


def test_the_baseline_alone_is_held_to_limits() -> None:
    alone = evidence({"default": around(90 * MIB)})
    assert decided("peak_rss <= 100MiB", alone).word == PASS
    assert decided("peak_rss not worse by > 5%", alone).word == CANT_TELL


def test_an_objective_may_be_for_some_cells_only() -> None:
    values = {"default": around(90 * MIB), "a": around(90 * MIB), "b": around(110 * MIB)}
    found = decided("peak_rss <= 100MiB", evidence(values), configurations=("a",))
    assert (found.cell.configuration, found.word) == ("a", PASS)
    assert decided("peak_rss <= 1GiB", evidence(values), workloads=("night",)).word == CANT_TELL
    warned = decide([parse_objective("peak_rss <= 100MiB", severity="warn")], evidence(values))
    assert [d.word for d in warned] == [PASS, FAIL]
    assert not any(d.blocks for d in warned), "a warning stands in nobody's way"


@given(
    st.lists(st.floats(1, 1e6), min_size=1, max_size=12),
    st.floats(0.1, 2e6),
    st.booleans(),
)
def test_a_worse_service_never_fares_better(
    values: list[float], bound: float, upwards: bool
) -> None:
    """What PASSES would still with a laxer bound, and what FAILS would with a stricter one."""
    metric = "gc_cycles"
    objective = Objective("x", "limit", metric, bound, at_most=upwards)
    laxer = Objective("x", "limit", metric, bound * (2 if upwards else 0.5), at_most=upwards)
    own = evidence({"default": values}, metric)
    order = [FAIL, CANT_TELL, PASS]
    strict, lax = (decide([o], own)[0].word for o in (objective, laxer))
    assert order.index(lax) >= order.index(strict)


@given(st.lists(st.floats(1, 1e6), min_size=6, max_size=12), st.floats(0.1, 2e6))
def test_a_decision_agrees_with_the_point(values: list[float], bound: float) -> None:
    own = evidence({"default": values}, "gc_cycles")
    found = decide([Objective("x", "limit", "gc_cycles", bound)], own)[0]
    assert found.interval
    assume(found.word != CANT_TELL)
    assert (found.interval.estimate <= bound) == (found.word == PASS)
