"""Queues whose capacity a formula gives: c servers, exponential service times, Poisson arrivals.

The capacity is the rate at which the p99 of the time in the system meets a limit (D. Gross, J.
Shortle, J. Thompson, C. Harris, Fundamentals of Queueing Theory, 4th ed., 2008, section 2.3).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

MEASURE_S = 20.0
WARMUP_S = 5.0


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
