"""The search for the rate that is just carried finds it, and says so when it can't."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.capacity.search import Answer, Bounds, Search

BOUNDS = Bounds(10, 100_000, trials_max=12)


def searched(holds: Callable[[float], bool], first_rps: float, bounds: Bounds = BOUNDS) -> Search:
    """A search to its end; `holds` is the trial."""
    search = Search(bounds, first_rps)
    while search.state == "searching":
        rate_rps = search.next_rps()
        assert bounds.lowest_rps <= rate_rps <= bounds.highest_rps
        search.tell(Answer(rate_rps, holds(rate_rps)))
    return search


def noisy(capacity_rps: float, width: float, seed: int) -> Callable[[float], bool]:
    """A service whose trials hold by chance near its capacity."""
    source = random.Random(seed)

    def holds(rate_rps: float) -> bool:
        chance = 1 / (1 + math.exp(min(60, math.log(rate_rps / capacity_rps) / width)))
        return source.random() < chance

    return holds


def test_the_interval_holds_the_capacity_as_often_as_it_says() -> None:
    source, inside = random.Random(5), 0
    for seed in range(100):
        capacity_rps = math.exp(source.uniform(math.log(50), math.log(20_000)))
        first_rps = capacity_rps * math.exp(source.uniform(-1.5, 1))
        trial = noisy(capacity_rps, source.choice([0.01, 0.03, 0.08]), seed)
        interval = searched(trial, min(max(first_rps, 10), 100_000)).interval()
        inside += interval.low <= capacity_rps <= interval.high
    assert inside >= 93  # 95 is meant; below 93 in a hundred has a chance of 12 % even then


@given(st.floats(20, 50_000), st.floats(1 / 30, 30))
def test_without_noise_twelve_trials_come_close(capacity_rps: float, guess: float) -> None:
    first_rps = min(100_000.0, max(10.0, capacity_rps * guess))
    search = searched(lambda rate_rps: rate_rps <= capacity_rps, first_rps)
    interval = search.interval()
    assert interval.low * 0.97 <= capacity_rps <= interval.high * 1.03
    assert interval.high / interval.low < 2  # the ramp alone leaves that much
    assert len(search.answers) <= 12
    assert not search.contradicts_itself


def test_what_lies_outside_of_what_may_be_tried_is_told() -> None:
    nothing = searched(lambda _: False, 100)
    assert nothing.state == "below"
    assert [a.rate_rps for a in nothing.answers][-2:] == [10, 10], "the lowest is tried twice"
    everything = searched(lambda _: True, 40_000)
    assert everything.state == "above"
    assert [a.rate_rps for a in everything.answers][-2:] == [100_000, 100_000]


def test_the_trials_are_bounded() -> None:
    search = searched(noisy(500, 0.2, 1), 100, Bounds(10, 100_000, trials_max=5))
    assert search.state == "spent"
    assert len(search.answers) == 5


def test_it_ends_early_when_it_is_close_enough() -> None:
    wide = Bounds(10, 100_000, trials_max=50, closeness=0.5)
    search = searched(lambda rate_rps: rate_rps <= 700, 400, wide)
    assert search.state == "found"
    interval = search.interval()
    assert interval.high / interval.low <= 1.5
    assert len(search.answers) < 12


def test_a_service_that_carries_more_when_it_gets_more_is_flagged() -> None:
    strange = [Answer(r, h) for r, h in ((100, True), (200, False), (400, True), (800, True))]
    again = [Answer(200, False), Answer(400, True), Answer(200, False), Answer(800, True)]
    assert Search(BOUNDS, 100, [*strange, *again]).contradicts_itself
    usual = [Answer(r, h) for r, h in ((100, True), (200, True), (400, False), (280, False))]
    assert not Search(BOUNDS, 100, usual).contradicts_itself


def test_the_same_answers_give_the_same_search() -> None:
    search = searched(noisy(500, 0.05, 3), 100)
    again = Search(BOUNDS, 100, search.answers)
    assert again.interval() == search.interval()
    assert again.next_rps() == search.next_rps()


@pytest.mark.parametrize(
    ("bounds", "first_rps"),
    [(Bounds(0, 10, 5), 5), (Bounds(10, 10, 5), 10), (Bounds(10, 20, 5), 30)],
)
def test_bounds_that_leave_nothing_to_search(bounds: Bounds, first_rps: float) -> None:
    with pytest.raises(ValueError, match="rate must"):
        Search(bounds, first_rps)
