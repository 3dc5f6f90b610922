"""Who may ask, and what every answer says to the browser.

The server listens on loopback, where every program and every web page of this machine's browser
can reach it. So a request needs the session's cookie, which is given for the token that only the
terminal shows; a Host that is this server's own address, or a page elsewhere could have its name
resolve to it (DNS rebinding); and no other origin behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX_BYTES: Final = 64 * 2**10
METHODS: Final = ("GET", "HEAD", "POST")
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""Only files of ours, nothing inline: markup that got through could neither run nor load."""

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Access:
    """The secrets of one server, both new with every start, and the names that it goes by."""

    port: int
    addresses: frozenset[str] = frozenset({"127.0.0.1"})
    token: str = field(default_factory=_secret)
    session: str = field(default_factory=_secret)

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers send cookies to every port of a host."""
        return f"heapgate-{self.port}"

    def knows_host(self, host: str) -> bool:
        """Whether a Host header can only mean this server."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.removeprefix("[").removesuffix("]")
        if name.lower() == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        if any(ipaddress.ip_address(own).is_unspecified for own in self.addresses):
            return True  # any address of this machine; a number can't be rebound
        return address.is_loopback or str(address) in self.addresses

    def has_session(self, headers: Headers) -> bool:
        """Whether a request carries this server's cookie."""
        named = f"{self.cookie}="
        pairs = (pair.strip() for pair in headers.get("cookie", "").split(";"))
        values = [pair.removeprefix(named) for pair in pairs if pair.startswith(named)]
        return any(_same(value, self.session) for value in values)


def _same(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing, not even the length."""
    digests = (hashlib.sha256(text.encode(errors="replace")).digest() for text in (given, secret))
    return hmac.compare_digest(*digests)


class Guard:
    """Every request passes here before any page sees it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, log in, or pass on; every answer gets the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(MutableHeaders(scope=message))
            await send(message)

        answer = self._refused(scope) or self._logged_in(scope) or self._unknown(scope)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> Response | None:
        """What no one may do, whatever they know."""
        headers = Headers(scope=scope)
        if scope["method"] not in METHODS:
            return refusal(405, "This server only reads.", headers={"Allow": ", ".join(METHODS)})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.knows_host(hosts[0]):
            return refusal(403, "The name in the request is not this server's.")
        if _comes_from_elsewhere(scope["method"], headers, hosts[0]):
            return refusal(403, "Another page's requests are not answered.")
        if not _is_short(headers):
            return refusal(413, f"A request has at most {BODY_MAX_BYTES:,} bytes.")
        return None

    def _logged_in(self, scope: Scope) -> Response | None:
        """The token becomes a cookie, and goes out of the address bar."""
        if scope["path"] != "/":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if len(given) != 1 or not _same(given[0], self._access.token):
            return None
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            self._access.cookie, self._access.session, httponly=True, samesite="strict"
        )
        return answer

    def _unknown(self, scope: Scope) -> Response | None:
        if self._access.has_session(Headers(scope=scope)):
            return None
        return refusal(
            401,
            "Open the address that bench serve printed in its terminal: it has the token that "
            "this browser lacks.",
        )


def _comes_from_elsewhere(method: str, headers: Headers, host: str) -> bool:
    """Whether a page of another origin is behind a request, another port of this host included.

    A form of a page without referrer says `Origin: null`; no page can forge Sec-Fetch-Site.
    """
    site = headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        return True
    if method != "POST":
        return False
    origin = headers.get("origin", "null")
    return origin != f"http://{host}" and not (origin == "null" and site == "same-origin")


def _is_short(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return length.isdecimal() and int(length) <= BODY_MAX_BYTES


def _complete(headers: MutableHeaders) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)


def refusal(status: int, text: str, *, headers: dict[str, str] | None = None) -> HTMLResponse:
    """A page that needs nothing else, for those who may see nothing else."""
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark"><title>Heapgate</title>'
        f'<link rel="icon" href="data:,"><h1>Heapgate</h1><p>{html.escape(text)}</p></html>'
    )
    return HTMLResponse(body, status, headers)


async def read_form(request: Any) -> dict[str, list[str]]:
    """The fields of a form. Raises ValueError for one that is too long or of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise ValueError("a form is wanted")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX_BYTES:
            raise ValueError(f"a request has at most {BODY_MAX_BYTES:,} bytes")
    return parse_qs(body.decode("utf-8", errors="strict"), max_num_fields=20)
