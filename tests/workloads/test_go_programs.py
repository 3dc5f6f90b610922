"""The Go programs of this project: formatted, vetted, and their own tests pass."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator import cache
from orchestrator.builds import toolchains

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for folder in ("workloads", "workers", "tests")
    for path in (ROOT / folder).rglob("go.mod")
)


def go(module: str, *arguments: str, version: str = "1.22") -> subprocess.CompletedProcess[str]:
    toolchain = toolchains.ensure(version)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(cache.folder("go", "home")),
        "GOCACHE": str(cache.folder("go", "build")),
        "GOROOT": str(toolchain.goroot),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
    }
    return subprocess.run(
        [toolchain.goroot / "bin" / arguments[0], *arguments[1:]],
        cwd=ROOT / module,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_modules_are_found() -> None:
    assert {"workloads/services/sessioncache", "workers/launcher"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_it_is_formatted_and_vetted(module: str) -> None:
    formatted = go(module, "gofmt", "-l", ".")
    assert (formatted.stdout, formatted.stderr) == ("", "")
    vetted = go(module, "go", "vet", "./...")
    assert vetted.returncode == 0, vetted.stderr


@pytest.mark.parametrize("module", [m for m in MODULES if any((ROOT / m).glob("**/*_test.go"))])
def test_its_own_tests_pass(module: str) -> None:
    done = go(module, "go", "test", "-count=1", "./...")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no test files" not in done.stdout
