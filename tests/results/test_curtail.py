"""A run may end early only where no further trial could change a word of its sign-off."""

from __future__ import annotations

import dataclasses
import random

import pytest
from begun import Values, after, record
from hypothesis import given, settings
from hypothesis import strategies as st

from results.judging.leaks import Leak
from results.record import Finding
from results.signoff.curtail import LOST, MET, OPEN, outlook_of, settled
from results.signoff.language import parse_objective
from results.signoff.objectives import (
    CANT_TELL,
    FAIL,
    PASS,
    Evidence,
    Objective,
    decide,
    decisions_in,
)
from results.statistics.interval import Interval
from tests.benchmarks.bench_curtail import CASES, Case, simulated

MIB = 2.0**20


def outlook(text: str, values: Values, planned: int) -> str:
    objective = parse_objective(text)
    evidence = after(values, planned, objective.metric)
    (decision,) = decisions_in([objective], evidence)
    return outlook_of(decision, evidence)


def word(text: str, values: Values, planned: int, *, early: bool = False) -> tuple[str, str]:
    objective = parse_objective(text)
    (decision,) = decide([objective], after(values, planned, objective.metric, early=early))
    return decision.word, decision.reason


GOOD, BAD = (100 * MIB, 90 * MIB), (100 * MIB, 130 * MIB)


@pytest.mark.parametrize(
    ("values", "planned", "expected"),
    [
        # Of 12 medians 10 must keep the limit: after 3 that do not, none of the others can help.
        ([BAD] * 2, 12, OPEN),
        ([BAD] * 3, 12, LOST),
        ([GOOD, BAD, GOOD, BAD, GOOD, BAD], 12, LOST),
        ([GOOD] * 9, 12, OPEN),
        ([GOOD] * 10, 12, MET),
        ([GOOD] * 10 + [BAD] * 2, 12, MET),
        # Of 6 all must.
        ([BAD], 6, LOST),
        ([GOOD] * 5, 6, OPEN),
        ([GOOD] * 6, 6, MET),
    ],
)
def test_a_limit_is_settled_when_the_others_can_not_change_it(
    values: Values, planned: int, expected: str
) -> None:
    assert outlook("peak_rss <= 100MiB", values, planned) == expected


@pytest.mark.parametrize(
    ("text", "factor", "blocks", "expected"),
    [
        ("peak_rss better by >= 30%", 0.9, 4, OPEN),
        ("peak_rss better by >= 30%", 0.9, 5, LOST),
        ("peak_rss better by >= 30%", 0.5, 10, OPEN),
        ("peak_rss better by >= 30%", 0.5, 11, MET),
        ("peak_rss not worse by > 5%", 1.2, 5, LOST),
        # Where a value may be zero, no ratio could be made any more: then nothing is sure.
        ("throughput better by >= 30%", 2.0, 11, OPEN),
        ("throughput better by >= 30%", 2.0, 12, MET),
    ],
)
def test_a_change_is_settled_when_the_others_can_not_change_it(
    text: str, factor: float, blocks: int, expected: str
) -> None:
    source = random.Random(3)
    values = [(b := source.uniform(90, 110), b * factor * source.uniform(0.99, 1.01))
              for _ in range(blocks)]  # fmt: skip
    assert outlook(text, values, 12) == expected


number = st.floats(0.5, 2.0)
maybe = st.one_of(st.none(), number, st.sampled_from([0.0, 1e-30, 1e30]))


@settings(max_examples=150)
@given(st.data())
def test_no_future_contradicts_it(data: st.DataObject) -> None:
    """Whatever the other trials show, also nothing, also zero: the full run says the same."""
    text = data.draw(
        st.sampled_from(
            [
                "gc_cpu <= 100%",
                "gc_cpu not worse by > 20%",
                "gc_cpu better by >= 20%",
                "throughput >= 1/s",
                "throughput better by >= 10%",
            ]
        )
    )
    planned = data.draw(st.integers(6, 14))
    begun = data.draw(st.integers(1, planned))
    start = data.draw(st.lists(st.tuples(number, number), min_size=begun, max_size=begun))
    shift = data.draw(st.sampled_from([0.3, 1.0, 3.0]))
    values = [(a, b * shift) for a, b in start]
    rest = data.draw(
        st.lists(st.tuples(maybe, maybe), min_size=planned - begun, max_size=planned - begun)
    )
    early = outlook(text, values, planned)
    last = word(text, [*values, *rest], planned)[0]
    assert early == OPEN or (early == MET) == (last == PASS)
    said = word(text, values, planned, early=True)[0]
    assert said in (last, CANT_TELL)
    assert said != PASS or early == MET


def test_a_run_that_was_ended_early_never_passes_by_less_than_the_whole_needs() -> None:
    good = [GOOD] * 8
    assert word("peak_rss <= 100MiB", good, 8)[0] == PASS
    assert word("peak_rss <= 100MiB", good, 12)[0] == PASS, "eight decide where no more is planned"
    early, why = word("peak_rss <= 100MiB", good, 12, early=True)
    assert (early, "before this was decided" in why) == (CANT_TELL, True)
    assert word("peak_rss <= 100MiB", [GOOD] * 10, 12, early=True)[0] == PASS
    early, why = word("peak_rss <= 100MiB", [BAD] * 3, 12, early=True)
    assert (early, "can't be met any more, whatever 9 more trials" in why) == (CANT_TELL, True)
    assert word("peak_rss <= 100MiB", [BAD] * 10, 12, early=True)[0] == FAIL


def test_a_trial_that_the_service_spoiled_still_blocks() -> None:
    evidence = after([GOOD] * 12, 12, "peak_rss", early=True)
    died = record("new", 12, valid=False)
    died.findings = [Finding("service_died", "invalid", "it died")]
    evidence = Evidence(
        evidence.measurements[:-1], evidence.tables, [], [*evidence.records[:-1], died],
        "default", 0.95, evidence.documents,
    )  # fmt: skip
    objective = parse_objective("peak_rss <= 100MiB")
    (decision,) = decide([objective], evidence)
    assert (decision.word, "service_died" in decision.reason) == (CANT_TELL, True)
    assert outlook_of(decision, evidence) == OPEN


def objectives(*texts: str, **more: str) -> list[Objective]:
    return [parse_objective(text, **more) for text in texts]


def test_a_run_ends_when_every_blocking_objective_is_settled() -> None:
    lost = after([BAD] * 5, 12, "peak_rss")
    wanted = objectives("peak_rss <= 100MiB", "peak_rss not worse by > 5%")
    found = settled(wanted, lost)
    assert found and [o.outlook for o in found] == [LOST, LOST]
    still_open = objectives("p99 <= 40ms")
    assert settled([*wanted, *still_open], lost) is None
    warns = objectives("p99 <= 40ms", severity="warn")
    assert settled([*wanted, *warns], lost), "what only warns holds nothing up"
    assert settled(warns, lost) is None, "and ends nothing"
    elsewhere = objectives("capacity >= 800/s")
    assert settled([*wanted, *elsewhere], lost), "other runs decide a capacity"
    assert settled(elsewhere, lost) is None


def test_nothing_is_settled_before_each_planned_cell_has_begun() -> None:
    evidence = after([BAD] * 5, 12, "peak_rss")
    more = {"trial_id": "b1-new-night", "block": 1, "configuration": "new", "workload": "night",
            "group": "", "baseline": False}  # fmt: skip
    evidence.documents[0]["planned"].append(more)
    assert settled(objectives("peak_rss <= 100MiB"), evidence) is None
    spoiled = after([(None, None)], 12, "peak_rss")
    assert settled(objectives("peak_rss <= 100MiB"), spoiled) is None
    assert settled(objectives("peak_rss not worse by > 5%"), spoiled) is None


@pytest.mark.parametrize(
    ("verdict", "expected", "at_the_end"),
    [("leak", LOST, FAIL), ("no leak shown", OPEN, CANT_TELL)],
)
def test_a_leak_may_end_a_run_and_its_absence_never(
    verdict: str, expected: str, at_the_end: str
) -> None:
    evidence = after([GOOD] * 5, 12, "peak_rss", early=True)
    leak = Leak(
        "linux", "linux", "steady", "new", baseline=False, series="heap_live", trials=5,
        seconds=1e6, level=1e8, slope=Interval(1, 1, 1), against=None, verdict=verdict,
    )  # fmt: skip
    evidence = dataclasses.replace(evidence, leaks=[leak])
    (decision,) = decisions_in(objectives("no_leak"), evidence)
    assert outlook_of(decision, evidence) == expected
    (decision,) = decide(objectives("no_leak"), evidence)
    assert decision.word == at_the_end


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_runs_that_end_early_decide_as_the_whole_ones(case: Case) -> None:
    """Also in `make bench AREA=signoff`, with more of them."""
    source = random.Random(11)
    seen = [simulated(case, planned, source) for planned in (8, 12) for _ in range(8)]
    assert all(run.agrees for run in seen)
    if "fail" in case.name:
        assert all(run.word != PASS for run in seen)
        assert sum(run.blocks for run in seen) < 8 * (8 + 12) * 0.7
