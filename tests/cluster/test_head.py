"""The head's side dies, or its disk is full: the nodes are clean by themselves, the run goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from results.archive.archive import Archive
from results.errors import RunIncomplete
from tests.cluster.lan import Lan, lan, needs_namespaces
from tests.cluster.runs import (
    Bench,
    check_accounts,
    check_all_measured,
    matrix,
    open_folder,
    records,
    run_folder,
    strays,
)
from tests.orchestrator.clusters import all_gone, until

CLEAN_WITHIN_S = 20.0
"""A node's daemon looks every two seconds; the rest is for a busy machine."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def whole(folder: Path) -> Iterator[Lan]:
    needs_namespaces()
    with lan(folder, {"n1": (), "n2": ()}) as made:
        yield made


@pytest.fixture
def mine(folder: Path, request: pytest.FixtureRequest) -> Path:
    made = folder / request.node.name[5:25]
    matrix(made, nodes="{count: 2}", trials=2, measure="1s")
    return made


def started(whole: Lan, mine: Path, archive: Path | None = None) -> Bench:
    """A run in the middle of its second trial: requests of it are in the archive."""
    bench = Bench.start(whole, mine, "run", "matrix.yaml", archive=archive)
    bench.until_says("[2/")
    until(lambda: arriving(mine, archive) or not bench.running, 30)
    assert bench.running, bench.said
    return bench


def arriving(mine: Path, archive: Path | None) -> bool:
    return bool(list(run_folder(mine, archive).glob("trials/*.partial/requests.journal")))


def resumed(whole: Lan, mine: Path, archive: Path | None = None) -> str:
    """`bench resume` to its end: every trial measured, every request accounted for."""
    bench = Bench.start(whole, mine, "resume", "latest", archive=archive)
    try:
        assert bench.ended() in (0, RunIncomplete.exit_code), bench.said
    finally:
        bench.close()
    check_accounts(mine, archive)
    check_all_measured(mine, 4, archive)
    return bench.said


def clean(whole: Lan, run_id: str) -> bool:
    """Whether nothing of the run is left on any node."""
    left = strays([run_id], [host.state for host in whole.hosts])
    return left in ([], [f"temp {head_folder(whole, run_id)}"])


def head_folder(whole: Lan, run_id: str) -> str:
    """The driver's own temporary folder: that of a killed one goes with the next command."""
    path = whole.head.state / "leases" / f"{run_id}.json"
    return str(json.loads(path.read_text())["temp_dir"])


def test_a_driver_that_is_killed_leaves_nothing_on_the_nodes(whole: Lan, mine: Path) -> None:
    bench = started(whole, mine)
    run_id = run_folder(mine).name
    services = [p for host in whole.hosts for p in host.processes("-ledger")]
    assert services
    bench.process.kill()
    bench.ended()
    until(lambda: all_gone(services), CLEAN_WITHIN_S)
    until(lambda: clean(whole, run_id), CLEAN_WITHIN_S)
    for host in whole.hosts:
        assert not host.processes("ray::NodeActor")
        assert not host.processes("workers.")
    # The nodes are free again, and the next command cleans up here.
    until(whole.all_ready, 30)
    assert f"cleaned up after run {run_id}" in whole.head.bench("node", "ls")
    assert not strays([run_id], [whole.head.state])
    resumed(whole, mine)


def test_a_head_that_is_killed_ends_the_run_in_order(whole: Lan, mine: Path) -> None:
    bench = started(whole, mine)
    run_id = run_folder(mine).name
    family = whole.head.family("head")
    try:
        family[0].kill()
        assert bench.ended(60) == 3, bench.said
    finally:
        bench.close()
    assert "the head of the cluster ended" in bench.said
    assert "bench node head" in bench.said
    assert f"bench resume {run_id}" in bench.said
    until(lambda: all_gone(family), CLEAN_WITHIN_S)
    until(lambda: not strays([run_id], [h.state for h in (whole.head, *whole.hosts)]))
    check_accounts(mine)
    whole.head.bench("node", "head")
    until(whole.all_ready, 90)
    resumed(whole, mine)


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A disk that a trial may begin on, and that is soon full."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Leave nothing free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**20)):
            pass
        while file.write(bytes(256)):
            pass
    assert shutil.disk_usage(disk).free == 0
    return filler


def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(whole: Lan, mine: Path) -> None:
    with small_disk(mine / "disk") as disk:
        archive = disk / "archive"
        bench = started(whole, mine, archive)
        filler = fill(disk)
        try:
            assert bench.ended(60) == 4, bench.said
        finally:
            bench.close()
        assert "No space left" in bench.said or "are free where" in bench.said, bench.said
        assert "make room" in bench.said
        assert "bench resume" in bench.said
        run_id = run_folder(mine, archive).name
        until(lambda: not strays([run_id], [h.state for h in (whole.head, *whole.hosts)]))
        first, *_ = records(mine, archive)
        filler.unlink()
        resumed(whole, mine, archive)
        kept = {r["trial_id"]: r["rows"] for r in records(mine, archive)}
        assert kept[first["trial_id"]] == first["rows"]
        whole.head.bench("verify", "--archive", str(archive))
        assert len(Archive(archive).runs()) == 1
