"""What sampling costs on Windows: the real loop in Windows Python, at a real Windows service.

Run by a Windows Python as `python -m tests.benchmarks.windows_sampler PROGRAM FOLDER PORT` it
starts the service in its job and waits; after a line on standard input it samples until the next.

CPU time is read from outside, in nanoseconds, as the kernel that runs Wine counts it for every
thread of that Python (/proc/PID/task/*/schedstat): once while it only waits, once while it samples.
Windows' own count of a thread moves in steps of its clock.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil

from results.clock import ClockMap
from results.schema import MEMORY
from tests.benchmarks.figures import Figure

AREA = "cluster"
LENGTH_S = 20.0
SETTLE_S = 1.0
ROUNDS = 3
RATE_HZ = 10
ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ("-live", "64MiB", "-object", "4KiB")


def windows_sampler() -> Iterator[Figure]:
    """Rounds of waiting and sampling. Raises EnvironmentLacks where there is no Wine."""
    from orchestrator.builds.builds import build_go
    from orchestrator.builds.toolchains import ensure
    from tests.wine.machine import windows_path
    from tests.wine.prefix import windows_python

    service = ROOT / "workloads" / "services" / "sessioncache"
    program = build_go(ensure("1.23"), service, goos="windows").path
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        windows = stack.enter_context(windows_python())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        python = windows.popen(
            ["-m", "tests.benchmarks.windows_sampler",
             windows_path(program), windows_path(folder), str(port), *ARGUMENTS]
        )  # fmt: skip
        stack.callback(_end, python)
        server = next(p for p in psutil.process_iter() if _serves(p, windows.prefix))
        _ask(python)
        rounds = [_round(python, server.pid) for _ in range(ROUNDS)]
    shares, servers = zip(*rounds, strict=True)
    name = f"Windows sampler at {RATE_HZ} Hz under Wine"
    yield Figure.at_most(AREA, name, median(shares), "% core", 0.5)
    yield Figure.told(AREA, f"{name}, worst round", max(shares), "% core")
    yield Figure.told(AREA, f"{name}: Wine's own server for it", median(servers), "% core")


def _end(python: subprocess.Popen[bytes]) -> None:
    """It ends when its input does."""
    assert python.stdin
    python.stdin.close()
    python.wait(30)


def _serves(process: psutil.Process, prefix: Path) -> bool:
    try:
        named = process.name().startswith("wineserver")
        return named and process.environ().get("WINEPREFIX") == str(prefix)
    except psutil.Error:
        return False


def _ask(python: subprocess.Popen[bytes], line: str = "") -> str:
    """Send a line if there is one, and read the answer."""
    assert python.stdin and python.stdout and python.stderr
    if line:
        python.stdin.write(f"{line}\n".encode())
        python.stdin.flush()
    answer = python.stdout.readline().decode().strip()
    assert answer, python.stderr.read().decode()
    return answer


def _round(python: subprocess.Popen[bytes], server: int) -> tuple[float, float]:
    """What sampling adds to waiting: percent of a core in Python, and in Wine's server."""
    waiting = _shares(python.pid, server)
    _ask(python, "begin")
    sampling = _shares(python.pid, server)
    samples = int(_ask(python, "end"))
    assert samples >= 0.9 * LENGTH_S * RATE_HZ, f"only {samples} samples were taken"
    return sampling[0] - waiting[0], sampling[1] - waiting[1]


def _shares(*pids: int) -> list[float]:
    # The time of a thread that has ended is not counted: that of the last round is gone by then.
    time.sleep(SETTLE_S)
    before_ns, began_s = [_used_ns(pid) for pid in pids], time.monotonic()
    time.sleep(LENGTH_S)
    took_s = time.monotonic() - began_s
    return [
        100 * (_used_ns(pid) - before) / 1e9 / took_s
        for pid, before in zip(pids, before_ns, strict=True)
    ]


def _used_ns(pid: int) -> int:
    """Nanoseconds on a processor of a process's threads (proc(5), sched-stats.rst)."""
    found = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in found)


def main() -> None:
    """The part that runs on Windows."""
    from workers.launch.deployment import Deployment
    from workers.launch.windows import ServiceProcess
    from workers.limits import open_limiter
    from workers.sampling.loop import SampleLoop
    from workers.spec import BinarySpec, ServiceSpec
    from workers.spool import Spool

    program, folder, port, *arguments = sys.argv[1:]
    spec = ServiceSpec(
        name="sampled",
        binary=BinarySpec(argv0=program, copy=False, sha256="", size_bytes=0),
        arguments=("-addr", "{host}:{port}", *arguments),
        environment=(),
        port=int(port),
        ready_path=None,
        ready_timeout_ns=0,
        stop_timeout_ns=0,
        go_runtime=True,
    )
    limiter = open_limiter("bench", "sampler")
    service = ServiceProcess(
        spec,
        Deployment(program, Path(folder), int(port)),
        launcher=Path(),
        limiter=limiter,
        cores=(),
    )
    stream = Spool(Path(folder) / "spool", "bench", "sampler").stream(MEMORY)
    _say("ready")
    while sys.stdin.readline().strip() == "begin":
        loop = SampleLoop(
            service.pid,
            limiter,
            interval_ns=1_000_000_000 // RATE_HZ,
            sink=stream.append,
            phase=lambda: "measure",
            clock=ClockMap.read(),
        )
        loop.start()
        _say("sampling")
        sys.stdin.readline()
        loop.stop()
        _say(str(loop.samples))
    service.kill()
    service.finish()
    limiter.remove()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
