"""gRPC calls that are rows: one for each call, at its end, whatever the end is.

grpcio's blocking calls occupy a thread of gevent's pool each: with more than a handful under way
all others wait for a thread, and the service gets the blame. So every call here is made the other
way, by a future whose end wakes the greenlet that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import gevent
import gevent.event
import grpc
from gevent.queue import SimpleQueue

from workloads.rpc.failures import error_of, status_of
from workloads.underway import NO_LENGTH, Request, Requests

METHOD: Final = "gRPC"
PART: Final = "gRPC message"
GIVEN_UP: Final = "given up by the scenario"
_DONE: Final = object()

Serialize = Callable[[Any], bytes]
Parse = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all calls of a user."""

    timeout_s: float
    metadata: tuple[tuple[str, str | bytes], ...]
    accepted: frozenset[str]
    first_messages: bool


class RecordedChannel:
    """In place of a grpc.Channel: for generated stubs and for those by name alike."""

    def __init__(self, channel: Any, requests: Requests, terms: Terms) -> None:
        self._channel = channel
        self._requests = requests
        self._terms = terms

    # Generated stubs call these by grpc.Channel's own names of the parameters.

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        _registered_method: bool = False,
    ) -> Whole:
        """A call with one message there and one back."""
        start = self._channel.unary_unary(method).future
        return Whole(self._line(method, start, response_deserializer, request_serializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        _registered_method: bool = False,
    ) -> Whole:
        """A call with many messages there and one back."""
        start = self._channel.stream_unary(method).future
        return Whole(self._line(method, start, response_deserializer, _each(request_serializer)))

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        _registered_method: bool = False,
    ) -> Streamed:
        """A call with one message there and many back."""
        start = self._channel.unary_stream(method)
        return Streamed(self._line(method, start, response_deserializer, request_serializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize,
        response_deserializer: Parse,
        _registered_method: bool = False,
    ) -> Talking:
        """A call with many messages there and back."""
        start = self._channel.stream_stream(method)
        return Talking(self._line(method, start, response_deserializer, _each(request_serializer)))

    def _line(self, path: str, call: Any, of: Parse, to: Callable[[Any], Any]) -> Line:
        return Line(self._requests, self._terms, path.removeprefix("/"), call, of, to)


def _each(serialize: Serialize) -> Callable[[Any], Iterator[bytes]]:
    return lambda messages: map(serialize, messages)


@dataclass(frozen=True, slots=True)
class Line:
    """A method of a service, ready to be called by one user."""

    requests: Requests
    terms: Terms
    name: str
    start: Callable[..., Any]
    parse: Parse
    prepare: Callable[[Any], Any]

    def begin(
        self, sent: Any, timeout: float | None, metadata: Any, name: str | None, how: dict[str, Any]
    ) -> Call:
        """Send it. `how` are grpcio's own further options."""
        message = self.prepare(sent)
        request = self.requests.begin(METHOD, name or self.name)
        every = (*self.terms.metadata, *(metadata or ()))
        try:
            call = self.start(message, timeout or self.terms.timeout_s, every or None, **how)
        except grpc.RpcError as error:  # it was not even sent: the channel is closed, say
            self.requests.end(request, error=error_of(error.code(), error.details()))
            raise
        return Call(self, request, call)


class Call:
    """One call under way, and its one row."""

    def __init__(self, line: Line, request: Request, call: Any) -> None:
        self._line = line
        self._request = request
        self._call = call
        self.size = 0
        self.over = False

    def received(self, raw: bytes) -> None:
        """A message came."""
        self.size += len(raw)

    def first(self) -> None:
        """The first of many messages came: how long that took is a row, where it is asked for."""
        if self._line.terms.first_messages:
            name = f"{self._request.name} first message"
            self._line.requests.part(self._request, PART, name, 200, self.size)

    def end(self) -> None:
        """The server or gRPC has ended it."""
        call, self.over = self._call, True
        code, details = call.code(), call.details()
        is_good = code.name in self._line.terms.accepted
        self._line.requests.end(
            self._request,
            status=status_of(code, details),
            response_bytes=self.size if status_of(code, details) else NO_LENGTH,
            error=None if is_good else error_of(code, details),
            response=call,
        )

    def give_up(self) -> None:
        """The scenario wants no more of it."""
        if not self.over:
            self.over = True
            self._line.requests.end(self._request, response_bytes=self.size, error=GIVEN_UP)
            self._call.cancel()


class Whole:
    """A method whose answer is one message."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        *,
        name: str | None = None,
        **how: Any,
    ) -> Any:
        """Call it and wait for the answer. Raises grpc.RpcError."""
        call = self._line.begin(request, timeout, metadata, name, how)
        future = call._call
        done = gevent.event.Event()
        future.add_done_callback(lambda _future: done.set())
        try:
            done.wait()
        except gevent.GreenletExit:
            raise  # its user was ended: the call stays under way, and is told as such
        except BaseException:
            call.give_up()
            raise
        if future.code() is grpc.StatusCode.OK:
            raw = future.result()
            call.received(raw)
            call.end()
            return self._line.parse(raw)
        call.end()
        raise future


class Streamed:
    """A method whose answer is a stream."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        *,
        name: str | None = None,
        **how: Any,
    ) -> Messages:
        """Call it: what is returned are the messages, as they come."""
        return Messages(self._line.begin(request, timeout, metadata, name, how), self._line.parse)


class Talking(Streamed):
    """A method with streams both ways."""

    def open(
        self,
        timeout: float | None = None,
        metadata: Any = None,
        *,
        name: str | None = None,
        **how: Any,
    ) -> Conversation:
        """Begin a conversation: messages are sent when the scenario says so."""
        outgoing: SimpleQueue[Any] = SimpleQueue()
        # Its iterator runs in a greenlet of its own, and waits there for the next message.
        call = self._line.begin(iter(outgoing.get, _DONE), timeout, metadata, name, how)
        return Conversation(call, self._line, outgoing)


class Messages:
    """A stream's messages. The call's row is made when they end, fail, or are given up."""

    def __init__(self, call: Call, parse: Parse) -> None:
        self._call_row = call
        self._call = call._call
        self._parse = parse
        self._any = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next message. Raises grpc.RpcError when the call failed."""
        row = self._call_row
        if row.over:
            raise StopIteration
        try:
            raw = next(self._call)
        except gevent.GreenletExit:
            raise
        except (StopIteration, grpc.RpcError):
            row.end()
            raise
        except BaseException:
            row.give_up()
            raise
        row.received(raw)
        if not self._any:
            self._any = True
            row.first()
        return self._parse(raw)

    def cancel(self) -> None:
        """Want no more of it: a call that has not ended is a row that says so."""
        self._call_row.give_up()

    def code(self) -> grpc.StatusCode:
        """The status, once the messages have ended."""
        code: grpc.StatusCode = self._call.code()
        return code

    def __enter__(self) -> Messages:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        if not (kind and issubclass(kind, gevent.GreenletExit)):
            self.cancel()


class Conversation(Messages):
    """A stream of messages both ways: `ask` sends one, waits for the next one, and is a row."""

    def __init__(self, call: Call, line: Line, outgoing: SimpleQueue[Any]) -> None:
        super().__init__(call, line.parse)
        self._line = line
        self._outgoing = outgoing

    def send(self, message: Any) -> None:
        """Send a message and wait for nothing."""
        self._outgoing.put(message)

    def ask(self, message: Any, name: str | None = None) -> Any:
        """Send a message and wait for the next one that comes. Raises grpc.RpcError."""
        called = name or f"{self._call_row._request.name} message"
        request = self._line.requests.begin(PART, called)
        before = self._call_row.size
        self._outgoing.put(message)
        try:
            answer = next(self)
        except gevent.GreenletExit:
            raise
        except StopIteration:
            self._line.requests.end(request, error="the server ended the stream")
            raise EOFError("the server ended the stream") from None
        except grpc.RpcError:
            error = error_of(self._call.code(), self._call.details())
            self._line.requests.end(request, error=error)
            raise
        except BaseException:
            self._line.requests.end(request, error=GIVEN_UP)
            raise
        size = self._call_row.size - before
        self._line.requests.end(request, status=200, response_bytes=size)
        return answer

    def close(self) -> None:
        """Send nothing more; what still comes is waited for, and the call ends as the server says.

        Raises grpc.RpcError when it fails.
        """
        self._outgoing.put(_DONE)
        for _message in self:
            pass

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        if kind is None:
            self.close()
        else:
            super().__exit__(kind, *raised)
