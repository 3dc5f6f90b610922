"""A node's word to its head, each second: that it lives, how busy it is, how its clock stands."""

from __future__ import annotations

import json
import threading
import time

import grpc

from orchestrator.membership.nodestate import NodeState
from orchestrator.membership.pki import (
    RENEW_DAYS,
    certificate_request,
    days_left,
    key_pem,
    make_key,
)
from orchestrator.membership.raywatch import RayWatch
from results.collecting.secure import CERTIFICATE, RareLog, open_channel
from results.errors import EnvironmentLacks
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc
from workers.clockoffset import ClockOffset, jumped, measure
from workers.facts import node_class, node_facts
from workers.quiet import Quiet, QuietWatch

BEAT_EVERY_S = 1.0
BEAT_TIMEOUT_S = 3.0
QUIET_EVERY_S = 5.0
CLOCK_EVERY_S = 30.0
CERTIFICATE_EVERY_S = 3600.0
_OPTIONS = (("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 200))


class Attendance:
    """Beats until told to stop, whatever becomes of the head meanwhile."""

    def __init__(self, state: NodeState, ray: RayWatch, stop: threading.Event) -> None:
        self._state = state
        self._identity = state.identity()
        self._ray = ray
        self._stop = stop
        self._log = RareLog()
        self._watch = QuietWatch()
        self._quiet: Quiet | None = None
        self._clock: ClockOffset | None = None
        self._facts_wanted = False
        self._measuring = False
        self._jump = ""
        self._due: dict[str, float] = {"quiet": time.monotonic() + QUIET_EVERY_S}

    def run(self) -> None:
        """Keep a connection to the head; a new one after each failure and each new certificate."""
        while not self._stop.is_set():
            try:
                with open_channel(self._identity.head, self._state.tls_folder, _OPTIONS) as channel:
                    self._beat_while_it_works(channel)
            except (grpc.RpcError, EnvironmentLacks) as error:
                self._log.say(self._identity.head, "no word from the head", _details(error))
                self._stop.wait(BEAT_EVERY_S)

    def _beat_while_it_works(self, channel: grpc.Channel) -> None:
        """Returns when there is a new certificate. Raises grpc.RpcError."""
        stub = wire_grpc.ClusterStub(channel)
        while not self._stop.wait(BEAT_EVERY_S):
            word = stub.Beat(self._beat(), timeout=BEAT_TIMEOUT_S)
            self._facts_wanted = word.facts_wanted
            self._measuring = bool(word.measuring_run)
            self._ray.want(word.session, word.ray_address)
            if self._is_due("clock", CLOCK_EVERY_S):
                self._measure_clock(channel)
            if self._is_due("quiet", QUIET_EVERY_S):
                # A look at all processes is work too: not while something is measured.
                self._quiet = None if self._measuring else self._watch.look()
            checking = not self._measuring and self._is_due("certificate", CERTIFICATE_EVERY_S)
            if checking and self._renewed(stub):
                return

    def _beat(self) -> wire.BeatRequest:
        beat = wire.BeatRequest(
            ray_session=self._ray.session,
            problem=self._ray.problem or self._jump,
            busy_share=self._quiet.busy_share if self._quiet else -1.0,
            busy_with=self._quiet.busy_with if self._quiet else "",
        )
        if self._clock:
            beat.clock_offset_ns = self._clock.offset_ns
            beat.clock_error_ns = self._clock.error_ns
            beat.clock_measured_ns = self._clock.measured_ns
        if self._facts_wanted:
            facts = node_facts()
            beat.facts_json = json.dumps(facts).encode()
            beat.node_class = node_class(facts)
        return beat

    def _measure_clock(self, channel: grpc.Channel) -> None:
        before, self._clock = self._clock, measure(channel)
        if before is not None and jumped(before, self._clock):
            moved_ms = (self._clock.offset_ns - before.offset_ns) / 1e6
            self._jump = f"the clock jumped by {moved_ms:+.1f} ms"
            self._log.say(self._identity.name, self._jump)
        else:
            self._jump = ""

    def _renewed(self, stub: wire_grpc.ClusterStub) -> bool:
        certificate = (self._state.tls_folder / CERTIFICATE).read_bytes()
        if days_left(certificate) > RENEW_DAYS:
            return False
        key = make_key()
        request = wire.RenewRequest(certificate_request=certificate_request(key))
        reply = stub.Renew(request, timeout=BEAT_TIMEOUT_S)
        self._state.recertify(reply.certificate, key_pem(key))
        self._log.say(self._identity.name, "the certificate was renewed")
        self._ray.anew()
        return True

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due.get(what, 0.0):
            return False
        self._due[what] = now_s + every_s
        return True


def _details(error: Exception) -> str:
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)
