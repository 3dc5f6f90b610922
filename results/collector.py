"""The collector: a gRPC server that writes what agents send into the archive of one run.

Batches are acknowledged after `fdatasync`. What arrives together is synced together, so the cost of
a sync is shared. With a folder of certificates it serves other machines, by mutual TLS; without,
this one alone. Run as a process of its own: python -m results.collector --help.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from results.opentrials import OpenTrials
from results.secure import (
    RareLog,
    add_port,
    caller,
    joined_address,
    log_failed_handshakes,
    peer_host,
    say,
)
from results.timeserver import TimeServer
from results.trialfiles import BadBatch
from results.trialwriter import Refusal
from results.wire import cluster_pb2_grpc, telemetry_pb2_grpc
from results.wire import telemetry_pb2 as wire

MESSAGE_BYTES_MAX = 64 * 2**20
SYNC_TOGETHER_MAX = 64
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
        self._lock = threading.Lock()
        self._trials = OpenTrials(archive / run_id / "trials", run_id)
        self._rare = RareLog()

    def Publish(  # noqa: D102 - the name is the wire's
        self, request_iterator: Iterator[wire.FromAgent], context: grpc.ServicerContext
    ) -> Iterator[wire.FromCollector]:
        self._authenticate(context, "head", "node")
        talk = Conversation(self._trials, peer_host(context.peer()), self._rare)
        incoming: queue.Queue[wire.FromAgent | None] = queue.Queue(SYNC_TOGETHER_MAX)
        threading.Thread(target=_pump, args=(request_iterator, incoming), daemon=True).start()
        while True:
            messages = _together(incoming)
            with self._lock:
                answers = list(talk.handle([m for m in messages if m is not None]))
            yield from answers
            if messages[-1] is None:
                return

    def Abandon(  # noqa: D102
        self, request: wire.AbandonTrial, context: grpc.ServicerContext
    ) -> wire.Abandoned:
        self._authenticate(context, "head")
        try:
            with self._lock:
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


class Conversation:
    """What one agent says, and the answers."""

    def __init__(self, trials: OpenTrials, host: str, rare: RareLog) -> None:
        self._trials = trials
        self._host = host
        self._rare = rare
        self._parts: dict[str, int] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def handle(self, messages: list[wire.FromAgent]) -> Iterator[wire.FromCollector]:
        """Write what came together, sync once, then acknowledge."""
        written: dict[str, dict[str, int]] = {}
        for message in messages:
            kind = message.WhichOneof("kind")
            trial_id = getattr(message, kind).trial_id if kind else ""
            try:
                if kind == "batch":
                    self._add(message.batch)
                    written.setdefault(trial_id, {})[message.batch.stream] = message.batch.sequence
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

    def _add(self, batch: wire.Batch) -> None:
        writer = self._trials.writer(batch.trial_id)
        part = self._part(batch.trial_id)
        key = batch.trial_id, batch.stream
        if batch.sequence <= self._seen.get(key, 0):
            # It is dropped by its number below; an agent never sends one twice by itself.
            self._rare.say(
                self._host, "dropped a replayed batch", f"{batch.stream} of {batch.trial_id}"
            )
        writer.add(batch.stream, part, batch.sequence, batch.arrow_ipc)
        self._seen[key] = max(batch.sequence, self._seen.get(key, 0))

    def _part(self, trial_id: str) -> int:
        if trial_id not in self._parts:
            raise Refusal(f"trial {trial_id!r} was not opened")
        return self._parts[trial_id]

    def _acknowledge(self, written: dict[str, dict[str, int]]) -> Iterator[wire.FromCollector]:
        for trial_id, streams in written.items():
            try:
                self._trials.writer(trial_id).sync(set(streams))
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

    def _opened(self, message: wire.OpenTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        last = self._trials.open(message)
        self._parts[trial_id] = message.part
        self._seen |= {(trial_id, stream): sequence for stream, sequence in last.items()}
        return wire.FromCollector(opened=wire.Opened(trial_id=trial_id, last_sequence=last))

    def _finished(self, message: wire.FinishTrial) -> wire.FromCollector:
        trial_id = message.trial_id
        if message.part != self._part(trial_id):
            raise Refusal(f"part {message.part} of {trial_id!r} was not opened")
        found = self._trials.finish(message)
        finished = wire.Finished(trial_id=trial_id, differences=found)
        return wire.FromCollector(finished=finished)

    def _refused(self, trial_id: str, reason: str) -> wire.FromCollector:
        self._rare.say(self._host, f"refused {trial_id!r}", reason)
        part = self._parts.pop(trial_id, None)
        if part is not None:
            self._trials.let_go(trial_id, part)
        return wire.FromCollector(refused=wire.Refused(trial_id=trial_id, reason=reason))


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
