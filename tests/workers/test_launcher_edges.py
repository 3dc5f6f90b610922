"""The launcher in its less travelled corners: exactness, identity, and trees that hide."""

from __future__ import annotations

import json
import os
import queue
import signal
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

from workers.launch.linux import UNPRIVILEGED_ID
from workers.limits import open_limiter

PATIENCE_S = 20.0
PYTHON = os.path.realpath(sys.executable)


@dataclass
class Launched:
    """A running launcher: what it tells, and what its service prints."""

    process: subprocess.Popen[bytes]
    events: queue.Queue[dict[str, Any]]

    def event(self, name: str) -> dict[str, Any]:
        """The next event, which must be the named one."""
        event = self.events.get(timeout=PATIENCE_S)
        assert event["event"] == name, event
        return event

    def say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def let_go(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().decode().rstrip("\n")

    def tree(self, size: int) -> list[psutil.Process]:
        """All processes below the launcher, as soon as there are `size` of them."""
        launcher = psutil.Process(self.process.pid)
        poll(lambda: len(launcher.children(recursive=True)) == size)
        return launcher.children(recursive=True)


Launch = Callable[..., Launched]


def poll(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "did not come true in time"
        pause.wait(0.01)


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def launch(launcher: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start programs through the launcher; all of them are ended afterwards."""
    started: list[Launched] = []

    def start(*argv: str, before: tuple[str, ...] = (), **document: Any) -> Launched:
        plain: dict[str, Any] = {
            "env": [],
            "dir": "/",
            "uid": None,
            "gid": None,
            "cpus": [],
            "join": [],
        }
        spec_file = tmp_path / f"launch{len(started)}.json"
        spec_file.write_text(json.dumps(plain | {"argv": argv} | document))
        started.append(start_launcher([*before, str(launcher), str(spec_file)]))
        return started[-1]

    yield start
    for launched in started:
        with launched.process:
            launched.let_go()
            launched.process.wait(PATIENCE_S)


def start_launcher(command: list[str]) -> Launched:
    status_read, status_write = os.pipe()
    process = subprocess.Popen(
        [*command, str(status_write)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(status_write,),
        start_new_session=True,
    )
    os.close(status_write)
    events: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        with os.fdopen(status_read, encoding="utf-8") as lines:
            for line in lines:
                events.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    return Launched(process, events)


def output_of(launched: Launched) -> str:
    """What a service printed that ends by itself."""
    assert launched.process.stdout
    text = launched.process.stdout.read().decode()
    launched.event("started")
    assert launched.event("exited")["code"] == 0, text
    return text


def status_of(launched: Launched) -> dict[str, str]:
    """The fields of /proc/self/status of a service that prints them."""
    lines = (line.partition(":") for line in output_of(launched).splitlines())
    return {name: value.strip() for name, _, value in lines}


def test_started_is_told_when_the_program_runs(launch: Launch) -> None:
    launched = launch("/bin/sleep", "60")
    pid = launched.event("started")["pid"]
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/sleep\00060\0"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"argv": ["/no/such/program"]}, "/no/such/program: no such file"),
        ({"argv": ["/etc/passwd"]}, "/etc/passwd: permission denied"),
        ({"argv": []}, "argv is empty"),
        ({"dir": "/no/such/folder"}, "/no/such/folder: no such file"),
        ({"join": ["/no/such/group/cgroup.procs"]}, "control group: open /no/such/group"),
        ({"cpus": [8000]}, "cores [8000]: invalid argument"),
    ],
)
def test_what_can_not_be_started_is_told_with_its_cause(
    launch: Launch, document: dict[str, Any], text: str
) -> None:
    launched = launch("/bin/true", **document)
    assert text in launched.event("failed")["text"]
    assert launched.event("done")["leaked"] == 0
    assert launched.process.wait(PATIENCE_S) == 1


def test_a_broken_specification_is_named(launcher: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    launched = start_launcher([str(launcher), str(broken)])
    with launched.process:
        assert str(broken) in launched.event("failed")["text"]


def test_arguments_arrive_as_they_are(launch: Launch) -> None:
    odd = ["two words", "", "$HOME", "it's", "ü\nö"]
    launched = launch("/bin/sh", "-c", "cat /proc/$$/cmdline; exit", "name", *odd)
    assert output_of(launched).split("\0")[4:-1] == odd


@pytest.mark.parametrize("env", [[], ["B=2", "A=1", "EMPTY=", "A=again", "TEXT=a b=c"]])
def test_the_environment_is_exactly_the_given_one(launch: Launch, env: list[str]) -> None:
    launched = launch("/bin/cat", "/proc/self/environ", env=env)
    assert output_of(launched) == "".join(f"{entry}\0" for entry in env)


def test_the_service_inherits_its_output_and_nothing_else(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "/bin/readlink /proc/$$/fd/0; /bin/ls /proc/$$/fd")
    assert output_of(launched).split() == ["/dev/null", "0", "1", "2"]


def test_the_service_starts_in_its_folder(launch: Launch, tmp_path: Path) -> None:
    launched = launch("/bin/readlink", "/proc/self/cwd", dir=str(tmp_path))
    assert output_of(launched).strip() == str(tmp_path)


def test_signals_are_neither_blocked_nor_ignored(launch: Launch) -> None:
    nohup = ("/bin/sh", "-c", 'trap "" HUP INT QUIT PIPE; exec "$0" "$@"')
    status = status_of(launch("/bin/cat", "/proc/self/status", before=nohup))
    # Signals 32 and 33 belong to the C library: what a test runner was started with is handed on.
    ordinary = 2**31 - 1
    assert int(status["SigBlk"], 16) & ordinary == 0
    assert int(status["SigIgn"], 16) & ordinary == 0


def test_the_limit_of_open_files_is_handed_on(launch: Launch) -> None:
    lower = ("/bin/sh", "-c", 'ulimit -Sn 345; exec "$0" "$@"')
    launched = launch("/bin/sh", "-c", "ulimit -Sn", before=lower)
    assert output_of(launched).strip() == "345"


def test_without_cores_the_service_runs_on_all_of_ours(launch: Launch) -> None:
    own = Path("/proc/self/status").read_text()
    status = status_of(launch("/bin/cat", "/proc/self/status"))
    assert f"Cpus_allowed_list:\t{status['Cpus_allowed_list']}\n" in own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_service_has_no_rights_but_its_own_users(launch: Launch) -> None:
    identity = UNPRIVILEGED_ID
    status = status_of(launch("/bin/cat", "/proc/self/status", uid=identity, gid=identity))
    assert status["Uid"].split() == status["Gid"].split() == [str(identity)] * 4
    assert status["Groups"] == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


def test_the_launcher_itself_stays_outside_the_group(
    launch: Launch, needs_memory_cgroup: None
) -> None:
    limiter = open_limiter("test-launcher", f"outside-{os.getpid()}")
    try:
        launched = launch("/bin/sleep", "60", join=list(limiter.join_paths))
        pid = launched.event("started")["pid"]
        assert limiter.processes() == [pid]
        launched.say("kill")
        launched.event("exited")
    finally:
        limiter.remove()


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -SEGV $$", None, signal.SIGSEGV)],
)
def test_how_the_service_ended_is_told(
    launch: Launch, script: str, code: int | None, number: int | None
) -> None:
    launched = launch("/bin/sh", "-c", script)
    launched.event("started")
    exited = launched.event("exited")
    assert (exited["code"], exited["signal"]) == (code, number)
    assert launched.event("done")["leaked"] == 0
    assert launched.process.wait(PATIENCE_S) == 0


def test_term_reaches_the_service_and_only_the_service(launch: Launch) -> None:
    script = "trap 'echo bye; exit 5' TERM; sleep 60 & echo ready; wait"
    launched = launch("/bin/sh", "-c", script)
    launched.event("started")
    assert launched.line() == "ready"
    launched.say("term")
    assert launched.line() == "bye"
    assert launched.event("exited")["code"] == 5
    assert launched.event("done")["leaked"] == 1, "the sleeping child was not signalled"


WIDE_TREE = """
trap '' TERM
setsid sleep 60 &
(setsid sh -c 'sleep 60 & sleep 60 & wait' &)
wait
"""


@pytest.mark.parametrize("end", [lambda launched: launched.say("kill"), Launched.let_go])
def test_the_whole_tree_is_ended(launch: Launch, end: Callable[[Launched], None]) -> None:
    launched = launch("/bin/sh", "-c", WIDE_TREE)
    launched.event("started")
    tree = launched.tree(5)
    end(launched)
    assert launched.event("exited")["signal"] == signal.SIGKILL
    assert launched.event("done")["leaked"] == 0
    assert all(has_ended(process) for process in tree)
    assert launched.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("identity", [None, UNPRIVILEGED_ID])
def test_the_service_dies_with_a_killed_launcher(launch: Launch, identity: int | None) -> None:
    if identity and os.geteuid() != 0:
        pytest.skip("only root may become another user")
    launched = launch("/bin/sleep", "60", uid=identity, gid=identity)
    service = psutil.Process(launched.event("started")["pid"])
    launched.process.kill()
    poll(lambda: has_ended(service))


def test_what_outlives_the_service_is_counted_and_ended(launch: Launch) -> None:
    launched = launch("/bin/sh", "-c", "setsid sleep 60 & (setsid sleep 60 &) ; read line; exit 3")
    launched.event("started")
    assert launched.event("exited")["code"] == 3
    assert launched.event("done")["leaked"] == 2
    assert launched.process.wait(PATIENCE_S) == 0


def test_what_ends_with_the_service_is_not_a_leak(launch: Launch, tmp_path: Path) -> None:
    launched = launch("/bin/sh", "-c", "mkfifo f; cat f & exec 3>f; exit 0", dir=str(tmp_path))
    launched.event("started")
    launched.event("exited")
    assert launched.event("done")["leaked"] == 0


THREAD_WITHOUT_A_MAIN_THREAD = """
import ctypes, threading
threading.Thread(target=threading.Event().wait).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_has_ended_is_still_ended(launch: Launch) -> None:
    launched = launch(PYTHON, "-c", THREAD_WITHOUT_A_MAIN_THREAD)
    service = psutil.Process(launched.event("started")["pid"])
    assert launched.line() == "ready"
    poll(lambda: service.status() == psutil.STATUS_ZOMBIE)
    launched.say("kill")
    assert launched.event("exited")["signal"] == signal.SIGKILL
