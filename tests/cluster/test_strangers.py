"""Who has not the secret can do nothing, tried from a machine of its own while a run goes on.

Beside each refusal stands a caller that differs in that one thing and is let in: so it was that
thing that was refused. What single parts refuse is in `test_collector_tls` and `test_head_join`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from orchestrator.membership.pki import Authority, key_pem, make_key, write_tls_folder
from orchestrator.membership.raynode import ray_environment
from tests.cluster.lan import Lan, lan, needs_namespaces
from tests.cluster.runs import Bench, check_accounts, matrix, open_folder, records, run_folder
from tests.orchestrator.clusters import Machine, until
from tests.orchestrator.matrices import ROOT

STRANGER = Path(__file__).with_name("stranger.py")


@dataclass
class Siege:
    """A run that goes on, what the attacks on it came to, and how it ended."""

    lan: Lan
    folder: Path
    came_to: dict[str, str] = field(default_factory=dict)
    code: int = -1
    said: str = ""
    log: str = ""

    def tls(self, authority: Authority, name: str) -> str:
        """Keys of a node, by some authority."""
        key = make_key()
        made = self.folder / name
        trusted = (self.lan.head.folder("head") / "ca.pem").read_bytes()
        certificate = authority.issue(key.public_key(), "node", name, days=1.0)
        write_tls_folder(made, authority=trusted, certificate=certificate, key=key_pem(key))
        return str(made)

    def attack(self, kind: str, **known: Any) -> str:
        """One attempt from the stranger's machine."""
        namespace = self.lan.bare["stranger"]
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, sys.executable, str(STRANGER), kind,
             json.dumps(known)],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT),
                 "GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout.strip() or f"refused: exit {done.returncode}"


def listening(processes: list[psutil.Process]) -> list[int]:
    """Ports of these processes that another machine could reach."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {
            c.laddr.port
            for c in connections
            if c.status == psutil.CONN_LISTEN and not c.laddr.ip.startswith("127.")
        }
    return sorted(found)


def ray_attacks(siege: Siege, foreign: str) -> dict[str, dict[str, Any]]:
    """Ray's control store, with all that a node has but one thing."""
    node = siege.lan.hosts[0]
    own = node.folder("node")
    address = siege.lan.head.head_settings()["address"]
    ray = f"{address}:{siege.lan.head.head_settings()['ray_port']}"
    right = ray_environment(address, own / "tls", own / "ray.token")
    wrong_token = siege.folder / "wrong.token"
    wrong_token.write_text("0" * 64)
    variants = {
        "member": right,
        "without token": {k: v for k, v in right.items() if k != "RAY_AUTH_TOKEN_PATH"}
        | {"RAY_AUTH_MODE": "disabled"},
        "wrong token": right | {"RAY_AUTH_TOKEN_PATH": str(wrong_token)},
        "without TLS": right | {"RAY_USE_TLS": "0"},
        "foreign certificate": ray_environment(address, Path(foreign), own / "ray.token"),
    }
    return {
        f"ray: {name}": {"kind": "ray_store", "environment": environment, "address": ray}
        for name, environment in variants.items()
    }


def collector_attacks(siege: Siege, foreign: str) -> dict[str, dict[str, Any]]:
    """The run's collector; the run's token as its node has it."""
    authority = Authority.open(siege.lan.head.folder("head"))
    node = siege.tls(authority, "a-node")
    (agent,) = siege.lan.hosts[0].processes("workers.agent")
    words = agent.cmdline()
    address = words[words.index("--collector") + 1]
    token = Path(words[words.index("--token-file") + 1]).read_text()
    known = {
        "address": address, "token": token, "tls": node, "run_id": run_folder(siege.folder).name,
        "trial_id": "b1-1-none", "method": "open",
    }  # fmt: skip
    variants: dict[str, dict[str, Any]] = {
        "member": known,
        "without certificate": known | {"tls": None},
        "foreign certificate": known | {"tls": foreign},
        "wrong token": known | {"token": "0" * 64},
        "another run": known | {"run_id": "20200101-000000-0000"},
        "giving up a trial": known | {"method": "Abandon", "trial_id": current(siege)},
    }
    return {f"collector: {name}": {"kind": "collector"} | v for name, v in variants.items()}


def current(siege: Siege) -> str:
    """A trial that runs, of which requests have come."""
    trials = run_folder(siege.folder) / "trials"
    found: list[Path] = []

    def look() -> bool:
        found[:] = [p.parent for p in trials.glob("*.partial/requests.journal") if p.stat().st_size]
        return bool(found)

    until(look, 60)
    return found[0].name.removesuffix(".partial")


def reading(siege: Siege, bench: Bench) -> dict[str, dict[str, Any]]:
    """Every port of the head and of the driver, asked for what is in the archive."""
    driver = psutil.Process(bench.process.pid)
    family = [*siege.lan.head.family("head"), driver, *driver.children(recursive=True)]
    ports = listening(family)
    assert len(ports) >= 3
    run = run_folder(siege.folder)
    names = [f"{run.name}/run.json", f"archive/{run.name}/matrix.yaml"]
    host = siege.lan.head.head_settings()["address"]
    return {"archive": {"kind": "read", "host": host, "ports": ports, "names": names}}


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    """All attacks at once on a run, which goes on for a trial more and is ended by its user."""
    needs_namespaces()
    with open_folder() as folder, lan(folder, {"n1": ()}, bare=("stranger",)) as whole:
        made = Siege(whole, folder)
        matrix(folder, nodes="1", trials=60, measure="2s")
        bench = Bench.start(whole, folder, "run", "matrix.yaml")
        try:
            bench.until_says("[1/")
            current(made)
            foreign = made.tls(Authority.make(), "foreign")
            attacks = ray_attacks(made, foreign) | reading(made, bench)
            attacks |= collector_attacks(made, foreign)
            with ThreadPoolExecutor(len(attacks)) as pool:
                started = {n: pool.submit(made.attack, **a) for n, a in reversed(attacks.items())}
                made.came_to = {name: future.result() for name, future in started.items()}
            member = attacks["collector: member"]
            made.came_to["collector: replay"] = replayed(made, member)
            made.came_to["join"] = join_with_another_secret(made)
            attacked = current(made)
            until(lambda: current(made) != attacked, 60)
            made.code = bench.interrupt()
        finally:
            bench.close()
        made.said = bench.said
        made.log = (run_folder(folder) / "logs" / "collector.log").read_text()
        yield made


def replayed(siege: Siege, member: dict[str, Any]) -> str:
    """Send a batch again in the midst of a trial; one that is sealed meanwhile opens no more."""
    for _ in range(8):
        known = member | {"method": "replay", "trial_id": current(siege)}
        told = siege.attack(**known)
        if "was not opened" not in told:
            break
    return told


def join_with_another_secret(siege: Siege) -> str:
    """Join with the secret of a cluster of one's own."""
    plain = json.loads(siege.lan.head.secret.read_text())
    authority, key = Authority.make(), make_key()
    plain |= {"authority": authority.pem.decode(), "key": key_pem(key).decode()}
    plain["certificate"] = authority.issue(key.public_key(), "join", "join").decode()
    secret = siege.folder / "other.secret"
    secret.write_text(json.dumps(plain))
    stranger = Machine(siege.folder / "stranger", siege.lan.bare["stranger"])
    return stranger.bench(
        "node", "join", siege.lan.head.head_address, "--secret", str(secret), "--name", "x", code=4
    )


@pytest.mark.parametrize(
    "thing", ["without token", "wrong token", "without TLS", "foreign certificate"]
)
def test_ray_answers_its_members_alone(siege: Siege, thing: str) -> None:
    assert siege.came_to["ray: member"] == "answered True"
    assert siege.came_to[f"ray: {thing}"].startswith("refused"), siege.came_to


@pytest.mark.parametrize(
    ("thing", "how"),
    [
        ("without certificate", "refused: UNAVAILABLE"),
        ("foreign certificate", "refused: UNAVAILABLE"),
        ("wrong token", "refused: UNAUTHENTICATED"),
        ("giving up a trial", "refused: PERMISSION_DENIED"),
        ("another run", "refused(this collector is for run"),
    ],
)
def test_the_collector_answers_its_members_alone(siege: Siege, thing: str, how: str) -> None:
    assert siege.came_to["collector: member"] == "opened"
    assert siege.came_to[f"collector: {thing}"].startswith(how), siege.came_to


def test_a_replayed_batch_is_dropped(siege: Siege) -> None:
    """Even by one that has a node's keys and the run's token: what is archived stays as it is."""
    assert siege.came_to["collector: replay"] == "opened acknowledged", siege.came_to
    assert "dropped a replayed batch" in siege.log
    archive = siege.folder / "archive"
    for path in archive.rglob("requests*.arrow"):
        assert "forged" not in pa.ipc.open_file(path).read_all()["name"].to_pylist()


def test_nothing_serves_the_archive(siege: Siege) -> None:
    assert siege.came_to["archive"].startswith("refused"), siege.came_to


def test_another_secret_does_not_join(siege: Siege) -> None:
    assert "do not trust each other" in siege.came_to["join"]
    assert set(siege.lan.head.nodes()) == {"n1"}


def test_the_run_was_not_disturbed(siege: Siege) -> None:
    assert siege.code == 130, siege.said
    *whole, interrupted = records(siege.folder)
    assert len(whole) > 1
    assert all(record["valid"] for record in whole), siege.said
    assert [f["code"] for f in interrupted["findings"] if f["level"] == "invalid"] in (
        [],
        ["interrupted"],
    )
    check_accounts(siege.folder)
    siege.lan.head.bench("verify", "--archive", str(siege.folder / "archive"))


def test_each_stranger_is_in_the_log_once(siege: Siege) -> None:
    for word in ("wrong token", "does not allow it"):
        assert siege.log.count(word) == 1, siege.log
    assert "0" * 64 not in siege.log
