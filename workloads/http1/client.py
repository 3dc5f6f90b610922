"""The client of one user: requests in, answers out, every request a row.

The way of a plain request is kept short, for it bounds the load that a core can make: its bytes
are made once for each path, and nothing is parsed that nobody asks for.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import ipaddress
import json as json_module
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

import gevent
import gevent.socket
from gevent import getcurrent

from workloads.http1.connection import Connection
from workloads.http1.cookies import Cookies, may_set
from workloads.http1.failures import ClosedEarly, HttpFailure, NoAnswerInTime, failure_of
from workloads.http1.recording import RequestLog
from workloads.http1.response import CaughtResponse, Response, header_list
from workloads.http1.wire import TcpWire, TlsWire, Wire

REDIRECTS_MAX: Final = 10
CACHED_PATHS: Final = 4096
IDLE_NS: Final = 10_000_000
"""A connection that rested for longer is looked at before it is used again."""

_SAFE_PATH: Final = re.compile(r"/[!-~]*")
_METHOD: Final = re.compile(r"[A-Z]+")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""Idempotent by RFC 9110, 9.2.2: sent again when a resting connection turned out to be closed."""

Body = bytes | str | Mapping[str, Any] | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a user's connections are made: timeouts in seconds, TLS as a context or None."""

    connect_timeout_s: float
    timeout_s: float
    tls: ssl.SSLContext
    headers: Mapping[str, str]


class Origin:
    """One server: its address, and this client's connections to it."""

    def __init__(self, scheme: str, host: str, port: int, settings: Settings) -> None:
        self.host_header = _host_header(scheme, host, port)
        self._scheme, self._host, self._port = scheme, host, port
        self._settings = settings
        self._address: tuple[int, Any] | None = None
        self.free: list[Connection] = []

    def connect(self) -> Wire:
        """A new wire to it. Raises HttpFailure."""
        patience = gevent.Timeout(self._settings.connect_timeout_s)
        try:
            with patience:
                if self._address is None:
                    self._address = self._looked_up()
                tcp = TcpWire(*self._address)
                if self._scheme == "http":
                    return tcp
                return TlsWire(tcp, self._settings.tls, self._host)
        except gevent.Timeout as timeout:
            if timeout is not patience:
                raise  # the scenario's own
            text = f"no connection within {self._settings.connect_timeout_s:g} s"
            raise HttpFailure(text) from None

    def _looked_up(self) -> tuple[int, Any]:
        with contextlib.suppress(ValueError):
            version = ipaddress.ip_address(self._host).version
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            return family, (self._host, self._port)
        try:
            found = gevent.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except gevent.socket.gaierror as error:
            raise HttpFailure("unknown host") from error
        except OSError as error:
            raise failure_of(error) from error
        return found[0][0], found[0][4]


class HttpClient:
    """Requests of one user. Several of its greenlets may use it at the same time."""

    def __init__(
        self,
        base_url: str,
        log: RequestLog,
        settings: Settings,
        *,
        follow_redirects: bool = False,
        user: Any = None,
    ) -> None:
        """Raises ValueError for an address that is none."""
        self.base_url = base_url.rstrip("/")
        self.cookies = Cookies()
        self._log = log
        self._now_ns = log.now_ns
        self._settings = settings
        self._follow_redirects = follow_redirects
        self._user = user
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._connections: list[Connection] = []
        log.watch(self._connections)
        self._main, self._prefix = self._origin_of(self.base_url)
        self._plain: dict[str, tuple[bytes, int]] = {}
        self._kinds: dict[tuple[str, str], int] = {}
        self._tail = self._header_lines(self._main, {})

    # What a scenario calls

    def get(self, url: str, name: str | None = None, **options: Any) -> Response:
        """GET; see `request`."""
        if not options and not self.cookies.any:
            ready = self._plain.get(url) or self._prepared(url)
            if ready:
                kind = ready[1] if name is None else self._kind("GET", name)
                return self._do(self._main, ready[0], kind, ("GET", url, name))
        return self.request("GET", url, name, **options)

    def head(self, url: str, name: str | None = None, **options: Any) -> Response:
        """HEAD; see `request`."""
        return self.request("HEAD", url, name, **options)

    def options(self, url: str, name: str | None = None, **options: Any) -> Response:
        """OPTIONS; see `request`."""
        return self.request("OPTIONS", url, name, **options)

    def delete(self, url: str, name: str | None = None, **options: Any) -> Response:
        """DELETE; see `request`."""
        return self.request("DELETE", url, name, **options)

    def post(
        self, url: str, data: Body = None, json: Any = None, name: str | None = None, **options: Any
    ) -> Response:
        """POST; see `request`."""
        return self.request("POST", url, name, data=data, json=json, **options)

    def put(self, url: str, data: Body = None, name: str | None = None, **options: Any) -> Response:
        """PUT; see `request`."""
        return self.request("PUT", url, name, data=data, **options)

    def patch(
        self, url: str, data: Body = None, name: str | None = None, **options: Any
    ) -> Response:
        """PATCH; see `request`."""
        return self.request("PATCH", url, name, data=data, **options)

    def request(
        self,
        method: str,
        url: str,
        name: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        data: Body = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool | None = None,
        catch_response: bool = False,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        """Send a request and wait for its answer; failures are answers with `error`, not raised.

        `url` is a path, or a whole address. `data` is bytes, text, a mapping (sent as a form) or an
        iterable of bytes (sent in chunks). `timeout` is in seconds, for the whole request.
        Raises ValueError for what can't be sent.
        """
        if not _METHOD.fullmatch(method):
            raise ValueError(f"{method!r} is no method")
        origin, target = self._target(url, params)
        body, more = _body(data, json)
        if auth:
            more["Authorization"] = _basic(auth)
        if headers:
            more.update(headers)
        full = self._url(origin, target)
        if cookie := self.cookies.header_for(full):
            more.setdefault("Cookie", cookie)
        lines = self._header_lines(origin, more)
        message = f"{method} {target}{lines}".encode("latin-1") + body
        follow = self._follow_redirects if allow_redirects is None else allow_redirects
        resend = (method, full, more, body) if follow else None
        asked = (method, url, name)
        kind = self._kind(method, name or url)
        return self._do(
            origin, message, kind, asked, timeout, resend, catch=catch_response, context=context
        )

    # How it is done

    def _do(
        self,
        origin: Origin,
        message: bytes,
        kind: int,
        asked: tuple[str, str, str | None],
        timeout_s: float | None = None,
        resend: tuple[str, str, dict[str, str], bytes] | None = None,
        *,
        catch: bool = False,
        context: Mapping[str, Any] | None = None,
    ) -> Response:
        free = origin.free
        connection = free.pop() if free else self._new_connection(origin)
        log = self._log
        start_ns = self._now_ns()
        due_ns = log.due_ns(start_ns)
        connection.kind, connection.due_ns = kind, due_ns
        connection.busy_since_ns = start_ns
        error, status, raw, head = None, 0, b"", b""
        try:
            self._exchange(connection, message, asked[0], timeout_s)
            status, raw, head = connection.status, connection.body, connection.head
            if resend and status in (301, 302, 303, 307, 308):
                status, raw, head = self._redirected(connection, resend, status, timeout_s)
            if status >= 400:
                error = f"HTTP {status}"
        except HttpFailure as failure:
            error, status = str(failure), 0
        except gevent.GreenletExit:
            raise  # its user was ended: the request stays under way, and is told as such
        except BaseException:
            connection.busy_since_ns = 0
            raise
        end_ns = self._now_ns()
        connection.busy_since_ns = 0
        connection.idle_since_ns = end_ns
        free.append(connection)
        if may_set(head):
            self.cookies.take(self._url(origin, asked[1]), head)
        if catch:
            caught = CaughtResponse(asked[1], status, head, raw, end_ns - start_ns, error)
            row = (start_ns, end_ns, due_ns, kind, status, len(raw) if status else -1)
            caught._when_judged(lambda judged: self._judged(judged, row, asked, context))
            return caught
        log.add(start_ns, end_ns, due_ns, kind, status, len(raw) if status else -1, error)
        answer = Response(asked[1], status, head, raw, end_ns - start_ns, error)
        if log.listeners:
            self._tell(answer, start_ns, asked, context)
        return answer

    def _exchange(
        self, connection: Connection, message: bytes, method: str, timeout_s: float | None
    ) -> None:
        limit_s = timeout_s or self._settings.timeout_s
        timer = connection.timer_of(limit_s)
        timer.start(getcurrent().throw, NoAnswerInTime, NoAnswerInTime(_too_late(limit_s)))
        try:
            rested = connection.busy_since_ns - connection.idle_since_ns > IDLE_NS
            if rested and not connection.is_quiet:
                connection.close()
            try:
                connection.exchange(message, method == "HEAD")
            except ClosedEarly:
                # A server may close a connection that rests, at the very moment of a request.
                if not connection.used or method not in _REPEATABLE:
                    raise
                connection.exchange(message, method == "HEAD")
        finally:
            timer.stop()

    def _redirected(
        self,
        connection: Connection,
        resend: tuple[str, str, dict[str, str], bytes],
        status: int,
        timeout_s: float | None,
    ) -> tuple[int, bytes, bytes]:
        """Follow redirects to the last answer. Raises HttpFailure."""
        method, url, headers, body = resend
        for _ in range(REDIRECTS_MAX):
            places = {k.lower(): v for k, v in header_list(connection.head)}
            if "location" not in places:
                return connection.status, connection.body, connection.head
            if may_set(connection.head):
                self.cookies.take(url, connection.head)
            url = urljoin(url, places["location"])
            # RFC 9110, 15.4: 303 always becomes a GET; 301 and 302 do, for a POST.
            if status == 303 or (status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), b""
                headers = {k: v for k, v in headers.items() if not k.startswith("Content-")}
                headers.pop("Transfer-Encoding", None)
            try:
                origin, target = self._target(url, None)
            except ValueError as error:
                raise HttpFailure("redirected to an address that is none") from error
            cookie = self.cookies.header_for(url)
            lines = self._header_lines(origin, headers | ({"Cookie": cookie} if cookie else {}))
            message = f"{method} {target}{lines}".encode("latin-1") + body
            following = origin.free.pop() if origin.free else self._new_connection(origin)
            try:
                following.idle_since_ns = 0
                self._exchange(following, message, method, timeout_s)
            finally:
                origin.free.append(following)
            connection, status = following, following.status
            if status not in (301, 302, 303, 307, 308):
                return status, following.body, following.head
        raise HttpFailure(f"more than {REDIRECTS_MAX} redirects")

    def _judged(
        self,
        answer: CaughtResponse,
        row: tuple[int, int, int | None, int, int, int],
        asked: tuple[str, str, str | None],
        context: Mapping[str, Any] | None,
    ) -> None:
        self._log.add(*row, answer.error)
        if self._log.listeners:
            self._tell(answer, row[0], asked, context)

    def _tell(
        self,
        answer: Response,
        start_ns: int,
        asked: tuple[str, str, str | None],
        context: Mapping[str, Any] | None,
    ) -> None:
        own = self._user.context() if self._user is not None else {}
        self._log.tell(
            request_type=asked[0],
            name=asked[2] or asked[1],
            response_time=answer.elapsed_ns / 1e6,
            response_length=answer.raw_bytes,
            exception=HttpFailure(answer.error) if answer.error else None,
            context={**own, **(context or {})},
            response=answer,
            url=answer.url,
            start_time=start_ns / 1e9,
        )

    def _prepared(self, path: str) -> tuple[bytes, int] | None:
        """The bytes of a plain GET, made once; None when the path is not a plain one."""
        if not _SAFE_PATH.fullmatch(path) or "#" in path:
            return None
        message = f"GET {self._prefix}{path}{self._tail}".encode("latin-1")
        ready = (message, self._kind("GET", path) if len(self._plain) < CACHED_PATHS else 0)
        if len(self._plain) < CACHED_PATHS:
            self._plain[path] = ready
            return ready
        return message, self._kind("GET", path)

    def _kind(self, method: str, name: str) -> int:
        key = (method, name)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = self._log.kind_of(method, name)
        return kind

    def _new_connection(self, origin: Origin) -> Connection:
        connection = Connection(origin.connect)
        self._connections.append(connection)
        return connection

    def _origin_of(self, url: str) -> tuple[Origin, str]:
        """The server of a whole address, and its path without a slash at the end."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an address that begins with http:// or https://")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        key = (parts.scheme, parts.hostname, port)
        if key not in self._origins:
            self._origins[key] = Origin(*key, self._settings)
        return self._origins[key], parts.path.rstrip("/")

    def _target(self, url: str, params: Mapping[str, Any] | None) -> tuple[Origin, str]:
        """The server, and the request's target as it is sent."""
        if url.startswith("/"):
            origin, target = self._main, f"{self._prefix}{url}"
        elif "://" in url:
            origin, _ = self._origin_of(url)
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        else:
            raise ValueError(f"{url!r} is neither a path, such as /items, nor a whole address")
        target = target.partition("#")[0]
        if params:
            target += ("&" if "?" in target else "?") + urlencode(params, doseq=True)
        if not _SAFE_PATH.fullmatch(target):
            target = quote(target, safe="!#$%&'()*+,/:;=?@[]~")
        return origin, target

    def _url(self, origin: Origin, target: str) -> str:
        return target if "://" in target else f"{origin._scheme}://{origin.host_header}{target}"

    def _header_lines(self, origin: Origin, more: Mapping[str, str]) -> str:
        """The end of the request's first line, and its headers."""
        headers = {"Host": origin.host_header, **self._settings.headers}
        names = {name.lower(): name for name in headers}
        for name, value in more.items():
            headers.pop(names.get(name.lower(), ""), None)
            headers[name] = value
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(str(value)):
                raise ValueError(f"header {name!r} can't be sent")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f" HTTP/1.1\r\n{lines}\r\n"

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()


@functools.cache
def _too_late(limit_s: float) -> str:
    return f"no answer within {limit_s:g} s"


def _host_header(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port == {"http": 80, "https": 443}[scheme] else f"{shown}:{port}"


def _basic(auth: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(f"{auth[0]}:{auth[1]}".encode()).decode()


def _body(data: Body, json: Any) -> tuple[bytes, dict[str, str]]:
    """A request's body as it is sent, and the headers that go with it."""
    if json is not None:
        text = json_module.dumps(json).encode()
        return text, {"Content-Type": "application/json", "Content-Length": str(len(text))}
    if data is None:
        return b"", {}
    if isinstance(data, Mapping):
        text = urlencode(data, doseq=True).encode()
        form = "application/x-www-form-urlencoded"
        return text, {"Content-Type": form, "Content-Length": str(len(text))}
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        whole = bytes(data)
        return whole, {"Content-Length": str(len(whole))}
    chunks = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in data if chunk]
    return b"".join(chunks) + b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}
