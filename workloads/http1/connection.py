"""One connection to a server: a request's bytes out, one whole answer in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
import httptools

from workloads.http1.failures import ClosedEarly, HttpFailure, Malformed, Reset
from workloads.http1.wire import Wire

HEAD_BYTES_MAX: Final = 256 * 2**10
BODY_BYTES_MAX: Final = 2**30
CLOSED_BEFORE = "connection closed before the answer"
CLOSED_WITHIN = "connection closed in the middle of the answer"


class Connection:
    """A keep-alive connection. It is the parser's protocol: the `on_…` are called by it.

    After `exchange`, `status`, `body` (as sent, before any decoding) and `head` (the bytes that
    hold the headers) are the answer's, until the next one.
    """

    __slots__ = (
        "_bytes",
        "_chunks",
        "_done",
        "_head_done",
        "_heads",
        "_open",
        "_parser",
        "_surplus",
        "_timer",
        "_timer_s",
        "_to_head",
        "_wire",
        "body",
        "busy_since_ns",
        "due_ns",
        "idle_since_ns",
        "keep",
        "kind",
        "status",
        "used",
    )  # fmt: skip

    def __init__(self, connect: Callable[[], Wire]) -> None:
        """`connect` makes a wire when one is needed."""
        self._open = connect
        self._wire: Wire | None = None
        self._timer_s = 0.0
        self.busy_since_ns = 0
        """When the request under way began; 0 between two. This and `due_ns` are the client's."""
        self.due_ns: int | None = None
        self.kind = 0
        self.idle_since_ns = 0
        self.used = False
        """Whether an earlier answer came over this very connection."""
        self.body = b""
        self.status = 0
        self.keep = False

    def timer_of(self, after_s: float) -> Any:
        """A timer of the loop that runs out after `after_s`; the same one each time."""
        if after_s != self._timer_s:
            self._timer = gevent.get_hub().loop.timer(after_s)
            self._timer_s = after_s
        return self._timer

    @property
    def is_open(self) -> bool:
        """Whether there is a wire to use again."""
        return self._wire is not None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer."""
        return self._wire is None or self._wire.is_quiet()

    def exchange(self, request: bytes, to_head: bool = False) -> None:
        """Send a request and wait for its whole answer; connects first where it must.

        Raises HttpFailure; then, and after an answer that ends the connection, it is closed.
        """
        wire = self._wire
        if wire is None:
            self._parser = httptools.HttpResponseParser(self)
            self.used = False
            wire = self._wire = self._open()
        self._begin(to_head)
        try:
            wire.send(request)
            while not self._done:
                data = wire.receive()
                if not self._head_done:
                    self._add_head(data)
                if not data:
                    self._stream_ended()
                    break
                self._parser.feed_data(data)
        except BaseException as error:
            self._failed(error)
        self.used = True
        if self._surplus or not self.keep:
            self.close()
        elif to_head:
            # The parser waits for the body that the headers speak of and that never comes.
            self._parser = httptools.HttpResponseParser(self)

    def _begin(self, to_head: bool) -> None:
        self._to_head = to_head
        self._done = self._head_done = self._surplus = self.keep = False
        self._heads: bytes | list[bytes] = b""
        self._bytes = 0
        self._chunks: list[bytes] | None = None
        self.body = b""
        self.status = 0

    def _add_head(self, data: bytes) -> None:
        self._bytes += len(data)
        if not self._heads:
            self._heads = data
        elif isinstance(self._heads, bytes):
            self._heads = [self._heads, data]
        else:
            self._heads.append(data)
        if self._bytes > HEAD_BYTES_MAX + len(data):
            raise Malformed(f"headers of more than {HEAD_BYTES_MAX >> 10} KiB")

    def _failed(self, error: BaseException) -> None:
        done, self._done = self._done, True
        self.close()
        if isinstance(error, httptools.HttpParserUpgrade):
            raise Malformed("the server switched to another protocol") from None
        if isinstance(error, httptools.HttpParserError):
            cause = error.__context__
            if isinstance(cause, HttpFailure):
                raise cause from None
            if done:
                return  # the answer is whole; what follows it is not
            raise Malformed(f"malformed answer: {_words(error)}") from None
        if isinstance(error, Reset) and not self._bytes:
            raise ClosedEarly(str(error)) from error
        raise error

    def _stream_ended(self) -> None:
        self.keep = False
        if not self.status and not self._bytes:
            raise ClosedEarly(CLOSED_BEFORE)
        if not self._head_done or _framed(self.head):
            raise HttpFailure(CLOSED_WITHIN)
        self._finish()

    def _finish(self) -> None:
        self._done = True
        if self._chunks is not None:
            self.body = b"".join(self._chunks)

    @property
    def head(self) -> bytes:
        """Bytes from the first of the answer on, with all of its headers in them."""
        return self._heads if isinstance(self._heads, bytes) else b"".join(self._heads)

    def close(self) -> None:
        """Close it; the next exchange connects again."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # What the parser tells

    def on_message_begin(self) -> None:
        """A second answer begins where only one was asked for."""
        if self._done:
            self._surplus = True

    def on_headers_complete(self) -> None:
        """The headers are there."""
        if self._done:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._head_done = True
        if self._to_head:
            self.keep = self._parser.should_keep_alive()
            self._done = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._done:
            if self._to_head:
                self._surplus = True
            return
        if self._chunks is None:
            if not self.body:
                self.body = data
                return
            self._chunks = [self.body]
            self._count(0)
        self._chunks.append(data)
        self._count(len(data))

    def _count(self, more: int) -> None:
        self._bytes += more
        if self._bytes > BODY_BYTES_MAX:
            raise HttpFailure(f"a body of more than {BODY_BYTES_MAX >> 20} MiB")

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an interim one (1xx)."""
        if self._done or self.status < 200:
            return
        self.keep = self._parser.should_keep_alive()
        self._finish()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()).lower()
    return text[:80] or type(error).__name__


def _framed(head: bytes) -> bool:
    """Whether an answer's headers say where its body ends."""
    from workloads.http1.response import parsed_headers

    headers = parsed_headers(head)
    return "content-length" in headers or "transfer-encoding" in headers
