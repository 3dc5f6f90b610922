"""The agent's process with mutual TLS: parts, certificates that do not fit, links that are cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.membership.pki import Authority, Role, key_pem, make_key, write_tls_folder
from results.collecting.process import CollectorProcess
from results.record import TrialRecord
from results.schema import EVENTS, SCHEMA_VERSION
from workers.agent import AgentProcess, wait_delivered
from workers.spool import Spool

RUN = "20260101-000000-abcd"
TRIAL = "b01-1-default-steady"


def record_text() -> str:
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id=RUN, trial_id=TRIAL, block=1, position=1,
        attempt=1, configuration="default", baseline=True, workload="steady", node_id="n",
        node_class="c", started_ns=1, finished_ns=2, spec={}, node={}, versions={}, clock={},
    ).to_json()  # fmt: skip


def until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come in time"
        pause.wait(0.02)


@dataclass
class Site:
    tmp: Path
    authority: Authority
    collector: CollectorProcess
    agents: list[AgentProcess]

    def folder(self, role: Role, name: str, authority: Authority | None = None) -> Path:
        return tls_folder(self.tmp / name, role, name, self.authority, authority)

    def agent(self, name: str, tls: Path | None = None) -> AgentProcess:
        spool = self.tmp / f"{name}-spool"
        spool.mkdir()
        self.agents.append(
            AgentProcess.start(
                spool=spool,
                collector=self.collector.address,
                token_file=self.tmp / "token",
                log=self.tmp / f"{name}.log",
                tls=tls or self.folder("node", name),
            )
        )
        return self.agents[-1]

    def spool(self, name: str, part: int = 0) -> Spool:
        return Spool(self.tmp / f"{name}-spool", RUN, TRIAL, part)

    def delivered(self, name: str, agent: AgentProcess | None = None) -> list[str]:
        return wait_delivered(self.tmp / f"{name}-spool", TRIAL, 40.0, agent)

    @property
    def record(self) -> TrialRecord:
        return TrialRecord.read(self.tmp / "archive" / RUN / "trials" / TRIAL / "trial.json")


def tls_folder(
    target: Path, role: Role, name: str, trusted: Authority, signs: Authority | None = None
) -> Path:
    key = make_key()
    certificate = (signs or trusted).issue(key.public_key(), role, name)
    write_tls_folder(target, authority=trusted.pem, certificate=certificate, key=key_pem(key))
    return target


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "token").write_text("secret")
    authority = Authority.make()
    collector = start_collector(tmp_path, authority, "127.0.0.1")
    made = Site(tmp_path, authority, collector, [])
    yield made
    for agent in made.agents:
        agent.stop()
    collector.stop()


def start_collector(tmp: Path, authority: Authority, listen: str) -> CollectorProcess:
    return CollectorProcess.start(
        archive=tmp / "archive",
        run_id=RUN,
        token_file=tmp / "token",
        log=tmp / "collector.log",
        listen=listen,
        tls=tls_folder(tmp / "head", "head", "head", authority),
    )


def add_events(spool: Spool, count: int) -> None:
    writer = spool.stream(EVENTS)
    columns: dict[str, Any] = {
        "time_ns": list(range(count)), "phase": ["measure"] * count, "kind": ["ready"] * count,
        "level": ["info"] * count, "message": ["it happened"] * count,
    }  # fmt: skip
    writer.append(columns)
    writer.flush()


def test_a_trial_of_two_agents_is_sealed_as_one(site: Site) -> None:
    main_agent, load_agent = site.agent("main"), site.agent("load")
    main, load = site.spool("main"), site.spool("load", part=1)
    for count in (3, 4):
        add_events(main, count)
        add_events(load, 10 * count)
    load.finish("", None)
    assert site.delivered("load", load_agent) == []
    add_events(main, 5)
    main.finish(record_text(), None, parts=[1])
    assert site.delivered("main", main_agent) == []
    assert site.record.valid
    assert site.record.rows == {"events": 12, "events-1": 70}


def test_two_agents_of_one_trial_survive_each_others_death(site: Site) -> None:
    main_agent, load_agent = site.agent("main"), site.agent("load")
    main, load = site.spool("main"), site.spool("load", part=1)
    add_events(main, 3)
    add_events(load, 4)
    until(lambda: not list(load.folder.glob("*/*.arrow")))
    load_agent._process.kill()
    load_agent._process.wait()
    add_events(load, 5)
    add_events(main, 6)
    until(lambda: not list(main.folder.glob("*/*.arrow")))
    load.finish("", None)
    assert site.delivered("load", load_agent) == []
    main.finish(record_text(), None, parts=[1])
    assert site.delivered("main", main_agent) == []
    assert site.record.rows == {"events": 9, "events-1": 9}


def test_a_foreign_certificate_waits_quietly_until_it_is_replaced(site: Site) -> None:
    tls = site.folder("node", "main", authority=Authority.make())
    agent = site.agent("main", tls)
    spool = site.spool("main")
    add_events(spool, 3)
    spool.finish(record_text(), None)
    log = site.tmp / "main.log"
    until(lambda: "no connection to the collector" in log.read_text())
    watched = psutil.Process(agent._process.pid)
    before = watched.cpu_times()
    window = threading.Event()
    window.wait(3.0)
    after = watched.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    assert used_s < 1.5, "it spins"
    assert agent.alive
    assert log.read_text().count("no connection to the collector") == 1
    left = (site.tmp / "archive").rglob("*")
    assert not [path for path in left if path.suffix in (".arrow", ".journal")]
    site.folder("node", "main")
    assert site.delivered("main", agent) == []
    assert site.record.rows == {"events": 3}


def test_an_agent_without_certificates_waits_for_them(site: Site) -> None:
    tls = site.folder("node", "main")
    kept = tls.rename(site.tmp / "kept")
    agent = site.agent("main", tls)
    spool = site.spool("main")
    add_events(spool, 3)
    spool.finish(record_text(), None)
    until(lambda: "can't be read" in (site.tmp / "main.log").read_text())
    assert agent.alive
    kept.rename(tls)
    assert site.delivered("main", agent) == []


def test_a_cut_link_loses_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2 to make a network namespace")
    name = f"hga{os.getpid() % 10000}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name}h type veth peer name {name}n netns {name}",
        f"ip addr add 10.77.32.1/24 dev {name}h",
        f"ip link set {name}h up",
        f"ip -n {name} addr add 10.77.32.2/24 dev {name}n",
        f"ip -n {name} link set {name}n up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        _cut_and_restore(tmp_path, name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def _cut_and_restore(tmp: Path, name: str) -> None:
    (tmp / "token").write_text("secret")
    authority = Authority.make()
    collector = start_collector(tmp, authority, "10.77.32.1")
    root = tmp / "spool"
    spool = Spool(root, RUN, TRIAL)
    command = [
        *("ip", "netns", "exec", name, sys.executable, "-m", "workers.agent"),
        *("--spool", str(root), "--collector", collector.address),
        *("--token-file", str(tmp / "token")),
        *("--tls", str(tls_folder(tmp / "node", "node", "n1", authority))),
    ]
    agent = AgentProcess(command, tmp / "agent.log")
    link = ["ip", "link", "set", f"{name}h"]
    try:
        add_events(spool, 3)
        until(lambda: not list(spool.folder.glob("*/*.arrow")))
        subprocess.run([*link, "down"], check=True)
        for count in range(1, 20):
            add_events(spool, count)
        # Longer than a ping may stay without an answer: the connection is given up.
        until(lambda: "no connection" in (tmp / "agent.log").read_text(), timeout_s=60.0)
        assert list(spool.folder.glob("*/*.arrow"))
        subprocess.run([*link, "up"], check=True)
        spool.finish(record_text(), None)
        assert wait_delivered(root, TRIAL, 60.0, agent) == []
        sealed = tmp / "archive" / RUN / "trials" / TRIAL / "trial.json"
        assert TrialRecord.read(sealed).rows == {"events": 3 + sum(range(1, 20))}
    finally:
        agent.stop()
        collector.stop()
