"""Machines for tests: a state folder each, and on request a network namespace each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Machine:
    """A state folder, and the commands that a user of it would type."""

    state: Path
    namespace: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HEAPGATE_STATE": str(self.state)} | self.variables

    @property
    def prefix(self) -> list[str]:
        # Not `ip netns exec`: it mounts another /sys, in which there are no control groups.
        return ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []

    def bench(self, *arguments: str, code: int | None = 0) -> str:
        """What a command prints, on both outputs; it must end with `code` unless that is None."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "orchestrator.cli", *arguments],
            check=False,
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.stdout}"
        return done.stdout

    def python(self, code: str, *arguments: str) -> str:
        """What a program prints."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "-c", code, *arguments],
            check=False,
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def folder(self, kind: str) -> Path:
        return self.state / "cluster" / kind

    def head_settings(self) -> dict[str, Any]:
        return dict(json.loads((self.folder("head") / "head.json").read_text()))

    @property
    def head_address(self) -> str:
        settings = self.head_settings()
        return f"{settings['address']}:{settings['port']}"

    @property
    def secret(self) -> Path:
        return self.folder("head") / "cluster.secret"

    def nodes(self) -> dict[str, dict[str, Any]]:
        """`bench node ls --json` by name."""
        out = self.bench("node", "ls", "--json")
        # A command first tells, on its other output, what a killed run had left.
        return {node["name"]: node for node in json.loads(out[out.index("[") :])}

    def log(self, kind: str) -> str:
        return (self.folder(kind) / "daemon.log").read_text()

    def daemon(self, kind: str) -> psutil.Process:
        return psutil.Process(int((self.folder(kind) / "pid").read_text()))

    def family(self, kind: str) -> list[psutil.Process]:
        """A daemon and all that came of it."""
        daemon = self.daemon(kind)
        return [daemon, *daemon.children(recursive=True)]

    def end(self) -> None:
        self.bench("node", "leave", code=None)


def join(head: Machine, node: Machine, name: str, *more: str, code: int | None = 0) -> str:
    return node.bench(
        "node", "join", head.head_address, "--secret", str(head.secret), "--name", name, *more,
        code=code,
    )  # fmt: skip


def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come in time"
        pause.wait(0.1)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@contextmanager
def linked_namespaces(name: str, subnet: str) -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: `.1` in the first, `.2` in the second."""
    first, second = f"{name}-a", f"{name}-b"
    commands = [
        f"ip netns add {first}",
        f"ip netns add {second}",
        f"ip link add {name}a netns {first} type veth peer name {name}b netns {second}",
        f"ip -n {first} addr add {subnet}.1/24 dev {name}a",
        f"ip -n {second} addr add {subnet}.2/24 dev {name}b",
        f"ip -n {first} link set {name}a up",
        f"ip -n {second} link set {name}b up",
        f"ip -n {first} link set lo up",
        f"ip -n {second} link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield first, second
    finally:
        for namespace in (first, second):
            subprocess.run(["ip", "netns", "del", namespace], check=False)
