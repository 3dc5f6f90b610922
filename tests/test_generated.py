"""What is generated and committed is what would be generated now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import DOCS, pages

ROOT = Path(__file__).resolve().parents[1]


def test_the_wire_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    telemetry, cluster, profile = (
        (f"--proto_path=results/wire=proto/heapgate/{name}/v1", f"results/wire/{name}.proto")
        for name in ("telemetry", "cluster", "profile")
    )
    grpc = (f"--grpc_python_out={tmp_path}", f"--mypy_grpc_out=quiet:{tmp_path}")
    for arguments in ((*telemetry, *cluster, *grpc), profile):
        _protoc(f"--python_out={tmp_path}", f"--mypy_out=quiet:{tmp_path}", *arguments)
    made = sorted((tmp_path / "results" / "wire").iterdir())
    assert len(made) == 10
    for path in made:
        assert path.read_text() == (ROOT / "results" / "wire" / path.name).read_text(), path.name


def _protoc(*arguments: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        check=True,
    )


@pytest.mark.parametrize("name", ["matrix.md", "sql.md", "cli.md", "watching.md"])
def test_the_reference_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run: make docs"


def test_every_command_has_an_example() -> None:
    text = pages()["cli.md"]
    commands = text.split("\n## `bench ")[1:]
    assert len(commands) >= 12
    for command in commands:
        assert "Example: bench" in command, command.splitlines()[0]
