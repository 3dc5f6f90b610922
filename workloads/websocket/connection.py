"""One WebSocket connection: the protocol by `websockets`, the bytes by gevent's sockets.

A greenlet of its own reads all the time: a message's instant is that of its arrival, whatever the
user is doing, and a server's pings are answered while the user thinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import gevent
import gevent.event
import gevent.socket
import gevent.ssl
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from workloads.http1.failures import failure_of
from workloads.underway import NO_STATUS, Request, Requests, Texts

METHOD: Final = "WebSocket"
PART: Final = "WebSocket message"
SWITCHED: Final = 101
"""The HTTP status of a connection that became a WebSocket, and of all that was answered on it."""

GIVEN_UP: Final = "given up by the scenario"
READ_BYTES: Final = 65_536
_texts = Texts()

Message = str | bytes
Wanted = Callable[[Message], bool]


class WebSocketError(Exception):
    """A connection or a message failed; its row has the same text."""

    def __init__(self, text: str, status: int = NO_STATUS) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Terms:
    """How a user's connections are made; times in seconds."""

    connect_timeout_s: float
    timeout_s: float
    message_bytes_max: int
    compression: bool
    subprotocols: tuple[str, ...]
    headers: Mapping[str, str]
    tls: gevent.ssl.SSLContext | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A whole message and when its last byte came, in nanoseconds since the epoch."""

    message: Message
    size: int
    time_ns: int


class Connection:
    """Messages to and from a server. One greenlet at a time may wait on it."""

    def __init__(self, url: str, requests: Requests, terms: Terms, name: str) -> None:
        """Connect, which is a row. Raises WebSocketError."""
        self._requests = requests
        self._terms = terms
        self._name = name
        self._inbox: list[Arrived] = []
        self._pongs: dict[bytes, int] = {}
        self._changed = gevent.event.Event()
        self._parts: list[Frame] = []
        self._ended: str | None = None
        uri = parse_uri(url)
        extensions = [ClientPerMessageDeflateFactory()] if terms.compression else None
        self._protocol = ClientProtocol(
            uri,
            max_size=terms.message_bytes_max,
            extensions=extensions,
            subprotocols=[Subprotocol(s) for s in terms.subprotocols] or None,
        )
        self._recorded(requests.begin(METHOD, name), lambda _: self._connect(uri))
        self._reader = gevent.spawn(self._read)

    # What a scenario calls

    @property
    def subprotocol(self) -> str | None:
        """The one that the server chose."""
        return self._protocol.subprotocol

    @property
    def is_open(self) -> bool:
        """Whether messages may still come and go."""
        return self._ended is None

    def send(self, message: Message) -> None:
        """Send a message and wait for nothing; no row. Raises WebSocketError."""
        self._check_open()
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()

    def ask(
        self,
        message: Message,
        name: str | None = None,
        *,
        until: Wanted | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Send a message and wait for its answer: a row from the sending to the arrival.

        The answer is the next message to come, or the next one for which `until` is true; others
        are left for `receive`. Raises WebSocketError.
        """
        request = self._requests.begin(PART, name or f"{self._name} message")

        def exchange(request: Request) -> Arrived:
            first = len(self._inbox)
            self.send(message)
            return self._taken(first, until, timeout)

        return self._recorded(request, exchange).message

    def receive(self, name: str | None = None, *, timeout: float | None = None) -> Message:
        """The next message, waited for where there is none; with a name, the wait is a row.

        Raises WebSocketError.
        """
        if name is None:
            return self._taken(0, None, timeout).message
        request = self._requests.begin(PART, name)
        return self._recorded(request, lambda _: self._taken(0, None, timeout)).message

    def ping(self, name: str | None = None, *, timeout: float | None = None) -> None:
        """Ping the server and wait for its pong: a row. Raises WebSocketError."""
        request = self._requests.begin(PART, name or f"{self._name} ping")

        def exchange(request: Request) -> Arrived:
            self._check_open()
            mark = b"%x" % id(request)
            self._protocol.send_ping(mark)
            self._flush()
            self._wait(lambda: mark in self._pongs, timeout)
            return Arrived("", 0, self._pongs.pop(mark))

        self._recorded(request, exchange)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and wait for the server's; no row."""
        if self._ended is None:
            self._protocol.send_close(code, reason)
            self._flush()
            self._reader.join(self._terms.timeout_s)
        self._reader.kill()
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        if not (kind and issubclass(kind, gevent.GreenletExit)):
            self.close()

    # How it is done

    def _recorded(self, request: Request, exchange: Callable[[Request], Arrived]) -> Arrived:
        """Do what a request is, and make its row, whatever comes of it."""
        try:
            arrived = exchange(request)
        except gevent.GreenletExit:
            raise  # its user was ended: the request stays under way, and is told as such
        except WebSocketError as error:
            self._requests.end(request, status=error.status, error=str(error))
            raise
        except BaseException:
            self._requests.end(request, error=GIVEN_UP)
            raise
        self._requests.end(
            request, status=SWITCHED, response_bytes=arrived.size, end_ns=arrived.time_ns
        )
        return arrived

    def _connect(self, uri: WebSocketURI) -> Arrived:
        limit_s = self._terms.connect_timeout_s
        late = WebSocketError(f"no connection within {limit_s:g} s")
        try:
            with gevent.Timeout(limit_s, late):
                tcp = gevent.socket.create_connection((uri.host, uri.port))
                self._socket = tcp
                tcp.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
                if uri.secure:
                    context = self._terms.tls or gevent.ssl.create_default_context()
                    self._socket = context.wrap_socket(tcp, server_hostname=uri.host)
                return self._shake_hands()
        except OSError as error:
            raise WebSocketError(str(failure_of(error))) from error
        finally:
            if self._protocol.state is not State.OPEN and hasattr(self, "_socket"):
                self._socket.close()

    def _shake_hands(self) -> Arrived:
        protocol = self._protocol
        asked = protocol.connect()
        for name, value in self._terms.headers.items():
            asked.headers[name] = value
        protocol.send_request(asked)
        self._write()
        events: list[Any] = []
        while not events and protocol.handshake_exc is None:
            self._feed(self._socket.recv(READ_BYTES))
            events = protocol.events_received()
        if protocol.handshake_exc is not None:
            raise _refused(protocol.handshake_exc, events) from protocol.handshake_exc
        now_ns = self._requests.now_ns()
        for frame in events[1:]:
            self._take(frame, now_ns)
        return Arrived("", 0, now_ns)

    def _check_open(self) -> None:
        if self._ended is not None:
            raise WebSocketError(self._ended)

    def _flush(self) -> None:
        """Send what the protocol has to send. Raises WebSocketError."""
        limit_s = self._terms.timeout_s
        try:
            with gevent.Timeout(limit_s, WebSocketError(f"not taken within {limit_s:g} s")):
                self._write()
        except OSError as error:
            raise WebSocketError(str(failure_of(error))) from error

    def _write(self) -> None:
        for chunk in self._protocol.data_to_send():
            if chunk:
                self._socket.sendall(chunk)
            else:  # the protocol's sign for the end of what is sent
                self._socket.shutdown(gevent.socket.SHUT_WR)

    def _feed(self, chunk: bytes) -> None:
        if chunk:
            self._protocol.receive_data(chunk)
        else:
            self._protocol.receive_eof()

    def _read(self) -> None:
        """Take what comes until the connection ends."""
        protocol = self._protocol
        while protocol.state is not State.CLOSED:
            try:
                chunk = self._socket.recv(READ_BYTES)
            except OSError:
                chunk = b""
            self._feed(chunk)
            now_ns = self._requests.now_ns()
            for frame in protocol.events_received():
                self._take(frame, now_ns)
            try:
                self._flush()
            except WebSocketError:
                break  # nobody is there any more: what was received counts
            if not chunk:
                break
        self._ended = _end_of(protocol)
        self._socket.close()
        self._changed.set()

    def _take(self, frame: Any, now_ns: int) -> None:
        """A frame: a part of a message, or a pong."""
        if frame.opcode is Opcode.PONG:
            self._pongs[bytes(frame.data)] = now_ns
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._parts.append(frame)
            if not frame.fin:
                return
            raw = b"".join(part.data for part in self._parts)
            is_text = self._parts[0].opcode is Opcode.TEXT
            self._parts = []
            message = raw.decode(errors="replace") if is_text else raw
            self._inbox.append(Arrived(message, len(raw), now_ns))
        self._changed.set()

    def _taken(self, first: int, until: Wanted | None, timeout_s: float | None) -> Arrived:
        """Take the first wanted message out of the inbox, from place `first` on."""
        inbox, place = self._inbox, first

        def is_there() -> bool:
            nonlocal place
            while place < len(inbox):
                if until is None or until(inbox[place].message):
                    return True
                place += 1
            return False

        self._wait(is_there, timeout_s)
        return inbox.pop(place)

    def _wait(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Wait until it holds. Raises WebSocketError when the time or the connection is over."""
        limit_s = timeout_s or self._terms.timeout_s
        deadline_ns = 0
        while not condition():
            self._check_open()
            now_ns = self._requests.now_ns()
            deadline_ns = deadline_ns or now_ns + round(limit_s * 1e9)
            self._changed.clear()
            if now_ns >= deadline_ns:
                raise WebSocketError(f"no answer within {limit_s:g} s")
            self._changed.wait((deadline_ns - now_ns) / 1e9)


def _refused(error: Exception, events: list[Any]) -> WebSocketError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return WebSocketError(f"HTTP {status}", status)
    status = events[0].status_code if events and isinstance(events[0], Response) else NO_STATUS
    return WebSocketError(_texts.told("no WebSocket", str(error)), status)


def _end_of(protocol: ClientProtocol) -> str:
    """Why a connection ended, by the close codes of RFC 6455."""
    theirs, ours = protocol.close_rcvd, protocol.close_sent
    if protocol.parser_exc is not None and ours is not None:
        return _texts.told(f"broken off: {int(ours.code)}", ours.reason)
    if theirs is not None:
        by = "closed by the service" if protocol.close_rcvd_then_sent else "closed"
        return _texts.told(f"{by}: {int(theirs.code)}", theirs.reason)
    return "connection lost"
