"""How soon a run knows that its node is gone: a real run, real faults, the driver's own words.

Three nodes in network namespaces, one of which measures; each fault hits that one, and the run goes
on with another. The time ends when the run has said so, with what had arrived of the trial sealed.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import psutil

from tests.benchmarks.figures import Figure
from tests.cluster.lan import Host, Lan, lan
from tests.cluster.runs import Bench, matrix
from tests.orchestrator.clusters import until

AREA = "cluster"
TIMES_EACH = 5
NOTICED = "its block is measured again"
SEED = 20_261
NOTICED_MAX_S = 30.0

Repair = Callable[[Lan], object]
"""Undoes a fault."""


def lost_nodes(folder: Path) -> Iterator[Figure]:
    """Each kind of fault some times, at random moments of a trial."""
    folder.mkdir()
    folder.chmod(0o755)
    chance = random.Random(SEED)
    with lan(folder, {"n1": (), "n2": (), "n3": ()}) as whole:
        mine = folder / "lost"
        matrix(mine, nodes="{count: 1}", trials=50, measure="120s")
        bench = Bench.start(whole, mine, "run", "matrix.yaml")
        try:
            bench.until_says("[1/", 120)
            for name, fault in FAULTS.items():
                took_s = [_once(whole, bench, fault, chance) for _ in range(TIMES_EACH)]
                yield Figure.told(AREA, f"{name}: noticed, median", median(took_s), "s")
                yield Figure.at_most(AREA, f"{name}: noticed, worst", max(took_s), "s", 5)
        finally:
            bench.close()


def _once(
    whole: Lan, bench: Bench, fault: Callable[[Host], Repair], chance: random.Random
) -> float:
    until(lambda: _loaded(whole, bench), 90)
    time.sleep(chance.uniform(0.0, 3.0))
    host = _measuring(whole, bench)
    before = _noticed(bench)
    began_s = time.monotonic()
    repair = fault(host)
    while _noticed(bench) == before:
        assert bench.running, bench.said
        assert time.monotonic() - began_s < NOTICED_MAX_S, bench.said
        time.sleep(0.005)
    took_s = time.monotonic() - began_s
    repair(whole)
    until(lambda: _all_up(whole), 120)
    return took_s


def _noticed(bench: Bench) -> int:
    return " ".join(bench.said.split()).count(NOTICED)


def _all_up(whole: Lan) -> bool:
    nodes = whole.head.nodes().values()
    return all(node["state"] in ("ready", "measuring") for node in nodes)


def _measuring(whole: Lan, bench: Bench) -> Host:
    """The host that the run named last."""
    name = re.findall(r"linux: (\w+) \(node-", bench.said)[-1]
    return next(host for host in whole.hosts if host.name == name)


def _loaded(whole: Lan, bench: Bench) -> bool:
    """Whether a trial is under way since the last loss, with its load."""
    since = bench.said.rpartition("looking for another node")[2]
    return "[1/" in since and bool(_measuring(whole, bench).processes("workers.load.generator"))


def _ray_killed(host: Host) -> Repair:
    """Ray's daemon alone; that of the node starts it again."""
    _each(host.processes("raylet/raylet"), psutil.Process.kill)
    return lambda _: None


def _machine_killed(host: Host) -> Repair:
    """Everything at once, as if the power failed; its kernel still answers for it."""
    _each(host.processes(), psutil.Process.kill)
    return lambda whole: host.join_again(whole.head)


def _frozen(host: Host) -> Repair:
    """Everything stands still, and nothing is closed."""
    frozen = host.processes()
    _each(frozen, psutil.Process.suspend)
    return lambda _: _each(frozen, psutil.Process.resume)


def _cable_cut(host: Host) -> Repair:
    """Nothing comes through any more, in either direction."""
    host.link("down")
    return lambda _: host.link("up")


FAULTS: dict[str, Callable[[Host], Repair]] = {
    "Ray's daemon killed": _ray_killed,
    "machine killed": _machine_killed,
    "machine frozen": _frozen,
    "cable cut": _cable_cut,
}


def _each(processes: list[psutil.Process], act: Callable[[psutil.Process], object]) -> None:
    for process in processes:
        try:
            act(process)
        except psutil.NoSuchProcess:
            continue
