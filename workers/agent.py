"""The agent: sends a node's spool to the collector, and removes what is safe there.

A process of its own, so that neither the sampler nor the load generator ever waits for a network:
python -m workers.agent --help. It survives the collector's death (it connects again and goes on
after the last acknowledged batch) and may itself be killed at any time: all it knows is on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tenacity

from results.errors import EnvironmentLacks
from results.files import put_in_place, remove_folder
from results.schema import SCHEMA_VERSION
from results.secure import RareLog, open_channel
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc
from workers.processes import own_group

SCAN_EVERY_S = 0.02
WINDOW_BATCHES = 64
"""Batches of one stream that may be on their way without an acknowledgement."""

MESSAGE_BYTES_MAX = 64 * 2**20
_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A cut link is noticed although nothing comes back over it.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
DELIVERED = ".delivered.json"
STOP_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Sending:
    """What is known of one trial in this connection; None: the collector has not opened it yet."""

    part: int = 0
    acknowledged: dict[str, int] | None = None
    sent: dict[str, int] = field(default_factory=dict)
    finishing: bool = False


class Connection:
    """One gRPC stream, until it breaks."""

    def __init__(self, root: Path, channel: grpc.Channel, token: str) -> None:
        self._root = root
        self._trials: dict[str, Sending] = {}
        self._outgoing: queue.Queue[wire.FromAgent | None] = queue.Queue()
        self._broken = threading.Event()
        self._error: grpc.RpcError | None = None
        self._answers = wire_grpc.TelemetryStub(channel).Publish(
            iter(self._outgoing.get, None), metadata=(("authorization", f"Bearer {token}"),)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, stop: threading.Event) -> None:
        """Send what comes into the spool until told to stop. Raises grpc.RpcError when broken."""
        while not self._broken.is_set() and not stop.is_set():
            for folder in _trial_folders(self._root):
                self._advance(folder)
            self._broken.wait(SCAN_EVERY_S)
        self._outgoing.put(None)
        self._reader.join(STOP_TIMEOUT_S)
        if self._error is not None:
            raise self._error

    def _advance(self, folder: Path) -> None:
        trial_id = folder.name
        sending = self._trials.get(trial_id)
        if sending is None:
            self._open(folder)
        elif sending.acknowledged is not None and not sending.finishing:
            # Looked at first: a batch never comes after the trial's end was written.
            ended = (folder / "finish.json").exists()
            if not self._send_batches(folder, sending) and ended:
                self._finish(folder, sending.part)
                sending.finishing = True

    def _open(self, folder: Path) -> None:
        try:
            identity = json.loads((folder / "open.json").read_bytes())
            run_id, part = str(identity["run_id"]), int(identity.get("part", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._trials[folder.name] = Sending(part)
        opening = wire.OpenTrial(
            run_id=run_id, trial_id=folder.name, schema_version=SCHEMA_VERSION, part=part
        )
        self._outgoing.put(wire.FromAgent(open=opening))

    def _send_batches(self, folder: Path, sending: Sending) -> bool:
        """Send what the window allows; whether any batch is still in the spool."""
        assert sending.acknowledged is not None
        any_left = False
        for path in sorted(folder.glob("*/*.arrow")):
            any_left = True
            stream, sequence = path.parent.name, int(path.stem)
            acknowledged = sending.acknowledged.get(stream, 0)
            if sequence <= acknowledged:
                with contextlib.suppress(PermissionError):  # Windows: somebody looks at it
                    path.unlink(missing_ok=True)
            elif sequence == sending.sent.get(stream, acknowledged) + 1 and (
                sequence - acknowledged <= WINDOW_BATCHES
            ):
                self._send(folder.name, stream, sequence, path.read_bytes())
                sending.sent[stream] = sequence
        return any_left

    def _send(self, trial_id: str, stream: str, sequence: int, data: bytes) -> None:
        batch = wire.Batch(trial_id=trial_id, stream=stream, sequence=sequence, arrow_ipc=data)
        self._outgoing.put(wire.FromAgent(batch=batch))

    def _finish(self, folder: Path, part: int) -> None:
        document = json.loads((folder / "finish.json").read_bytes())
        log = folder / "service.log"
        totals = [
            wire.StreamTotal(
                stream=stream,
                batches=total["batches"],
                rows=total["rows"] + total["lost_rows"],
                digest=bytes.fromhex(total["digest"]),
            )
            for stream, total in document["totals"].items()
        ]
        self._outgoing.put(
            wire.FromAgent(
                finish=wire.FinishTrial(
                    trial_id=folder.name,
                    totals=totals,
                    trial_json=document["trial_json"].encode(),
                    service_log=log.read_bytes() if log.exists() else b"",
                    part=part,
                    parts=document.get("parts", []),
                )
            )
        )

    def _read(self) -> None:
        try:
            for answer in self._answers:
                self._take(answer)
        except grpc.RpcError as error:
            self._error = error
        finally:
            self._broken.set()

    def _take(self, answer: wire.FromCollector) -> None:
        kind = answer.WhichOneof("kind")
        if kind == "opened":
            opened = answer.opened
            self._trials[opened.trial_id].sent = dict(opened.last_sequence)
            self._trials[opened.trial_id].acknowledged = dict(opened.last_sequence)
        elif kind == "acknowledged":
            sending = self._trials[answer.acknowledged.trial_id]
            if sending.acknowledged is not None:
                sending.acknowledged[answer.acknowledged.stream] = answer.acknowledged.sequence
        elif kind == "finished":
            self._delivered(answer.finished.trial_id, list(answer.finished.differences))
        elif kind == "refused":
            self._delivered(
                answer.refused.trial_id, [f"the collector refused: {answer.refused.reason}"]
            )

    def _delivered(self, trial_id: str, differences: list[str]) -> None:
        """Leave the outcome where the trial waits for it; the first one tells the cause."""
        target = self._root / f"{trial_id}{DELIVERED}"
        if target.exists():
            return
        temporary = target.with_suffix(".new")
        temporary.write_text(json.dumps(differences), encoding="utf-8")
        put_in_place(temporary, target)


def _trial_folders(root: Path) -> Iterator[Path]:
    """Trials in the spool whose outcome is not known yet."""
    for path in sorted(root.glob("*/open.json")):
        if not (root / f"{path.parent.name}{DELIVERED}").exists():
            yield path.parent


def publish(
    root: Path, collector: str, token: str, stop: threading.Event, tls: Path | None = None
) -> None:
    """Keep a connection to the collector until told to stop; `tls` is a folder of certificates.

    Raises grpc.RpcError when the collector says that the token is wrong.
    """

    def pause(seconds: float) -> None:
        stop.wait(seconds)

    waits = tenacity.wait_random_exponential(multiplier=0.1, max=2.0)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=waits,
        sleep=pause,
        before_sleep=_told(RareLog(), collector),
        reraise=True,
    )
    retrying(_connect, root, collector, token, stop, tls)


def _told(rare: RareLog, collector: str) -> Callable[[tenacity.RetryCallState], None]:
    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        rare.say(collector, "no connection to the collector", details or "")

    return tell


def _connect(
    root: Path, collector: str, token: str, stop: threading.Event, tls: Path | None
) -> None:
    """One connection until it breaks; the certificates are read anew, for they are renewed."""
    if stop.is_set():
        return
    with open_channel(collector, tls, _OPTIONS) as channel:
        Connection(root, channel, token).run(stop)


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: not with a token that is wrong.

    Certificates that do not fit look like a collector that is away, and may be replaced meanwhile.
    """
    if isinstance(error, grpc.Call):
        return error.code() != grpc.StatusCode.UNAUTHENTICATED
    return isinstance(error, (grpc.RpcError, EnvironmentLacks))


class AgentProcess:
    """A running agent; it ends by itself when this process dies."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._lock = threading.Lock()
        self._ended = False
        self._process = self._launch()

    @classmethod
    def start(
        cls, *, spool: Path, collector: str, token_file: Path, log: Path, tls: Path | None = None
    ) -> AgentProcess:
        """Start an agent for a spool; `tls` is the folder of this node's keys."""
        command = [
            *(sys.executable, "-m", "workers.agent", "--spool", str(spool)),
            *("--collector", collector, "--token-file", str(token_file)),
            *(("--tls", str(tls)) if tls else ()),
        ]
        return cls(command, log)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self._log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"GRPC_VERBOSITY": "NONE"},
                **own_group(),
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ensure_alive(self) -> bool:
        """Start it again when it died; True when that was so. Nothing is lost by that."""
        with self._lock:
            if self.alive or self._ended:
                return False
            self._process = self._launch()
            return True

    def stop(self) -> None:
        """End it."""
        with self._lock:
            self._ended = True
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_delivered(
    root: Path, trial_id: str, timeout_s: float, agent: AgentProcess | None = None
) -> list[str]:
    """Wait until a trial is sealed; what the collector says differs, then forget the trial.

    A dead agent is started again. After `timeout_s` the answer says that there was none, and the
    trial stays in the spool.
    """
    outcome = root / f"{trial_id}{DELIVERED}"
    deadline_s = time.monotonic() + timeout_s
    while not outcome.exists():
        if time.monotonic() > deadline_s:
            return [f"the collector did not confirm {trial_id} within {timeout_s:g} s"]
        if agent:
            agent.ensure_alive()
        time.sleep(SCAN_EVERY_S)
    found = [str(text) for text in json.loads(outcome.read_bytes())]
    # While the outcome is there, what may be left of the trial is not sent again.
    if not found and remove_folder(root / trial_id):
        outcome.unlink(missing_ok=True)
    return found


def main() -> None:
    """Publish until standard input ends, which it does when the starting process dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--collector", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--tls", type=Path, help="folder with ca.pem, cert.pem and key.pem")
    options = parser.parse_args()
    token = options.token_file.read_text(encoding="ascii").strip()
    stop = threading.Event()

    def stop_with_parent() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=stop_with_parent, daemon=True).start()
    publish(options.spool, options.collector, token, stop, options.tls)


if __name__ == "__main__":
    main()
