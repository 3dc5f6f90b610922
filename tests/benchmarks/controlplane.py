"""Fifty agents at one collector: real processes, spools and mutual TLS; the nodes are simulated.

Each node is a real sampling thread of this process at 10 Hz, which writes into a spool of its own
and looks at one program that waits; beside each spool runs a real agent. All that the nodes wrote
is compared with what the archive has: number and digest of the rows as the sampler handed them
over, and the accounts of both sides.
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pyarrow as pa

from orchestrator.membership.pki import Authority
from results.clock import ClockMap
from results.collecting.process import CollectorProcess
from results.record import TrialRecord
from results.schema import MEMORY, SCHEMA_VERSION
from tests.benchmarks.figures import Figure
from tests.benchmarks.keys import tls_folder
from workers.agent import AgentProcess, wait_delivered
from workers.limits.none import NoLimits
from workers.sampling.loop import SampleLoop
from workers.spool import Spool

AREA = "cluster"
AGENTS = 50
LENGTH_S = 120.0
SETTLE_S = 5.0
SEAL_TIMEOUT_S = 60.0
SAMPLED_S = 600
RATE_HZ = 10
RUN = "20260101-000000-50a6"
COMPARED = ("time_ns", "rss_bytes", "threads")


def control_plane(folder: Path) -> Iterator[Figure]:
    """Two minutes of samples from all nodes, then the end of all their trials at once."""
    folder.mkdir()
    with ExitStack() as stack:
        authority = Authority.make(days=1)
        token_file = folder / "token"
        token_file.write_text(secrets.token_hex(32), encoding="ascii")
        collector = CollectorProcess.start(
            archive=folder / "archive",
            run_id=RUN,
            token_file=token_file,
            log=folder / "collector.log",
            tls=tls_folder(folder / "tls", authority, "head", "head"),
        )
        stack.callback(collector.stop)
        sampled = subprocess.Popen(["sleep", str(SAMPLED_S)])
        stack.callback(sampled.wait)
        stack.callback(sampled.kill)
        trials = folder / "archive" / RUN / "trials"
        nodes = [SimulatedNode(folder / f"node{n}", n, sampled.pid) for n in range(AGENTS)]
        for node in nodes:
            stack.callback(node.end)
            node.begin(authority, collector.address, token_file)
            while not (trials / f"{node.trial_id}.partial").exists():
                time.sleep(0.05)
        yield from _measured(nodes, trials)


@dataclass
class SimulatedNode:
    """A node's spool, agent and sampling thread."""

    folder: Path
    number: int
    sampled: int
    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def trial_id(self) -> str:
        return f"b001-1-default-steady-n{self.number}"

    def begin(self, authority: Authority, collector: str, token_file: Path) -> None:
        """Start the agent and the trial."""
        self.folder.mkdir()
        self.agent = AgentProcess.start(
            spool=self.folder / "spool",
            collector=collector,
            token_file=token_file,
            log=self.folder / "agent.log",
            tls=tls_folder(self.folder / "tls", authority, "node", f"node-{self.number}"),
        )
        self.spool = Spool(self.folder / "spool", RUN, self.trial_id)
        self._stream = self.spool.stream(MEMORY)
        self.loop = SampleLoop(
            self.sampled,
            NoLimits("simulated"),
            interval_ns=1_000_000_000 // RATE_HZ,
            sink=self._take,
            phase=lambda: "measure",
            clock=ClockMap.read(),
        )

    def _take(self, columns: dict[str, list[Any]]) -> None:
        """Keep an account of our own, then do what a node does."""
        for row in zip(*(columns[name] for name in COMPARED), strict=True):
            self.digest.update(repr(row).encode())
            self.rows += 1
        self._stream.append(columns)

    def seal(self) -> list[str]:
        """End the trial and wait until it is sealed; what both accounts differ in."""
        record = TrialRecord(
            schema_version=SCHEMA_VERSION, run_id=RUN, trial_id=self.trial_id, block=1, position=1,
            attempt=1, configuration="default", baseline=True, workload="steady", node_id="n",
            node_class="c", started_ns=1, finished_ns=2, spec={}, node={}, versions={}, clock={},
        )  # fmt: skip
        self.spool.finish(record.to_json(), None)
        return wait_delivered(self.folder / "spool", self.trial_id, SEAL_TIMEOUT_S)

    def archived_alike(self, trials: Path) -> bool:
        """Whether the archive has every row that the sampler gave, in order, and none else."""
        with pa.memory_map(str(trials / self.trial_id / "memory.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        digest = hashlib.sha256()
        for row in zip(*(table[name].to_pylist() for name in COMPARED), strict=True):
            digest.update(repr(row).encode())
        return table.num_rows == self.rows and digest.digest() == self.digest.digest()

    def end(self) -> None:
        self.agent.stop()


def _measured(nodes: list[SimulatedNode], trials: Path) -> Iterator[Figure]:
    (collector,), agents = _children("results.collecting.collector"), _children("workers.agent")
    time.sleep(SETTLE_S)
    idle = _used_s(agents)
    time.sleep(SETTLE_S)
    idle_share = median(_shares(agents, idle, SETTLE_S))
    for node in nodes:
        node.loop.start()
        time.sleep(1 / RATE_HZ / len(nodes))  # real nodes do not wake at the same instant
    began_s, collector_s, agents_s = time.monotonic(), _used_s([collector]), _used_s(agents)
    time.sleep(LENGTH_S)
    took_s = time.monotonic() - began_s
    (share,) = _shares([collector], collector_s, took_s)
    agent_shares = _shares(agents, agents_s, took_s)
    for node in nodes:
        node.loop.stop()
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(nodes)) as pool:
        differences = [text for found in pool.map(SimulatedNode.seal, nodes) for text in found]
    sealed_s = time.monotonic() - began_s
    rows = sum(node.rows for node in nodes)
    assert rows >= 0.9 * len(nodes) * RATE_HZ * LENGTH_S, f"only {rows} samples were taken"
    broken = [node for node in nodes if not node.archived_alike(trials)]
    name = f"{len(nodes)} agents, 10 Hz, {LENGTH_S:.0f} s"
    lost = len(broken) + len(differences)
    yield Figure.told(AREA, f"{name}: rows streamed", rows, "rows")
    yield Figure.at_most(AREA, f"{name}: archives that differ from what was sent", lost, "", 0)
    yield Figure.at_most(AREA, f"{name}: collector", share, "% core", 20)
    yield Figure.told(AREA, f"{name}: one agent", median(agent_shares), "% core")
    yield Figure.told(AREA, f"{name}: one agent at rest", idle_share, "% core")
    yield Figure.told(AREA, f"{name}: all sealed at once", sealed_s, "s")


def _children(word: str) -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if word in " ".join(p.cmdline())]


def _used_s(processes: list[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


def _shares(processes: list[psutil.Process], before_s: list[float], took_s: float) -> list[float]:
    """Percent of a core that each process used since."""
    pairs = zip(_used_s(processes), before_s, strict=True)
    return [100 * (now - then) / took_s for now, then in pairs]
