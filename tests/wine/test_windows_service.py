"""A service in its job object: what it is given, and that it ends with the node's process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.builds.builds import build_go
from orchestrator.builds.toolchains import Toolchain
from tests.wine.machine import WindowsPython, windows_path
from tests.wine.prefix import why_unavailable, windows_python

ROOT = Path(__file__).resolve().parents[2]
CORE = max(os.sched_getaffinity(0))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]


@pytest.fixture(scope="module")
def windows() -> Iterator[WindowsPython]:
    with windows_python() as machine:
        yield machine


class Held:
    """A Windows process that holds a service, and the port on which that answers."""

    def __init__(self, windows: WindowsPython, program: Path, folder: Path, *more: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        arguments = [windows_path(program), windows_path(folder), str(self.port), str(CORE), *more]
        self.process = windows.popen(["-m", "tests.wine.held_service", *arguments])

    def line(self) -> dict[str, Any]:
        assert self.process.stdout
        text = self.process.stdout.readline()
        assert text, self.process.stderr and self.process.stderr.read().decode()
        told: dict[str, Any] = json.loads(text)
        return told

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture
def held(windows: WindowsPython, toolchain: Toolchain, tmp_path: Path) -> Iterator[Held]:
    built = build_go(toolchain, ROOT / "tests" / "services" / "misbehave", goos="windows")
    made = Held(windows, built.path, tmp_path, "-leak-children", "1")
    yield made
    made.process.kill()
    made.process.wait(30)
    for pipe in (made.process.stdin, made.process.stdout, made.process.stderr):
        if pipe:
            pipe.close()


def test_a_service_is_in_its_job_on_its_core_with_its_own_environment(held: Held) -> None:
    told = held.line()
    assert told["pid"] in told["members"]
    assert told["cores"] == [CORE]
    assert told["threads"] > 0
    names = {name.upper() for name in told["environment"]}
    assert {"GOGC", "SYSTEMROOT", "TEMP"} <= names
    assert not names & {"USERNAME", "USERPROFILE", "APPDATA", "HOME"}
    wait_for(held.answers, "the service")
    assert held.process.stdin
    held.process.stdin.close()
    try:
        # Its pipes may stay open for longer: Wine's console host has them too.
        held.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        pytest.fail("it does not end")
    assert held.line() == {"cause": "stopped", "members": []}
    assert not held.answers()


def test_the_death_of_the_node_s_process_ends_the_whole_tree(held: Held) -> None:
    held.line()
    wait_for(held.answers, "the service")
    before = _processes("misbehave.exe")
    assert len(before) == 2, "the service and the child that it leaks"
    os.kill(held.process.pid, signal.SIGKILL)
    wait_for(lambda: not held.answers(), "the service to end")
    wait_for(lambda: not _processes("misbehave.exe") & before, "its child to end")


def _processes(name: str) -> set[int]:
    """Living processes of this machine that run a Windows program of this name."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            command = (folder / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if state != "Z" and command.endswith(name.encode()):
            found.add(int(folder.name))
    return found
