"""Does the search for the capacity find it? Against queues whose capacity a formula gives.

The service is a queue with c servers and exponential service times (M/M/c), simulated request by
request; a trial holds when its measured p99 of the time in the system keeps the limit. The true
capacity is the rate at which the p99 of the formula meets it (D. Gross, J. Shortle, J. Thompson,
C. Harris, Fundamentals of Queueing Theory, 4th ed., 2008, section 2.3). Beside it a staircase with
the same trials: double, then halve the step at each change of the answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean, median

import numpy as np

from results.capacity.search import Answer, Bounds, Search
from tests.benchmarks.figures import Figure

AREA = "signoff"
SEARCHES = 100
TRIALS = 12
MEASURE_S = 20.0
WARMUP_S = 5.0
SPAN = 20.0


@dataclass(frozen=True)
class Queue:
    """A service with so many servers; rates per second, the limit in seconds."""

    servers: int
    service_rps: float
    limit_s: float

    @property
    def capacity_rps(self) -> float:
        """The rate at which 99 % of the requests are through within the limit."""
        low, high = 0.0, self.servers * self.service_rps
        for _ in range(100):
            middle = (low + high) / 2
            if self._share_slower(middle) <= 0.01:
                low = middle
            else:
                high = middle
        return low

    def _share_slower(self, rate_rps: float) -> float:
        """P(time in the system > limit) of M/M/c, by Erlang's C."""
        offered, c = rate_rps / self.service_rps, self.servers
        if offered >= c:
            return 1.0
        if not offered:
            return math.exp(-self.service_rps * self.limit_s)
        last = offered**c / math.factorial(c) * c / (c - offered)
        waits = last / (sum(offered**k / math.factorial(k) for k in range(c)) + last)
        served, spare = math.exp(-self.service_rps * self.limit_s), c - 1 - offered
        if abs(spare) < 1e-9:
            return served * (1 + waits * self.service_rps * self.limit_s)
        gone = 1 - math.exp(-self.service_rps * self.limit_s * spare)
        return served * (1 + waits * gone / spare)

    def holds(self, rate_rps: float, source: np.random.Generator) -> bool:
        """One trial: first come, first served, from empty."""
        count = int(rate_rps * (WARMUP_S + MEASURE_S)) + 1
        arrivals_s = np.cumsum(source.exponential(1 / rate_rps, count)).tolist()
        services_s = source.exponential(1 / self.service_rps, count).tolist()
        free_s = [0.0] * self.servers
        times_s = []
        for arrival_s, service_s in zip(arrivals_s, services_s, strict=True):
            done_s = max(heapq.heappop(free_s), arrival_s) + service_s
            heapq.heappush(free_s, done_s)
            if arrival_s >= WARMUP_S:
                times_s.append(done_s - arrival_s)
        return bool(np.quantile(times_s, 0.99) <= self.limit_s)


def figures() -> Iterator[Figure]:
    """How often the interval holds the truth, how wide it is, and how far off each one is."""
    inside, widths, trials, errors, stair_errors = [], [], [], [], []
    for seed in range(SEARCHES):
        source = np.random.default_rng(seed)
        queue = _drawn(source)
        truth_rps = queue.capacity_rps
        first_rps = truth_rps * float(source.uniform(0.1, 3))
        search = Search(Bounds(truth_rps / SPAN, truth_rps * SPAN, TRIALS), first_rps)
        while search.state == "searching":
            rate_rps = search.next_rps()
            search.tell(Answer(rate_rps, queue.holds(rate_rps, source)))
        interval = search.interval()
        inside.append(interval.low <= truth_rps <= interval.high)
        widths.append(100 * (interval.high / interval.low - 1))
        trials.append(len(search.answers))
        errors.append(100 * abs(interval.estimate / truth_rps - 1))
        stair_rps = _staircase(lambda r, q=queue, s=source: q.holds(r, s), first_rps)
        stair_errors.append(100 * abs(stair_rps / truth_rps - 1))
    name = f"capacity of M/M/c queues: intervals that hold it, of {SEARCHES}"
    yield Figure.at_least(AREA, name, sum(inside), "", 95)
    yield Figure.at_most(AREA, "capacity: trials of a search", mean(trials), "", TRIALS)
    yield Figure.told(AREA, "capacity: ends of the interval apart, median", median(widths), "%")
    yield Figure.told(AREA, "capacity: error of the estimate, median", median(errors), "%")
    yield Figure.told(AREA, "capacity: error of a staircase, median", median(stair_errors), "%")


def _drawn(source: np.random.Generator) -> Queue:
    service_rps = float(source.uniform(50, 400))
    return Queue(
        servers=int(source.integers(1, 9)),
        service_rps=service_rps,
        limit_s=float(source.uniform(6, 20)) / service_rps,
    )


def _staircase(holds: Callable[[float], bool], first_rps: float) -> float:
    """Up while it holds, down while it does not; half the step at each change."""
    rate_rps, factor, last = first_rps, 2.0, None
    held_rps = 0.0
    for _ in range(TRIALS):
        answer = holds(rate_rps)
        if answer:
            held_rps = max(held_rps, rate_rps)
        if last is not None and answer != last:
            factor = math.sqrt(factor)
        last = answer
        rate_rps *= factor if answer else 1 / factor
    return held_rps or rate_rps
