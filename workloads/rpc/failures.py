"""How the end of a gRPC call becomes a row: its status and its error."""

from __future__ import annotations

from typing import Final

import grpc

from workloads.underway import NO_STATUS, Texts

HTTP_STATUS: Final = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
}
"""The HTTP status that belongs to each code by the definition of google.rpc.Code.

Three are missing, so their rows have no status: CANCELLED, DEADLINE_EXCEEDED and UNAVAILABLE are
what gRPC itself says when no answer came. A service may send them too, which can't be told apart.
"""

_LATE: Final = "Deadline Exceeded"
_ITERATING: Final = "Exception iterating requests!"
_texts = Texts()


def status_of(code: grpc.StatusCode, details: str | None) -> int:
    """The row's status; none where no answer came."""
    if details == _ITERATING:
        return NO_STATUS  # the scenario's own iterator raised
    return HTTP_STATUS.get(code.name, NO_STATUS)


def error_of(code: grpc.StatusCode, details: str | None) -> str:
    """The row's error: the code's name first, then the words that came with it."""
    if details and _LATE in details:
        details = _LATE  # by chance, gRPC tells where it was when the time was over
    return _texts.told(code.name, details)
