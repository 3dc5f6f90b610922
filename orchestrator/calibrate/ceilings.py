"""How many requests a second this machine's load generator can make and still prove itself.

Against the null server, by trials of a second: more users (closed loop) or a higher rate (open
loop), until a trial is not valid. What such a trial is, and whether it is valid, is decided where
all trials are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.calibrate.calibration import Ceiling
from results.record import TrialRecord
from workers.spec import ArrivalsSpec, LoadSpec

USERS = (32, 8, 2, 1)
"""From many to few: many fill the generator's core, and then its trials are not valid."""

FIRST_SHARE = 0.6
"""Of the rate that a closed loop reached: where the search for an open loop's rate begins."""

Attempt = Callable[[LoadSpec], TrialRecord]


@dataclass(slots=True)
class Search:
    """What is known of one kind of user, in one loop, with so many processes."""

    user: str
    loop: str
    processes: int
    attempt: Attempt
    has_time: Callable[[], bool]
    service_cores: int
    valid_rps: float | None = None
    invalid_rps: float | None = None
    highest_rps: float = 0.0
    limit: str = ""
    trials: int = 0
    server_bound: bool = False
    users: int | None = None

    def run(self, load: LoadSpec) -> bool:
        """Run one trial; whether it was valid."""
        record = self.attempt(dataclasses.replace(load, processes=self.processes))
        self.trials += 1
        rate_rps = measured_rps(record)
        self.highest_rps = max(self.highest_rps, rate_rps)
        self.server_bound |= _server_full(record, self.service_cores)
        if record.valid:
            if rate_rps > (self.valid_rps or 0.0):
                self.valid_rps, self.users = rate_rps, load.users
            return True
        if self.invalid_rps is None or rate_rps < self.invalid_rps or not self.limit:
            self.invalid_rps = rate_rps
            self.limit = next(f.text for f in record.findings if f.level == "invalid")
        return False

    def found(self) -> Ceiling:
        """The result."""
        return Ceiling(
            user=self.user,
            loop=self.loop,
            processes=self.processes,
            users=self.users,
            valid_rps=self.valid_rps,
            invalid_rps=self.invalid_rps,
            limit=self.limit,
            trials=self.trials,
            server_bound=self.server_bound,
        )


def search_closed(search: Search, load: LoadSpec) -> None:
    """The most users whose trial is valid, of a few numbers of them."""
    for users in USERS:
        if users < search.processes or not search.has_time():
            return
        if search.run(dataclasses.replace(load, users=users, arrivals=None)):
            return


def search_open(search: Search, load: LoadSpec, reached_rps: float, trials: int) -> None:
    """Halve the range in which the highest valid rate lies; `reached_rps` is its upper end."""
    low, high = 0.0, reached_rps
    for _ in range(trials):
        if high <= 1.0 or not search.has_time():
            return
        rate_rps = _plain((low + high) / 2 if low else high * FIRST_SHARE)
        arrivals = ArrivalsSpec(kind="poisson", rate_rps=rate_rps)
        if search.run(dataclasses.replace(load, users=None, arrivals=arrivals)):
            low = rate_rps
        else:
            high = rate_rps


def _plain(rate_rps: float) -> float:
    """A rate with two or three digits."""
    unit = 10.0 ** max(0, math.floor(math.log10(rate_rps)) - 1) / 2
    return max(1.0, round(rate_rps / unit) * unit)


def measured_rps(record: TrialRecord) -> float:
    """Requests per second of measure."""
    lasted_s = sum(p.end_ns - p.start_ns for p in record.phases if p.name == "measure") / 1e9
    return record.load.measured / lasted_s if record.load and lasted_s else 0.0


def _server_full(record: TrialRecord, cores: int) -> bool:
    """Whether the null server had no processor time left in measure."""
    return any(
        (span.cpu_ns or 0) > 0.9 * cores * (span.end_ns - span.start_ns)
        for span in record.phases
        if span.name == "measure"
    )
