"""A pipe that is hurt while it carries rows: real agent, real collector, real gRPC, random faults.

What is drawn comes from a seed alone. A run ends healed: what was lost is counted, the rest is in
the archive, each row once and in order.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import workers.spool
from results.collecting.process import CollectorProcess
from results.record import TrialRecord
from results.schema import REQUESTS, SCHEMA_VERSION
from workers.agent import AgentProcess, wait_delivered
from workers.spool import FLUSH_BYTES, Spool

RUN = "20260101-000000-abcd"
TRIAL = "b01-1-default-steady"
IS_ROOT = os.geteuid() == 0
"""Without it no disk is small enough to be filled."""

SEED = int(os.environ.get("HEAPGATE_TEST_SEED") or random.randrange(2**31))
"""Of random runs; the same one draws the same again."""

RATE_ROWS_S = 100_000
BATCH_ROWS = 1_000
DELIVERY_TIMEOUT_S = 90.0
DISK_BYTES = 64 * 2**20

# A collector whose disk is as slow as a file says: seconds for each write.
THROTTLED_COLLECTOR = """
import os, sys, time
from pathlib import Path
slow = Path(sys.argv.pop(1))
def throttled(call):
    def wait_first(*arguments):
        try:
            time.sleep(float(slow.read_text() or 0))
        except (OSError, ValueError):
            pass
        return call(*arguments)
    return wait_first
os.write, os.fdatasync = throttled(os.write), throttled(os.fdatasync)
from results.collecting.collector import main
main()
"""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for a while; times in seconds of load, whatever the machine does.

    A load that stands still for a second is as far as it was, so a fault meets the same rows.
    """

    kind: str
    at_s: float
    for_s: float


@dataclass(frozen=True)
class Account:
    """What became of the rows of one run."""

    sent: int
    archived: int
    lost: int
    differences: tuple[str, ...]
    valid: bool
    in_order: bool
    """Whether the archived rows are each there once, in the order in which they were sent."""

    def wrong(self, plan: Plan) -> list[str]:
        """What does not add up: `sent = archived + lost`, and what was lost makes a trial invalid.

        Where the spool had room all the time, nothing may be lost at all.
        """
        conditions = {
            "sent = archived + lost": self.sent == self.archived + self.lost,
            "each row once and in order": self.in_order,
            "valid when nothing was lost": self.valid == (self.lost == 0),
            "differences when something was lost": bool(self.differences) == (self.lost > 0),
            "nothing lost with room in the spool": self.lost == 0 or not plan.spool_has_room,
        }
        return [condition for condition, holds in conditions.items() if not holds]


@dataclass(frozen=True)
class Plan:
    """One run, drawn from a seed."""

    seed: int
    rows: int
    processes: int
    in_background: bool
    flush_bytes: int
    faults: tuple[Fault, ...]

    @classmethod
    def drawn(cls, seed: int, seconds: float) -> Plan:
        """One to four faults in a load of so many seconds; some still last when it ends."""
        chance = random.Random(seed)
        kinds = [kind for kind in KINDS if IS_ROOT or not kind.endswith("disk full")]
        faults = [
            Fault(chance.choice(kinds), chance.uniform(0, 1.2 * seconds), chance.uniform(0.05, 0.8))
            for _ in range(chance.randint(1, 4))
        ]
        return cls(
            seed=seed,
            rows=round(seconds * RATE_ROWS_S),
            processes=chance.choice([1, 1, 2]),
            in_background=chance.random() < 0.5,
            flush_bytes=chance.choice([60_000, 300_000, FLUSH_BYTES]),
            faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        )

    @property
    def spool_has_room(self) -> bool:
        """Whether nothing may be lost."""
        return all(fault.kind != "spool disk full" for fault in self.faults)


class Link:
    """The network between agent and collector; it can be cut so that nobody notices at first."""

    def __init__(self, target: str) -> None:
        self._target = target.rpartition(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._up = threading.Event()
        self._up.set()
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing goes through any more, and nothing is closed."""
        self._up.clear()

    def mend(self) -> None:
        """What was held back goes on."""
        self._up.set()

    def close(self) -> None:
        self._ended = True
        self._up.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        host, _, port = self._target
        self._up.wait()
        with contextlib.suppress(OSError), near, socket.create_connection((host, int(port))) as far:
            self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        while not self._ended:
            self._up.wait()
            ready, _, _ = select.select([near, far], [], [], 0.05)
            for end in ready if self._up.is_set() else ():
                data = end.recv(2**18)
                if not data:
                    return
                other[end].sendall(data)


@dataclass
class FaultyPipe:
    """One pipe and what can be done to it."""

    folder: Path
    small_disks: bool
    collector: CollectorProcess = field(init=False)
    agent: AgentProcess = field(init=False)
    link: Link = field(init=False)
    _slow_spool_s: float = 0.0
    _sent_rows: int = 0
    _ended_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultyPipe]:
        """Everything started, and nothing left."""
        with contextlib.ExitStack() as stack:
            for disk in (self.spool, self.archive):
                disk.mkdir(parents=True)
                if self.small_disks:
                    _mount(disk)
                    stack.callback(_unmount, disk)
            (self.archive / RUN / "trials").mkdir(parents=True)
            token_file = self.folder / "token"
            token_file.write_text("secret")
            command = [
                *(sys.executable, "-c", THROTTLED_COLLECTOR, str(self._slow_file)),
                *("--archive", str(self.archive), "--run-id", RUN),
                *("--token-file", str(token_file)),
            ]
            log = self.folder / "collector.log"
            self.collector = CollectorProcess(command, log, token_file=token_file)
            stack.callback(self.collector.stop)
            self.link = Link(self.collector.address)
            stack.callback(self.link.close)
            self.agent = AgentProcess.start(
                spool=self.spool,
                collector=self.link.address,
                token_file=token_file,
                log=self.folder / "agent.log",
            )
            stack.callback(self.agent.stop)
            yield self

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def _slow_file(self) -> Path:
        return self.folder / "slow"

    def carry(self, plan: Plan) -> Account:
        """Send the plan's rows, hurt the pipe meanwhile, and see what became of them."""
        spool = Spool(self.spool, RUN, TRIAL, in_background=plan.in_background)
        with self._changed_spool(plan.flush_bytes):
            hurting = [threading.Thread(target=self._hurt, args=(f,)) for f in plan.faults]
            for thread in hurting:
                thread.start()
            self._send(spool, plan)
            self._ended_s = time.monotonic()
            spool.finish(record().to_json(), None)
            found = wait_delivered(self.spool, TRIAL, DELIVERY_TIMEOUT_S, self.agent)
            for thread in hurting:
                thread.join()
        lost = sum(spool.stream(REQUESTS, n).lost_rows for n in range(plan.processes))
        return self._account(plan, lost, found)

    def _send(self, spool: Spool, plan: Plan) -> None:
        """At the rate, whatever happens: a writer that waits would be late, and catches up."""
        writers = [spool.stream(REQUESTS, process) for process in range(plan.processes)]
        began_s = time.monotonic()
        for number in range(plan.rows // BATCH_ROWS):
            time.sleep(max(0.0, began_s + number * BATCH_ROWS / RATE_ROWS_S - time.monotonic()))
            writers[number % plan.processes].write(_rows(number * BATCH_ROWS))
            self._sent_rows += BATCH_ROWS

    def _hurt(self, fault: Fault) -> None:
        begin, end = self._doing(fault.kind)
        while self._load_s < fault.at_s:
            time.sleep(0.005)
        with self._lock if fault.kind.endswith("killed") else contextlib.nullcontext():
            begin()
            until_s = self._load_s + fault.for_s
            while self._load_s < until_s:
                time.sleep(0.005)
                if fault.kind.endswith("disk full"):
                    begin()  # the agent deletes what it delivered: the disk is to stay full
            end()

    @property
    def _load_s(self) -> float:
        """How far the load is: by its rows, and by the clock once it has ended."""
        since_end_s = 0.0 if self._ended_s is None else time.monotonic() - self._ended_s
        return self._sent_rows / RATE_ROWS_S + since_end_s

    def _doing(self, kind: str) -> tuple[Callable[[], object], Callable[[], object]]:
        return {
            "agent killed": (lambda: _kill(self.agent), self.agent.ensure_alive),
            "collector killed": (
                lambda: _kill(self.collector),
                self.collector.ensure_alive,
            ),
            "archive disk full": (lambda: _fill(self.archive), lambda: _free(self.archive)),
            "spool disk full": (lambda: _fill(self.spool), lambda: _free(self.spool)),
            "archive disk slow": (
                lambda: self._slow_file.write_text("0.1"),
                lambda: self._slow_file.unlink(missing_ok=True),
            ),
            "spool disk slow": (lambda: self._slow_down(0.1), lambda: self._slow_down(0)),
            "network cut": (self.link.cut, self.link.mend),
        }[kind]

    def _slow_down(self, seconds: float) -> None:
        self._slow_spool_s = seconds

    @contextlib.contextmanager
    def _changed_spool(self, flush_bytes: int) -> Iterator[None]:
        """With batches of another size, on a disk that may be slow."""
        fast = workers.spool._write_whole

        def throttled(path: Path, data: bytes) -> None:
            time.sleep(self._slow_spool_s)
            fast(path, data)

        workers.spool._write_whole, workers.spool.FLUSH_BYTES = throttled, flush_bytes
        try:
            yield
        finally:
            workers.spool._write_whole, workers.spool.FLUSH_BYTES = fast, FLUSH_BYTES

    def _account(self, plan: Plan, lost: int, found: list[str]) -> Account:
        folder = self.archive / RUN / "trials" / TRIAL
        if not folder.exists():
            return Account(plan.rows, 0, lost, tuple(found), valid=False, in_order=False)
        sealed = TrialRecord.read(folder / "trial.json")
        archived, in_order = 0, True
        for path in folder.glob("requests*.arrow"):
            with pa.ipc.open_file(path) as file:
                numbers = file.read_all()["start_ns"].to_numpy()
            archived += len(numbers)
            in_order &= bool((np.diff(numbers) > 0).all())
        return Account(plan.rows, archived, lost, tuple(found), sealed.valid, in_order)


def carried(folder: Path, plan: Plan) -> Account:
    """One run in a folder of its own, on small disks where that is possible."""
    with FaultyPipe(folder, small_disks=IS_ROOT).running() as pipe:
        return pipe.carry(plan)


def record(trial_id: str = TRIAL, **known: Any) -> TrialRecord:
    """A trial of which nothing is known but what is given."""
    plain: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "run_id": RUN, "trial_id": trial_id, "block": 1,
        "position": 1, "attempt": 1, "configuration": "default", "baseline": True,
        "workload": "steady", "node_id": "n", "node_class": "c", "started_ns": 1, "finished_ns": 2,
        "spec": {}, "node": {}, "versions": {}, "clock": {},
    }  # fmt: skip
    return TrialRecord(**plain | known)


KINDS = (
    "agent killed",
    "collector killed",
    "archive disk full",
    "spool disk full",
    "archive disk slow",
    "spool disk slow",
    "network cut",
)


def _rows(first: int) -> pa.RecordBatch:
    numbers = np.arange(first, first + BATCH_ROWS)
    words = {"phase": "measure", "method": "GET", "name": "/", "error": None}
    columns = []
    for column in REQUESTS.arrow:
        if column.name in words:
            text = pa.array([words[column.name]] * BATCH_ROWS, pa.string())
            columns.append(text.dictionary_encode().cast(column.type))
        else:
            columns.append(pa.array(numbers % 30_000 if column.name == "status" else numbers)
                           .cast(column.type))  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, schema=REQUESTS.arrow)


def _kill(process: AgentProcess | CollectorProcess) -> None:
    process._process.kill()
    process._process.wait()


def _mount(folder: Path) -> None:
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(disk: Path) -> None:
    ballast = disk / f".ballast-{threading.get_ident()}"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(65536))


def _free(disk: Path) -> None:
    (disk / f".ballast-{threading.get_ident()}").unlink(missing_ok=True)
