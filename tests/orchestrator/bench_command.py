"""Run the real `bench` command as a user would, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

BENCH = Path(sys.executable).with_name("bench")


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Workplace:
    """A folder with an archive, a state folder and a temp folder of its own."""

    root: Path

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def environment(self) -> dict[str, str]:
        (self.root / "tmp").mkdir(exist_ok=True)
        return os.environ | {
            "HEAPGATE_ARCHIVE": str(self.archive),
            "HEAPGATE_STATE": str(self.root / "state"),
            "TMPDIR": str(self.root / "tmp"),
            "COLUMNS": "120",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BENCH), *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def bench(self, *arguments: str, timeout_s: float = 240.0) -> Finished:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            raise AssertionError(f"{arguments} took too long:\n{out}\n{err}") from None
        return Finished(process.returncode, out, err)

    def run_ids(self) -> list[str]:
        return sorted(p.parent.name for p in self.archive.glob("*/run.json"))

    def strays(self) -> list[str]:
        """Processes that still carry the mark of one of our runs, and temp folders left."""
        ids = set(self.run_ids())
        found = [f"temp {p}" for p in (self.root / "tmp").glob("*")]
        # A long TMPDIR, as here, is too long for Ray's sockets: runs fall back to /tmp.
        found += [
            f"temp {p}" for run_id in ids for p in Path("/tmp").glob(f"heapgate-{run_id[-4:]}-*")
        ]
        for process in psutil.process_iter():
            try:
                temp = tuple(f"/tmp/heapgate-{run_id[-4:]}-" for run_id in ids)
                held = [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
                marked = process.environ().get("HEAPGATE_RUN") in ids
                if marked or any(path.startswith(temp) for path in held):
                    found.append(f"process {process.pid} {' '.join(process.cmdline())[:120]}")
            except (psutil.Error, OSError):
                continue
        found += [
            f"cgroup {folder}"
            for run_id in ids
            for hierarchy in Path("/sys/fs/cgroup").glob("*")
            for folder in [hierarchy / "heapgate" / run_id]
            if folder.exists()
        ]
        return found


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """Poll a condition; what it returned when it came true. Fails the test after `timeout_s`."""
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{condition} did not come true in {timeout_s} s")
        pause.wait(0.02)
    return value
