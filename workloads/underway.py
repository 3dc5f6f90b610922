"""The requests of one user that have no answer yet, of any protocol: each becomes a row at its end.

What is still here when the load ends is found by the load generator and becomes a row too, as
unanswered: so a hung service can't look like a quick one.
"""

from __future__ import annotations

from typing import Any, Final

from workloads.http1.recording import log_of

NO_STATUS: Final = 0
NO_LENGTH: Final = -1
TEXTS_MAX: Final = 100


class Request:
    """One request under way; instants are nanoseconds since the epoch."""

    __slots__ = ("busy_since_ns", "due_ns", "kind", "method", "name", "start_ns")

    def __init__(self, method: str, name: str, kind: int, start_ns: int, due_ns: int | None):
        self.method = method
        self.name = name
        self.kind = kind
        self.start_ns = self.busy_since_ns = start_ns
        self.due_ns = due_ns


class Requests:
    """Begins and ends the requests of one user."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._log = log_of(user.environment)
        self._under_way: set[Request] = set()
        self._log.watch(self._under_way)
        self.now_ns = self._log.now_ns

    def begin(self, method: str, name: str) -> Request:
        """A request is sent now."""
        log = self._log
        kind = log.kind_of(method, name)
        start_ns = log.now_ns()
        request = Request(method, name, kind, start_ns, log.due_ns(start_ns))
        self._under_way.add(request)
        return request

    def end(
        self,
        request: Request,
        *,
        status: int = NO_STATUS,
        response_bytes: int = NO_LENGTH,
        error: str | None = None,
        end_ns: int = 0,
        response: Any = None,
    ) -> None:
        """It has an answer or has failed: now, or at `end_ns`."""
        self._under_way.discard(request)
        request.busy_since_ns = 0
        self._add(request, status, response_bytes, error, end_ns, response)

    def part(self, request: Request, method: str, name: str, status: int, size: int) -> None:
        """Something within a request is there, such as its first message: a row of its own."""
        kind = self._log.kind_of(method, name)
        part = Request(method, name, kind, request.start_ns, request.due_ns)
        self._add(part, status, size, None, 0, None)

    def _add(
        self, request: Request, status: int, size: int, error: str | None, end_ns: int, answer: Any
    ) -> None:
        start_ns, end_ns = request.start_ns, end_ns or self.now_ns()
        log = self._log
        log.add(start_ns, end_ns, request.due_ns, request.kind, status, size, error)
        if log.listeners:
            log.tell(
                request_type=request.method,
                name=request.name,
                response_time=(end_ns - start_ns) / 1e6,
                response_length=max(0, size),
                exception=RequestFailed(error) if error else None,
                context=self._user.context(),
                response=answer,
                start_time=start_ns / 1e9,
            )


class RequestFailed(Exception):
    """What the listeners of Locust's request event are given for one that failed."""


class Texts:
    """Texts that others make, such as a server's own words, as long as they are few.

    They end up in a column that is made for words: a text that names an id would be another one
    in each row.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def told(self, code: str, text: str | None) -> str:
        """`CODE: text`, or the code alone once there were too many different texts."""
        told = " ".join(f"{code}: {text}".split())[:200] if text else code
        if told not in self._known:
            if len(self._known) >= TEXTS_MAX:
                return code
            self._known.add(told)
        return told
