"""Why a request failed, in few and constant words: they become the `error` column of its row."""

from __future__ import annotations

import errno
import ssl
from typing import Final


class HttpFailure(Exception):
    """A request without a usable answer. Its text is one of a small vocabulary."""


class NoAnswerInTime(HttpFailure):
    """The request took longer than its timeout."""


class ClosedEarly(HttpFailure):
    """The connection ended, in order or not, before a single byte of an answer came."""


class Reset(HttpFailure):
    """The connection is gone, and not in order."""


class Malformed(HttpFailure):
    """What came is not HTTP/1.1."""


class Exhausted(HttpFailure):
    """This machine has no port or file left: the generator's limit, not the service's."""


_BY_NUMBER: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ETIMEDOUT: "connection timed out",
}
_EXHAUSTED: Final = {
    errno.EADDRNOTAVAIL: "the generator has no free port",
    errno.EADDRINUSE: "the generator has no free port",
    errno.EMFILE: "the generator has no free file",
    errno.ENFILE: "the generator has no free file",
    errno.ENOBUFS: "the generator has no buffer space",
}


def failure_of(error: OSError) -> HttpFailure:
    """The named failure of an operating system's error."""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or error.reason or type(error).__name__
        return HttpFailure(f"TLS: {str(reason).lower().replace('_', ' ')}")
    # Windows has numbers of its own beside those of POSIX: WSAECONNREFUSED is 10061.
    number = getattr(error, "winerror", None) or error.errno or 0
    number = _FROM_WINDOWS.get(number, number)
    if number in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return Reset("connection reset")
    if number in _EXHAUSTED:
        return Exhausted(_EXHAUSTED[number])
    text = _BY_NUMBER.get(number)
    return HttpFailure(text or f"connection failed: {error.strerror or type(error).__name__}")


_FROM_WINDOWS: Final = {
    10024: errno.EMFILE,
    10048: errno.EADDRINUSE,
    10049: errno.EADDRNOTAVAIL,
    10051: errno.ENETUNREACH,
    10053: errno.ECONNABORTED,
    10054: errno.ECONNRESET,
    10055: errno.ENOBUFS,
    10060: errno.ETIMEDOUT,
    10061: errno.ECONNREFUSED,
    10065: errno.EHOSTUNREACH,
}
