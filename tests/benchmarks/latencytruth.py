"""Are latencies true? A service that knows how long it took says so in each answer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.generating import ROOT, Cores, make_load, scenario, serving
from workers.spec import ArrivalsSpec, LoadSpec

KNOWN = ROOT / "tests" / "services" / "known"
ASKER = """
import json
from locust import constant, events, task
from workloads.users import HttpUser

truths = []

class Asker(HttpUser):
    wait_time = constant(0)

    @task
    def ask(self):
        truths.append(int(self.client.get("/sleep?ms={delay_ms}", name="sleep").text or 0))

@events.test_stop.add_listener
def keep(**_):
    with open({kept!r}, "w") as file:
        json.dump(truths, file)
"""
VISITOR = """
from locust import constant, task
from workloads.users import HttpUser

class Visitor(HttpUser):
    @task
    def visit(self):
        self.client.get("/sleep?ms=0", name="sleep")
"""
STALL_RATE_RPS = 200
STALL_AT_S = 1.5
STALL_S = 1.0


def delay_error_ns(delay_ms: int, seconds: float) -> tuple[float, float]:
    """Median difference of the service time from what the service says, and what it says."""
    import json

    cores = Cores.apart()
    with tempfile.TemporaryDirectory() as name, serving(KNOWN, cores.server) as url:
        kept = Path(name) / "truths.json"
        text = ASKER.format(delay_ms=delay_ms, kept=str(kept))
        load = LoadSpec(scenario=scenario(Path(name), text), users=1, arrivals=None, seed=1)
        made = make_load(url, load, seconds, cores.generator)
        truths = np.array(json.loads(kept.read_text()))
    seen = made.rows["service_ns"].to_numpy()[: len(truths)]
    return median((seen - truths[: len(seen)]).tolist()), median(truths.tolist())


def stall() -> tuple[int, int, float]:
    """Requests that were due in a stall of the service, those whose latency shows it, and how much
    the greatest latency differs from the stall's length, in seconds.
    """
    cores = Cores.apart()
    stalling = ("-stall", f"{STALL_S}s", "-stall-at", f"{STALL_AT_S}s")
    with tempfile.TemporaryDirectory() as name, serving(KNOWN, cores.server, *stalling) as url:
        arrivals = ArrivalsSpec(kind="constant", rate_rps=STALL_RATE_RPS, in_flight_max=400)
        load = LoadSpec(
            scenario=scenario(Path(name), VISITOR), users=None, arrivals=arrivals, seed=1
        )
        made = make_load(url, load, 4.0, cores.generator)
    latency_ns = made.rows["service_ns"].to_numpy() + made.rows["lag_ns"].to_numpy()
    due_ns = made.rows["start_ns"].to_numpy() - made.rows["lag_ns"].to_numpy()
    # The stall ends for all at once: its first victim waits longest, and tells when it began.
    began_ns = due_ns[np.argmax(latency_ns)]
    in_stall = (due_ns >= began_ns) & (due_ns < began_ns + STALL_S * 1e9)
    left_ns = began_ns + STALL_S * 1e9 - due_ns
    shown = in_stall & (latency_ns >= left_ns - 20e6)
    return int(in_stall.sum()), int(shown.sum()), abs(float(latency_ns.max()) / 1e9 - STALL_S)
