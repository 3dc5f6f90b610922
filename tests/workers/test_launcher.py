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
        plain = {"env": [], "dir": "/", "uid": None, "gid": None, "cpus": [], "join": []}
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
    status = status_of(launch("/bin/cat", "/proc/self/status"))
    assert (int(status["SigBlk"], 16), int(status["SigIgn"], 16)) == (0, 0)


def test_the_limit_of_open_files_is_handed_on(launch: Launch) -> None:
    lower = ("/bin/sh", "-c", 'ulimit -Sn 345; exec "$0" "$@"')
    launched = launch("/bin/sh", "-c", "ulimit -Sn", before=lower)
    assert output_of(launched).strip() == "345"


def test_the_service_runs_on_its_cores_only(launch: Launch) -> None:
    core = max(os.sched_getaffinity(0))
    status = status_of(launch("/bin/cat", "/proc/self/status", cpus=[core]))
    assert status["Cpus_allowed_list"] == str(core)


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


def test_the_service_is_in_its_group_from_the_first_instruction(
    launch: Launch, needs_memory_cgroup: None
) -> None:
    limiter = open_limiter("test-launcher", f"first-{os.getpid()}")
    try:
        launched = launch("/bin/cat", "/proc/self/cgroup", "-", join=list(limiter.join_paths))
        groups = output_of(launched)
        for path in limiter.join_paths:
            assert f"/heapgate/test-launcher/{Path(path).parent.name}\n" in groups
    finally:
        limiter.remove()


def test_the_launcher_itself_stays_outside_the_group(
    launch: Launch, needs_memory_cgroup: None
) -> None:
    limiter = open_limiter("test-launcher", f"outside-{os.getpid()}")
    try:
        launched = launch("/bin/sleep", "60", join=list(limiter.join_paths))
        assert limiter.processes() == [launched.event("started")["pid"]]
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


def test_a_fat_parent_does_not_show_in_the_services_peak(launch: Launch) -> None:
    ballast = b"\1" * 300 * 2**20
    launched = launch("/bin/true")
    launched.event("started")
    peak_bytes = launched.event("exited")["max_rss_bytes"]
    assert 0 < peak_bytes < 20 * 2**20 < len(ballast)


def test_the_services_own_peak_and_processor_time_are_told(launch: Launch) -> None:
    launched = launch("/usr/bin/head", "-c", "128M", "/dev/zero", "--lines=1")
    launched.event("started")
    exited = launched.event("exited")
    assert exited["user_ns"] + exited["system_ns"] > 1_000_000


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
    launched = launch(sys.executable, "-c", THREAD_WITHOUT_A_MAIN_THREAD)
    service = psutil.Process(launched.event("started")["pid"])
    assert launched.line() == "ready"
    poll(lambda: service.status() == psutil.STATUS_ZOMBIE)
    launched.say("kill")
    assert launched.event("exited")["signal"] == signal.SIGKILL
