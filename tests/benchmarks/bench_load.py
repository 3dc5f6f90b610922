"""What a core can make of load, how punctual it is, and whether every request becomes a row."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from results.errors import EnvironmentLacks
from tests.benchmarks import latencytruth
from tests.benchmarks.figures import Figure
from tests.benchmarks.generating import ROOT, Cores, make_load, scenario, serving
from workers.affinity import allowed_cores
from workers.spec import ArrivalsSpec, LoadSpec

AREA = "load"
ROUNDS = 5
SECONDS = 3.0
CONNECTIONS = 32
OPEN_RATE_RPS = 5_000
NULL = ROOT / "workloads" / "services" / "null"
SESSIONCACHE = ROOT / "workloads" / "services" / "sessioncache"
USER = """
from locust import FastHttpUser, constant, task
from workloads.users import HttpUser

class Getter({kind}):
    wait_time = constant(0)

    @task
    def get(self):
        self.client.get("/item")
"""


def figures() -> Iterator[Figure]:
    """Every figure of the load generator itself."""
    cores = Cores.apart()
    with tempfile.TemporaryDirectory() as name, serving(NULL, cores.server) as url:
        yield from _rates(url, Path(name), cores)
        yield from _punctuality(url, Path(name), cores)
    with (
        tempfile.TemporaryDirectory() as name,
        serving(SESSIONCACHE, cores.server, "-live", "1MiB") as url,
    ):
        yield from _against_a_web_server(url, Path(name), cores)
    yield from _nothing_lost()
    yield from _truth()


def _rates(url: str, folder: Path, cores: Cores) -> Iterator[Figure]:
    """The three take turns, so that what else the machine does meets all of them alike."""
    ours = _closed(scenario(folder, USER.format(kind="HttpUser")))
    locusts = _closed(scenario(folder, USER.format(kind="FastHttpUser")))
    rates: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        fast = make_load(url, ours, SECONDS, cores.generator)
        assert len(fast.rows) == fast.account.sent
        slow = make_load(url, locusts, SECONDS, cores.generator)
        rates.append((fast.rate_rps, slow.rate_rps, _wrk_rps(f"{url}/item", cores)))
    for place, name in enumerate(("our user", "FastHttpUser", "wrk")):
        rate_rps = median(rate[place] for rate in rates)
        yield Figure.told(AREA, f"{name}: keep-alive GET, one core", rate_rps, "requests/s")
    over_locust = median(fast / slow for fast, slow, _ in rates)
    over_wrk = median(fast / wrk for fast, _, wrk in rates)
    yield Figure.at_least(
        AREA, "our user, every request on disk, ÷ FastHttpUser", over_locust, "×", 4
    )
    yield Figure.told(AREA, "our user, every request on disk, ÷ wrk", over_wrk, "×")


def _against_a_web_server(url: str, folder: Path, cores: Cores) -> Iterator[Figure]:
    """A Go service that is no null server: what a user's own load has to keep up with."""
    ours = _closed(scenario(folder, USER.format(kind="HttpUser").replace("/item", "/healthz")))
    ratios = []
    for _ in range(ROUNDS):
        fast = make_load(url, ours, SECONDS, cores.generator)
        ratios.append(fast.rate_rps / _wrk_rps(f"{url}/healthz", cores))
    name = "our user, every request on disk, ÷ wrk, against net/http on one core"
    yield Figure.at_least(AREA, name, median(ratios), "×", 0.6)


def _closed(path: str) -> LoadSpec:
    return LoadSpec(scenario=path, users=CONNECTIONS, arrivals=None, seed=1)


def _wrk_rps(url: str, cores: Cores) -> float:
    if shutil.which("wrk") is None:
        raise EnvironmentLacks("wrk is what the load generator is measured against: install it")
    said = subprocess.run(
        [
            *("taskset", "-c", ",".join(map(str, cores.generator))),
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s", url),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"Requests/sec:\s*([0-9.]+)", said)
    assert found, said
    return float(found[1])


def _punctuality(url: str, folder: Path, cores: Cores) -> Iterator[Figure]:
    """The open loop at a rate that one core can carry."""
    arrivals = ArrivalsSpec(kind="poisson", rate_rps=OPEN_RATE_RPS)
    path = scenario(folder, USER.format(kind="HttpUser"))
    load = LoadSpec(scenario=path, users=None, arrivals=arrivals, seed=1)
    accounts = [make_load(url, load, SECONDS, cores.generator).account for _ in range(ROUNDS)]
    unaccounted = sum(
        abs((a.planned or 0) - a.sent - a.not_sent) + a.unrecorded + a.lost for a in accounts
    )
    p50_us = median((a.lag_p50_ns or 0) / 1e3 for a in accounts)
    p99_ms = median((a.lag_p99_ns or 0) / 1e6 for a in accounts)
    cpu = median(a.cpu_share for a in accounts)
    rate = f"{OPEN_RATE_RPS:,}/s"
    yield Figure.told(AREA, f"open loop at {rate}: send lag p50", p50_us, "µs")
    yield Figure.told(AREA, f"open loop at {rate}: generator's CPU", cpu * 100, "% of a core")
    yield Figure.at_most(AREA, f"open loop at {rate}: send lag p99", p99_ms, "ms", 1)
    yield Figure.at_most(AREA, f"open loop at {rate}: requests unaccounted for", unaccounted, "", 0)


def _nothing_lost() -> Iterator[Figure]:
    """Four processes as fast as they can, with the server on the same cores."""
    cores = sorted(allowed_cores())[:2]
    with tempfile.TemporaryDirectory() as name, serving(NULL, cores) as url:
        path = scenario(Path(name), USER.format(kind="HttpUser"))
        load = LoadSpec(scenario=path, users=64, arrivals=None, seed=1, processes=4)
        made = make_load(url, load, SECONDS, cores)
    missing = made.account.sent - len(made.rows)
    rate = f"four processes on two cores: {made.rate_rps:,.0f}/s"
    yield Figure.at_most(AREA, f"{rate}, requests that are no rows", missing, "", 0)


def _truth() -> Iterator[Figure]:
    for delay_ms in (1, 10, 100):
        off_ns, truth_ns = latencytruth.delay_error_ns(delay_ms, SECONDS)
        allowed_ms = max(0.2, truth_ns / 1e6 * 0.01)
        name = f"a delay of {delay_ms} ms is seen as that and"
        yield Figure.at_most(AREA, name, off_ns / 1e6, "ms", round(allowed_ms, 3))
    due, shown, off_s = latencytruth.stall()
    rate = f"a stall of 1 s at {latencytruth.STALL_RATE_RPS}/s"
    yield Figure.within(AREA, f"{rate}: requests that were due in it", due, "", 198, 202)
    yield Figure.at_least(
        AREA, f"{rate}: share of them whose latency shows it", shown / due, "", 0.99
    )
    yield Figure.at_most(AREA, f"{rate}: error of the greatest latency", off_s * 1e3, "ms", 10)
