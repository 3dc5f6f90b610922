"""The load generator's process: Locust as a library, any ordinary locustfile, every request a row.

Only this process imports Locust and gevent: they patch sockets and threads, which neither Ray nor
gRPC survive. It talks with the trial in JSON lines on its standard input and output; what the
locustfile prints goes to the log.

In an open loop (`arrivals:`) a user runs one task for each arrival, and the first request of the
task carries the arrival's intended start; further requests of the same task are consequences and
are intended when they start. The locustfile's own wait times don't apply. In a closed loop
(`users:`) they do.
"""

from __future__ import annotations

# isort: off
from locust import events
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.runners import Runner
from locust.user.task import TaskSet
from locust.util.load_locustfile import load_locustfile
import locust
import locust.clients
import locust.contrib.fasthttp
import gevent
import gevent.event
import gevent.monkey
# isort: on

import argparse
import contextlib
import gc
import json
import os
import random
import sys
import time
import traceback
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from results.clock import ClockMap, steady_ns
from results.record import LoadRecord
from results.schema import REQUESTS
from workers.load.alarm import keep_time
from workers.load.arrivals import schedule
from workers.load.gate import Gate
from workers.load.hook import RecordingHook, SteadyTime, Turn, described
from workers.load.recorder import Recorder, Timeline
from workers.load.writer import BackgroundWriter
from workers.processes import sharpen_timers
from workers.spec import LoadSpec, from_plain
from workers.spool import Spool
from workloads.sessions import thinking

LIVE_EVERY_S = 0.5
DRAIN_S = 5.0
"""How long after the schedule's end answers and late arrivals are waited for."""

LATE_NS = 10_000_000
LOOK_EVERY_NS = 20_000_000
PREPARE_S = 30.0
Event = dict[str, list[Any]]


def gate_tasks(gate: Gate, clock: ClockMap) -> None:
    """Let every task of every TaskSet begin only with an arrival; think times don't apply."""
    run_next = TaskSet.execute_next_task

    def execute_next_task(task_set: TaskSet) -> None:
        task = task_set._task_queue[0]
        if isinstance(task, type) and issubclass(task, TaskSet):
            run_next(task_set)
            return
        user_class = type(task_set.user)
        intended_ns = gate.take(user_class, user_class.weight)
        gevent.getcurrent().turn = Turn(clock.utc_ns(intended_ns))
        try:
            run_next(task_set)
        finally:
            gate.give_back()

    TaskSet.execute_next_task = execute_next_task  # type: ignore[method-assign]
    TaskSet.wait = lambda _task_set: None  # type: ignore[method-assign]


class GreenletSlot:
    """A user that waits for an arrival is switched to straight from the loop."""

    __slots__ = ("_waiting",)

    def get(self) -> int:
        """Wait for an arrival's instant."""
        self._waiting = gevent.getcurrent()
        intended_ns: int = gevent.get_hub().switch()
        return intended_ns

    def set(self, intended_ns: int) -> None:
        """Let the user have it; called in the loop, and nowhere else."""
        self._waiting.switch(intended_ns)


class Generator:
    """The process's whole state."""

    def __init__(self, document: dict[str, Any], output: int) -> None:
        self.load = from_plain(LoadSpec, document["load"])
        self.clock = ClockMap(**document["clock"])
        self.warmup_ns: int = document["warmup_ns"]
        self.measure_ns: int = document["measure_ns"]
        self._output = output
        self._base_url: str = document["base_url"]
        spool = Spool(
            Path(document["spool_root"]),
            document["run_id"],
            document["trial_id"],
            document.get("part", 0),
        )
        self._stripe: tuple[int, int] = tuple(document.get("stripe", (0, 1)))
        self._writer = BackgroundWriter(
            gevent.monkey.get_original("queue", "SimpleQueue"),
            gevent.monkey.get_original("_thread", "start_new_thread"),
        )
        stream = spool.stream(REQUESTS, document.get("process", 0))
        self.recorder = Recorder(stream, self._writer.put)
        self.hook = RecordingHook(self.recorder, self.clock)
        self.gate = self._make_gate()
        self._task_errors: Counter[str] = Counter()
        self._cpu_share = 0.0
        self._loop_lags_ns = array("q")
        self._waiting: list[int] = []
        self._finished = gevent.event.Event()

    def _make_gate(self) -> Gate | None:
        if self.load.arrivals is None:
            return None
        offsets = schedule(self.load.arrivals, self.load.seed, self.measure_ns, self.warmup_ns)
        index, stripes = self._stripe
        return Gate(offsets[index::stripes], GreenletSlot, self.load.seed + index)

    def _share(self, count: int) -> int:
        """This generator's part of a number of users: the first ones take what is left over."""
        index, stripes = self._stripe
        return max(1, count // stripes + (index < count % stripes))

    def tell(self, **message: Any) -> None:
        """One line to the trial."""
        with contextlib.suppress(OSError):
            os.write(self._output, (json.dumps(message) + "\n").encode())

    def import_scenario(self) -> None:
        """Load the locustfile as Locust would."""
        events.request = self.hook
        for module in (locust.clients, locust.contrib.fasthttp):
            vars(module)["time"] = SteadyTime(self.clock)
        for session in (locust.clients.HttpSession, locust.contrib.fasthttp.FastHttpSession):
            self.hook.follow(session)
        random.seed(self.load.seed)
        classes, _shapes = load_locustfile(self.load.scenario)
        if not classes:
            raise ValueError("it has no User class with tasks")
        for name, user_class in classes.items():
            if not user_class.tasks:
                raise ValueError(f"the User class {name} has no tasks")
        for user_class in classes.values():
            user_class.host = self._base_url
        self.environment = Environment(
            user_classes=list(classes.values()),
            events=events,
            host=self._base_url,
            stop_timeout=DRAIN_S,
            parsed_options=_options(self.load.scenario, self._base_url),
        )
        self._runner: Runner = self.environment.create_local_runner()
        events.user_error.add_listener(self._note_task_error)
        events.init.fire(environment=self.environment, runner=self._runner, web_ui=None)
        if self.gate:
            gate_tasks(self.gate, self.clock)
        self.recorder.rehearse()

    def _note_task_error(self, exception: BaseException, **_: Any) -> None:
        self._task_errors[f"a task raised {described(exception)}"] += 1

    def prepare(self) -> None:
        """In an open loop all users are made and have run `on_start` before the first arrival."""
        if self.gate and self.load.arrivals:
            self._spawn(self._share(self.load.arrivals.in_flight_max))
            with gevent.Timeout(PREPARE_S, False):
                while self.gate.free < self._runner.user_count:
                    gevent.sleep(0.01)
            if self.gate.free == 0:
                reasons = "; ".join(self._task_errors) or "they are still in on_start"
                raise ValueError(f"no user became ready: {reasons}")
        gc.collect()
        gc.freeze()

    def _spawn(self, count: int) -> None:
        self._runner.start(count, spawn_rate=count)
        if self._runner.spawning_greenlet:
            self._runner.spawning_greenlet.join()

    def run(self, start_ns: int) -> None:
        """The load, from the monotonic instant `start_ns` to its end."""
        start_utc_ns = self.clock.utc_ns(start_ns)
        measure_utc_ns = start_utc_ns + self.warmup_ns
        self.recorder.timeline = Timeline(
            start_utc_ns, measure_utc_ns, measure_utc_ns + self.measure_ns
        )
        gevent.spawn(self._watch_measure, start_ns + self.warmup_ns)
        gevent.spawn(self._watch_loop, start_ns + self.warmup_ns)
        end_ns = start_ns + self.warmup_ns + self.measure_ns
        if self.gate:
            self._keep_time(self.gate, start_ns)
        else:
            _sleep_until(start_ns)
            self._spawn(self._share(self.load.users or 1))
        _sleep_until(end_ns)
        self._drain()
        self._finished.set()

    def _keep_time(self, gate: Gate, start_ns: int) -> None:
        instants_ns = gate.begin(start_ns)
        loop, native = gevent.get_hub().loop, gevent.monkey.get_original
        keep_time(loop, instants_ns, gate.let_in_due, lambda: gate.next_ns, native)

    def _drain(self) -> None:
        if self.gate:
            with gevent.Timeout(DRAIN_S, False):
                while not self.gate.settled:
                    gevent.sleep(0.005)

    def _watch_measure(self, measure_start_ns: int) -> None:
        _sleep_until(measure_start_ns)
        before_ns = time.process_time_ns()
        self._count_waiting()
        _sleep_until(measure_start_ns + self.measure_ns)
        self._count_waiting()
        self._cpu_share = (time.process_time_ns() - before_ns) / max(1, self.measure_ns)

    def _watch_loop(self, measure_start_ns: int) -> None:
        """How late the loop gets to what is due: it takes answers as late as that, too."""
        _sleep_until(measure_start_ns)
        while not self._finished.is_set():
            due_ns = steady_ns() + LOOK_EVERY_NS
            gevent.sleep(LOOK_EVERY_NS / 1e9)
            self._loop_lags_ns.append(max(0, steady_ns() - due_ns))

    def _count_waiting(self) -> None:
        if self.gate:
            self._waiting.append(self.gate.unanswered - thinking())

    def report_live(self) -> None:
        """Tell the rate of the last half second, for ever, and keep rows flowing to the spool."""
        sent, at_s, used_ns = 0, time.monotonic(), time.process_time_ns()
        while True:
            gevent.sleep(LIVE_EVERY_S)
            lasted_s, lasted_ns = time.monotonic() - at_s, time.process_time_ns() - used_ns
            rate_rps = (self.recorder.sent - sent) / lasted_s
            at_s, used_ns = at_s + lasted_s, used_ns + lasted_ns
            sent = self.recorder.sent
            self.recorder.flush()
            live = {"rate_rps": rate_rps, "sent": sent, "failed": self.recorder.failed}
            self.tell(live=live | {"cpu_share": lasted_ns / 1e9 / lasted_s} | self._live_gate())

    def _live_gate(self) -> dict[str, int]:
        """How the schedule is kept; nothing in a closed loop."""
        if self.gate is None:
            return {}
        return {
            "due": self.gate.due,
            "waiting": self.gate.unanswered - thinking(),
            "lag_max_ns": self.gate.newest_lag_ns(),
        }

    def finish(self) -> None:
        """Stop the users, write the last rows, and tell the whole account."""
        busy = self.gate.busy - thinking() if self.gate else 0
        if self.gate is None:
            self._runner.stop()
        events.test_stop.fire(environment=self.environment)
        unanswered = self.hook.give_up()
        self._write_the_rest()
        self.tell(done={"load": self.account(busy, unanswered), "events": self.events()})

    def _write_the_rest(self) -> None:
        self.recorder.flush()
        written = gevent.event.Event()
        wake = gevent.get_hub().loop.async_()
        wake.start(written.set)
        self._writer.after_all(wake.send)
        written.wait()

    def account(self, busy: int, unanswered: int) -> dict[str, Any]:
        """The LoadRecord as plain data."""
        gate = self.gate
        lags = np.array(gate.lags_ns if gate else [], dtype=np.int64)
        p50, p99, largest = _quantiles(lags)
        _, loop_p99, loop_largest = _quantiles(np.array(self._loop_lags_ns, dtype=np.int64))
        arrivals = self.load.arrivals
        waiting = self._waiting if len(self._waiting) == 2 else (None, None)
        record = LoadRecord(
            planned=gate.planned if gate else None,
            sent=self.recorder.sent,
            measured=self.recorder.measured,
            failed=self.recorder.failed,
            not_sent=gate.not_sent if gate else 0,
            late=int((lags > LATE_NS).sum()),
            unrecorded=self.hook.unrecorded + max(0, busy - unanswered),
            lag_p50_ns=p50,
            lag_p99_ns=p99,
            lag_max_ns=largest,
            cpu_share=self._cpu_share,
            in_flight_max_reached=bool(gate and arrivals and gate.backlog_max > 0),
            locust_version=version("locust"),
            unanswered=unanswered,
            waiting_before=waiting[0],
            waiting_after=waiting[1],
            loop_lag_p99_ns=loop_p99,
            loop_lag_max_ns=loop_largest,
            exhausted=self.recorder.exhausted,
            costly_users=sorted(self._costly_users()),
            lost=self.recorder.lost,
        )
        return {name: getattr(record, name) for name in record.__slots__}

    def _costly_users(self) -> set[str]:
        """Locust's own users in the scenario, which cost several times what ours do."""
        users: tuple[type, ...] = tuple(self.environment.user_classes)
        known = (locust.contrib.fasthttp.FastHttpUser, locust.HttpUser)
        return {base.__name__ for user in users for base in known if issubclass(user, base)}

    def events(self) -> list[Event]:
        """What went wrong besides requests, as rows of the events table."""
        found = [(kind, text, count) for (kind, text), count in self.hook.failures.items()]
        found += [("task_failed", text, count) for text, count in self._task_errors.items()]
        if self.gate and self.gate.backlog_max:
            text = "arrivals had to wait for a free user: all in_flight_max were busy"
            found.append(("in_flight_max", text, self.gate.backlog_max))
        if paused := thinking():
            text = "users paused in a session when the load ended, whose rest was not sent"
            found.append(("session_cut", text, paused))
        return [
            {
                "time_ns": [self.clock.now_ns()],
                "phase": ["cooldown"],
                "kind": [kind],
                "level": ["warning"],
                "message": [f"{text} ({count} times)"],
                "value": [float(count)],
            }
            for kind, text, count in found
        ]

    def obey(self, line: str) -> None:
        """One message of the trial."""
        message = json.loads(line)
        if "prepare" in message:
            self.attempt(self.prepare)
            self.tell(prepared=True)
        elif "go" in message:
            gevent.spawn(self.run, message["go"])
            gevent.spawn(self._finish_when_over)
        elif "stop" in message:
            self._finished.set()
            if self.recorder.timeline.start_ns > self.clock.now_ns():
                self.finish()  # it never began: nobody else would

    def _finish_when_over(self) -> None:
        self._finished.wait()
        if self.gate and self.clock.now_ns() < self.recorder.timeline.end_ns:
            self.gate.close()
            self._drain()
        self.finish()

    def attempt(self, step: Any) -> None:
        """A step whose failure is the scenario's: tell where, then end."""
        try:
            step()
        except BaseException as error:
            if isinstance(error, gevent.GreenletExit):
                raise
            traceback.print_exc()
            self.tell(failed=f"scenario {described(error, Path(self.load.scenario))}")
            os._exit(1)


def _quantiles(values: npt.NDArray[np.int64]) -> tuple[int | None, int | None, int | None]:
    """Median, 99 % and the largest; None of nothing."""
    if not values.size:
        return None, None, None
    p50, p99, largest = np.quantile(values, [0.5, 0.99, 1.0]).astype(int).tolist()
    return p50, p99, largest


def _options(scenario: str, base_url: str) -> argparse.Namespace:
    """What a locustfile finds as `environment.parsed_options`: its own options too, as it set them.

    An option with an environment variable takes that, as with Locust's command; Locust's
    configuration files, which lie in folders of whoever started it, are not looked for.
    """
    options = get_parser(default_config_files=[]).parse_args(["-f", scenario, "-H", base_url])
    return cast(argparse.Namespace, options)


def _sleep_until(monotonic_ns: int) -> None:
    while (left_ns := monotonic_ns - steady_ns()) > 0:
        gevent.sleep(left_ns / 1e9)


def orders() -> Iterator[str]:
    """The lines on standard input, until it ends.

    A thread of the operating system reads them, because gevent can't wait for a pipe on Windows.
    """
    lines: deque[str | None] = deque()
    come = gevent.event.Event()
    wake = gevent.get_hub().loop.async_()
    wake.start(come.set)

    def read() -> None:
        with os.fdopen(0, encoding="utf-8") as given:
            for line in given:
                lines.append(line)
                wake.send()
        lines.append(None)
        wake.send()

    gevent.monkey.get_original("_thread", "start_new_thread")(read, ())
    while True:
        come.wait()
        come.clear()
        while lines:
            line = lines.popleft()
            if line is None:
                return
            yield line


def open_many_files() -> None:
    """Each connection is a file: allow as many as this process may allow itself."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Serve one trial; the end of standard input ends the process, whatever it does."""
    output = os.dup(1)
    os.dup2(2, 1)
    sharpen_timers()
    open_many_files()
    generator = Generator(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), output)
    generator.attempt(generator.import_scenario)
    generator.tell(ready=True)
    gevent.spawn(generator.report_live)
    for line in orders():
        generator.obey(line)
    os._exit(0)


if __name__ == "__main__":
    main()
