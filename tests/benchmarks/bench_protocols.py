"""What a request of each kind of user costs the load generator, and whether gRPC calls wait.

CPU time for each request, in closed loops of 16 users, beside that of Locust's FastHttpUser in the
same run: the servers are Python programs on other cores, and their speed does not matter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.figures import Figure

AREA = "load"
HERE = Path(__file__).resolve().parents[1] / "workloads"
ROUNDS = 3
HTTP = 'self.client.get("/items", name="item")'
TALK = """
        if not hasattr(self, "talk"):
            self.talk = self.connect("/talk")
        self.talk.ask("hello", name="talk")
"""
KINDS = {
    "FastHttpUser": ("locust", "FastHttpUser", "plain_server.py", HTTP),
    "Locust's HttpUser": ("locust", "HttpUser", "plain_server.py", HTTP),
    "our HttpUser": ("workloads.users", "HttpUser", "plain_server.py", HTTP),
    "GrpcUser": (
        "workloads.grpc_users",
        "GrpcUser",
        "echo_server.py",
        'self.stub("Echo").Say({"text": "hello"})',
    ),
    "WebSocketUser": ("workloads.websocket_users", "WebSocketUser", "talk_server.py", TALK),
}
SCENARIO = """
from locust import task
from {module} import {user}

class Asking({user}):
    protos = "echo.proto"

    @task(4)
    def ask(self):
        {body}
"""
SLOW = """
    @task(1)
    def wait(self):
        self.stub("Echo").Say({"wait": "2s"}, name="slow")
"""


def figures() -> Iterator[Figure]:
    """CPU time for each request by kind of user, as a multiple of FastHttpUser's; and lag."""
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        costs: dict[str, list[float]] = {name: [] for name in KINDS}
        addresses = _served(Path(folder), servers)
        for round_ in range(ROUNDS):
            for name in KINDS:
                costs[name].append(_cost_us(name, Path(folder) / f"{round_}-{name}", addresses))
        base = median(costs["FastHttpUser"])
        yield Figure.told(AREA, "CPU of a request, FastHttpUser", base, "µs")
        for name in list(KINDS)[1:]:
            share = median(costs[name]) / base
            yield Figure.told(AREA, f"CPU of a request, {name}", share, "× FastHttpUser")
        yield from _crowd(Path(folder), addresses)


def _served(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start each server; their addresses by program."""
    from servers import serving

    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}",
         f"--grpc_python_out={folder}", "echo.proto"],
        check=True,
    )  # fmt: skip
    programs = {"plain_server.py": [], "talk_server.py": [], "echo_server.py": [str(folder)]}
    return {
        program: stack.enter_context(serving(program, *arguments)).base_url
        for program, arguments in programs.items()
    }


def _scenario(name: str, folder: Path) -> str:
    """The locustfile of a kind of user, with what it needs beside it."""
    module, user, _, body = KINDS[name]
    folder.mkdir()
    shutil.copy(HERE / "echo.proto", folder)
    return SCENARIO.format(module=module, user=user, body=body)


def _cost_us(name: str, folder: Path, addresses: dict[str, str]) -> float:
    from driven import driven

    text, address = _scenario(name, folder), addresses[KINDS[name][2]]
    done = driven(folder, text, address, users=16, warmup_ms=500, measure_ms=2000)
    assert done.load.failed == 0, {(row["name"], row["error"]) for row in done.rows}
    return done.load.cpu_share * 2e6 / done.load.measured


def _crowd(folder: Path, addresses: dict[str, str]) -> Iterator[Figure]:
    """Quick calls while 200 slow ones are under way: they must not wait for those."""
    from driven import constant, driven

    folder = folder / "crowd"
    text = _scenario("GrpcUser", folder) + SLOW
    how = {"arrivals": constant(500, 512), "measure_ms": 3000}
    done = driven(folder, text, addresses["echo_server.py"], **how)
    quick = [row["service_ns"] for row in done.rows if row["name"] != "slow"]
    p99_ms = float(np.quantile(quick, 0.99)) / 1e6
    # One that had to wait for a slow one would take up to two seconds.
    yield Figure.at_most(AREA, "quick gRPC calls among 200 slow ones, p99", p99_ms, "ms", 500)
