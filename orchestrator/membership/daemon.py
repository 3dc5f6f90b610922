"""A daemon that survives the terminal: start it, see whether it lives, ask it to stop.

It holds a lock file as long as it lives, which the system releases however it dies: no stale
number of a process is ever taken for it. It stops when a file `stop` appears in its folder, which
works on every system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from results.errors import EnvironmentLacks

STOP_TIMEOUT_S = 30.0
LOG_BYTES_MAX = 8 * 2**20
_LOOK_EVERY_S = 0.1
_LOG_TAIL_LINES = 12
_DETACHED = 0
if sys.platform == "win32":
    _DETACHED = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP


class Daemon:
    """One daemon by its folder; `name` is what messages call it."""

    def __init__(self, folder: Path, name: str, grpc_verbosity: str = "NONE") -> None:
        self._grpc_verbosity = grpc_verbosity
        self.folder = folder
        self.name = name
        self._lock = FileLock(folder / "lock")

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "daemon.log"

    @property
    def alive(self) -> bool:
        """Whether one runs."""
        if not self.folder.is_dir():
            return False
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return False
        except Timeout:
            return True

    def hold(self) -> None:
        """Become it: taken by the daemon itself for its life. Raises EnvironmentLacks."""
        try:
            self._lock.acquire(timeout=2.0)
        except Timeout as error:
            raise EnvironmentLacks(f"{self.name} already runs on this machine") from error
        self._file("stop").unlink(missing_ok=True)
        self._file("pid").write_text(str(os.getpid()), encoding="ascii")

    def release(self) -> None:
        """The daemon ends."""
        self._lock.release()

    def start(self, module: str) -> subprocess.Popen[bytes]:
        """Start it detached from this terminal."""
        self._file("ready").unlink(missing_ok=True)
        _shorten(self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self._environment(),
                creationflags=_DETACHED,
                start_new_session=sys.platform != "win32",
            )

    def become(self, module: str) -> NoReturn:
        """Be it in this very terminal, for a service manager."""
        environment = os.environ | self._environment()
        command = [sys.executable, "-m", module]
        if sys.platform == "win32":  # there a new process would take the place, and its parent end
            sys.exit(subprocess.call(command, env=environment))
        os.execve(sys.executable, command, environment)  # noqa: S606

    def _environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "GRPC_VERBOSITY": self._grpc_verbosity,
        }

    def wait_ready(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        """Return when it works. Raises EnvironmentLacks with its last words when it does not."""
        deadline_s = time.monotonic() + timeout_s
        while not self._file("ready").exists():
            if process.poll() is not None:
                raise EnvironmentLacks(f"{self.name} did not start:\n{self.last_words()}")
            if time.monotonic() > deadline_s:
                raise EnvironmentLacks(
                    f"{self.name} was not ready within {timeout_s:g} s; its log: {self.log}\n"
                    f"{self.last_words()}"
                )
            time.sleep(_LOOK_EVERY_S)

    def tell_ready(self) -> None:
        """Called by the daemon when it works."""
        self._file("ready").write_text("", encoding="ascii")

    def last_words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])
        return ""

    def stop(self) -> bool:
        """Ask it to end and wait until it has; False when there was none."""
        if not self.alive:
            return False
        self._file("stop").write_text("", encoding="ascii")
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while self.alive and time.monotonic() < deadline_s:
            time.sleep(_LOOK_EVERY_S)
        if self.alive:
            # Its lock is held, so the number is still its own.
            os.kill(int(self._file("pid").read_text(encoding="ascii")), signal.SIGTERM)
            while self.alive and time.monotonic() < deadline_s + STOP_TIMEOUT_S:
                time.sleep(_LOOK_EVERY_S)
        return True

    def stop_event(self) -> threading.Event:
        """An event that is set when the daemon is to end: by file, SIGTERM or Ctrl-C."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        threading.Thread(target=self._watch, args=(stop,), daemon=True).start()
        return stop

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(_LOOK_EVERY_S):
            if self._file("stop").exists():
                stop.set()

    def _file(self, name: str) -> Path:
        return self.folder / name


def _shorten(log: Path) -> None:
    """Keep one older log beside a long one."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.old"))
