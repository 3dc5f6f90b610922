"""Several kinds of users in one locustfile by their weights, and sessions with pauses."""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from driven import MS, constant, driven
from servers import HERE, Server, serving


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with serving("plain_server.py") as server:
        yield server


def fits(count: int, total: int, share: float) -> bool:
    """Whether a binomial count is within five standard deviations of what its share says."""
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share))


def test_kinds_and_tasks_are_drawn_by_their_weights(tmp_path, plain) -> None:
    shutil.copy(HERE / "echo.proto", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={tmp_path}",
         f"--grpc_python_out={tmp_path}", "echo.proto"],
        check=True,
    )  # fmt: skip
    with serving("echo_server.py", str(tmp_path)) as rpc, serving("talk_server.py") as talk:
        text = f"""
from locust import task
from workloads.grpc_users import GrpcUser
from workloads.users import HttpUser
from workloads.websocket_users import WebSocketUser

class Reader(HttpUser):
    weight = 5

    @task(4)
    def often(self):
        self.client.get("/often")

    @task(1)
    def seldom(self):
        self.client.get("/seldom")

class Caller(GrpcUser):
    weight = 3
    protos = "echo.proto"
    target = "127.0.0.1:{rpc.port}"

    @task
    def say(self):
        self.stub("Echo").Say({{"text": "hi"}}, name="call")

class Talker(WebSocketUser):
    weight = 2
    socket = None

    @task
    def talk(self):
        if self.socket is None:
            self.socket = self.connect("{talk.base_url}", name="connection")
        self.socket.ask("hi", name="talk")
"""
        how: dict[str, Any] = {"arrivals": constant(300, 60), "measure_ms": 2000}
        done = driven(tmp_path, text, plain.base_url, **how)
    assert done.events == []
    assert done.load.failed == done.load.unrecorded == 0
    assert done.load.planned == 600
    names = Counter(row["name"] for row in done.rows)
    assert 1 <= names.pop("connection") <= 12, "a fifth of sixty users may have one"
    assert names.total() == 600
    want_shares = {"/often": 0.4, "/seldom": 0.1, "call": 0.3, "talk": 0.2}
    for name, share in want_shares.items():
        assert fits(names[name], 600, share), names
    # Whichever kind an arrival goes to, the first request of its task carries its start.
    first = [row for row in done.rows if row["name"] != "talk"] + done.named("connection")
    assert len({row["start_ns"] - row["lag_ns"] for row in first}) > 400


SESSION = """
from locust import FastHttpUser, between, task
from workloads.sessions import think
from workloads.users import HttpUser
import gevent

class Shopper({user}):
    @task
    def visit(self):
        self.client.get("/login")
        think(0.1)
        self.client.get("/browse")
        think(between(0.05, 0.15))
        self.client.get("/buy")
        self.client.get("/receipt")
"""


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
def test_a_session_keeps_its_pauses_and_each_request_is_meant_for_the_pauses_end(
    tmp_path, plain, user
) -> None:
    text = SESSION.format(user=user)
    done = driven(tmp_path, text, plain.base_url, arrivals=constant(50), measure_ms=600)
    assert done.load.planned == 30
    assert Counter(row["name"] for row in done.rows) == dict.fromkeys(
        ("/login", "/browse", "/buy", "/receipt"), 30
    )
    assert done.load.unrecorded == 0
    # Sessions overlap, but all pauses of this kind are the same: order is kept.
    ends = sorted(row["start_ns"] + row["service_ns"] for row in done.named("/login"))
    meant = sorted(row["start_ns"] - row["lag_ns"] for row in done.named("/browse"))
    for end_ns, due_ns in zip(ends, meant, strict=True):
        # Between an answer's arrival and the pause lies the scenario's own time.
        assert 100 * MS <= due_ns - end_ns < 150 * MS
    assert all(row["lag_ns"] >= 0 for row in done.rows)
    assert {row["lag_ns"] for row in done.named("/receipt")} == {0}


def test_what_is_late_by_the_generators_fault_is_in_the_latency_after_a_pause(
    tmp_path, plain
) -> None:
    # Somebody computes for 150 ms while the user thinks for 50 ms: nobody could send meanwhile.
    text = SESSION.format(user="HttpUser").replace(
        "        think(0.1)\n",
        "        gevent.spawn_later(0.01, lambda: sum(range(12_000_000)))\n        think(0.05)\n",
    )
    done = driven(tmp_path, text, plain.base_url, arrivals=constant(1), measure_ms=900)
    (row,) = done.named("/browse")
    assert row["lag_ns"] > 20 * MS
    assert row["service_ns"] < row["lag_ns"] + row["service_ns"]


def test_sessions_that_pause_when_the_load_ends_are_no_lost_requests(tmp_path, plain) -> None:
    text = SESSION.format(user="HttpUser").replace("think(0.1)", "think(60)")
    done = driven(tmp_path, text, plain.base_url, arrivals=constant(50), measure_ms=200)
    assert {row["name"] for row in done.rows} == {"/login"}
    assert len(done.rows) == done.load.planned == 10
    assert done.load.unrecorded == done.load.unanswered == 0
    assert done.load.waiting_after == 0, "who thinks does not wait for the service"
    assert any("10 times" in event and "paused" in event for event in done.events)


def test_a_closed_loop_keeps_wait_times_and_pauses(tmp_path, plain) -> None:
    text = SESSION.format(user="HttpUser").replace(
        "    @task\n", "    wait_time = between(0.05, 0.06)\n    @task\n"
    )
    done = driven(tmp_path, text, plain.base_url, users=1, measure_ms=900)
    assert {row["lag_ns"] for row in done.rows} == {None}
    rows = sorted(done.rows, key=lambda row: row["start_ns"])
    gaps: dict[str, list[int]] = {}
    for before, after in itertools.pairwise(rows):
        gap_ns = after["start_ns"] - before["start_ns"] - before["service_ns"]
        gaps.setdefault(after["name"], []).append(gap_ns)
    assert min(gaps["/browse"]) >= 99 * MS
    assert min(gaps["/buy"]) >= 49 * MS
    assert min(gaps["/login"]) >= 49 * MS, "the wait time between tasks"
