"""Latencies are those that the service had: neither rounded, nor forgotten while it stood still."""

from __future__ import annotations

import pytest

from tests.benchmarks import latencytruth


@pytest.mark.parametrize("delay_ms", [1, 20])
def test_a_delay_is_seen_as_long_as_it_was(delay_ms: int) -> None:
    off_ns, truth_ns = latencytruth.delay_error_ns(delay_ms, 1.0)
    assert truth_ns >= delay_ms * 1e6
    # What lies between the two clocks: the network, and a machine that has other things to do.
    assert 0 < off_ns < 2e6


def test_a_stall_shows_in_every_request_that_was_due_in_it() -> None:
    due, shown, off_s = latencytruth.stall()
    assert 195 <= due <= 205
    assert shown >= due * 0.98
    assert off_s < 0.1
