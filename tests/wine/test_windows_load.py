"""Every kind of user makes its load from Windows too: each request is a row there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.matrices import ROOT
from tests.wine.machine import WindowsPython, windows_path
from tests.workloads.servers import HERE, Server, serving

RATE_RPS = 50
HTTP = """
    from locust import task
    from workloads.users import HttpUser

    class Reader(HttpUser):
        @task
        def read(self):
            assert self.client.get("/", name="page").status_code == 200
"""
GRPC = """
    from locust import task
    from workloads.grpc_users import GrpcUser

    class Caller(GrpcUser):
        protos = "echo.proto"

        @task
        def say(self):
            assert self.stub("Echo").Say({"text": "hello", "count": 3}).count == 3
"""
WEBSOCKET = """
    from locust import task
    from workloads.websocket_users import WebSocketUser

    class Talker(WebSocketUser):
        @task
        def talk(self):
            with self.connect("/talk") as talk:
                assert talk.ask("hello", name="greet") == "hello"
"""


def made(
    windows: WindowsPython, folder: Path, text: str, server: Server, processes: int = 1
) -> dict[str, Any]:
    """What a load of a second came to."""
    scenario = folder / "locustfile.py"
    scenario.write_text(textwrap.dedent(text))
    own = folder / "own"
    own.mkdir()
    done = windows.run(
        ["-m", "tests.wine.one_load", windows_path(scenario), server.base_url,
         str(RATE_RPS), str(processes), windows_path(own)]
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    account = found["account"]
    assert account, found["log"]
    assert account["planned"] == RATE_RPS
    assert account["lost"] == account["unrecorded"] == account["failed"] == 0
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_the_fast_user(machine: WindowsPython, tmp_path: Path, processes: int) -> None:
    with serving("plain_server.py") as server:
        found = made(machine, tmp_path, HTTP, server, processes)
    assert found["account"]["sent"] + found["account"]["not_sent"] == RATE_RPS
    assert found["rows"] == [["GET", "page", 200, "", found["account"]["sent"]]]


def test_grpc(machine: WindowsPython, tmp_path: Path) -> None:
    shutil.copy(HERE / "echo.proto", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={tmp_path}",
         f"--grpc_python_out={tmp_path}", "echo.proto"],
        check=True, cwd=ROOT,
    )  # fmt: skip
    with serving("echo_server.py", str(tmp_path)) as server:
        found = made(machine, tmp_path, GRPC, server)
    name = "heapgate.test.v1.Echo/Say"
    assert found["rows"] == [["gRPC", name, 200, "", found["account"]["sent"]]]


def test_websocket(machine: WindowsPython, tmp_path: Path) -> None:
    with serving("talk_server.py") as server:
        found = made(machine, tmp_path, WEBSOCKET, server)
    sent = found["account"]["sent"]
    rows = {(method, name): count for method, name, _, _, count in found["rows"]}
    assert sum(rows.values()) == sent
    assert rows["WebSocket", "/talk"] == rows["WebSocket message", "greet"]
