"""docs/scenarios.md: each of its locustfiles is one that a generator accepts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from driven import scenario
from servers import HERE, serving

from workers.load.process import check_scenario
from workers.spec import LoadSpec

PAGE = HERE.parents[1] / "docs/scenarios.md"
FILES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def name_of(text: str) -> str:
    return re.findall(r"class (\w+)", text)[0]


def test_the_page_has_its_locustfiles() -> None:
    assert [name_of(text) for text in FILES] == [
        "Reader", "Shopper", "Visitor", "Caller", "Talker",
    ]  # fmt: skip


@pytest.mark.parametrize("text", FILES, ids=name_of)
def test_a_locustfile_of_the_page_is_accepted(tmp_path: Path, text: str) -> None:
    (tmp_path / "people.csv").write_text("id,name\n7,ann\n")
    (tmp_path / "shop.proto").write_text(
        'syntax = "proto3"; package shop.v1; message Item { int32 id = 1; }'
        "service Shop { rpc Get(Item) returns (Item); }"
    )
    path = scenario(tmp_path, text)
    check_scenario(LoadSpec(scenario=str(path), users=1, arrivals=None, seed=1), tmp_path)


def test_all_kinds_of_users_work_in_plain_locust(tmp_path: Path) -> None:
    code = ["-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={tmp_path}"]
    code += [f"--grpc_python_out={tmp_path}", "echo.proto"]
    subprocess.run([sys.executable, *code], check=True)
    (tmp_path / "people.csv").write_text("id\n7\n8\n")
    with serving("echo_server.py", str(tmp_path)) as rpc, serving("talk_server.py") as talk:
        path = scenario(
            tmp_path,
            f"""
            from locust import task
            from workloads.feeders import Feeder
            from workloads.grpc_users import GrpcUser
            from workloads.sessions import think
            from workloads.users import HttpUser
            from workloads.websocket_users import WebSocketUser

            people = Feeder("people.csv", mode="circular")

            class Caller(GrpcUser):
                target = "127.0.0.1:{rpc.port}"

                @task
                def say(self):
                    text = people.next()["id"]
                    assert self.stub("Echo").Say({{"text": text}}, name="said").text == text
                    think(0.05)

            class Talker(WebSocketUser):
                @task
                def talk(self):
                    with self.connect("{talk.base_url}", name="connected") as talk:
                        talk.ask("hello", name="asked")

            class Lost(HttpUser):
                @task
                def lost(self):
                    self.client.get("/", name="refused")
            """,
        )
        command = [
            "-m",
            "locust",
            "-f",
            str(path),
            "--headless",
            "--users=3",
            "--spawn-rate=3",
            "--run-time=4s",
        ]
        command += ["--host=http://127.0.0.1:9", "--json", "--exit-code-on-error=0"]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True, cwd=tmp_path
        )
    counted = {name: re.search(f'"{name}"', done.stdout) for name in ("said", "asked", "refused")}
    assert all(counted.values()), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
