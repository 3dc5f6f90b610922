"""The collector: a gRPC server that writes what agents send into the archive of one run.

Batches are acknowledged after `fdatasync`. What arrives together is synced together, so the cost of
a sync is shared. Run as a process of its own: python -m results.collector --help.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import os
import queue
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from results.archive import PARTIAL
from results.files import write_sums, write_whole
from results.record import Finding, TrialRecord
from results.schema import SCHEMA_VERSION, TABLES
from results.trialfiles import Account, BadBatch, TableFile, recover
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc

MESSAGE_BYTES_MAX = 64 * 2**20
SYNC_TOGETHER_MAX = 64
STREAMS_MAX = 32
_TRIAL_ID = re.compile(r"[a-zA-Z0-9][\w.~+-]{0,199}")


class Refusal(Exception):
    """A message that can't be accepted, now or later."""


class TrialWriter:
    """One open trial: its folder and its growing files."""

    def __init__(self, folder: Path) -> None:
        """Open a trial's folder; what a crashed collector left in it is taken over."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.stem for path in folder.glob("*.arrow")}
        names |= {path.stem for path in folder.glob("*.left")}
        self._files = {
            name: recover(folder / f"{name}.arrow", TABLES[name])
            for name in sorted(names & TABLES.keys())
        }

    def accounts(self) -> dict[str, Account]:
        """What is on disk, by stream."""
        return {name: file.account for name, file in self._files.items()}

    def add(self, stream: str, sequence: int, data: bytes) -> None:
        """Write one batch, or drop one that is there already."""
        if stream not in TABLES:
            raise Refusal(f"there is no table {stream!r}")
        if stream not in self._files:
            self._files[stream] = TableFile(self._folder / f"{stream}.arrow", TABLES[stream])
        self._files[stream].add(sequence, data)

    def sync(self, streams: set[str]) -> None:
        """Return when these streams are on disk."""
        for stream in streams:
            self._files[stream].sync()

    def seal(self, finish: wire.FinishTrial) -> list[str]:
        """Compare both accounts, complete the record, and give the folder its final name."""
        for file in self._files.values():
            file.close()
        found = differences(self.accounts(), finish)
        log = self._folder / "service.log"
        log.write_bytes(finish.service_log)
        write_whole(self._folder / "trial.json", self._record(finish, found).to_json())
        sealed = [*self._folder.glob("*.arrow"), *self._folder.glob("trial.json"), log]
        write_sums(self._folder, (path.name for path in sealed))
        _sync_folder(self._folder)
        self._folder.rename(self._folder.with_name(self._folder.name.removesuffix(PARTIAL)))
        _sync_folder(self._folder.parent)
        return found

    def _record(self, finish: wire.FinishTrial, found: list[str]) -> TrialRecord:
        try:
            record = TrialRecord.from_json(finish.trial_json.decode())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refusal(f"the trial's record can't be read: {error}") from error
        accounts = self.accounts()
        record.rows = {name: account.rows for name, account in accounts.items()}
        record.digests = {name: account.digest for name, account in accounts.items()}
        record.findings += [Finding("rows_lost", "invalid", text) for text in found]
        return record

    def abandon(self) -> None:
        """Let go of the files as they are."""
        for file in self._files.values():
            file.abandon()


def differences(here: dict[str, Account], finish: wire.FinishTrial) -> list[str]:
    """What the agent's account of its rows and ours do not agree on, in words."""
    nothing = Account(0, 0, "")
    sent = {t.stream: Account(t.batches, t.rows, t.digest.hex()) for t in finish.totals}
    found = []
    for stream in sorted(sent.keys() | here.keys()):
        theirs, ours = sent.get(stream, nothing), here.get(stream, nothing)
        if theirs.batches == ours.batches == 0 or theirs == ours:
            continue
        what = "other bytes" if theirs.rows == ours.rows else f"{ours.rows} rows"
        found.append(f"{stream}: {theirs.rows} rows were measured, the archive has {what}")
    return found


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Collector(wire_grpc.TelemetryServicer):
    """The service: one stream of messages from each agent."""

    def __init__(self, archive: Path, run_id: str, token: str) -> None:
        self._trials = archive / run_id / "trials"
        self._run_id = run_id
        self._token = token
        self._lock = threading.Lock()
        self._open: dict[str, TrialWriter] = {}

    def Publish(  # noqa: D102 - the name is the wire's
        self, request_iterator: Iterator[wire.FromAgent], context: grpc.ServicerContext
    ) -> Iterator[wire.FromCollector]:
        self._authenticate(context)
        incoming: queue.Queue[wire.FromAgent | None] = queue.Queue(SYNC_TOGETHER_MAX)
        threading.Thread(target=_pump, args=(request_iterator, incoming), daemon=True).start()
        while True:
            messages = _together(incoming)
            with self._lock:
                answers = list(self._handle_all([m for m in messages if m is not None]))
            yield from answers
            if messages[-1] is None:
                return

    def _authenticate(self, context: grpc.ServicerContext) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(str(given), f"Bearer {self._token}"):
            _log(f"refused a stranger: {context.peer()}")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")

    def _handle_all(self, messages: list[wire.FromAgent]) -> Iterator[wire.FromCollector]:
        """Write what came together, sync once, then acknowledge."""
        written: dict[str, dict[str, int]] = {}
        for message in messages:
            kind = message.WhichOneof("kind")
            trial_id = getattr(message, kind).trial_id if kind else ""
            try:
                if kind == "batch":
                    batch = message.batch
                    self._writer(trial_id).add(batch.stream, batch.sequence, batch.arrow_ipc)
                    written.setdefault(trial_id, {})[batch.stream] = batch.sequence
                    continue
                yield from self._acknowledge(written)
                if kind == "open":
                    yield self._opened(message.open)
                elif kind == "finish":
                    yield self._finished(message.finish)
            except (Refusal, BadBatch, OSError) as error:
                written.pop(trial_id, None)
                yield self._refused(trial_id, str(error))
        yield from self._acknowledge(written)

    def _acknowledge(self, written: dict[str, dict[str, int]]) -> Iterator[wire.FromCollector]:
        for trial_id, streams in written.items():
            try:
                self._writer(trial_id).sync(set(streams))
            except (OSError, Refusal) as error:
                yield self._refused(trial_id, str(error))
                continue
            for stream, sequence in streams.items():
                yield wire.FromCollector(
                    acknowledged=wire.Acknowledged(
                        trial_id=trial_id, stream=stream, sequence=sequence
                    )
                )
        written.clear()

    def _writer(self, trial_id: str) -> TrialWriter:
        if trial_id not in self._open:
            raise Refusal(f"trial {trial_id!r} was not opened")
        return self._open[trial_id]

    def _opened(self, message: wire.OpenTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        if not _TRIAL_ID.fullmatch(trial_id):
            raise Refusal(f"{trial_id!r} can't be the id of a trial")
        if message.run_id != self._run_id:
            raise Refusal(f"this collector is for run {self._run_id}, not {message.run_id!r}")
        if message.schema_version != SCHEMA_VERSION:
            raise Refusal(
                f"schema version {message.schema_version} is not {SCHEMA_VERSION}: "
                "agent and collector are of different releases"
            )
        if trial_id not in self._open and not (self._trials / trial_id).exists():
            self._open[trial_id] = TrialWriter(self._trials / f"{trial_id}{PARTIAL}")
        accounts = self._open[trial_id].accounts() if trial_id in self._open else {}
        last = {name: account.batches for name, account in accounts.items()}
        return wire.FromCollector(opened=wire.Opened(trial_id=trial_id, last_sequence=last))

    def _finished(self, message: wire.FinishTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        sealed = self._trials / trial_id / "trial.json"
        if trial_id not in self._open and sealed.exists():
            record = TrialRecord.read(sealed)
            found = [f.text for f in record.findings if f.code == "rows_lost"]
        else:
            found = self._writer(trial_id).seal(message)
            del self._open[trial_id]
        finished = wire.Finished(trial_id=trial_id, differences=found)
        return wire.FromCollector(finished=finished)

    def _refused(self, trial_id: str, reason: str) -> wire.FromCollector:
        _log(f"refused {trial_id!r}: {reason}")
        writer = self._open.pop(trial_id, None)
        if writer:
            writer.abandon()
        return wire.FromCollector(refused=wire.Refused(trial_id=trial_id, reason=reason))


def _log(text: str) -> None:
    """One line to the log, which may lie on the very disk that is full."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _pump(source: Iterator[wire.FromAgent], target: queue.Queue[wire.FromAgent | None]) -> None:
    with contextlib.suppress(Exception):  # gRPC raises plain ones when an agent goes away
        for message in source:
            target.put(message)
    target.put(None)


def _together(
    incoming: queue.Queue[wire.FromAgent | None],
) -> list[wire.FromAgent | None]:
    """At least one message, and what else has arrived; None is the end."""
    messages = [incoming.get()]
    while messages[-1] is not None and len(messages) < SYNC_TOGETHER_MAX:
        try:
            messages.append(incoming.get_nowait())
        except queue.Empty:
            break
    return messages


def serve(archive: Path, run_id: str, token: str, port: int) -> tuple[grpc.Server, int]:
    """Start a collector on loopback; port 0 means any free one."""
    server = grpc.server(
        ThreadPoolExecutor(STREAMS_MAX),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
        ],
    )
    wire_grpc.add_TelemetryServicer_to_server(Collector(archive, run_id, token), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


def main() -> None:
    """Serve until standard input ends, which it does when the starting process dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    token = options.token_file.read_text(encoding="ascii").strip()
    server, port = serve(options.archive, options.run_id, token, options.port)
    sys.stdout.write(json.dumps({"address": f"127.0.0.1:{port}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(grace=1.0).wait()


if __name__ == "__main__":
    main()
