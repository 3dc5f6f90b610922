"""The collector: a gRPC server that writes what agents send into the archive of one run.

Batches are acknowledged after `fdatasync`. What has arrived by then is synced together, so the cost
of a sync is shared, and the next batches are checked meanwhile. With a folder of certificates it
serves other machines, by mutual TLS; without, this one alone. Run as a process of its own:
python -m results.collecting.collector --help.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc

from results.archive.trialfiles import BadBatch
from results.collecting.opentrials import OpenTrials
from results.collecting.secure import (
    RareLog,
    add_port,
    caller,
    joined_address,
    log_failed_handshakes,
    peer_host,
    say,
)
from results.collecting.timeserver import TimeServer
from results.collecting.trialwriter import Refusal
from results.wire import cluster_pb2_grpc, telemetry_pb2_grpc
from results.wire import telemetry_pb2 as wire

MESSAGE_BYTES_MAX = 64 * 2**20
UNANSWERED_MAX = 64
"""Steps that may wait for the disk: gRPC holds back what comes after them."""

STREAMS_MAX = 256
LOOPBACK = "127.0.0.1"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),
    # An agent behind a cut link must not hold a thread for ever, and may ask whether we are there.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class Collector(telemetry_pb2_grpc.TelemetryServicer):
    """The service: one stream of messages from each agent, and the driver's word on lost nodes."""

    def __init__(self, archive: Path, run_id: str, token: str) -> None:
        self._token = token
        self._trials = OpenTrials(archive / run_id / "trials", run_id)
        self._rare = RareLog()

    def Publish(  # noqa: D102 - the name is the wire's
        self, request_iterator: Iterator[wire.FromAgent], context: grpc.ServicerContext
    ) -> Iterator[wire.FromCollector]:
        self._authenticate(context, "head", "node")
        talk = Conversation(self._trials, peer_host(context.peer()), self._rare)
        done = Done()
        threading.Thread(target=_take_all, args=(request_iterator, talk, done), daemon=True).start()
        try:
            while steps := done.together():
                yield from talk.answers(steps)
        finally:
            done.nobody_listens()

    def Abandon(  # noqa: D102
        self, request: wire.AbandonTrial, context: grpc.ServicerContext
    ) -> wire.Abandoned:
        self._authenticate(context, "head")
        try:
            return self._trials.give_up(request)
        except Refusal as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OSError as error:
            say(f"could not seal {request.trial_id!r}: {error}")
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _authenticate(self, context: grpc.ServicerContext, *roles: str) -> None:
        """The run's token, and with TLS a certificate for one of these roles."""
        host = peer_host(context.peer())
        role, name = caller(context)
        if role and role not in roles:
            self._rare.say(host, "refused", f"a certificate for {role} ({name}) does not allow it")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "this certificate does not allow it")
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(str(given).encode(), f"Bearer {self._token}".encode()):
            self._rare.say(host, "refused a stranger", "wrong token")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")


class Written(NamedTuple):
    """A batch that is written and not yet surely on disk."""

    trial_id: str
    stream: str
    sequence: int


Step = Written | wire.FromCollector


class Done:
    """What was done for an agent and is not yet answered, in order.

    One thread takes messages and writes them, another makes sure of the disk and answers: so the
    disk works while the next batches are checked, and what comes meanwhile shares the next sync.
    """

    def __init__(self) -> None:
        self._steps: queue.Queue[Step | None] = queue.Queue(UNANSWERED_MAX)
        self._listens = threading.Event()
        self._listens.set()

    def add(self, step: Step | None) -> bool:
        """Add a step, None for the end; waits while too many are not answered.

        False when nobody will answer any more.
        """
        while self._listens.is_set():
            try:
                self._steps.put(step, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    def together(self) -> list[Step]:
        """At least one step, and what else is done by now; nothing is the end."""
        steps = [self._steps.get()]
        while steps[-1] is not None:
            try:
                steps.append(self._steps.get_nowait())
            except queue.Empty:
                break
        if steps[-1] is None and len(steps) > 1:
            self._steps.put(None)
        return [step for step in steps if step is not None]

    def nobody_listens(self) -> None:
        """The connection is gone."""
        self._listens.clear()


class Conversation:
    """What one agent says, and the answers."""

    def __init__(self, trials: OpenTrials, host: str, rare: RareLog) -> None:
        self._trials = trials
        self._host = host
        self._rare = rare
        self._parts: dict[str, int] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._put_off: set[str] = set()

    def take(self, message: wire.FromAgent) -> Step | None:
        """Do what one message says; None when it says nothing."""
        kind = message.WhichOneof("kind")
        if kind is None:
            return None
        try:
            if kind == "batch":
                # What was on its way when the disk was full comes again after the next opening.
                is_put_off = message.batch.trial_id in self._put_off
                return None if is_put_off else self._add(message.batch)
            if kind == "open":
                return self._opened(message.open)
            return self._finished(message.finish)
        except (Refusal, BadBatch, OSError) as error:
            return self._refused(getattr(message, kind).trial_id, error)

    def answers(self, steps: Sequence[Step]) -> Iterator[wire.FromCollector]:
        """The answers to what was done together: each stream is synced once."""
        written: dict[tuple[str, str], int] = {}
        for step in steps:
            if isinstance(step, Written):
                written[step.trial_id, step.stream] = step.sequence
                continue
            yield from self._acknowledge(written)
            yield step
        yield from self._acknowledge(written)

    def _add(self, batch: wire.Batch) -> Written:
        trial_id, stream = batch.trial_id, batch.stream
        writer = self._trials.writer(trial_id)
        part = self._part(trial_id)
        seen = self._seen.get((trial_id, stream), 0)
        if batch.sequence <= seen:
            # It is dropped by its number below; an agent never sends one twice by itself.
            self._rare.say(self._host, "dropped a replayed batch", f"{stream} of {trial_id}")
        writer.add(stream, part, batch.sequence, batch.arrow_ipc)
        self._seen[trial_id, stream] = max(batch.sequence, seen)
        return Written(trial_id, stream, batch.sequence)

    def _part(self, trial_id: str) -> int:
        if trial_id not in self._parts:
            raise Refusal(f"trial {trial_id!r} was not opened")
        return self._parts[trial_id]

    def _acknowledge(self, written: dict[tuple[str, str], int]) -> Iterator[wire.FromCollector]:
        for (trial_id, stream), sequence in written.items():
            try:
                is_safe = self._trials.sync(trial_id, stream)
            except OSError as error:
                yield self._refused(trial_id, error)
                continue
            if is_safe:
                acknowledged = wire.Acknowledged(
                    trial_id=trial_id, stream=stream, sequence=sequence
                )
                yield wire.FromCollector(acknowledged=acknowledged)
        written.clear()

    def _opened(self, message: wire.OpenTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        last = self._trials.open(message)
        self._parts[trial_id] = message.part
        self._put_off.discard(trial_id)
        self._seen |= {(trial_id, stream): sequence for stream, sequence in last.items()}
        return wire.FromCollector(opened=wire.Opened(trial_id=trial_id, last_sequence=last))

    def _finished(self, message: wire.FinishTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        if message.part != self._part(trial_id):
            raise Refusal(f"part {message.part} of {trial_id!r} was not opened")
        found = self._trials.finish(message)
        finished = wire.Finished(trial_id=trial_id, differences=found)
        return wire.FromCollector(finished=finished)

    def _refused(self, trial_id: str, error: Exception) -> wire.FromCollector:
        """A disk that is full or fails may do better later: the agent has everything still."""
        self._rare.say(self._host, f"refused {trial_id!r}", str(error))
        part = self._parts.pop(trial_id, None)
        if part is not None:
            self._trials.let_go(trial_id, part)
        may_pass = isinstance(error, OSError)
        if may_pass:
            self._put_off.add(trial_id)
        refused = wire.Refused(trial_id=trial_id, reason=str(error), may_pass=may_pass)
        return wire.FromCollector(refused=refused)


def _take_all(source: Iterator[wire.FromAgent], talk: Conversation, done: Done) -> None:
    try:
        for message in _until_gone(source):
            step = talk.take(message)
            if step is not None and not done.add(step):
                return
    finally:
        done.add(None)


def _until_gone(source: Iterator[wire.FromAgent]) -> Iterator[wire.FromAgent]:
    with contextlib.suppress(Exception):  # gRPC raises plain ones when an agent goes away
        yield from source


def serve(
    archive: Path,
    run_id: str,
    token: str,
    port: int,
    *,
    listen: str = LOOPBACK,
    tls: Path | None = None,
) -> tuple[grpc.Server, int]:
    """Start a collector; port 0 means any free one. Raises EnvironmentLacks."""
    server = grpc.server(ThreadPoolExecutor(STREAMS_MAX), options=_OPTIONS)
    collector = Collector(archive, run_id, token)
    telemetry_pb2_grpc.add_TelemetryServicer_to_server(collector, server)
    cluster_pb2_grpc.add_TimeServicer_to_server(TimeServer(), server)
    bound = add_port(server, listen, port, tls)
    server.start()
    return server, bound


def main() -> None:
    """Serve until standard input ends, which it does when the starting process dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--listen", default=LOOPBACK, help="address of this machine; needs --tls")
    parser.add_argument("--tls", type=Path, help="folder with ca.pem, cert.pem and key.pem")
    options = parser.parse_args()
    if options.listen != LOOPBACK and options.tls is None:
        parser.error("--listen needs --tls: nothing listens beyond loopback without it")
    if options.tls:
        log_failed_handshakes()
    token = options.token_file.read_text(encoding="ascii").strip()
    server, port = serve(
        options.archive,
        options.run_id,
        token,
        options.port,
        listen=options.listen,
        tls=options.tls,
    )
    sys.stdout.write(json.dumps({"address": joined_address(options.listen, port)}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(grace=1.0).wait()


if __name__ == "__main__":
    main()
