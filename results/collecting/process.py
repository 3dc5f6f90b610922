"""Start, watch and stop a collector as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from results.collecting.secure import VERBOSITY
from results.errors import EnvironmentLacks

STOP_TIMEOUT_S = 10.0


class CollectorProcess:
    """A running collector; it ends by itself when this process dies."""

    def __init__(
        self, command: list[str], log: Path, *, token_file: Path, tls: Path | None = None
    ) -> None:
        self._command = command
        self._log = log
        self.token_file = token_file
        self.tls = tls
        self.address = ""
        self._process = self._launch()

    @classmethod
    def start(
        cls,
        *,
        archive: Path,
        run_id: str,
        token_file: Path,
        log: Path,
        listen: str = "127.0.0.1",
        tls: Path | None = None,
    ) -> CollectorProcess:
        """Start one on a free port of an address, with mutual TLS by the keys in `tls`.

        Raises EnvironmentLacks when it does not come up.
        """
        command = [
            *(sys.executable, "-m", "results.collecting.collector", "--archive", str(archive)),
            *("--run-id", run_id, "--token-file", str(token_file)),
            *(("--listen", listen, "--tls", str(tls)) if tls else ()),
        ]
        return cls(command, log, token_file=token_file, tls=tls)

    def _launch(self) -> subprocess.Popen[str]:
        port = ["--port", self.address.rpartition(":")[2]] if self.address else []
        with self._log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*self._command, *port],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"GRPC_VERBOSITY": VERBOSITY if self.tls else "NONE"},
                start_new_session=True,
            )
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise EnvironmentLacks(f"the collector did not start; its words are in {self._log}")
        self.address = json.loads(line)["address"]
        return process

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ensure_alive(self) -> bool:
        """Start it again at the same address when it died; True when that was so.

        What it had acknowledged is on disk; agents send the rest again.
        """
        if self.alive:
            return False
        self._process = self._launch()
        return True

    def stop(self) -> None:
        """Let it finish what it writes, then end it."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
