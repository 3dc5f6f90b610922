"""Where a client's requests become rows: Heapgate's recorder, or Locust's own event without it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol


class UnderWay(Protocol):
    """A request that has no answer yet, while `busy_since_ns` is not 0."""

    busy_since_ns: int
    due_ns: int | None
    kind: int


class RequestLog(Protocol):
    """What the load generator offers to a client that makes its rows itself.

    Times are nanoseconds since the epoch on the generator's one clock.
    """

    def now_ns(self) -> int:
        """Now."""

    def kind_of(self, method: str, name: str) -> int:
        """The number of a request's method and name."""

    def due_ns(self, start_ns: int) -> int | None:
        """When a request that begins now was meant to; None in a closed loop."""

    def intend(self, due_ns: int) -> None:
        """The next request of this task is meant for that instant; nothing in a closed loop."""

    def add(
        self,
        start_ns: int,
        end_ns: int,
        due_ns: int | None,
        kind: int,
        status: int,
        response_bytes: int,
        error: str | None,
    ) -> None:
        """One row. `status` 0 and `response_bytes` -1 stand for none."""

    def watch(self, under_way: Iterable[UnderWay]) -> None:
        """A live collection, in which what has no answer at the end will be found."""

    @property
    def listeners(self) -> bool:
        """Whether the user's own code listens to Locust's `request` event."""

    def tell(self, **request: Any) -> None:
        """Let the listeners hear of a request that is a row already."""


class EventLog:
    """Without Heapgate's generator (plain `locust -f`): every request is Locust's own event."""

    listeners = True

    def __init__(self, environment: Any) -> None:
        self._event = environment.events.request

    def now_ns(self) -> int:
        """Now."""
        return time.time_ns()

    def kind_of(self, _method: str, _name: str) -> int:
        """Not needed."""
        return 0

    def due_ns(self, _start_ns: int) -> int | None:
        """Locust has no open loop."""
        return None

    def intend(self, _due_ns: int) -> None:
        """Locust has no open loop."""

    def add(self, *_row: Any) -> None:
        """Locust takes it from the event."""

    def watch(self, under_way: Iterable[UnderWay]) -> None:
        """Locust forgets what has no answer."""

    def tell(self, **request: Any) -> None:
        """Fire Locust's event."""
        self._event.fire(**request)


def log_of(environment: Any) -> RequestLog:
    """The log of this process."""
    log: RequestLog | None = getattr(environment.events.request, "log", None)
    return log or EventLog(environment)
