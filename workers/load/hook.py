"""Locust's request event: every request becomes a row, answered or not, whatever listeners do."""

from __future__ import annotations

# isort: off
from locust.event import EventHook
from locust.exception import StopUser
import gevent
# isort: on

import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.clock import ClockMap, steady_ns
from workers.load.recorder import NO_LENGTH, Recorder, error_text

UNANSWERED = "no answer when the load generator ended"


class SteadyTime:
    """Stands in for the `time` module in Locust's clients: request starts from our one clock."""

    def __init__(self, clock: ClockMap) -> None:
        self._clock = clock

    def time(self) -> float:
        """Seconds since the epoch that never step."""
        return self._clock.now_ns() / 1e9

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@dataclass(frozen=True, slots=True)
class Underway:
    """A request that was sent and has no answer yet."""

    intended_ns: int | None
    start_ns: int
    method: str
    name: str


@dataclass(slots=True)
class Turn:
    """An arrival in the hands of a user: its intended start is that of the task's first request.

    A request inside another one's `with … catch_response` block ends first, but began second.
    """

    intended_ns: int | None
    first_ns: int | None = None
    second_ns: int | None = None

    def begin(self, start_ns: int) -> None:
        """A request of the task begins."""
        if self.first_ns is None:
            self.first_ns = start_ns
        elif self.second_ns is None:
            self.second_ns = start_ns

    def due(self, start_ns: int) -> int:
        """When a request that began at `start_ns` was meant to."""
        is_first = self.second_ns is None or start_ns < self.second_ns
        return self.intended_ns if is_first and self.intended_ns is not None else start_ns

    def take(self, start_ns: int) -> int:
        """When a request that begins now was meant to: only the first one has the arrival's."""
        due_ns, self.intended_ns = self.intended_ns, None
        return start_ns if due_ns is None else due_ns

    def again(self, intended_ns: int) -> None:
        """The user has paused on purpose: its next request is meant for that instant."""
        self.intended_ns = intended_ns
        self.first_ns = self.second_ns = None


class RowLog:
    """What `workloads.http1.recording.RequestLog` asks for: rows without Locust's event."""

    def __init__(self, hook: RecordingHook, recorder: Recorder, clock: ClockMap) -> None:
        self._hook = hook
        self._recorder = recorder
        self.add = recorder.add
        self.kind_of = recorder.kind_of
        self._watched: list[Iterable[Any]] = []
        offset_ns = clock.offset_ns
        self.now_ns = lambda: steady_ns() + offset_ns

    def due_ns(self, start_ns: int) -> int | None:
        """When a request that begins now was meant to; None in a closed loop."""
        turn: Turn | None = getattr(gevent.getcurrent(), "turn", None)
        return turn.take(start_ns) if turn else None

    def intend(self, due_ns: int) -> None:
        """The next request of this task is meant for that instant; nothing in a closed loop."""
        turn: Turn | None = getattr(gevent.getcurrent(), "turn", None)
        if turn:
            turn.again(due_ns)

    def watch(self, under_way: Iterable[Any]) -> None:
        """A live collection, in which what has no answer at the end will be found."""
        self._watched.append(under_way)

    def give_up(self) -> int:
        """What has no answer yet becomes rows, as in `RecordingHook.give_up`."""
        now_ns, left = self.now_ns(), 0
        for request in (r for watched in self._watched for r in watched if r.busy_since_ns):
            left += 1
            row = (request.busy_since_ns, now_ns, request.due_ns, request.kind)
            self._recorder.add(*row, 0, NO_LENGTH, UNANSWERED)
            request.busy_since_ns = 0
        self.add = lambda *_row: None  # clients hold the log, not its method
        return left

    @property
    def listeners(self) -> bool:
        """Whether the user's own code listens to Locust's `request` event."""
        return self._hook.has_listeners

    def tell(self, **request: Any) -> None:
        """Let the listeners hear of a request that is a row already."""
        self._hook.tell_listeners(request, own_only=True)


class RecordingHook(EventHook):
    """Locust's request event: the row first, then the listeners, none of which can lose it."""

    def __init__(self, recorder: Recorder, clock: ClockMap) -> None:
        super().__init__()
        self._recorder = recorder
        self._clock = clock
        self.over = False
        self.unrecorded = 0
        self.underway: dict[object, Underway] = {}
        self.failures: Counter[tuple[str, str]] = Counter()
        self.log = RowLog(self, recorder, clock)
        self._known_handlers = 0
        self._own_handlers: list[Any] = []

    @property
    def has_listeners(self) -> bool:
        """Whether anybody but Locust's own statistics listens."""
        if len(self._handlers) != self._known_handlers:
            self._known_handlers = len(self._handlers)
            self._own_handlers = [h for h in self._handlers if not _is_locusts(h)]
        return bool(self._own_handlers)

    def fire(self, *, reverse: bool = False, **request: Any) -> None:
        """Record the request, then tell every listener."""
        try:
            if not self.over:
                self._record(request)
        except Exception as error:
            self.unrecorded += 1
            text = f"a request could not be recorded: {error_text(error)}"
            self.failures["unrecorded", text] += 1
        self.tell_listeners(request)

    def tell_listeners(self, request: dict[str, Any], *, own_only: bool = False) -> None:
        """Tell every listener; one that raises is noted, and the others hear it all the same."""
        for listener in list(self._own_handlers if own_only else self._handlers):
            try:
                listener(**request)
            except (StopUser, gevent.GreenletExit):
                raise
            except Exception as error:
                name = getattr(listener, "__qualname__", repr(listener))
                text = f"listener {name} raised {described(error)}"
                self.failures["listener_failed", text] += 1

    def _record(self, request: dict[str, Any]) -> None:
        service_ns = round((request.get("response_time") or 0.0) * 1e6)
        started_s = request.get("start_time")
        start_ns = round(started_s * 1e9) if started_s else self._clock.now_ns() - service_ns
        exception, response = request.get("exception"), request.get("response")
        # A connection that failed has status 0 in Locust: there was no answer.
        status = getattr(response, "status_code", None)
        length = request.get("response_length")
        self._recorder.add(
            start_ns,
            start_ns + service_ns,
            self._intended(start_ns),
            self._recorder.kind_of(str(request.get("request_type")), str(request.get("name"))),
            status if isinstance(status, int) else 0,
            NO_LENGTH if length is None else length,
            error_text(exception) if exception else None,
        )

    def _intended(self, start_ns: int) -> int | None:
        """The arrival's instant for the first request of its task; None in a closed loop."""
        turn: Turn | None = getattr(gevent.getcurrent(), "turn", None)
        if turn is None:
            return None
        due_ns = turn.due(start_ns)
        if due_ns == turn.intended_ns:
            turn.intended_ns = None
        return due_ns

    def follow(self, session: type) -> None:
        """Know of every request of a kind of session from its start on, not only at its end."""
        send = session.request  # type: ignore[attr-defined]

        def request(client: Any, method: Any, url: Any, name: Any = None, **rest: Any) -> Any:
            start_ns = self._clock.now_ns()
            turn: Turn | None = getattr(gevent.getcurrent(), "turn", None)
            if turn:
                turn.begin(start_ns)
            due_ns = turn.due(start_ns) if turn else None
            ticket, called = object(), str(name or url)
            self.underway[ticket] = Underway(due_ns, start_ns, str(method), called)
            try:
                answer = send(client, method, url, name, **rest)
            except gevent.GreenletExit:
                raise  # its user was ended: nobody waits for the answer any more
            except BaseException:
                self.underway.pop(ticket, None)
                raise
            self.underway.pop(ticket, None)
            return answer

        session.request = request  # type: ignore[attr-defined]

    def give_up(self) -> int:
        """What has no answer yet becomes rows: without them a hung service looks like a quick one.

        Their times are lower bounds, and nothing is recorded any more. Returns how many they are.
        """
        self.over = True
        left, self.underway = self.underway, {}
        now_ns = self._clock.now_ns()
        for sent in left.values():
            kind = self._recorder.kind_of(sent.method, sent.name)
            row = (sent.start_ns, now_ns, sent.intended_ns, kind)
            self._recorder.add(*row, 0, NO_LENGTH, UNANSWERED)
        return len(left) + self.log.give_up()


def _is_locusts(handler: Any) -> bool:
    return str(getattr(handler, "__module__", "")).startswith("locust.")


def described(error: BaseException, scenario: Path | None = None) -> str:
    """`file.py:12: ValueError: why`, the innermost place in the user's own files."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if scenario is None or Path(f.filename).parent == scenario.parent]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""
    if not place and scenario:
        place = f"{scenario.name}: "
    return f"{place}{type(error).__name__}: {error_text(error)}"
