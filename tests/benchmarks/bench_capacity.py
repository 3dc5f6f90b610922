"""Does the search for the capacity find it? Against queues whose capacity a formula gives.

A hundred searches against simulated queues, request by request, where a trial holds when its
measured p99 of the time in the system keeps the limit; beside each a staircase with the same
trials: double, then halve the step at each change of the answer. Then three searches by the real
command, against the shipped service that is such a queue (`workloads/services/queue`).
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from results.capacity.course import CONFIRMING, Course, Purse, Tried
from results.capacity.holds import Held
from results.capacity.search import Bounds
from tests.benchmarks.figures import Figure
from tests.benchmarks.queues import Queue

AREA = "signoff"
SEARCHES = 100
TRIALS = 12 + CONFIRMING
SPAN = 20.0
REAL_TRIALS = 10
CALLS = 3
"""A search that a busy machine stopped goes on when it is called again."""

REAL = (
    Queue(servers=4, service_rps=20.0, limit_s=0.4),
    Queue(servers=8, service_rps=10.0, limit_s=0.6),
    Queue(servers=16, service_rps=5.0, limit_s=1.1),
)
"""Slow enough for a busy machine: what HTTP and timers add is below a hundredth of the limit."""

SERVICE = Path(__file__).resolve().parents[2] / "workloads" / "services" / "queue"


def figures() -> Iterator[Figure]:
    """How often the interval holds the truth, how wide it is, and how far off each one is."""
    yield from _simulated()
    yield from _real()


def _simulated() -> Iterator[Figure]:
    inside, widths, trials, errors, stair_errors, confirmed = [], [], [], [], [], []
    for seed in range(SEARCHES):
        source = np.random.default_rng(seed)
        queue = _drawn(source)
        truth_rps = queue.capacity_rps
        first_rps = truth_rps * float(source.uniform(0.1, 3))
        course = _gone(queue, first_rps, source)
        interval = course.interval
        inside.append(interval.low <= truth_rps <= interval.high)
        widths.append(100 * (interval.high / interval.low - 1))
        trials.append(course.trials)
        errors.append(100 * abs(interval.estimate / truth_rps - 1))
        if course.confirmation:
            confirmed.append(course.lower_rps <= truth_rps * 1.01)
        stair_rps = _staircase(lambda r, q=queue, s=source: q.holds(r, s), first_rps)
        stair_errors.append(100 * abs(stair_rps / truth_rps - 1))
    name = f"capacity of M/M/c queues: intervals that hold it, of {SEARCHES}"
    yield Figure.at_least(AREA, name, sum(inside), "", 95)
    yield Figure.at_least(AREA, "capacity: answers that were confirmed", len(confirmed), "", 90)
    right = 100 * sum(confirmed) / max(1, len(confirmed))
    yield Figure.at_least(AREA, "capacity: confirmed rates that are carried", right, "%", 95)
    yield Figure.at_most(AREA, "capacity: trials of a search", mean(trials), "", TRIALS)
    yield Figure.told(AREA, "capacity: ends of the interval apart, median", median(widths), "%")
    yield Figure.told(AREA, "capacity: error of the estimate, median", median(errors), "%")
    yield Figure.told(AREA, "capacity: error of a staircase, median", median(stair_errors), "%")


def _gone(queue: Queue, first_rps: float, source: np.random.Generator) -> Course:
    """A search and its confirmation against a simulated queue."""
    truth_rps = queue.capacity_rps
    bounds = Bounds(truth_rps / SPAN, truth_rps * SPAN, TRIALS)
    course = Course("simulated", bounds, first_rps, with_overload=False)
    while step := course.next_step(Purse(TRIALS - course.trials)):
        held = Held(queue.holds(step.rate_rps, source), "simulated")
        course.take(Tried("", step.purpose, step.rate_rps, held))
    return course


def _real() -> Iterator[Figure]:
    """The real command against a real service; a machine that others use makes it noisier."""
    inside = 0
    for queue in REAL:
        truth_rps, found = queue.capacity_rps, _searched(queue)
        name = f"real search, {queue.servers} servers:"
        yield Figure.told(AREA, f"{name} capacity by the formula", truth_rps, "/s")
        low_rps, high_rps = found["low_rps"] or 0, found["high_rps"] or math.inf
        yield Figure.told(AREA, f"{name} estimate", found["capacity_rps"] or 0, "/s")
        yield Figure.told(AREA, f"{name} interval from", low_rps, "/s")
        yield Figure.told(AREA, f"{name} interval to", high_rps, "/s")
        yield Figure.told(AREA, f"{name} confirmed", found["confirmed_rps"] or 0, "/s")
        yield Figure.told(AREA, f"{name} trials", found["trials_made"], "")
        inside += low_rps <= truth_rps <= high_rps
    # 95 % is meant of each: fewer than two of three have a chance below one in a hundred.
    yield Figure.at_least(AREA, "real searches whose interval holds it, of 3", inside, "", 2)


def _searched(queue: Queue) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="bench-capacity-"))
    try:
        (folder / "matrix.yaml").write_text(_matrix(queue))
        command = ["bench", "capacity", "matrix.yaml", "--archive", "archive", "--json",
                   "--no-overload", "--trials", str(REAL_TRIALS)]  # fmt: skip
        for _ in range(CALLS):
            done = subprocess.run(
                command, cwd=folder, check=False, stdout=subprocess.PIPE, text=True
            )
            if done.returncode == 0:
                break
        (found,) = json.loads(done.stdout)
        return dict(found)
    finally:
        shutil.rmtree(folder)


def _matrix(queue: Queue) -> str:
    service_ms, limit_ms = 1e3 / queue.service_rps, 1e3 * queue.limit_s
    return f"""\
service:
  name: queue
  go: {{source: {SERVICE}}}
  arguments: [-addr, "{{host}}:{{port}}", -servers, "{queue.servers}", -service, {service_ms:g}ms]
  ready: {{http: /healthz}}
configurations:
  default: {{baseline: true, go: "1.23"}}
workloads:
  steady:
    scenario: front_page
    arrivals: {{poisson: 60/s}}
    idle: 200ms
    warmup: 5s
    measure: 30s
    cooldown: 200ms
objectives: [p99 <= {limit_ms:g}ms]
seed: {queue.servers}
"""


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
