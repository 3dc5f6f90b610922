"""A search against queues whose capacity a formula gives; `make bench AREA=signoff` does more."""

from __future__ import annotations

import numpy as np

from results.capacity.course import CONFIRMING, Course, Purpose, Purse, Tried
from results.capacity.holds import Held
from results.capacity.search import Bounds
from tests.benchmarks.queues import Queue

QUEUES = 10
SEARCHED = 12


def test_twelve_trials_find_the_capacity_of_a_queue() -> None:
    source = np.random.default_rng(2)
    inside, confirmed = 0, 0
    for _ in range(QUEUES):
        service_rps = float(source.uniform(200, 400))
        limit_s = float(source.uniform(6, 20)) / service_rps
        queue = Queue(int(source.integers(1, 4)), service_rps, limit_s)
        course = searched(queue, source)
        assert sum(tried.purpose == Purpose.search for tried in course.tried) <= SEARCHED
        inside += course.interval.low <= queue.capacity_rps <= course.interval.high
        confirmed += course.confirmation is not None
    # 95 % is meant; fewer than 8 of 10 have a chance of 1 % even then.
    assert inside >= 8
    assert confirmed >= 9


def searched(queue: Queue, source: np.random.Generator) -> Course:
    """To its end; where to begin is a guess."""
    truth_rps = queue.capacity_rps
    bounds = Bounds(truth_rps / 20, truth_rps * 20, SEARCHED + CONFIRMING)
    first_rps = truth_rps * float(source.uniform(0.1, 3))
    course = Course("queue", bounds, first_rps, with_overload=False)
    while step := course.next_step(Purse(bounds.trials_max - course.trials)):
        held = Held(queue.holds(step.rate_rps, source), "simulated")
        course.take(Tried("", step.purpose, step.rate_rps, held))
    return course
