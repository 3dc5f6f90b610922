"""The rules for GOGC and GOMEMLIMIT are those of a real Go runtime."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.builds.toolchains import Toolchain
from orchestrator.matrix import values

PROGRAM = """\
package main

import (
	"fmt"
	"runtime/debug"
)

func main() { fmt.Println(debug.SetGCPercent(50), debug.SetMemoryLimit(-1)) }
"""
WITHOUT_LIMIT = 2**63 - 1


@pytest.fixture(scope="session")
def program(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "go.mod").write_text("module settings\n\ngo 1.22\n")
    (folder / "main.go").write_text(PROGRAM)
    subprocess.run(
        [toolchain.go, "build", "-o", "settings", "."],
        cwd=folder,
        env=os.environ | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"},
        check=True,
    )
    return folder / "settings"


def settings(program: Path, **variables: str) -> tuple[int, int] | None:
    """GOGC and GOMEMLIMIT as the runtime sees them, None when it does not start."""
    done = subprocess.run([program], check=False, env=variables, capture_output=True, text=True)
    if done.returncode:
        assert "malformed GOMEMLIMIT" in done.stderr
        return None
    percent, limit_bytes = done.stdout.split()
    return int(percent), int(limit_bytes)


@pytest.mark.parametrize(
    "text",
    ["1280MiB", "512KiB", "12345B", "12345", "2TiB", "8388607TiB", "9223372036854775807", "007MiB"],
)
def test_what_we_accept_go_reads_as_we_do(program: Path, text: str) -> None:
    assert values.gomemlimit(text) == text
    assert settings(program, GOMEMLIMIT=text) == (100, values.gomemlimit_bytes(text))


@pytest.mark.parametrize(
    "text",
    [
        "1280M", "1280MB", "1280Mi", "1280mib", "1.5GiB", "-1", "1280MiB ", " 1280MiB", "８GiB",
        "8388608TiB", "9223372036854775808", "90%%", "MiB",
    ],
)  # fmt: skip
def test_what_go_dies_of_we_refuse(program: Path, text: str) -> None:
    assert settings(program, GOMEMLIMIT=text) is None
    with pytest.raises(ValueError, match=r"GOMEMLIMIT|share"):
        values.gomemlimit(text)


@pytest.mark.parametrize("text", ["30", "1", "250", "030", "2147483647"])
def test_gogc_that_we_accept_is_what_go_uses(program: Path, text: str) -> None:
    assert values.gogc(text) == text
    assert settings(program, GOGC=text) == (int(text), WITHOUT_LIMIT)


def test_off_is_off(program: Path) -> None:
    assert values.gogc("off") == values.gomemlimit("off") == "off"
    assert settings(program, GOGC="off", GOMEMLIMIT="off") == (-1, WITHOUT_LIMIT)


@pytest.mark.parametrize(
    "text", ["30%", " 30", "30 ", "abc", "", "OFF", "1e2", "30.5", "+30", "３０", "2147483648"]
)
def test_gogc_that_go_silently_takes_for_100_we_refuse(program: Path, text: str) -> None:
    assert settings(program, GOGC=text) == (100, WITHOUT_LIMIT)
    with pytest.raises(ValueError, match="silently use 100"):
        values.gogc(text)
