"""What an interrupt does to the process that gets it."""

from __future__ import annotations

import os
import signal

import pytest

from orchestrator.interrupt import Stop, stop_on_interrupt


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="Windows has no alarms")
def test_an_interrupt_cancels_the_alarm_with_which_ray_would_abort() -> None:
    """Its handler of SIGTERM is that of Abseil, which gives a dying process three seconds."""
    stop, abandoned = Stop(), []
    with stop_on_interrupt(stop, lambda: abandoned.append(1)):
        signal.alarm(60)
        os.kill(os.getpid(), signal.SIGTERM)
        left_s = signal.alarm(0)
    assert stop.is_set()
    assert (left_s, abandoned) == (0, [])
