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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tenacity

from results.collecting.secure import RareLog, open_channel
from results.errors import EnvironmentLacks
from results.files import put_in_place, remove_folder
from results.schema import SCHEMA_VERSION
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc
from workers.processes import own_group

SCAN_EVERY_S = 0.02
LOOK_FOR_STREAMS_EVERY_S = 0.1
WINDOW_BYTES = 8 * 2**20
"""What may be on its way without an acknowledgement: gRPC holds that much in memory, not more."""

FULL_PATIENCE_S = 10.0
"""For so long a finished trial is offered to a collector whose disk is full."""

FULL_PAUSE_S = 0.5

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
    """What this connection knows of one stream. Its files are numbered without gaps from 1."""

    folder: Path
    acknowledged: int
    sent: int
    sent_bytes: int = 0
    acknowledged_bytes: int = 0
    sizes: deque[int] = field(default_factory=deque)
    """Bytes of each batch that is on its way."""

    @property
    def on_its_way(self) -> int:
        """Bytes without an acknowledgement; sender and reader each have a sum of their own."""
        return self.sent_bytes - self.acknowledged_bytes

    def next_batch(self) -> bytes | None:
        """The next batch to be sent; None when it is not there yet."""
        try:
            return _batch_path(self.folder, self.sent + 1).read_bytes()
        except FileNotFoundError:
            return None

    def note_sent(self, size: int) -> None:
        """The next batch goes out."""
        self.sizes.append(size)
        self.sent_bytes += size
        self.sent += 1

    def acknowledge(self, sequence: int) -> None:
        """The collector has everything up to a number on disk."""
        for number in range(self.acknowledged + 1, sequence + 1):
            _forget(_batch_path(self.folder, number))
            self.acknowledged_bytes += self.sizes.popleft() if self.sizes else 0
        self.acknowledged = max(sequence, self.acknowledged)


@dataclass(slots=True)
class SendingTrial:
    """What this connection knows of one trial."""

    folder: Path
    part: int | None = None
    last: dict[str, int] | None = None
    """The collector's last number of each stream; None: it has not opened the trial yet."""
    streams: dict[str, Sending] = field(default_factory=dict)
    finishing: bool = False
    looked_s: float = 0.0
    refused_since_s: float | None = None
    """When a collector with a full disk first refused it after its end."""
    pause_until_s: float = 0.0

    def look_for_streams(self) -> None:
        """Take up the streams that have come into the spool."""
        assert self.last is not None
        for name in _folders(self.folder):
            if name not in self.streams:
                last = self.last.get(name, 0)
                self.streams[name] = Sending(self.folder / name, last, last)
                # What an agent before this one could not remove any more.
                for path in (self.folder / name).glob("*.arrow"):
                    if int(path.stem) <= last:
                        _forget(path)


class ConnectionEnded(grpc.RpcError):
    """The collector ended it without an error."""


class Connection:
    """One gRPC stream, until it breaks."""

    def __init__(self, root: Path, channel: grpc.Channel, token: str) -> None:
        self._root = root
        self._trials: dict[str, SendingTrial] = {}
        self._outgoing: queue.SimpleQueue[wire.FromAgent | None] = queue.SimpleQueue()
        self._broken = threading.Event()
        self._progress = threading.Event()
        self._error: grpc.RpcError | None = None
        self._answers = wire_grpc.TelemetryStub(channel).Publish(
            iter(self._outgoing.get, None), metadata=(("authorization", f"Bearer {token}"),)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, stop: threading.Event) -> None:
        """Send what comes into the spool until told to stop. Raises grpc.RpcError when broken."""
        while not self._broken.is_set() and not stop.is_set():
            self._progress.clear()
            names = _trials(self._root)
            for trial_id in names:
                self._advance(trial_id)
            for trial_id in self._trials.keys() - names:
                del self._trials[trial_id]
            # With a full window, an acknowledgement is what is waited for.
            waits_for = self._broken if self._has_room() else self._progress
            waits_for.wait(SCAN_EVERY_S)
        self._outgoing.put(None)
        self._reader.join(STOP_TIMEOUT_S)
        if not stop.is_set():
            raise self._error or ConnectionEnded("the collector ended the connection")

    def _has_room(self) -> bool:
        streams = (s for trial in list(self._trials.values()) for s in trial.streams.values())
        return sum(stream.on_its_way for stream in streams) < WINDOW_BYTES

    def _advance(self, trial_id: str) -> None:
        trial = self._trials.setdefault(trial_id, SendingTrial(self._root / trial_id))
        if trial.part is None:
            self._open(trial)
        elif trial.last is not None and not trial.finishing:
            # Looked at first: a batch never comes after the trial's end was written.
            ended = (trial.folder / "finish.json").exists()
            now_s = time.monotonic()
            if ended or now_s - trial.looked_s >= LOOK_FOR_STREAMS_EVERY_S:
                trial.looked_s = now_s
                trial.look_for_streams()
            if not self._send_batches(trial) and ended:
                self._finish(trial)
                trial.finishing = True

    def _open(self, trial: SendingTrial) -> None:
        if time.monotonic() < trial.pause_until_s:
            return
        try:
            identity = json.loads((trial.folder / "open.json").read_bytes())
            run_id, part = str(identity["run_id"]), int(identity.get("part", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        trial.part = part
        opening = wire.OpenTrial(
            run_id=run_id, trial_id=trial.folder.name, schema_version=SCHEMA_VERSION, part=part
        )
        self._outgoing.put(wire.FromAgent(open=opening))

    def _send_batches(self, trial: SendingTrial) -> bool:
        """Send what the window allows; whether anything is still to be sent or acknowledged."""
        busy = False
        for name, stream in trial.streams.items():
            while (has_room := self._has_room()) and (data := stream.next_batch()) is not None:
                self._send(trial, name, stream, data)
            busy |= stream.sent > stream.acknowledged or not has_room
        return busy

    def _send(self, trial: SendingTrial, name: str, stream: Sending, data: bytes) -> None:
        stream.note_sent(len(data))
        batch = wire.Batch(
            trial_id=trial.folder.name, stream=name, sequence=stream.sent, arrow_ipc=data
        )
        self._outgoing.put(wire.FromAgent(batch=batch))

    def _finish(self, trial: SendingTrial) -> None:
        document = json.loads((trial.folder / "finish.json").read_bytes())
        log = trial.folder / "service.log"
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
                    trial_id=trial.folder.name,
                    totals=totals,
                    trial_json=document["trial_json"].encode(),
                    service_log=log.read_bytes() if log.exists() else b"",
                    part=trial.part or 0,
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
            self._progress.set()

    def _take(self, answer: wire.FromCollector) -> None:
        kind = answer.WhichOneof("kind")
        if kind == "opened":
            if trial := self._trials.get(answer.opened.trial_id):
                trial.last = dict(answer.opened.last_sequence)
        elif kind == "acknowledged":
            self._acknowledged(answer.acknowledged)
        elif kind == "finished":
            self._delivered(answer.finished.trial_id, list(answer.finished.differences))
        elif kind == "refused":
            self._refused(answer.refused)

    def _acknowledged(self, acknowledged: wire.Acknowledged) -> None:
        trial = self._trials.get(acknowledged.trial_id)
        if trial and (stream := trial.streams.get(acknowledged.stream)):
            stream.acknowledge(acknowledged.sequence)
            self._progress.set()

    def _refused(self, refused: wire.Refused) -> None:
        """A full disk may get room: the trial is opened again after a while."""
        trial_id, now_s = refused.trial_id, time.monotonic()
        trial = self._trials.get(trial_id)
        if trial is None:
            return
        ended = (trial.folder / "finish.json").exists()
        # While it is measured there is time: the spool holds what comes.
        since_s = (trial.refused_since_s or now_s) if ended else None
        patient = since_s is None or now_s - since_s < FULL_PATIENCE_S
        if not (refused.may_pass and patient):
            self._delivered(trial_id, [f"the collector refused: {refused.reason}"])
            return
        self._trials[trial_id] = SendingTrial(
            trial.folder, refused_since_s=since_s, pause_until_s=now_s + FULL_PAUSE_S
        )

    def _delivered(self, trial_id: str, differences: list[str]) -> None:
        """Leave the outcome where the trial waits for it; the first one tells the cause."""
        target = self._root / f"{trial_id}{DELIVERED}"
        if target.exists():
            return
        temporary = target.with_suffix(".new")
        temporary.write_text(json.dumps(differences), encoding="utf-8")
        put_in_place(temporary, target)


def _batch_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.arrow"


def _forget(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # Windows: somebody looks at it
        path.unlink(missing_ok=True)


def _folders(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())
    return []


def _trials(root: Path) -> list[str]:
    """Trials in the spool whose outcome is not known yet."""
    with os.scandir(root) as entries:
        names = {entry.name for entry in entries}
    return sorted(n for n in names if f"{n}{DELIVERED}" not in names and DELIVERED not in n)


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
