"""The load generator with real Locust against a real server: what was sent is what is written."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from load_server import LoadServer, load_server

from results.clock import ClockMap
from results.errors import UserError
from results.record import LoadRecord
from workers.load.arrivals import schedule
from workers.load.process import Generator, check_scenario, generator_document
from workers.spec import ArrivalsSpec, LoadSpec

MS = 1_000_000
LEAD_NS = 100 * MS
SEED = 11
CORE = min(os.sched_getaffinity(0))

VISITOR = """
from locust import {user}, constant, task

class Visitor({user}):
    wait_time = constant({wait_s})

    @task
    def visit(self):
        self.client.get("/visit")
"""


def closed_loop(path: Path) -> LoadSpec:
    return LoadSpec(scenario=str(path), users=1, arrivals=None, seed=SEED)


def sent_by(generator: Generator) -> int:
    """Requests so far; nothing is told before the first half second."""
    live = generator.live()
    return live.sent if live else 0


def never() -> bool:
    return False


def visitor(user: str = "FastHttpUser", wait_s: float = 0) -> str:
    return VISITOR.format(user=user, wait_s=wait_s)


def constant(rate_rps: float, in_flight_max: int = 32) -> ArrivalsSpec:
    return ArrivalsSpec(kind="constant", rate_rps=rate_rps, in_flight_max=in_flight_max)


def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    """Look again and again until the condition holds or the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def rows_in(spool: Path) -> list[dict[str, Any]]:
    """Every request row that reached the spool, in the order in which it was written."""
    rows: list[dict[str, Any]] = []
    for path in sorted(spool.glob("*/requests/*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            rows += map(shown, reader.read_all().to_pylist())
    return rows


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A stored row with what SQL computes from it."""
    lag_ns = row["lag_ns"]
    return row | {
        "intended_ns": None if lag_ns is None else row["start_ns"] - lag_ns,
        "latency_ns": row["service_ns"] + (lag_ns or 0),
    }


@dataclass
class Outcome:
    """One load that has ended: its account, its events and its rows."""

    load: LoadRecord
    events: list[dict[str, list[Any]]]
    rows: list[dict[str, Any]]
    start_ns: int
    log: str

    def in_load(self) -> list[dict[str, Any]]:
        """The rows of the load itself, without what users did before it began."""
        return [row for row in self.rows if row["start_ns"] >= self.start_ns]


class Bench:
    """Starts generators against one server, in one folder, and never leaves one behind."""

    def __init__(self, folder: Path, server: LoadServer) -> None:
        self.folder = folder
        self.server = server
        self.clock = ClockMap.read()
        self.spool = folder / "spool"
        self.log = folder / "generator.log"
        self.warmup_ns = 0
        self.start_ns = 0
        self.started: list[Generator] = []

    def start(
        self,
        scenario: str,
        *,
        users: int | None = None,
        arrivals: ArrivalsSpec | None = None,
        warmup_ns: int = 0,
        measure_ns: int = 1000 * MS,
    ) -> Generator:
        """A generator that is prepared and only waits to be told to go."""
        path = self.folder / "locustfile.py"
        path.write_text(textwrap.dedent(scenario))
        load = LoadSpec(scenario=str(path), users=users, arrivals=arrivals, seed=SEED)
        document = generator_document(
            load=load, base_url=self.server.base_url, spool_root=self.spool, run_id="run",
            trial_id="b01-1-default-steady", clock=self.clock, warmup_ns=warmup_ns,
            measure_ns=measure_ns,
        )  # fmt: skip
        generator = Generator(document, self.log, (CORE,))
        self.started.append(generator)
        generator.wait_ready(timeout_s=30)
        generator.prepare(timeout_s=30)
        return generator

    def go(self, generator: Generator) -> None:
        self.start_ns = time.monotonic_ns() + LEAD_NS
        generator.go(self.start_ns)

    def run(self, scenario: str, **how: Any) -> Outcome:
        """A whole load from its start to its end."""
        generator = self.start(scenario, **how)
        self.go(generator)
        return self.outcome(*generator.wait_done(never))

    def outcome(self, load: LoadRecord | None, events: list[dict[str, list[Any]]]) -> Outcome:
        assert load is not None
        rows = rows_in(self.spool)
        start_ns = self.clock.utc_ns(self.start_ns)
        return Outcome(load, events, rows, start_ns, self.log.read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = set(psutil.Process().children(recursive=True))
    with load_server() as server:
        made = Bench(tmp_path, server)
        try:
            yield made
        finally:
            for generator in made.started:
                generator.close()
        assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
def test_open_loop_sends_and_writes_every_arrival_of_the_schedule(bench, user) -> None:
    arrivals = ArrivalsSpec(kind="poisson", rate_rps=100, in_flight_max=32)
    done = bench.run(visitor(user), arrivals=arrivals, warmup_ns=500 * MS, measure_ns=1000 * MS)
    offsets = schedule(arrivals, SEED, 1500 * MS)
    assert sorted(row["intended_ns"] - done.start_ns for row in done.rows) == offsets.tolist()
    assert bench.server.requests == len(done.rows) == done.load.sent == done.load.planned
    assert done.load.not_sent == done.load.unrecorded == done.load.failed == 0
    measured = int((offsets >= 500 * MS).sum())
    assert Counter(row["phase"] for row in done.rows) == {
        "warmup": len(offsets) - measured,
        "measure": measured,
    }
    assert done.load.measured == measured
    for row in done.rows:
        assert row["start_ns"] >= row["intended_ns"]
        assert 0 < row["service_ns"] <= row["latency_ns"]
        late_ns = row["start_ns"] - row["intended_ns"]
        assert row["latency_ns"] == row["service_ns"] + late_ns
        assert (row["method"], row["name"], row["status"]) == ("GET", "/visit", 200)
        assert row["response_bytes"] == 2
        assert row["error"] is None
    assert done.load.lag_p50_ns <= done.load.lag_p99_ns <= done.load.lag_max_ns
    assert 0 < done.load.cpu_share <= 1.5


def test_a_stalled_server_delays_all_arrivals_that_were_due_meanwhile(bench) -> None:
    # One place in flight: a closed loop would show a single slow request and hide the others.
    bench.server.stall_at, bench.server.stall_s = 30, 0.5
    done = bench.run(visitor(), arrivals=constant(100, in_flight_max=1), measure_ns=1500 * MS)
    assert len(done.rows) == done.load.sent == bench.server.requests
    assert sum(row["service_ns"] > 400 * MS for row in done.rows) == 1
    # At 100/s the stall of 500 ms catches 50 arrivals; those in its last 25 ms wait less than that.
    assert sum(row["latency_ns"] > 25 * MS for row in done.rows) >= 45
    assert max(row["latency_ns"] for row in done.rows) > 480 * MS
    assert done.load.in_flight_max_reached


def test_arrivals_go_out_during_a_stall_when_there_are_places(bench) -> None:
    bench.server.stall_at, bench.server.stall_s = 30, 0.5
    done = bench.run(visitor(), arrivals=constant(100, in_flight_max=128), measure_ns=1200 * MS)
    assert len(done.rows) == done.load.sent == bench.server.requests
    # Each of them waits in the server itself: no queue for a connection is hidden in between.
    slow = [row for row in done.rows if row["service_ns"] > 25 * MS]
    assert len(slow) >= 45
    assert not done.load.in_flight_max_reached


def test_arrivals_without_a_place_until_the_end_are_sent_late_with_their_wait(bench) -> None:
    bench.server.stall_at, bench.server.stall_s = 10, 2.0
    done = bench.run(visitor(), arrivals=constant(50, in_flight_max=1), measure_ns=800 * MS)
    assert done.load.planned == 40
    assert done.load.sent == len(done.rows) == bench.server.requests == 40
    assert done.load.not_sent == 0
    assert {row["phase"] for row in done.rows} == {"measure"}
    # Thirty were due while the tenth was held: none of them is forgotten, all of them waited.
    assert sum(row["latency_ns"] > 1000 * MS for row in done.rows) >= 30


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
@pytest.mark.parametrize("traffic", ["open", "closed"])
def test_requests_that_are_never_answered_are_rows_that_failed(bench, user, traffic) -> None:
    bench.server.stall_at, bench.server.stall_s = 10, 60.0
    how: dict[str, Any] = {"users": 3} if traffic == "closed" else {"arrivals": constant(40)}
    done = bench.run(visitor(user), measure_ns=500 * MS, **how)
    hung = [row for row in done.rows if row["error"] == "no answer when the load generator ended"]
    assert len(done.rows) == done.load.sent == bench.server.requests
    assert len(hung) == done.load.unanswered == done.load.failed
    assert len(hung) == (3 if traffic == "closed" else 11), "20 arrivals, 9 of them answered"
    assert done.load.unrecorded == 0
    assert {(row["name"], row["phase"], row["status"]) for row in hung} == {
        ("/visit", "measure", None)
    }
    # They waited until the generator gave up: at least five seconds after the load's end.
    assert min(row["latency_ns"] for row in hung) > 4_500 * MS
    assert all((row["intended_ns"] is None) == (traffic == "closed") for row in hung)


def test_a_task_of_several_requests_is_one_arrival(bench) -> None:
    scenario = """
        from locust import FastHttpUser, task

        class Shopper(FastHttpUser):
            @task
            def look_then_buy(self):
                self.client.get("/look")
                self.client.post("/buy", data="x", name="purchase")
    """
    done = bench.run(scenario, arrivals=constant(40), measure_ns=500 * MS)
    looks = [row for row in done.rows if row["name"] == "/look"]
    buys = [row for row in done.rows if row["name"] == "purchase"]
    assert done.load.planned == len(looks) == len(buys) == 20
    assert bench.server.requests == len(done.rows) == 40
    offsets = schedule(constant(40), SEED, 500 * MS).tolist()
    assert sorted(row["intended_ns"] - done.start_ns for row in looks) == offsets
    # What follows from the first request was due when it was sent, not before.
    assert all(row["intended_ns"] == row["start_ns"] for row in buys)
    assert {row["method"] for row in buys} == {"POST"}


def test_a_locustfile_finds_its_own_options(bench) -> None:
    scenario = """
        from locust import FastHttpUser, events, task

        @events.init_command_line_parser.add_listener
        def options(parser):
            parser.add_argument("--item", default="seven")

        class Reader(FastHttpUser):
            @task
            def read(self):
                self.client.get("/" + self.environment.parsed_options.item)
    """
    done = bench.run(scenario, arrivals=constant(40), measure_ns=200 * MS)
    assert {row["name"] for row in done.rows} == {"/seven"}
    assert done.load.sent == 8


def test_the_first_request_is_the_one_that_began_first(bench) -> None:
    scenario = """
        from locust import FastHttpUser, task

        class Shopper(FastHttpUser):
            @task
            def look_then_buy(self):
                with self.client.get("/look", catch_response=True) as look:
                    self.client.get("/buy")
                    look.success()
    """
    done = bench.run(scenario, arrivals=constant(40), measure_ns=500 * MS)
    looks = [row for row in done.rows if row["name"] == "/look"]
    buys = [row for row in done.rows if row["name"] == "/buy"]
    offsets = schedule(constant(40), SEED, 500 * MS).tolist()
    assert sorted(row["intended_ns"] - done.start_ns for row in looks) == offsets
    assert len(buys) == 20
    assert all(row["intended_ns"] == row["start_ns"] for row in buys)


def test_an_arrival_runs_the_users_own_task_sets_classes_and_on_start(bench) -> None:
    scenario = """
        from locust import FastHttpUser, HttpUser, SequentialTaskSet, TaskSet, between, task

        class Often(FastHttpUser):
            weight = 3
            wait_time = between(5, 9)

            def on_start(self):
                self.client.get("/login")

            @task
            class Steps(SequentialTaskSet):
                @task
                def first(self):
                    self.client.get("/first")

                @task
                class Inner(TaskSet):
                    @task
                    def second(self):
                        self.client.get("/second")
                        self.interrupt()

        class Seldom(HttpUser):
            weight = 1
            wait_time = between(5, 9)

            @task
            def seldom(self):
                self.client.get("/seldom")
    """
    done = bench.run(scenario, arrivals=constant(80, in_flight_max=8), measure_ns=1000 * MS)
    before = [row for row in done.rows if row["start_ns"] < done.start_ns]
    assert {(row["name"], row["phase"]) for row in before} == {("/login", "warmup")}
    names = Counter(row["name"] for row in done.in_load())
    assert done.load.planned == 80
    assert names.total() == 80
    assert all(names[name] > 0 for name in ("/first", "/second", "/seldom"))
    assert names["/first"] + names["/second"] > names["/seldom"]


def test_closed_loop_keeps_the_locustfiles_own_waiting(bench) -> None:
    scenario = """
        import itertools
        from locust import FastHttpUser, constant, task

        numbers = itertools.count()

        class Visitor(FastHttpUser):
            wait_time = constant(0.05)

            def on_start(self):
                self.number = next(numbers)

            @task
            def visit(self):
                self.client.get(f"/user-{self.number}")
    """
    done = bench.run(scenario, users=3, warmup_ns=300 * MS, measure_ns=900 * MS)
    assert bench.server.requests == len(done.rows) == done.load.sent
    assert done.load.planned is None
    assert done.load.not_sent == done.load.unrecorded == 0
    assert {row["intended_ns"] for row in done.rows} == {None}
    assert all(row["latency_ns"] == row["service_ns"] for row in done.rows)
    names = {row["name"] for row in done.rows}
    assert len(names) == 3
    for name in names:
        own = sorted((r for r in done.rows if r["name"] == name), key=lambda r: r["start_ns"])
        assert len(own) > 3
        pauses = [
            after["start_ns"] - before["start_ns"] - before["service_ns"]
            for before, after in itertools.pairwise(own)
        ]
        assert min(pauses) >= 49 * MS
    for row in done.rows:
        offset_ns = row["start_ns"] - done.start_ns
        assert row["phase"] == ("warmup" if offset_ns < 300 * MS else "measure") or (
            row["phase"] == "cooldown" and offset_ns >= 1200 * MS
        )
    assert done.load.measured == sum(row["phase"] == "measure" for row in done.rows) > 0


def test_a_listener_that_throws_loses_no_rows_and_is_told(bench) -> None:
    scenario = """
from locust import events

heard = []

@events.request.add_listener
def clumsy(**_kwargs):
    raise ValueError("no such key")

@events.request.add_listener
def careful(name, **_kwargs):
    heard.append(name)

@events.test_stop.add_listener
def tell(**_kwargs):
    print("careful heard", len(heard))
""" + visitor()
    done = bench.run(scenario, arrivals=constant(50), measure_ns=600 * MS)
    assert len(done.rows) == done.load.sent == bench.server.requests == 30
    failed = [event for event in done.events if event["kind"] == ["listener_failed"]]
    assert len(failed) == 1
    assert failed[0]["value"] == [30]
    assert "ValueError: no such key" in failed[0]["message"][0]
    assert "clumsy" in failed[0]["message"][0]
    assert "careful heard 30" in done.log


def test_what_the_scenario_says_about_an_answer_is_what_counts(bench) -> None:
    scenario = """
        from locust import FastHttpUser, task

        class Judge(FastHttpUser):
            @task
            def judge(self):
                with self.client.get("/status/404", catch_response=True) as answer:
                    answer.success()
                with self.client.get("/ok", catch_response=True) as answer:
                    answer.failure("too short " * 100)
                self.client.get("/status/503")
    """
    done = bench.run(scenario, arrivals=constant(20), measure_ns=500 * MS)
    by_name = {name: [r for r in done.rows if r["name"] == name] for name in Counter(
        row["name"] for row in done.rows
    )}  # fmt: skip
    assert {name: len(rows) for name, rows in by_name.items()} == {
        "/status/404": 10,
        "/ok": 10,
        "/status/503": 10,
    }
    assert {(r["status"], r["error"]) for r in by_name["/status/404"]} == {(404, None)}
    errors = {row["error"] for row in by_name["/ok"]}
    assert len(errors) == 1
    assert len(error := errors.pop()) <= 200
    assert "too short" in error
    assert all("503" in row["error"] and row["status"] == 503 for row in by_name["/status/503"])
    assert done.load.failed == 20


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
def test_a_request_without_an_answer_is_a_row_with_an_error_and_no_status(bench, user) -> None:
    scenario = visitor(user).replace('"/visit"', '"http://127.0.0.1:9/", name="refused"')
    done = bench.run(scenario, arrivals=constant(20), measure_ns=500 * MS)
    assert len(done.rows) == done.load.sent == done.load.failed == 10
    assert {row["status"] for row in done.rows} == {None}
    assert all(row["error"] and len(row["error"]) <= 200 for row in done.rows)


def test_a_task_that_raises_does_not_end_its_user_and_is_told(bench) -> None:
    scenario = visitor() + '        raise KeyError("basket")\n'
    done = bench.run(scenario, arrivals=constant(50, in_flight_max=2), measure_ns=500 * MS)
    assert len(done.rows) == done.load.sent == done.load.planned == 25
    assert "basket" in done.log or any("basket" in e["message"][0] for e in done.events)


def test_printing_goes_to_the_log_and_confuses_nobody(bench) -> None:
    scenario = (
        visitor() + '        print(\'{"done": {"load": null, "events": []}}\')\n'
        "        import sys; sys.stderr.write('a word of warning\\n')\n"
    )
    done = bench.run(scenario, arrivals=constant(20), measure_ns=500 * MS)
    assert done.load.sent == 10
    assert done.log.count('"done"') == 10
    assert "a word of warning" in done.log


@pytest.mark.parametrize(
    ("scenario", "want_words"),
    [
        ("import locust\n\n\n\nraise RuntimeError('no fixture')\n", ":5: RuntimeError: no fixture"),
        ("import nowhere\n", ":1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def half(:\n", ":1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("import locust\n", "User"),
        ("from locust import HttpUser\nclass Idle(HttpUser):\n    pass\n", "Idle"),
    ],
)
def test_a_broken_scenario_is_told_by_its_own_line(tmp_path, scenario, want_words) -> None:
    path = tmp_path / "broken.py"
    path.write_text(scenario)
    with pytest.raises(UserError) as caught:
        check_scenario(closed_loop(path), tmp_path)
    assert "broken.py" in str(caught.value)
    assert want_words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not psutil.Process().children(recursive=True)


def test_a_good_scenario_passes_the_check_without_a_server(tmp_path) -> None:
    path = tmp_path / "good.py"
    path.write_text(visitor())
    check_scenario(closed_loop(path), tmp_path)
    assert not psutil.Process().children(recursive=True)


def test_stopping_early_keeps_what_was_measured(bench) -> None:
    generator = bench.start(visitor(), arrivals=constant(100), measure_ns=60_000 * MS)
    bench.go(generator)
    assert eventually(lambda: sent_by(generator) >= 30)
    done = bench.outcome(*generator.stop())
    assert len(done.rows) == done.load.sent >= 30
    assert done.load.sent <= bench.server.requests <= done.load.sent + done.load.unrecorded
    assert done.load.planned == done.load.sent + done.load.unrecorded + done.load.not_sent


def test_waiting_ends_when_the_trial_must(bench) -> None:
    generator = bench.start(visitor(), users=2, measure_ns=60_000 * MS)
    bench.go(generator)
    assert eventually(lambda: sent_by(generator) >= 10)
    done = bench.outcome(*generator.wait_done(lambda: True))
    assert len(done.rows) == done.load.sent == bench.server.requests


def test_a_generator_that_was_never_told_to_go_can_be_stopped(bench) -> None:
    generator = bench.start(visitor(), arrivals=constant(100))
    load, _ = generator.stop()
    assert load is None or load.sent == 0
    generator.close()
    generator.close()


def test_a_generator_that_dies_is_noticed_and_its_rows_stay(bench) -> None:
    before = set(psutil.Process().children())
    generator = bench.start(visitor(), arrivals=constant(200), measure_ns=60_000 * MS)
    (process,) = set(psutil.Process().children()) - before
    assert process.cpu_affinity() == [CORE]
    bench.go(generator)
    assert eventually(lambda: len(rows_in(bench.spool)) > 0)
    process.kill()
    load, _ = generator.wait_done(never)
    assert load is None
    assert rows_in(bench.spool)


def test_a_generator_ends_when_its_parent_dies(bench, tmp_path) -> None:
    (tmp_path / "locustfile.py").write_text(visitor())
    code = f"""
        import os, pathlib, signal, time, psutil
        from results.clock import ClockMap
        from workers.load.process import Generator, generator_document
        from workers.spec import ArrivalsSpec, LoadSpec

        folder = pathlib.Path({str(tmp_path)!r})
        document = generator_document(
            load=LoadSpec(scenario=str(folder / "locustfile.py"), users=None, seed=1,
                          arrivals=ArrivalsSpec(kind="constant", rate_rps=50)),
            base_url={bench.server.base_url!r}, spool_root=folder / "spool", run_id="run",
            trial_id="t", clock=ClockMap.read(), warmup_ns=0, measure_ns=60 * 10**9)
        generator = Generator(document, folder / "generator.log", ({CORE},))
        generator.wait_ready(timeout_s=30)
        generator.prepare(timeout_s=30)
        generator.go(time.monotonic_ns())
        while not (live := generator.live()) or live.sent < 5:
            time.sleep(0.02)
        print(*(child.pid for child in psutil.Process().children(recursive=True)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    children = [int(pid) for pid in parent.stdout.split()]
    assert children
    assert eventually(lambda: not any(psutil.pid_exists(pid) for pid in children))
