"""What a killed run leaves behind is found by the next command, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.leftovers import end_run_processes, sweep
from workers.leases import Driver, Lease, leases_folder

RUN = "20260101-000000-test"
SLEEPER = "import signal, sys; print('up', flush=True); signal.pause()"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPGATE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    folder = tmp_path / "heapgate-abc"
    folder.mkdir()
    (folder / "spool").mkdir()
    return folder


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(
    started: list[subprocess.Popen[str]], run_id: str | None, code: str = SLEEPER
) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "HEAPGATE_RUN"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment | ({"HEAPGATE_RUN": run_id} if run_id else {}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    return process


def dead_driver() -> Driver:
    """A driver with this process's number that began at another time: it is no more."""
    this = Driver.this_process()
    return dataclasses.replace(this, start_ticks=this.start_ticks + 1)


def leave(temp: Path, driver: Driver | None = None) -> None:
    lease = Lease.take(run_id=RUN, run_dir=temp.parent / "run", temp_dir=temp)
    plain = dataclasses.asdict(dataclasses.replace(lease, driver=driver or dead_driver()))
    (leases_folder() / f"{RUN}.json").write_text(json.dumps(plain, default=str))


def test_processes_and_folder_of_a_dead_driver_go_and_others_stay(
    temp: Path, started: list[subprocess.Popen[str]]
) -> None:
    ours = start(started, RUN)
    stranger = start(started, None)
    other_run = start(started, RUN + "x")
    leave(temp)
    (swept,) = sweep()
    assert swept.processes == 1
    assert not psutil.pid_exists(ours.pid)
    assert not temp.exists()
    assert stranger.poll() is None
    assert other_run.poll() is None
    assert f"bench resume {RUN}" in swept.line
    assert sweep() == [], "the lease is gone"


def test_a_process_that_ignores_sigterm_goes_too(
    temp: Path, started: list[subprocess.Popen[str]]
) -> None:
    ours = start(
        started, RUN, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
    )
    assert end_run_processes(RUN, grace_seconds=0.2) == 1
    assert not psutil.pid_exists(ours.pid)


def test_the_lease_of_a_live_driver_is_not_touched(
    temp: Path, started: list[subprocess.Popen[str]]
) -> None:
    ours = start(started, RUN)
    leave(temp, Driver.this_process())
    assert sweep() == []
    assert ours.poll() is None
    assert temp.exists()


def test_a_lease_of_another_machine_is_not_touched(temp: Path) -> None:
    leave(temp, dataclasses.replace(dead_driver(), host="elsewhere"))
    assert sweep() == []
    assert temp.exists()


def test_after_a_reboot_only_the_folder_is_left_to_clean(temp: Path) -> None:
    leave(temp, dataclasses.replace(Driver.this_process(), boot_id="before"))
    (swept,) = sweep()
    assert swept.processes == 0
    assert not temp.exists()


def test_a_folder_that_no_run_made_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    leave(precious)
    sweep()
    assert precious.exists()


def test_what_a_dead_worker_left_on_a_joined_node_is_told_as_that(temp: Path) -> None:
    node = "node-0123abcd"
    lease = Lease.take(run_id=RUN, run_dir=None, temp_dir=temp, node_id=node)
    dead = dataclasses.asdict(dataclasses.replace(lease, driver=dead_driver()))
    (leases_folder() / f"{RUN}~{node}.json").write_text(json.dumps(dead, default=str))
    (swept,) = sweep()
    assert swept.line.startswith(f"cleaned up after run {RUN}, on node {node}, whose worker ended")
    assert str(temp) in swept.line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "../x"}', "[" * 100_000])
def test_a_broken_lease_is_set_aside_and_told(temp: Path, text: str) -> None:
    leave(temp)
    (leases_folder() / f"{RUN}.json").write_text(text)
    (swept,) = sweep()
    assert "not a lease" in swept.line
    assert (leases_folder() / "unreadable" / f"{RUN}.json").exists()
    assert sweep() == []
    assert temp.exists()


def test_a_released_lease_is_gone(temp: Path) -> None:
    lease = Lease.take(run_id=RUN, run_dir=temp, temp_dir=temp)
    assert Lease.read(leases_folder() / f"{RUN}.json") == lease
    lease.release()
    assert not list(leases_folder().glob("*.json"))


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".hidden", "a\nb"])
def test_an_id_that_is_a_path_is_refused(temp: Path, run_id: str) -> None:
    with pytest.raises(ValueError, match="run"):
        Lease.take(run_id=run_id, run_dir=temp, temp_dir=temp)


def test_the_process_that_cleans_is_never_ended(
    temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAPGATE_RUN", RUN)
    leave(temp)
    sweep()
    assert psutil.Process().is_running()
