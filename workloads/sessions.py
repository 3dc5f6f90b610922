"""Sessions: several requests of one user with pauses between them, as people make them.

    from locust import between, task
    from workloads.sessions import think
    from workloads.users import HttpUser

    class Shopper(HttpUser):
        @task
        def visit(self):
            self.client.post("/login")
            think(between(1, 3))
            self.client.get("/items")

In an open loop an arrival begins the session. The request after a pause is meant for the pause's
end, so what comes later by the load generator's own fault is in its latency, and shows as lag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import locust

from workloads.http1.recording import log_of

_thinking: set[Any] = set()


def think(pause: float | Callable[[Any], float]) -> None:
    """Wait so many seconds, or as long as one of Locust's wait times says (`between(1, 3)`)."""
    pause_s = pause(None) if callable(pause) else pause
    log = log_of(locust)
    due_ns = log.now_ns() + round(pause_s * 1e9)
    user = gevent.getcurrent()
    _thinking.add(user)
    try:
        gevent.sleep(pause_s)
    finally:
        _thinking.discard(user)
    log.intend(due_ns)


def thinking() -> int:
    """Users of this process that are in a pause: they are busy, but wait for nobody."""
    return len(_thinking)
