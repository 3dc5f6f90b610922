"""Cookies of one user, kept by the rules of the standard library's jar."""

from __future__ import annotations

from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from requests.cookies import MockRequest, MockResponse, RequestsCookieJar, get_cookie_header

from workloads.http1.response import header_list


class Cookies(RequestsCookieJar):
    """A jar that also works as a mapping of names to values."""

    _cookies: dict[str, Any]

    @property
    def any(self) -> bool:
        """Whether there is one at all; their number would have to be counted."""
        return bool(self._cookies)

    def header_for(self, url: str) -> str | None:
        """The `Cookie` header of a request to a whole address; None when none belongs there."""
        asked: Any = _Asked(url)
        return get_cookie_header(self, asked) if self.any else None

    def take(self, url: str, head: bytes) -> None:
        """Keep what an answer from a whole address sets; `head` holds its headers."""
        message = Message()
        for name, value in header_list(head):
            if name.lower() == "set-cookie":
                message[name] = value
        if message:
            asked: Any = _Asked(url)
            answer: Any = MockResponse(message)
            request: Any = MockRequest(asked)
            self.extract_cookies(answer, request)


def may_set(head: bytes) -> bool:
    """Whether an answer may set a cookie: quick, and sometimes wrong about a body."""
    return b"ookie" in head or b"OOKIE" in head


class _Asked:
    """What the jar wants to know of a request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        self.type = urlsplit(url).scheme
