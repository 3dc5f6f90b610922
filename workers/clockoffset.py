"""How far the clock of another machine is from this one's, and how sure that is.

Measured as NTP does it (RFC 5905, section 8): the other side tells when it got the question and
when it answered. Of several round trips the shortest counts, because the true offset lies within
half the round trip of the estimate, whichever way was the slower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from results.clock import steady_ns, wall_ns
from results.collecting.secure import open_channel
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc

ROUNDS = 16
TIMEOUT_S = 5.0
DRIFT_MAX = 500e-6
"""A clock that is steered runs at most this share too fast or too slow (adjtimex(2))."""

JUMP_MIN_NS = 2_000_000


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The other clock minus this one: within `error_ns` of `offset_ns`.

    `measured_ns` is this machine's UTC, `steady_ns` its steady clock, at the measurement.
    """

    offset_ns: int
    error_ns: int
    measured_ns: int
    steady_ns: int


def measure(channel: grpc.Channel, rounds: int = ROUNDS) -> ClockOffset:
    """Measure over an open channel to a head or a collector. Raises grpc.RpcError."""
    stub = wire_grpc.TimeStub(channel)
    stub.Read(wire.ReadRequest(), timeout=TIMEOUT_S)  # so that no connection is set up meanwhile
    found = [_round(stub) for _ in range(rounds)]
    return min(found, key=lambda offset: offset.error_ns)


def measure_at(address: str, tls_folder: Path | None, rounds: int = ROUNDS) -> ClockOffset:
    """Connect to a head or a collector and measure. Raises grpc.RpcError, EnvironmentLacks."""
    with open_channel(address, tls_folder) as channel:
        return measure(channel, rounds)


def _round(stub: wire_grpc.TimeStub) -> ClockOffset:
    began_ns = wall_ns()
    before_ns = steady_ns()
    reply = stub.Read(wire.ReadRequest(), timeout=TIMEOUT_S)
    took_ns = steady_ns() - before_ns
    there_ns = reply.sent_ns - reply.received_ns
    # The end by the steady clock: this one must not be fooled by a jump in the middle.
    ended_ns = began_ns + took_ns
    return ClockOffset(
        offset_ns=((reply.received_ns - began_ns) + (reply.sent_ns - ended_ns)) // 2,
        error_ns=max(0, took_ns - there_ns) // 2 + 1,
        measured_ns=began_ns,
        steady_ns=before_ns,
    )


def jumped(before: ClockOffset, after: ClockOffset) -> bool:
    """Whether one of the two clocks was set between two measurements on this machine.

    The change of the offset is held against what both errors and a steered clock's drift allow;
    this machine's own clock is also held against its steady one.
    """
    elapsed_ns = after.steady_ns - before.steady_ns
    drift_ns = JUMP_MIN_NS + DRIFT_MAX * elapsed_ns
    moved_ns = abs(after.offset_ns - before.offset_ns)
    own_ns = abs((after.measured_ns - before.measured_ns) - elapsed_ns)
    return moved_ns > before.error_ns + after.error_ns + 2 * drift_ns or own_ns > drift_ns
