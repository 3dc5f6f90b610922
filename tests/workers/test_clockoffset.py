"""Offsets of clocks, measured over real gRPC against a server whose clock is known to be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from results.clock import wall_ns
from results.collecting.timeserver import TimeServer
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc
from workers.clockoffset import ClockOffset, jumped, measure

MS = 1_000_000


class WrongClock(wire_grpc.TimeServicer):
    """A server whose clock is ahead, and which takes its time before it answers."""

    def __init__(self, ahead_ns: int, thinks_ns: int = 0) -> None:
        self.ahead_ns = ahead_ns
        self._thinks_ns = thinks_ns

    def Read(self, request: wire.ReadRequest, context: grpc.ServicerContext) -> wire.ReadReply:
        received_ns = wall_ns()
        while wall_ns() < received_ns + self._thinks_ns:
            pass
        return wire.ReadReply(
            received_ns=received_ns + self.ahead_ns, sent_ns=wall_ns() + self.ahead_ns
        )


@contextmanager
def serving(clock: wire_grpc.TimeServicer) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    wire_grpc.add_TimeServicer_to_server(clock, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(grace=None).wait()


@pytest.mark.parametrize("ahead_ms", [0, 7, -7, 3_600_000, -86_400_000])
def test_the_true_offset_lies_within_the_bound(ahead_ms: int) -> None:
    with serving(WrongClock(ahead_ms * MS)) as channel:
        found = measure(channel)
    assert abs(found.offset_ns - ahead_ms * MS) <= found.error_ns


def test_the_time_that_the_server_takes_is_no_error() -> None:
    with serving(WrongClock(5 * MS, thinks_ns=20 * MS)) as channel:
        found = measure(channel, rounds=4)
    assert abs(found.offset_ns - 5 * MS) <= found.error_ns
    assert found.error_ns < 10 * MS


def test_the_real_server_has_this_machines_clock() -> None:
    with serving(TimeServer()) as channel:
        found = measure(channel)
    assert abs(found.offset_ns) <= found.error_ns


def test_a_clock_that_is_set_between_two_measurements_is_noticed() -> None:
    clock = WrongClock(0)
    with serving(clock) as channel:
        before = measure(channel)
        assert not jumped(before, measure(channel))
        clock.ahead_ns = 200 * MS
        assert jumped(before, measure(channel))
        clock.ahead_ns = -200 * MS
        assert jumped(before, measure(channel))


def at(second: float, offset_ns: int = 0, own_ns: int = 0, error_ns: int = MS) -> ClockOffset:
    """A measurement at a second of the steady clock, with this machine's clock off by own_ns."""
    steady = int(second * 1e9)
    return ClockOffset(offset_ns, error_ns, 10**18 + steady + own_ns, steady)


@pytest.mark.parametrize(
    ("after", "is_jump"),
    [
        (at(60), False),
        (at(60, offset_ns=3 * MS), False),
        (at(60, offset_ns=30 * MS, error_ns=40 * MS), False),
        (at(3600, offset_ns=1000 * MS), False),  # steered for an hour
        (at(60, offset_ns=100 * MS), True),
        (at(60, offset_ns=-100 * MS, own_ns=100 * MS), True),
        (at(60, own_ns=100 * MS), True),  # both clocks set alike: times of this node still jump
    ],
)
def test_drift_and_error_are_no_jump(after: ClockOffset, is_jump: bool) -> None:
    assert jumped(at(0), after) == is_jump
    assert jumped(at(0, after.offset_ns), at(60, after.offset_ns)) is False
