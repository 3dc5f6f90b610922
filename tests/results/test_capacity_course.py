"""From the first trial to the last: search, confirmation, overload; and what has no answer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overloads import overload

from results.capacity.course import Course, Purpose, Purse, Step, Tried, written_rate
from results.capacity.holds import Held
from results.capacity.search import Bounds

BOUNDS = Bounds(10, 100_000, trials_max=15)
YES, NO = Held(True, "every limit is kept"), Held(False, "latency p99 50 ms, not p99 <= 40ms")
DIED = Held(False, "the service ended in phase measure")
SPOILED = Held(None, "the generator itself sent 60 ms late (p99)")
AT_ITS_END = replace(SPOILED, generator_at_its_end=True)
SECOND_NS = 10**9

Service = Callable[[Step], Held]


def carries(rate_rps: float) -> Service:
    """A service that holds up to a rate, and never above."""
    return lambda step: YES if step.rate_rps <= rate_rps else NO


def gone(service: Service, course: Course | None = None, trials: int = 15) -> Course:
    """A course to its end."""
    course = course or Course("default", BOUNDS, 100)
    while step := course.next_step(Purse(trials - course.trials)):
        assert BOUNDS.lowest_rps <= step.rate_rps <= BOUNDS.highest_rps
        if step.purpose == Purpose.overload:
            course.take_overload(replace(overload(), base_rps=step.rate_rps))
        else:
            number = str(course.trials)
            course.take(Tried(number, step.purpose, step.rate_rps, service(step)))
    return course


def purposes(course: Course) -> str:
    return "".join(tried.purpose[0] for tried in course.tried)


def test_the_answer_is_confirmed_at_its_lower_bound_and_one_step_above() -> None:
    course = gone(carries(730))
    assert purposes(course).endswith("ca")
    assert course.confirmation is course.tried[-2]
    assert course.tried[-2].rate_rps <= 730 < course.tried[-1].rate_rps
    assert course.lower_rps == course.tried[-2].rate_rps
    assert course.step_above is course.tried[-1]
    assert course.unconfirmed == ""
    assert course.overload is not None


@given(st.floats(20, 50_000), st.integers(4, 40), st.booleans())
def test_no_more_is_spent_than_was_told(capacity_rps: float, trials: int, over: bool) -> None:
    bounds = replace(BOUNDS, trials_max=trials)
    course = gone(carries(capacity_rps), Course("d", bounds, 100, with_overload=over), trials)
    assert course.trials <= trials
    if course.confirmation:
        assert course.confirmation.rate_rps <= capacity_rps
    if over and course.confirmation and not course.overloads:
        assert course.trials == trials or course.end == "above", "nothing was left for it"
    assert len(course.overloads) <= int(over)


@pytest.mark.parametrize("trials", [5, 6, 7, 8, 9])
def test_few_trials_go_to_the_search_while_its_answer_is_wide(trials: int) -> None:
    course = gone(carries(730), Course("d", replace(BOUNDS, trials_max=trials), 100), trials)
    searched = Course("d", course.bounds, 100)
    for tried in course.tried[: purposes(course).index("c")]:
        searched.take(tried)
    ends = searched.interval
    wide = ends.high > 2 * ends.low
    assert purposes(course).endswith("sc") or not wide, (purposes(course), ends)
    assert course.overloads == [] or not wide
    assert course.confirmation, "the last one confirms"


def test_a_confirmation_that_fails_is_an_answer_and_the_search_goes_on() -> None:
    failed: list[Step] = []

    def service(step: Step) -> Held:
        if step.purpose == Purpose.confirm and not failed:
            failed.append(step)
            return NO
        return carries(730)(step)

    course = gone(service, Course("d", replace(BOUNDS, trials_max=40), 100), 40)
    first = purposes(course).index("c")
    upto, after = Course("d", BOUNDS, 100), Course("d", BOUNDS, 100)
    for tried in course.tried[: first + 1]:
        after.take(tried)
        if tried is not course.tried[first]:
            upto.take(tried)
    assert after.interval.low < upto.interval.low, "that answer is taken in"
    assert "s" in purposes(course)[first:], "and it goes on"
    assert course.refuted and course.refuted.rate_rps == failed[0].rate_rps
    assert course.confirmation
    assert course.tried.index(course.confirmation) > first


def test_what_is_never_confirmed_is_told() -> None:
    def service(step: Step) -> Held:
        return NO if step.purpose == Purpose.confirm else carries(730)(step)

    course = gone(service)
    assert course.confirmation is None
    assert "a fresh process did not hold: latency p99 50 ms" in course.unconfirmed
    assert course.trials == 15
    assert course.overloads == [], "there is no rate to begin it at"


def test_a_step_above_that_holds_is_an_answer_too() -> None:
    def service(step: Step) -> Held:
        return YES if step.purpose == Purpose.above else carries(730)(step)

    course = gone(service)
    assert course.confirmation
    assert course.step_above and course.step_above.held.holds
    assert course.interval.high > carries_nothing_above(course)


def carries_nothing_above(course: Course) -> float:
    """The interval's upper bound without the steps above."""
    own = [t for t in course.tried if t.purpose != Purpose.above]
    again = Course("d", course.bounds, 100)
    for tried in own:
        again.take(tried)
    return again.interval.high


def test_the_lowest_rate_fails_already() -> None:
    course = gone(carries(3))
    assert course.end == "below"
    assert [t.rate_rps for t in course.tried][-2:] == [10, 10]
    assert course.confirmation is None
    assert course.unconfirmed == "", "there is nothing to confirm"
    assert course.overloads == []


def test_all_is_spent_on_a_rate_that_holds_before_anything_is_confirmed() -> None:
    course = gone(carries(20), Course("d", replace(BOUNDS, trials_max=4), 100), 4)
    assert [(t.rate_rps, t.held.holds) for t in course.tried] == [
        (100, False), (50, False), (25, False), (12.5, True),
    ]  # fmt: skip
    never = gone(carries(11), Course("d", replace(BOUNDS, trials_max=4), 100), 4)
    assert never.unconfirmed == "no rate held"
    assert purposes(never) == "ssss"


def test_the_highest_rate_passes() -> None:
    course = gone(carries(1e9))
    assert course.end == "above"
    assert course.confirmation and course.confirmation.rate_rps == 100_000
    assert [t.rate_rps for t in course.tried][-2:] == [100_000, 100_000]
    assert course.overloads == [], "more than the highest rate was not asked for"


def test_bounds_that_are_no_round_numbers_are_still_known_again() -> None:
    # 9.375/s is written 9.38/s: the bound must be the rate that is tried.
    bounds = Bounds(written_rate(300 / 32, math.ceil), written_rate(300 * 32, math.floor), 15)
    course = gone_within(bounds, carries(1))
    assert course.end == "below"
    assert gone_within(bounds, carries(1e9)).end == "above"


def gone_within(bounds: Bounds, service: Service) -> Course:
    course = Course("d", bounds, 300)
    while step := course.next_step(Purse(15 - course.trials)):
        course.take(Tried(str(course.trials), step.purpose, step.rate_rps, service(step)))
    return course


def test_a_service_that_dies_does_not_hold() -> None:
    course = gone(lambda step: YES if step.rate_rps <= 730 else DIED)
    assert course.confirmation and course.confirmation.rate_rps <= 730
    assert course.interval.low <= 730 <= course.interval.high


def test_a_generator_at_its_end_leaves_at_least_what_held() -> None:
    course = gone(lambda step: YES if step.rate_rps <= 5_000 else AT_ITS_END)
    assert course.end == "generator"
    assert course.generator_rps == course.lower_rps == 3_200
    assert course.confirmation and course.confirmation.rate_rps == 3_200
    assert course.overloads == [], "what could not be sent overloads nothing"


def test_a_generator_at_its_end_whose_rate_is_not_confirmed() -> None:
    def service(step: Step) -> Held:
        if step.purpose == Purpose.confirm:
            return NO
        return YES if step.rate_rps <= 5_000 else AT_ITS_END

    course = gone(service)
    assert course.confirmation is None
    assert "at 3,200/s a fresh process did not hold" in course.unconfirmed
    assert course.trials < 15, "the same rate is not tried until all is spent"


def test_trials_that_say_nothing_end_the_search_until_it_is_called_again() -> None:
    course = gone(lambda _: SPOILED)
    assert course.end == "stuck"
    assert course.trials == 3
    assert course.stuck == SPOILED.reason
    course.forgive()
    again = gone(carries(730), course)
    assert again.end in ("found", "searching")
    assert again.confirmation


def test_a_generator_that_is_at_its_end_at_once_tells_nothing_of_the_service() -> None:
    course = gone(lambda _: AT_ITS_END)
    assert course.end == "stuck"
    assert course.lower_rps and course.confirmation is None


def test_a_spoiled_confirmation_is_tried_again_and_then_told() -> None:
    spoiled = iter([SPOILED, YES])
    twice = gone(lambda s: next(spoiled) if s.purpose == "confirm" else carries(730)(s))
    assert twice.confirmation
    never = gone(lambda s: SPOILED if s.purpose == "confirm" else carries(730)(s))
    assert never.unconfirmed == SPOILED.reason
    assert purposes(never).count("c") <= 3


def test_a_search_that_is_interrupted_goes_on_as_if_it_had_not_been() -> None:
    whole = gone(carries(730))
    for cut in range(len(whole.tried)):
        again = Course("default", BOUNDS, 100)
        for tried in whole.tried[:cut]:
            again.take(tried)
        again.forgive()
        gone(carries(730), again)
        assert [t.rate_rps for t in again.tried] == [t.rate_rps for t in whole.tried]
        assert again.interval == whole.interval


def test_a_larger_budget_makes_a_spent_search_narrower_and_confirms_it_anew() -> None:
    short = gone(carries(730), Course("d", BOUNDS, 100), 7)
    assert short.end == "searching"
    before = short.interval
    longer = Course("d", BOUNDS, 100)
    for tried in short.tried:
        longer.take(tried)
    gone(carries(730), longer)
    assert longer.interval.high / longer.interval.low < before.high / before.low
    assert longer.confirmation
    assert longer.tried.index(longer.confirmation) >= len(short.tried)


def test_time_ends_it_and_what_would_not_fit_is_not_begun() -> None:
    course, spent_ns = Course("d", BOUNDS, 100), 0
    while step := course.next_step(
        Purse(15 - course.trials, 120 * SECOND_NS - spent_ns, 10 * SECOND_NS, 20 * SECOND_NS)
    ):
        spent_ns += (20 if step.purpose == Purpose.overload else 10) * SECOND_NS
        if step.purpose == Purpose.overload:
            course.take_overload(replace(overload(), base_rps=step.rate_rps))
        else:
            held = carries(730)(step)
            course.take(Tried("", step.purpose, step.rate_rps, held, took_ns=10 * SECOND_NS))
    assert spent_ns <= 120 * SECOND_NS
    assert course.confirmation, "time for it was kept back"
    assert course.overload, "and for the overload"
    assert purposes(course) == "ssssssssca"


def test_an_overload_that_says_nothing_is_made_twice_at_most() -> None:
    course = gone(carries(730), Course("d", BOUNDS, 100, with_overload=False))
    retried = Course("d", BOUNDS, 100)
    for tried in course.tried:
        retried.take(tried)
    while step := retried.next_step(Purse(2)):
        assert step.purpose == Purpose.overload
        spoiled = replace(overload(), base_rps=step.rate_rps, spoiled="the node went away")
        retried.take_overload(spoiled)
    assert len(retried.overloads) == 2
    assert retried.overload is None


@pytest.mark.parametrize("width", [0.01, 0.03, 0.08])
def test_the_interval_still_holds_the_capacity_as_often_as_it_says(width: float) -> None:
    inside = confirmed = 0
    for seed in range(40):
        source = random.Random(f"{seed}/{width}")

        def service(step: Step, source: random.Random = source) -> Held:
            off = math.log(step.rate_rps / 700) / width
            return YES if source.random() < 1 / (1 + math.exp(min(60, off))) else NO

        course = gone(service)
        inside += course.interval.low <= 700 <= course.interval.high
        confirmed += course.confirmation is not None
    assert inside >= 35  # of 40: 38 are meant, fewer than 35 have a chance of 3 % even then
    assert confirmed >= 35


@given(st.floats(1e-3, 1e9))
def test_a_written_rate_has_three_digits_and_rounds_the_way_it_is_asked(rate_rps: float) -> None:
    down, near, up = (written_rate(rate_rps, f) for f in (math.floor, round, math.ceil))
    assert down <= rate_rps * (1 + 1e-9)
    assert up >= rate_rps * (1 - 1e-9)
    assert down <= near <= up <= down * 1.011
    for rate in (down, near, up):
        assert float(f"{rate:.3g}") == rate
        assert written_rate(rate, math.floor) == written_rate(rate, math.ceil) == rate
