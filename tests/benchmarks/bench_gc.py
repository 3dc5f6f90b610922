"""What it costs to see the collector: the Go package that tells of it, the join with requests."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa

from orchestrator.builds.builds import build_go
from orchestrator.builds.toolchains import ensure
from results.sql.database import view_text
from tests.benchmarks.figures import Figure

AREA = "load"
ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "workloads" / "services" / "sessioncache"
ROUNDS = 5
READINGS = 1_000
REQUESTS, CYCLES = 1_000_000, 5_000
SPAN_NS = 600 * 10**9
KEYS = {"run_id": "r", "trial_id": "t"}


def figures() -> Iterator[Figure]:
    """Every figure of the collector's telemetry."""
    rounds = _reading_costs_ns()
    # One reading a second: so many nanoseconds of CPU in 10^9.
    share = median(rounds) / 1e9
    name = "heapgate package, one reading a second: share of a CPU"
    yield Figure.at_most(AREA, name, share * 100, "%", 0.1)
    seconds = median(_join_s() for _ in range(ROUNDS))
    name = f"requests_during_gc, {REQUESTS:,} requests × {CYCLES:,} cycles"
    yield Figure.at_most(AREA, name, seconds, "s", 5)


def _reading_costs_ns() -> list[float]:
    """CPU time of the whole service for one reading, beyond what it uses without, by round."""
    costs = []
    with _service() as (pid, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(ROUNDS):
            idle_ns, began_ns, idle_s = _cpu_ns(pid), time.perf_counter_ns(), 2.0
            time.sleep(idle_s)
            idle_share = (_cpu_ns(pid) - idle_ns) / (time.perf_counter_ns() - began_ns)
            before_ns, began_ns = _cpu_ns(pid), time.perf_counter_ns()
            for _ in range(READINGS):
                connection.request("GET", "/metrics")
                connection.getresponse().read()
                time.sleep(0.001)  # it goes idle in between, as it would
            lasted_ns = time.perf_counter_ns() - began_ns
            costs.append((_cpu_ns(pid) - before_ns - idle_share * lasted_ns) / READINGS)
        connection.close()
    return costs


@contextmanager
def _service() -> Iterator[tuple[int, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    built = build_go(ensure("1.23"), SERVICE)
    arguments = ("-addr", f"127.0.0.1:{port}", "-live", "64MiB", "-metrics")
    process = subprocess.Popen([built.path, *arguments], stderr=subprocess.DEVNULL)
    try:
        _wait_ready(port)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def _wait_ready(port: int) -> None:
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(0.1)
    raise TimeoutError("the service was not ready within a minute")


def _cpu_ns(pid: int) -> int:
    """CPU time of all threads; /proc/PID/stat would give it in ticks of 10 ms."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks)


def _join_s() -> float:
    with duckdb.connect() as connection:
        connection.register("gc", _cycles())
        connection.register("requests", _requests())
        connection.register("trials", _trial())
        connection.execute(view_text("requests_during_gc"))
        began_s = time.perf_counter()
        table = connection.sql("from requests_during_gc").to_arrow_table()
        took_s = time.perf_counter() - began_s
    assert table.num_rows == CYCLES
    return took_s


def _cycles() -> pa.Table:
    """Evenly spread cycles of 20 ms, each read at once."""
    start_ns = np.arange(CYCLES) * (SPAN_NS // CYCLES)
    own = {
        "cycle": np.arange(CYCLES),
        "time_ns": start_ns + 20_000_000,
        "since_start_ns": start_ns // 1_000_000 * 1_000_000,
        "stw_sweep_ns": np.full(CYCLES, 50_000),
        "concurrent_ns": np.full(CYCLES, 19_900_000),
        "stw_mark_ns": np.full(CYCLES, 50_000),
        "cpu_assist_ns": np.full(CYCLES, 1_000),
        "forced": [False] * CYCLES,
    }
    keys = KEYS | {"configuration": "c", "workload": "w", "phase": "measure", "kind": "cycle"}
    same = {name: [value] * CYCLES for name, value in keys.items()}
    return pa.table(same | {"block": [1] * CYCLES, "valid": [True] * CYCLES} | own)


def _requests() -> pa.Table:
    """Requests at random, 5 ms long on average: two of five meet a collection."""
    chance = np.random.default_rng(1)
    service_ns = chance.exponential(5e6, REQUESTS).astype(np.int64)
    own = {
        "start_ns": np.sort(chance.integers(0, SPAN_NS, REQUESTS)),
        "service_ns": service_ns,
        "latency_ns": service_ns,
        "measure_start_ns": np.zeros(REQUESTS, np.int64),
    }
    keys = KEYS | {"phase": "measure"}
    same = {name: pa.array([v] * REQUESTS).dictionary_encode() for name, v in keys.items()}
    return pa.table(same | own)


def _trial() -> pa.Table:
    own = {"gc_traced": True, "measure_start_ns": 0, "load_clock_error_ns": 0}
    return pa.Table.from_pylist([KEYS | own])
