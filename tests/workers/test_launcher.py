"""The launcher: what it promises of the process it starts, and that nothing survives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.limits import open_limiter

PYTHON = os.path.realpath(sys.executable)


class Launched:
    """A launcher under test and what it told."""

    def __init__(self, launcher: Path, folder: Path, **spec: Any) -> None:
        document = {"env": [], "dir": "/", "uid": None, "gid": None, "cpus": [], "join": []} | spec
        path = folder / "launch.json"
        path.write_text(json.dumps(document))
        reader, writer = os.pipe()
        self.process = subprocess.Popen(
            [launcher, path, str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        self._status = os.fdopen(reader)
        self.events: dict[str, dict[str, Any]] = {}

    def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self._status.readline())
        self.events[event["event"]] = event
        return event

    def say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def rest(self) -> str:
        """Wait for the end; the service's output."""
        while "done" not in self.events:
            self.next()
        assert self.process.stdout
        return self.process.stdout.read().decode()

    def close(self) -> None:
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self._status):
            if stream:
                stream.close()
        self.process.wait()


Launch = Callable[..., Launched]


@pytest.fixture
def launch(launcher: Path, tmp_path: Path) -> Iterator[Launch]:
    started: list[Launched] = []

    def make(*argv: str, **spec: Any) -> Launched:
        started.append(Launched(launcher, tmp_path, argv=list(argv), **spec))
        return started[-1]

    yield make
    for launched in started:
        launched.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        assert gone(pid), f"{pid} still runs"


def test_exit_code_environment_folder_and_output(launch: Launch, tmp_path: Path) -> None:
    launched = launch("/bin/sh", "-c", "env; pwd; exit 3", env=["A=1", "B=x y"], dir=str(tmp_path))
    output = launched.rest().splitlines()
    assert {"A=1", "B=x y", str(tmp_path)} <= set(output)
    assert not [line for line in output if line.startswith("HOME=")], "nothing is inherited"
    assert launched.events["exited"]["code"] == 3
    assert launched.events["exited"]["signal"] is None
    assert launched.events["done"]["leaked"] == 0


def test_a_program_that_is_not_there_is_told_and_never_started(launch: Launch) -> None:
    launched = launch("/nowhere/service")
    launched.rest()
    assert "started" not in launched.events
    assert "/nowhere/service" in launched.events["failed"]["text"]
    assert "no such file" in launched.events["failed"]["text"]


def test_a_text_file_is_no_program(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "service").write_text("not a program")
    (tmp_path / "service").chmod(0o755)
    launched = launch(str(tmp_path / "service"))
    launched.rest()
    assert "exec format error" in launched.events["failed"]["text"]


def test_term_asks_and_kill_ends_the_tree(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    launched.next()
    assert launched.process.stdout
    assert launched.process.stdout.readline() == b"up\n"
    launched.say("term")
    launched.rest()
    assert launched.events["exited"]["code"] == 5
    stubborn = launch("/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    stubborn.next()
    assert stubborn.process.stdout
    assert stubborn.process.stdout.readline() == b"up\n"
    stubborn.say("term")
    stubborn.say("kill")
    stubborn.rest()
    assert stubborn.events["exited"]["signal"] == 9


def test_the_end_of_its_input_ends_everything_that_the_service_started(launch: Launch) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True); time.sleep(60)\n"
        "    os._exit(0)\n"
        "time.sleep(60)\n"
    )
    launched = launch(PYTHON, "-c", code)
    pid = launched.next()["pid"]
    assert launched.process.stdout
    grandchild = int(launched.process.stdout.readline())
    assert launched.process.stdin
    launched.process.stdin.close()
    wait_gone(pid)
    wait_gone(grandchild)
    assert launched.process.wait(10) == 0


def test_the_service_dies_with_a_killed_launcher(launch: Launch) -> None:
    launched = launch("/bin/sleep", "60")
    pid = launched.next()["pid"]
    launched.process.kill()
    wait_gone(pid)


def test_leaked_processes_are_counted_and_ended(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "setsid sleep 60 & setsid sleep 60 & exit 0")
    launched.next()
    launched.rest()
    assert launched.events["done"]["leaked"] == 2
    assert not [p for p in psutil.process_iter() if p.ppid() == launched.process.pid]


def test_a_small_service_of_a_fat_parent_reports_its_own_peak(launch: Launch) -> None:
    ballast = bytearray(200 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    launched = launch("/bin/true")
    launched.rest()
    assert launched.events["exited"]["max_rss_bytes"] < 20 * 2**20


def test_affinity(launch: Launch) -> None:
    core = min(os.sched_getaffinity(0))
    launched = launch("/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status", cpus=[core])
    assert launched.rest().split() == ["Cpus_allowed_list:", str(core)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_gives_up_roots_rights(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "id -u; id -g; id -G", uid=61234, gid=61234)
    assert launched.rest().split() == ["61234", "61234", "61234"]


def test_only_standard_streams_are_inherited(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "ls -l /proc/self/fd | awk '{print $9, $11}'")
    lines = [line.split() for line in launched.rest().splitlines() if line.strip()]
    numbers = {int(words[0]): words[1] for words in lines}
    assert numbers.pop(0) == "/dev/null"
    del numbers[1], numbers[2]
    assert all("/proc/" in target for target in numbers.values()), numbers


def test_it_is_in_its_group_from_the_first_instruction(
    launch: Launch, needs_memory_cgroup: None
) -> None:
    limiter = open_limiter("launcher-test", f"t{os.getpid()}")
    try:
        launched = launch("/bin/cat", "/proc/self/cgroup", join=list(limiter.join_paths))
        output = launched.rest()
        assert f"/heapgate/launcher-test/t{os.getpid()}" in output
        counters = limiter.read()
        assert counters and counters.peak_bytes and counters.peak_bytes > 0
    finally:
        limiter.remove()
