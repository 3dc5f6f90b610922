"""Bytes to and from a server under gevent: plain TCP, and TLS on top of it.

gevent's own sockets try to read before they wait. Right after a request there is never anything to
read, so this one waits first and saves a system call for each request.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent
import gevent.monkey
import gevent.socket
from gevent import getcurrent

from workloads.http1.failures import ClosedEarly, failure_of

RECEIVE_BYTES: Final = 65_536
_READ, _WRITE = 1, 2
_IN_PROGRESS: Final = frozenset(
    {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, getattr(errno, "WSAEWOULDBLOCK", -1)}
)
_NativeSocket: Final = gevent.monkey.get_original("socket", "socket")


class Wire(Protocol):
    """A connected stream of bytes."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises HttpFailure."""

    def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the stream. Raises HttpFailure."""

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, not even the stream's end."""

    def close(self) -> None:
        """Let go of it."""


class TcpWire:
    """A TCP connection."""

    __slots__ = ("_hub", "_readable", "_receive", "_send", "_socket", "_writable")

    def __init__(self, family: int, address: Any) -> None:
        """Connect. Raises HttpFailure; a timeout is the caller's."""
        self._hub = gevent.get_hub()
        try:
            self._socket = _NativeSocket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise failure_of(error) from error
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send: Callable[[bytes], int] = self._socket.send
        self._receive: Callable[[int], bytes] = self._socket.recv
        self._readable = self._hub.loop.io(self._socket.fileno(), _READ)
        self._writable = self._hub.loop.io(self._socket.fileno(), _WRITE)
        try:
            self._connect(address)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: Any) -> None:
        try:
            number = self._socket.connect_ex(address)
            if number in _IN_PROGRESS:
                self._wait(self._writable)
                number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, errno.errorcode.get(number, "unknown error"))
        except OSError as error:
            raise failure_of(error) from error

    def _wait(self, watcher: Any) -> None:
        watcher.start(getcurrent().switch)
        try:
            self._hub.switch()
        finally:
            watcher.stop()

    def send(self, data: bytes) -> None:
        """Send all of it. Raises HttpFailure."""
        try:
            sent = self._send(data)
            while sent < len(data):
                data = data[sent:]
                sent = self._try_send(data)
        except BlockingIOError:
            self._wait(self._writable)
            self.send(data)
        except OSError as error:
            raise failure_of(error) from error

    def _try_send(self, data: bytes) -> int:
        self._wait(self._writable)
        try:
            return self._send(data)
        except BlockingIOError:
            return 0

    def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the stream. Raises HttpFailure."""
        readable = self._readable
        while True:
            readable.start(getcurrent().switch)
            try:
                self._hub.switch()
            finally:
                readable.stop()
            try:
                return self._receive(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise failure_of(error) from error

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, not even the stream's end."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Let go of it."""
        self._readable.close()
        self._writable.close()
        self._socket.close()


class TlsWire:
    """TLS over a TCP connection, without the operating system's help: bytes in, bytes out."""

    __slots__ = ("_incoming", "_outgoing", "_tcp", "_tls")

    def __init__(self, tcp: TcpWire, context: ssl.SSLContext, name: str) -> None:
        """Shake hands. Raises HttpFailure."""
        self._tcp = tcp
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        try:
            self._until_done(self._tls.do_handshake)
        except BaseException:
            tcp.close()
            raise

    def _until_done(self, step: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                done = step(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                self._take_in()
                continue
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                self._flush()
                raise failure_of(error) from error
            self._flush()
            return done

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._tcp.send(self._outgoing.read())

    def _take_in(self) -> None:
        data = self._tcp.receive()
        if not data:
            raise ClosedEarly("TLS: connection closed")
        self._incoming.write(data)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises HttpFailure."""
        self._until_done(self._tls.write, data)

    def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the stream. Raises HttpFailure."""
        try:
            data: bytes = self._until_done(self._tls.read, RECEIVE_BYTES)
        except ClosedEarly:
            return b""
        return data

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, not even the stream's end."""
        return not self._tls.pending() and not self._incoming.pending and self._tcp.is_quiet()

    def close(self) -> None:
        """Let go of it."""
        self._tcp.close()
