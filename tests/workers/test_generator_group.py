"""Several generator processes of one node: together they are what one would have been."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from load_server import LoadServer, load_server

from results.clock import ClockMap, steady_ns
from results.record import LoadRecord
from workers.load.arrivals import schedule
from workers.load.group import GeneratorGroup
from workers.load.process import generator_document
from workers.spec import ArrivalsSpec, LoadSpec

SECOND_NS = 10**9
VISITOR = """
import os
from locust import constant, task
from workloads.users import HttpUser

class Visitor(HttpUser):
    wait_time = constant(0.01)

    @task
    def visit(self):
        self.client.get("/visit", name=os.environ["HEAPGATE_STRIPE"])
"""


@pytest.fixture
def server() -> Iterator[LoadServer]:
    with load_server() as running:
        yield running


def measured(
    folder: Path, server: LoadServer, **load: Any
) -> tuple[LoadRecord | None, pa.Table, int]:
    """The account of all, every row of all, and when they began."""
    scenario = folder / "locustfile.py"
    scenario.write_text(VISITOR)
    clock = ClockMap.read()
    spec = LoadSpec(scenario=str(scenario), seed=5, **{"users": None, "arrivals": None, **load})
    document = generator_document(
        load=spec, base_url=server.base_url, spool_root=folder / "spool", run_id="r", trial_id="t",
        clock=clock, warmup_ns=SECOND_NS // 2, measure_ns=SECOND_NS,
    )  # fmt: skip
    group = GeneratorGroup(document, folder / "generator.log", (min(os.sched_getaffinity(0)),))
    try:
        group.wait_ready(timeout_s=30)
        group.prepare(timeout_s=30)
        start_ns = steady_ns() + SECOND_NS // 10
        group.go(start_ns)
        account, _events = group.wait_done(lambda: False)
        assert group.live() is not None
    finally:
        group.close()
    tables = []
    for path in sorted((folder / "spool").glob("t/requests*/*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            tables.append(reader.read_all())
    rows = pa.concat_tables(t.cast(tables[0].schema) for t in tables).unify_dictionaries()
    return account, rows, clock.utc_ns(start_ns)


def test_every_arrival_of_the_schedule_is_one_row_of_one_process(
    tmp_path: Path, server: LoadServer
) -> None:
    arrivals = ArrivalsSpec(kind="poisson", rate_rps=150)
    account, rows, start_ns = measured(tmp_path, server, arrivals=arrivals, processes=3)
    expected = schedule(arrivals, 5, SECOND_NS, SECOND_NS // 2)
    intended = sorted(
        start - lag - start_ns
        for start, lag in zip(rows["start_ns"].to_pylist(), rows["lag_ns"].to_pylist(), strict=True)
    )
    assert intended == expected.tolist()
    assert account is not None
    assert account.planned == account.sent == len(rows) == server.requests
    shares = Counter(rows["name"].to_pylist())
    assert set(shares) == {"0/3", "1/3", "2/3"}
    assert max(shares.values()) - min(shares.values()) <= 1


def test_users_are_shared_and_every_request_is_a_row(tmp_path: Path, server: LoadServer) -> None:
    account, rows, _ = measured(tmp_path, server, users=5, processes=2)
    assert account is not None
    assert account.planned is None
    assert account.sent == len(rows)
    assert account.measured == sum(phase == "measure" for phase in rows["phase"].to_pylist())
    assert set(rows["name"].to_pylist()) == {"0/2", "1/2"}
    assert abs(server.requests - account.sent) <= 5  # what had no answer at the end
