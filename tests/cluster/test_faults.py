"""Whatever fails at whatever moment: the run ends by itself, and every request is accounted for.

One long run on two nodes, and faults at random moments. The service keeps a ledger on disk that
outlives its own death, so what the archive says is held against what was really served.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.lan import Host, Lan, lan, needs_namespaces
from tests.cluster.runs import (
    Bench,
    check_accounts,
    matrix,
    open_folder,
    records,
    run_folder,
    strays,
)
from tests.orchestrator.clusters import until

FAULTS = 30
SEED = int(os.environ.get("HEAPGATE_TEST_SEED") or time.time())


class Faults:
    """What can go wrong with a cluster, one method each; all leave it able to recover.

    A fault that takes time happens beside the next one, which takes a node that the run uses: so
    both nodes may be away at once, and a node be hit while the other one comes back.
    """

    def __init__(self, whole: Lan, bench: Bench, chance: random.Random, archive: Path) -> None:
        self.lan = whole
        self.bench = bench
        self.chance = chance
        self.archive = archive
        self.done: list[str] = []
        self.errors: list[str] = []
        self._seen = 0
        self._began_s = time.monotonic()
        self._at_work: dict[str, threading.Thread] = {}

    def inject(self) -> None:
        """One fault on a node that the run uses, at a random moment of a trial that goes on."""
        fault, wanted = self.chance.choice(self.kinds()), self.chance.choice(self.lan.hosts)
        wait_s, hard = self.chance.uniform(0.0, 2.0), self.chance.random()
        # Never twice in the same trial: most of them would find nothing to do.
        until(lambda: self._begun() > self._seen and bool(self._used()), 90)
        time.sleep(wait_s)
        until(lambda: bool(self._used()), 90)
        used, self._seen = self._used(), self._begun()
        host = wanted if wanted in used else used[0]
        moment_s = time.monotonic() - self._began_s
        self.done.append(f"{len(self.done) + 1:3}. {moment_s:6.1f} s {host.name} {fault.__name__}")
        thread = threading.Thread(target=self._told, args=(fault, host, hard), name=host.name)
        self._at_work[host.name] = thread
        thread.start()

    def _begun(self) -> int:
        """Trials that have begun."""
        return sum(" on node-" in line for line in self.bench.lines)

    def _used(self) -> list[Host]:
        """Nodes that the run uses, and on which no fault goes on."""
        if not self.bench.running:
            return self.lan.hosts  # told by the test in a moment
        states = self.lan.states()
        busy = {name for name, thread in self._at_work.items() if thread.is_alive()}
        return [h for h in self.lan.hosts if states[h.name] == "measuring" and h.name not in busy]

    def kinds(self) -> list[Callable[[Host, float], None]]:
        return [
            self.agent_killed, self.collector_killed, self.generator_killed, self.worker_killed,
            self.ray_killed, self.node_killed, self.node_frozen, self.cable_out_shortly,
            self.cable_out_long,
        ]  # fmt: skip

    def _told(self, fault: Callable[[Host, float], None], host: Host, hard: float) -> None:
        try:
            fault(host, hard)
        except BaseException as error:
            self.errors.append(f"{fault.__name__} {host.name}: {error!r}")

    def settle(self) -> None:
        """Wait until the last ones are over."""
        for thread in self._at_work.values():
            thread.join(120)
        assert not self.errors

    @staticmethod
    def _kill(processes: list[psutil.Process]) -> None:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def agent_killed(self, host: Host, _: float) -> None:
        self._kill(host.processes("workers.agent"))

    def generator_killed(self, host: Host, _: float) -> None:
        self._kill(host.processes("workers.load.generator"))

    def worker_killed(self, host: Host, _: float) -> None:
        self._kill(host.processes("ray::NodeActor"))

    def ray_killed(self, host: Host, _: float) -> None:
        self._kill(host.processes("raylet/raylet"))

    def collector_killed(self, _host: Host, _: float) -> None:
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "results.collecting.collector" in line and str(self.archive) in line:
                self._kill([process])

    def node_killed(self, host: Host, _: float) -> None:
        """As if the power failed: everything at once; the machine comes back and joins."""
        self._kill(host.processes())
        host.join_again(self.lan.head)

    def node_frozen(self, host: Host, hard: float) -> None:
        frozen = host.processes()
        for process in frozen:
            process.suspend()
        time.sleep(1.0 + 7.0 * hard)
        for process in frozen:
            try:
                process.resume()
            except psutil.NoSuchProcess:
                continue

    def cable_out_shortly(self, host: Host, hard: float) -> None:
        self._cable_out(host, 0.2 + 1.3 * hard)

    def cable_out_long(self, host: Host, hard: float) -> None:
        self._cable_out(host, 6.0 + 3.0 * hard)

    @staticmethod
    def _cable_out(host: Host, seconds: float) -> None:
        host.link("down")
        time.sleep(seconds)
        host.link("up")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("hgfaults-") as made:
        yield made


@pytest.mark.timeout(600)
def test_thirty_faults_at_random_moments(folder: Path) -> None:
    needs_namespaces()
    matrix(folder, nodes="{count: 2}", trials=500, measure="1s")
    print(f"seed {SEED}: HEAPGATE_TEST_SEED={SEED} repeats these faults")
    with lan(folder, {"n1": (), "n2": ()}) as whole:
        bench = Bench.start(whole, folder, "run", "matrix.yaml")
        faults = Faults(whole, bench, random.Random(SEED), folder / "archive")
        try:
            bench.until_says("[1/", 120)
            for _ in range(FAULTS):
                assert bench.running, bench.said
                faults.inject()
            faults.settle()
        finally:
            code = bench.interrupt() if bench.running else bench.ended()
            print("\n".join([*faults.done, *faults.errors]))
            print(bench.said)
        assert code == 130, "the user stopped it"
        check_accounts(folder)
        assert sum(record["valid"] for record in records(folder)) >= FAULTS // 6
        run_id = run_folder(folder).name
        states = [host.state for host in (whole.head, *whole.hosts)]
        until(lambda: not strays([run_id], states), 30)
        until(whole.all_ready, 90)
