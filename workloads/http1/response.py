"""An answer as the scenario sees it. Headers and content are read only when they are asked for."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

import httptools
from requests.structures import CaseInsensitiveDict

Headers = CaseInsensitiveDict


class HttpError(Exception):
    """A status of 400 or more, from `raise_for_status`."""


class Response:
    """The answer to a request; after a failure `status_code` is 0 and `error` says why."""

    __slots__ = (
        "_content", "_head", "_headers", "_raw", "elapsed_ns", "error", "status_code", "url",
    )  # fmt: skip

    def __init__(
        self, url: str, status: int, head: bytes, raw: bytes, elapsed_ns: int, error: str | None
    ) -> None:
        """`raw` is the body as it was sent, `elapsed_ns` from the real start to the last byte."""
        self.url = url
        self.status_code = status
        self.elapsed_ns = elapsed_ns
        self.error = error
        self._head = head
        self._raw = raw
        self._headers: Headers[str] | None = None
        self._content: bytes | None = None

    @property
    def ok(self) -> bool:
        """Whether there was an answer with a status below 400."""
        return 0 < self.status_code < 400

    @property
    def elapsed(self) -> timedelta:
        """From the real start to the last byte."""
        return timedelta(microseconds=self.elapsed_ns / 1000)

    @property
    def headers(self) -> Headers[str]:
        """The headers; of one that came several times, the values joined by a comma."""
        if self._headers is None:
            self._headers = parsed_headers(self._head)
        return self._headers

    @property
    def raw_bytes(self) -> int:
        """Length of the body as it was sent, in bytes."""
        return len(self._raw)

    @property
    def content(self) -> bytes:
        """The body, decompressed. Raises ValueError when it can't be."""
        if self._content is None:
            self._content = _decoded(self._raw, self.headers.get("content-encoding", ""))
        return self._content

    @property
    def text(self) -> str:
        """The body as text, in the charset that the answer names, else UTF-8."""
        _, _, charset = self.headers.get("content-type", "").partition("charset=")
        name = charset.split(";")[0].strip().strip('"')
        try:
            return self.content.decode(name or "utf-8", "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is none."""
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        """Raise HttpError for a failure, and for a status of 400 or more."""
        if not self.ok:
            raise HttpError(self.error or f"HTTP {self.status_code}")


class CaughtResponse(Response):
    """The answer to a request with `catch_response=True`: the scenario says what it is worth.

    The row is written when the `with` block ends, or when the answer is thrown away without one.
    """

    __slots__ = ("_judge", "_judged")

    def _when_judged(self, judge: Callable[[CaughtResponse], None]) -> None:
        self._judge = judge
        self._judged = False

    def success(self) -> None:
        """It is what was wanted, whatever its status."""
        self.error = None

    def failure(self, reason: BaseException | str) -> None:
        """It is not what was wanted."""
        self.error = str(reason) or type(reason).__name__

    def __enter__(self) -> CaughtResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        if error is not None and isinstance(error, Exception):
            self.error = str(error) or type(error).__name__
        self._settle()
        return kind is not None and issubclass(kind, HttpError)

    def _settle(self) -> None:
        if not self._judged:
            self._judged = True
            self._judge(self)

    def __del__(self) -> None:
        self._settle()


class _HeaderList:
    """Takes headers from the parser; those of interim answers are forgotten."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpResponseParser(self)
        self.done = False

    def on_message_begin(self) -> None:
        """An answer begins."""
        if not self.done:
            self.found.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self.done:
            self.found.append((name, value))

    def on_headers_complete(self) -> None:
        """All headers of one answer."""
        self.done = self.done or self.parser.get_status_code() >= 200


def header_list(head: bytes) -> list[tuple[str, str]]:
    """Every header of the final answer in `head`, in order; several of a name stay several."""
    taken = _HeaderList()
    # What follows the headers is judged elsewhere.
    with contextlib.suppress(httptools.HttpParserError):
        taken.parser.feed_data(head)
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in taken.found]


def parsed_headers(head: bytes) -> Headers[str]:
    """The headers of the final answer in `head`, by name whatever its case."""
    headers: Headers[str] = CaseInsensitiveDict()
    for name, value in header_list(head):
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _decoded(raw: bytes, encodings: str) -> bytes:
    for encoding in reversed([e.strip().lower() for e in encodings.split(",") if e.strip()]):
        if encoding in ("gzip", "x-gzip", "deflate"):
            raw = _inflated(raw, encoding)
        elif encoding != "identity":
            raise ValueError(f"content-encoding {encoding!r} is not supported")
    return raw


def _inflated(raw: bytes, encoding: str) -> bytes:
    if not raw:
        return raw
    # `deflate` means a zlib stream (RFC 9110, 8.4.1.2); some servers send it without its frame.
    for bits in (31,) if encoding != "deflate" else (15, -15):
        inflater = zlib.decompressobj(bits)
        try:
            content = inflater.decompress(raw) + inflater.flush()
        except zlib.error:
            continue
        if inflater.eof:
            return content
    raise ValueError(f"the body is not {encoding}")
