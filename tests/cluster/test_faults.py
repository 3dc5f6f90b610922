"""Whatever fails at whatever moment: the run ends by itself, and every request is accounted for.

One long run on two nodes, and faults at random moments. The service keeps a ledger on disk that
outlives its own death, so what the archive says is held against what was really served.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from results.archive import Archive
from tests.cluster.lan import Host, Lan, lan, needs_namespaces
from tests.orchestrator.clusters import until
from tests.orchestrator.matrices import ROOT, write

FAULTS = 30
SEED = int(os.environ.get("HEAPGATE_TEST_SEED") or time.time())
ACCOUNT = re.compile(
    r"at least ([\d,]+) requests were sent, ([\d,]+) are in the archive, ([\d,]+) are counted as"
)

MATRIX = """\
service:
  name: known
  go: {{source: {service}}}
  arguments: [-addr, "{{host}}:{{port}}", -ledger, "{ledger}"]
  ready: {{http: /healthz, timeout: 20s}}
  stop_timeout: 1s
configurations:
  default: {{baseline: true, go: "1.23"}}
  other: {{go: "1.23", env: {{GOGC: 50}}}}
workloads:
  steady:
    {{scenario: {scenario}, users: 4, idle: 100ms, warmup: 200ms, measure: 1500ms, cooldown: 0s}}
nodes: {{linux: {{count: 2}}}}
trials: {trials}
seed: 7
gc_trace: false
"""


class Faults:
    """What can go wrong with a cluster, one method each; all leave it able to recover."""

    def __init__(self, whole: Lan, chance: random.Random, archive: Path) -> None:
        self.lan = whole
        self.chance = chance
        self.archive = archive
        self.done: list[str] = []

    def inject(self) -> None:
        """One fault on one node that is up, at a random moment."""
        kinds: list[Callable[[Host], None]] = [
            self.agent_killed, self.collector_killed, self.generator_killed, self.worker_killed,
            self.ray_killed, self.node_killed, self.node_frozen, self.cable_out_shortly,
            self.cable_out_long,
        ]  # fmt: skip
        host, fault = self.chance.choice(self.lan.hosts), self.chance.choice(kinds)
        until(self._all_up, 90)
        time.sleep(self.chance.uniform(0.0, 3.0))
        self.done.append(f"{fault.__name__} {host.name}")
        fault(host)

    def _all_up(self) -> bool:
        states = {node["state"] for node in self.lan.head.nodes().values()}
        return states <= {"ready", "measuring"}

    @staticmethod
    def _kill(processes: list[psutil.Process]) -> None:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def agent_killed(self, host: Host) -> None:
        self._kill(host.processes("workers.agent"))

    def generator_killed(self, host: Host) -> None:
        self._kill(host.processes("workers.load.generator"))

    def worker_killed(self, host: Host) -> None:
        self._kill(host.processes("ray::NodeActor"))

    def ray_killed(self, host: Host) -> None:
        self._kill(host.processes("raylet/raylet"))

    def collector_killed(self, _: Host) -> None:
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "results.collector" in line and str(self.archive) in line:
                self._kill([process])

    def node_killed(self, host: Host) -> None:
        """As if the power failed: everything at once; the machine comes back and joins."""
        self._kill(host.processes())
        host.join_again(self.lan.head)

    def node_frozen(self, host: Host) -> None:
        frozen = host.processes()
        for process in frozen:
            process.suspend()
        time.sleep(self.chance.uniform(1.0, 8.0))
        for process in frozen:
            try:
                process.resume()
            except psutil.NoSuchProcess:
                continue

    def cable_out_shortly(self, host: Host) -> None:
        self._cable_out(host, self.chance.uniform(0.2, 1.5))

    def cable_out_long(self, host: Host) -> None:
        self._cable_out(host, self.chance.uniform(6.0, 9.0))

    @staticmethod
    def _cable_out(host: Host, seconds: float) -> None:
        host.link("down")
        time.sleep(seconds)
        host.link("up")


def start_run(whole: Lan, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`bench` on the head, as its user would start it."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "orchestrator.cli",
            *arguments,
            "--archive",
            str(folder / "archive"),
        ],
        env=whole.head.environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """All sealed trials of the only run."""
    (run,) = Archive(folder / "archive").runs()
    found = [json.loads(path.read_text()) for path in run.path.glob("trials/*/trial.json")]
    return sorted(found, key=lambda record: record["started_ns"])


def ledgers(folder: Path) -> list[tuple[int, int]]:
    """When each service began, and how many requests reached it."""
    return sorted((int(p.name), p.stat().st_size) for p in folder.iterdir())


def check_accounts(folder: Path) -> None:
    """`sent = archived + counted as lost` in each trial, and none of it is invented."""
    served = ledgers(folder / "ledger")
    for record in records(folder):
        archived = sum(n for name, n in record["rows"].items() if name.startswith("requests"))
        mine = [n for began, n in served if record["started_ns"] <= began <= record["finished_ns"]]
        accounts = [found for f in record["findings"] if (found := ACCOUNT.search(f["text"]))]
        name = f"{record['trial_id']}: {archived} rows, ledger {mine}, {record['findings']}"
        assert len(mine) <= 1, name
        in_flight = 4
        # What the generator wrote reached the service, but for what was on its way.
        assert archived <= sum(mine) + in_flight, name
        if record["load"]:
            assert record["load"]["sent"] == archived + record["load"]["unrecorded"], name
        if record["valid"]:
            assert sum(mine) == archived, name
        for account in accounts:
            sent, kept, lost = (int(number.replace(",", "")) for number in account.groups())
            assert sent == kept + lost, name
            assert kept == archived, name
            assert sent <= sum(mine) + in_flight, name


def strays(whole: Lan, run_ids: list[str]) -> list[str]:
    """What of the runs is still there on any machine."""
    found = [
        f"temp {path}" for run in run_ids for path in Path("/tmp").glob(f"heapgate-{run[-4:]}-*")
    ]
    for process in psutil.process_iter():
        try:
            marker = process.environ().get("HEAPGATE_RUN", "")
            if marker.partition("~")[0] in run_ids and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} {' '.join(process.cmdline())[:100]}")
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the unprivileged service may enter too: pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="hgfaults-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.timeout(900)
def test_thirty_faults_at_random_moments(open_folder: Path) -> None:
    needs_namespaces()
    (open_folder / "ledger").mkdir()
    (open_folder / "ledger").chmod(0o777)
    folder = open_folder
    text = MATRIX.format(
        service=ROOT / "tests" / "services" / "known",
        scenario=ROOT / "tests" / "scenarios" / "ledger.py",
        ledger=folder / "ledger",
        trials=200,
    )
    write(folder, text)
    print(f"seed {SEED}: HEAPGATE_TEST_SEED={SEED} repeats these faults")
    with lan(folder, {"n1": (), "n2": ()}) as whole:
        faults = Faults(whole, random.Random(SEED), folder / "archive")
        driver = start_run(whole, folder, "run", "matrix.yaml")
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(driver.stdout or ()), daemon=True)
        reader.start()
        try:
            until(lambda: any("[1/" in line for line in lines) or driver.poll() is not None, 120)
            for _ in range(FAULTS):
                assert driver.poll() is None, "".join(lines[-30:])
                faults.inject()
        finally:
            driver.send_signal(signal.SIGINT)
            driver.wait(120)
            reader.join(10)
            print("\n".join(faults.done))
            print("".join(lines))
        assert driver.returncode == 130, "the user stopped it"
        (run,) = Archive(folder / "archive").runs()
        until(whole.all_ready, 90)
        check_accounts(folder)
        assert sum(record["valid"] for record in records(folder)) > FAULTS // 3
        until(lambda: not strays(whole, [run.run_id]), 30)
