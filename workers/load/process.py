"""The trial's side of the load generator's process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from results.clock import ClockMap
from results.errors import EnvironmentLacks, UserError
from results.record import LoadRecord
from workers.affinity import pin
from workers.load.accounts import Account, Live, LoadLost
from workers.processes import own_group
from workers.spec import LoadSpec, to_plain

POLL_S = 0.05
STOP_TIMEOUT_S = 15.0
"""Longer than the generator itself waits for answers."""


class Generator:
    """One generator process for one trial. It ends by itself when this process dies."""

    lead_ns = 20_000_000
    """From the order to start the load to its agreed first instant."""

    why_lost = "the load generator ended"

    def __init__(self, document: dict[str, Any], log_path: Path, cpus: tuple[int, ...]) -> None:
        """Start the process (see `generator_document`); it imports the scenario meanwhile."""
        self._log_path = log_path
        self._changed = threading.Condition()
        self._said: dict[str, Any] = {}
        self._ended = False
        self._went = False
        self._base_url = document["base_url"]
        self._scenario = Path(document["load"]["scenario"]).name
        specification = log_path.with_suffix(".json")
        specification.write_text(json.dumps(document), encoding="utf-8")
        with log_path.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.load.generator", str(specification)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | _told(document),
                **own_group(),
            )
        if cpus:
            pin(self._process.pid, cpus)
        self._reader = threading.Thread(target=self._read, name="generator", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # it was killed in the middle of a line
            with self._changed:
                self._said.update(message)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _say(self, **message: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _await(self, word: str, timeout_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: word in self._said or "failed" in self._said or self._ended, timeout_s
            )
            if word in self._said:
                return True
            if "failed" in self._said:
                raise UserError(self._said["failed"])
            return False

    def wait_ready(self, *, timeout_s: float) -> None:
        """Wait until the scenario is imported.

        Raises UserError with its place when the scenario raised, ended the process or hangs, and
        LoadLost when something else killed it.
        """
        if not self._await("ready", timeout_s):
            self._check_not_killed()
            what = "ended" if self._ended else f"was not done after {timeout_s:g} s"
            raise UserError(
                f"scenario {self._scenario}: the process that imports it {what}; "
                f"its last words: {self._last_words()}"
            )

    def prepare(self, *, timeout_s: float) -> None:
        """Make the users of an open loop. Raises as `wait_ready` does."""
        self._say(prepare=True)
        if not self._await("prepared", timeout_s):
            self._check_not_killed()
            raise EnvironmentLacks(f"the load generator made no users: {self._last_words()}")

    def _check_not_killed(self) -> None:
        if self._ended and self._process.wait() < 0:
            number = -self._process.returncode
            raise LoadLost(f"the load generator was killed by signal {number} before the load")

    def _last_words(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"

    def go(self, start_monotonic_ns: int, _start_utc_ns: int = 0) -> None:
        """Begin the load at an instant of the monotonic clock."""
        self._went = True
        self._say(go=start_monotonic_ns)

    @property
    def lost(self) -> bool:
        """Whether it ended in the middle of the load, without an account."""
        return self._went and self._ended and "done" not in self._said

    @property
    def done(self) -> bool:
        """Whether it has given its account, or ended without one."""
        return self._ended or "done" in self._said or "failed" in self._said

    def live(self) -> Live | None:
        """What it told last; None before the load began."""
        live = self._said.get("live")
        return Live(**live) if live else None

    def wait_done(self, should_end: Callable[[], bool]) -> Account:
        """Wait for its account; when `should_end` says so, it is stopped early."""
        while not self._await("done", POLL_S):
            if self._ended or should_end():
                return self.stop()
        return self._account()

    def stop(self) -> Account:
        """End the load now. The account is None when the process can't give one any more."""
        self._say(stop=True)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        with contextlib.suppress(UserError):
            while not self._await("done", POLL_S):
                if self._ended or time.monotonic() > deadline_s:
                    return None, []
        return self._account()

    def _account(self) -> Account:
        done = self._said.get("done")
        if done is None:
            return None, []
        return LoadRecord(**done["load"]), done["events"]

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5.0)
        if self._process.stdout:
            self._process.stdout.close()


def _told(document: dict[str, Any]) -> dict[str, str]:
    """What a locustfile may want to know: the seed, and which share of the load is its own."""
    index, count = document.get("stripe", (0, 1))
    return {"HEAPGATE_SEED": str(document["load"]["seed"]), "HEAPGATE_STRIPE": f"{index}/{count}"}


def generator_document(
    *,
    load: LoadSpec,
    base_url: str,
    spool_root: Path,
    run_id: str,
    trial_id: str,
    clock: ClockMap,
    warmup_ns: int,
    measure_ns: int,
) -> dict[str, Any]:
    """All that a generator is told, as plain data."""
    return {
        "load": to_plain(load),
        "base_url": base_url,
        "spool_root": str(spool_root),
        "run_id": run_id,
        "trial_id": trial_id,
        "clock": asdict(clock),
        "warmup_ns": warmup_ns,
        "measure_ns": measure_ns,
    }


def check_scenario(load: LoadSpec, scratch: Path) -> None:
    """Import a scenario in a generator and nothing more. Raises UserError with its place."""
    with tempfile.TemporaryDirectory(prefix="scenario-", dir=scratch) as folder:
        document = generator_document(
            load=load,
            base_url="http://127.0.0.1:9",
            spool_root=Path(folder),
            run_id="check",
            trial_id="check",
            clock=ClockMap.read(),
            warmup_ns=0,
            measure_ns=0,
        )
        generator = Generator(document, Path(folder) / "generator.log", ())
        try:
            generator.wait_ready(timeout_s=30.0)
        finally:
            generator.close()
