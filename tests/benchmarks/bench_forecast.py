"""Do forecasts hold? Simulated services whose law is known, through the real forecast.

Trials at a few rates (or live heaps) are drawn around a law with noise in proportion to the figure:
normal, or with slow-downs that only ever add, or with heavy tails (Student's t, three degrees of
freedom). A forecast holds when one more trial at the place that was asked for lies within it.
Histories are levels, trends, and walks, carried on by half of their length.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from results.forecast.forecast import forecast
from results.forecast.observations import Observation
from results.forecast.overtime import RUNS_AT_LEAST
from results.forecast.smoothing import as_the_last, damped_trend, rolling_origin
from results.forecast.subjects import Asked, Subject
from results.gomodel import OFF, Measured
from results.metrics import METRICS
from tests.benchmarks.figures import Figure

AREA = "signoff"
SEED = 20_263
FORECASTS = 400
HISTORIES = 25
CONFIDENCE = 0.9
SPREAD = 0.03
MIB = 2**20

Law = Callable[[float], float]


def figures() -> Iterator[Figure]:
    """How often intervals hold: by what was measured, how far out, the noise, and the law."""
    for rates, trials in (((100, 200, 400), 4), ((100, 200, 300, 400), 3)):
        for far in (0.6, 1.5, 2.0):
            for noise in NOISES:
                yield _coverage(rates, trials, far, noise)
    yield _bent()
    yield from _histories()


def _normal(source: random.Random) -> float:
    return source.gauss(0, 1)


def _slow(source: random.Random) -> float:
    return source.expovariate(1) - 1


def _heavy(source: random.Random) -> float:
    return source.gauss(0, 1) / math.sqrt(source.gammavariate(1.5, 2) / 3) / math.sqrt(3)


NOISES = {"normal": _normal, "slow-downs": _slow, "heavy tails": _heavy}


def straight(rate: float) -> float:
    """Peak memory in bytes: 100 MiB, and 50 KiB for each request a second."""
    return 100 * MIB + 0.05 * MIB * rate


def bent(rate: float) -> float:
    """As `straight`, and more and more beyond 400/s: nothing that was measured tells of it."""
    return straight(rate) + max(0.0, rate - 400) ** 2 * 0.0005 * MIB


def observed(
    source: random.Random,
    rate: float,
    peak: float,
    *,
    noise: str = "normal",
    spread: float = SPREAD,
    gogc: float = 100,
    live_mib: float = 64,
    gc_cores: float = 0.05,
    other_cores: float = 0.4,
    **changed: object,
) -> Observation:
    """One trial at a rate whose peak scatters around a value."""
    scatter = 1 + spread * NOISES[noise](source)
    shake = 1 + spread * NOISES[noise](source)
    heap = Measured(
        gogc=gogc,
        memlimit_bytes=OFF,
        live_bytes=live_mib * MIB,
        goal_bytes=live_mib * MIB * (1 + gogc / 100),
        roots_bytes=0.0,
        peak_bytes=peak * scatter,
        cycles=20,
        gc_cpu_s=10 * gc_cores * shake,
        service_cpu_s=10 * (gc_cores * shake + other_cores),
        seconds=10,
        procs=2,
    )
    cores = gc_cores * shake
    facts = {
        "machines": "linux-test", "scenario": "cache_mix", "arrivals": "poisson",
        "measure": "10 s", "program": "abc", "arguments": "", "variables": "", "limits": "",
    }  # fmt: skip
    own = {
        "run_id": "20261201-000000-0001",
        "trial_id": f"t{source.getrandbits(32):08x}",
        "started_ns": 1,
        "configuration": "default",
        "workload": "steady",
        "node_class": "linux-test",
        "os": "linux",
        "rate_rps": rate * (1 + 0.005 * source.gauss(0, 1)),
        "gogc": gogc,
        "memlimit_bytes": OFF,
        "metrics": {"peak_rss": peak * scatter, "gc_cpu_share": cores / (cores + other_cores)},
        "heap": heap,
        "facts": facts,
    }
    return Observation(**(own | changed))  # type: ignore[arg-type]


def trials_at(
    source: random.Random, rates: Sequence[float], trials: int, law: Law, noise: str = "normal"
) -> list[Observation]:
    """So many trials at each rate."""
    return [observed(source, rate, law(rate), noise=noise) for rate in rates for _ in range(trials)]


def held(
    source: random.Random, rates: Sequence[float], trials: int, at: float, law: Law, noise: str
) -> bool:
    """Whether one more trial lies within the forecast of the others."""
    found = trials_at(source, rates, trials, law, noise)
    subject = Subject(base=found[-1], trials=tuple(found))
    asked = Asked(metrics=("peak_rss",), rate_rps=at, confidence=CONFIDENCE)
    told = forecast(subject, METRICS["peak_rss"], asked)
    (more,) = trials_at(source, [at], 1, law, noise)
    return told.found.low <= more.metrics["peak_rss"] <= told.found.high


def _coverage(rates: Sequence[int], trials: int, far: float, noise: str) -> Figure:
    source = random.Random(SEED + round(10 * far) + len(noise) + len(rates))
    at = far * max(rates)
    hits = sum(held(source, rates, trials, at, straight, noise) for _ in range(FORECASTS))
    name = f"forecast from {len(rates)} rates × {trials} trials, {noise}, at {far:g} × the highest"
    # Of 400 forecasts 90 % hold, give or take 3.
    return Figure.at_least(AREA, f"{name}: holds", 100 * hits / FORECASTS, "% of forecasts", 87)


def _bent() -> Figure:
    source = random.Random(SEED)
    hits = sum(held(source, (100, 200, 300, 400), 3, 800, bent, "normal") for _ in range(FORECASTS))
    name = "forecast across a bend that nothing measured tells of, at 2 × the highest: holds"
    return Figure.told(AREA, name, 100 * hits / FORECASTS, "% of forecasts")


def history(source: random.Random, kind: str, runs: int) -> list[float]:
    """A level with noise, a trend with noise, or a walk."""
    steps = [source.gauss(0, 2) for _ in range(runs)]
    if kind == "walk":
        return [100 + sum(steps[: index + 1]) for index in range(runs)]
    return [100 + step + (index if kind == "trend" else 0) for index, step in enumerate(steps)]


def _histories() -> Iterator[Figure]:
    for runs in (RUNS_AT_LEAST, 30):
        for kind in ("level", "trend", "walk"):
            yield _carried_on(kind, runs)


def _carried_on(kind: str, runs: int) -> Figure:
    source, hits, damped = random.Random(SEED + runs), 0, 0
    ahead = runs // 2
    for _ in range(HISTORIES):
        values = np.array(history(source, kind, runs + ahead))
        known, coming = values[:runs], values[runs:]
        tried = {
            m: rolling_origin(m, known, ahead, CONFIDENCE) for m in (damped_trend, as_the_last)
        }
        better = tried[damped_trend].error < tried[as_the_last].error
        method = damped_trend if better else as_the_last
        path = method(known, ahead, CONFIDENCE)
        reach = path.half_widths * tried[method].widen
        hits += int((np.abs(coming - path.values) <= reach).sum())
        damped += better
    name = f"{kind} of {runs} runs, {ahead} ahead (trend taken {100 * damped / HISTORIES:.0f} %)"
    share = 100 * hits / HISTORIES / ahead
    return Figure.told(AREA, f"{name}: interval holds", share, "% of runs")
