"""The pipe from spool to archive: its speed, its size, its memory, and what it loses when hurt."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
import tenacity

from results.schema import REQUESTS
from tests.benchmarks.figures import Figure
from tests.benchmarks.generating import ROOT, Cores, make_load, scenario, serving
from tests.benchmarks.pipes import Pipe, Resident, Traffic, hand_in, spooled, wait_acknowledged
from tests.workers.faultypipe import (
    IS_ROOT,
    RATE_ROWS_S,
    RUN,
    SEED,
    Account,
    Fault,
    FaultyPipe,
    Plan,
    carried,
    record,
)
from workers.affinity import allowed_cores, pin_process
from workers.spec import ArrivalsSpec, LoadSpec
from workers.spool import FLUSH_BYTES, Spool

AREA = "load"
ROUNDS = 3
SPOOLED_ROWS = 20_000_000
WRITTEN_ROWS = 10_000_000
SERVICES = ROOT / "workloads" / "services"
NULL_RPS = 5_000
CACHE_RPS = 1_000
CACHE_ARGUMENTS = ("-live", "48MiB", "-object", "4KiB", "-garbage", "64KiB")
LOAD_S = 30.0
DRAWN_ROWS = 1_000_000
MEMORY_ROWS_S = 1_000_000
MEMORY_S = 60
REST_S = 10.0
CUT_S = 10.0
MIB = 2**20
FAULTY_RUNS = int(os.environ.get("PIPE_FAULTS") or 200)
VISITOR = """
from locust import constant, task
from workloads.users import HttpUser

class Visitor(HttpUser):
    wait_time = constant(0)

    @task(6)
    def session(self):
        self.client.get("/session", name="/session")

    @task(3)
    def item(self):
        self.client.get("/item", name="/item/[id]")

    @task(1)
    def basket(self):
        self.client.post("/basket", data=b"x", name="/basket")
"""


def figures() -> Iterator[Figure]:
    """Every figure of the pipe; the random faults take most of the time."""
    with tempfile.TemporaryDirectory(prefix="hgpipe-") as name:
        folder = Path(name)
        yield from _rates(folder)
        yield from _sizes(folder)
        yield from _memory(folder)
        yield from _rest(folder)
        yield from _cut(folder)
        yield from _faults(folder)


def _rates(folder: Path) -> Iterator[Figure]:
    """Everything on two cores, this process among it."""
    with pin_process(sorted(allowed_cores())[:2]), Pipe.running(folder / "rates") as pipe:
        ready = spooled(folder / "ready", Traffic(NULL_RPS, SPOOLED_ROWS).batches(), "t").folder
        rounds = [_ready_rows(ready, pipe, f"spooled-{n}") for n in range(ROUNDS)]
        while_written = [_written_rows_s(pipe, f"written-{n}") for n in range(ROUNDS)]
    name = "pipe on two cores, from spool to disk, acknowledged"
    rows_s = median(SPOOLED_ROWS / took_s for took_s, _ in rounds)
    yield Figure.at_least(AREA, name, rows_s, "rows/s", 5_000_000)
    yield Figure.told(AREA, f"{name}, while one writer spools", median(while_written), "rows/s")
    per_cpu_s = median(SPOOLED_ROWS / cpu_s for _, cpu_s in rounds)
    yield Figure.told(
        AREA, "pipe: rows for a second of CPU, agent and collector", per_cpu_s, "rows"
    )


def _ready_rows(ready: Path, pipe: Pipe, trial_id: str) -> tuple[float, float]:
    """Seconds from the moment at which the agent may see all rows; and seconds of CPU."""
    began_s, began_cpu_s = time.monotonic(), pipe.cpu_s
    spool = hand_in(ready, pipe, trial_id)
    wait_acknowledged(spool)
    took_s, cpu_s = time.monotonic() - began_s, pipe.cpu_s - began_cpu_s
    sealed = pipe.seal(spool, record(trial_id))
    assert sealed.rows == {REQUESTS.name: SPOOLED_ROWS}, sealed.rows
    return took_s, cpu_s


def _written_rows_s(pipe: Pipe, trial_id: str) -> float:
    """Rows from the first that is written to the last that is acknowledged."""
    batches = list(Traffic(NULL_RPS, WRITTEN_ROWS).batches())
    began_s = time.monotonic()
    spool = spooled(pipe.root, iter(batches), trial_id)
    wait_acknowledged(spool)
    took_s = time.monotonic() - began_s
    sealed = pipe.seal(spool, record(trial_id))
    assert sealed.rows == {REQUESTS.name: WRITTEN_ROWS}, sealed.rows
    return WRITTEN_ROWS / took_s


def _sizes(folder: Path) -> Iterator[Figure]:
    """Of real requests by the real generator, and of drawn ones that vary as much as any may."""
    cores = Cores.apart()
    visits = scenario(folder, VISITOR)
    cache_mix = str(ROOT / "workloads" / "scenarios" / "cache_mix.py")
    with Pipe.running(folder / "sizes") as pipe:
        with serving(SERVICES / "null", cores.server) as url:
            null = _sealed_bytes(pipe, _generated(url, visits, NULL_RPS), "null")
        with serving(SERVICES / "sessioncache", cores.server, *CACHE_ARGUMENTS) as url:
            _wait_healthy(url)
            cache = _sealed_bytes(pipe, _generated(url, cache_mix, CACHE_RPS), "cache")
        drawn = _sealed_bytes(pipe, Traffic(NULL_RPS, DRAWN_ROWS).batches(), "drawn")
    unit = "bytes/request"
    name = f"archive, requests to the null service at {NULL_RPS:,}/s"
    yield Figure.at_most(AREA, name, null, unit, 12)
    name = f"archive, requests to the session cache at {CACHE_RPS:,}/s"
    yield Figure.at_most(AREA, name, cache, unit, 12)
    name = "archive, drawn requests, sizes of 200 … 20,000 bytes all as likely"
    yield Figure.told(AREA, name, drawn, unit)


def _wait_healthy(url: str) -> None:
    """The scenario asks the session cache how many sessions it has: when it has them all."""
    ready = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OSError),
        stop=tenacity.stop_after_delay(30),
        wait=tenacity.wait_fixed(0.1),
    )
    ready(lambda: urllib.request.urlopen(f"{url}/healthz", timeout=5).close())


def _generated(url: str, locustfile: str, rate_rps: int) -> Iterator[pa.RecordBatch]:
    """The rows of Poisson arrivals, as the generator spooled them."""
    arrivals = ArrivalsSpec(kind="poisson", rate_rps=rate_rps)
    load = LoadSpec(scenario=locustfile, users=None, arrivals=arrivals, seed=1)
    made = make_load(url, load, LOAD_S, Cores.apart().generator)
    assert len(made.rows) == made.account.sent
    yield from made.rows.to_batches()


def _sealed_bytes(pipe: Pipe, batches: Iterator[pa.RecordBatch], trial_id: str) -> float:
    """Bytes of a trial's sealed requests for each of them."""
    spool = spooled(pipe.root, batches, trial_id)
    sealed = pipe.seal(spool, record(trial_id))
    size = (pipe.sealed(trial_id) / f"{REQUESTS.name}.arrow").stat().st_size
    return size / sealed.rows[REQUESTS.name]


def _memory(folder: Path) -> Iterator[Figure]:
    """The collector while rows come, and while it seals them."""
    traffic = Traffic(MEMORY_ROWS_S, MEMORY_ROWS_S * MEMORY_S)
    with Pipe.running(folder / "memory") as pipe:
        resident = Resident(pipe.collector._process.pid)
        took_s, spool = _paced(traffic, pipe.root)
        wait_acknowledged(spool)
        sealed = pipe.seal(spool, traffic.record("paced"))
        resident.end()
    name = f"collector at {traffic.rows / took_s:,.0f} rows/s for {took_s:.0f} s"
    early = resident.mean_bytes(10, 30)
    grown = resident.mean_bytes(took_s - 20, took_s) / early
    missing = traffic.rows - sealed.rows[REQUESTS.name]
    yield Figure.at_most(AREA, f"{name}: RSS", resident.largest_bytes / MIB, "MiB", 300)
    yield Figure.at_most(AREA, f"{name}: RSS of the last 20 s ÷ seconds 10 … 30", grown, "×", 1.1)
    yield Figure.at_most(AREA, f"{name}: rows sent and not in the archive", missing, "", 0)


def _paced(traffic: Traffic, root: Path) -> tuple[float, Spool]:
    """Write at the traffic's own rate; how long that took."""
    spool = Spool(root, RUN, "paced")
    writer = spool.stream(REQUESTS)
    began_s, rows = time.monotonic(), 0
    for batch in traffic.batches():
        time.sleep(max(0.0, began_s + rows / traffic.rate_rps - time.monotonic()))
        writer.write(batch)
        rows += batch.num_rows
    writer.close()
    return time.monotonic() - began_s, spool


def _rest(folder: Path) -> Iterator[Figure]:
    with Pipe.running(folder / "rest") as pipe:
        few = spooled(pipe.root, Traffic(NULL_RPS, 1).batches(), "first")
        pipe.seal(few, record("first"))  # by then the agent has started and connected
        agent = psutil.Process(pipe.agent._process.pid)
        yield Figure.told(AREA, "agent without a trial: CPU", _cpu_percent(agent), "% of a core")
        Spool(pipe.root, RUN, "open").stream(REQUESTS)
        name = "agent with an open trial and no rows: CPU"
        yield Figure.told(AREA, name, _cpu_percent(agent), "% of a core")


def _cpu_percent(process: psutil.Process) -> float:
    process.cpu_percent()
    time.sleep(REST_S)
    return process.cpu_percent()


def _cut(folder: Path) -> Iterator[Figure]:
    fault = Fault("network cut", at_s=2.0, for_s=CUT_S)
    plan = Plan(
        seed=0, rows=round((CUT_S + 4) * RATE_ROWS_S), processes=1, in_background=True,
        flush_bytes=FLUSH_BYTES, faults=(fault,),
    )  # fmt: skip
    with FaultyPipe(folder / "cut", small_disks=False).running() as pipe:
        account = pipe.carry(plan)
    _say_wrong(plan, account)
    name = f"network cut of {CUT_S:g} s at {RATE_ROWS_S:,} rows/s"
    missing = account.sent - account.archived
    yield Figure.at_most(AREA, f"{name}: rows lost", account.lost, "", 0)
    yield Figure.at_most(AREA, f"{name}: rows sent and not in the archive", missing, "", 0)


def _faults(folder: Path) -> Iterator[Figure]:
    """HEAPGATE_TEST_SEED draws the same runs again, PIPE_FAULTS says how many."""
    accounts, wrong = [], 0
    for number in range(FAULTY_RUNS):
        plan = Plan.drawn(SEED + number, 1.0)
        accounts.append(carried(folder / f"fault-{plan.seed}", plan))
        shutil.rmtree(folder / f"fault-{plan.seed}")
        wrong += _say_wrong(plan, accounts[-1])
    name = f"{FAULTY_RUNS} random fault runs (HEAPGATE_TEST_SEED={SEED})"
    if not IS_ROOT:
        name += ", no full disks without root"
    yield Figure.at_most(AREA, f"{name} that do not add up", wrong, "runs", 0)
    yield Figure.told(AREA, "in these: rows sent", sum(a.sent for a in accounts), "rows")
    yield Figure.told(AREA, "in these: lost and counted", sum(a.lost for a in accounts), "rows")
    losing = sum(a.lost > 0 for a in accounts)
    yield Figure.told(AREA, "in these: trials invalid because of that", losing, "runs")


def _say_wrong(plan: Plan, account: Account) -> bool:
    """Whether a run does not add up; then what is wrong with it is told at once."""
    wrong = account.wrong(plan)
    if wrong:
        sys.stderr.write(f"{'; '.join(wrong)}: {plan} {account}\n")
    return bool(wrong)
