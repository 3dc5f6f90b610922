"""What load generators tell of themselves, one or several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from results.errors import HeapgateError
from results.record import LoadRecord

T = TypeVar("T", int, float)

Account = tuple[LoadRecord | None, list[dict[str, list[Any]]]]
"""The account of a load and the events of its generator; None when it can't give one."""


@dataclass(frozen=True, slots=True)
class Live:
    """The generator's rate over the last half second, and its counts since the start.

    `due` are the arrivals whose instant has come, None in a closed loop, `waiting` those of them
    without an answer. `lag_max_ns` is its own greatest delay, `cpu_share` the share of a core that
    it used, both over the last half second; of several generators the worst.
    """

    rate_rps: float
    sent: int
    failed: int
    due: int | None = None
    waiting: int | None = None
    lag_max_ns: int | None = None
    cpu_share: float | None = None


class LoadLost(HeapgateError):
    """The load generator ended before the load did."""


def together(lives: Sequence[Live]) -> Live | None:
    """What several told last, summed; None when nobody has told anything."""
    if not lives:
        return None
    return Live(
        sum(live.rate_rps for live in lives),
        sum(live.sent for live in lives),
        sum(live.failed for live in lives),
        _of(sum, [live.due for live in lives]),
        _of(sum, [live.waiting for live in lives]),
        _of(max, [live.lag_max_ns for live in lives]),
        _of(max, [live.cpu_share for live in lives]),
    )


def _of(what: Callable[[list[T]], T], values: Sequence[T | None]) -> T | None:
    """The sum or the greatest of what all tell; None when one does not."""
    told = [value for value in values if value is not None]
    return what(told) if len(told) == len(values) else None


def merged(records: Sequence[LoadRecord]) -> LoadRecord:
    """One account of several generators: counts added, the worst of what can't be added."""
    plain = [asdict(record) for record in records]
    added = (
        "sent",
        "measured",
        "failed",
        "not_sent",
        "late",
        "unrecorded",
        "unanswered",
        "exhausted",
        "lost",
    )
    may_lack = ("planned", "waiting_before", "waiting_after")
    worst = ("lag_p50_ns", "lag_p99_ns", "lag_max_ns", "loop_lag_p99_ns", "loop_lag_max_ns")
    total: dict[str, Any] = {name: sum(p[name] for p in plain) for name in added}
    for name in may_lack:
        values = [p[name] for p in plain]
        total[name] = None if None in values else sum(values)
    for name in worst:
        values = [p[name] for p in plain if p[name] is not None]
        total[name] = max(values) if values else None
    return LoadRecord(
        **total,
        cpu_share=max(p["cpu_share"] for p in plain),
        in_flight_max_reached=any(p["in_flight_max_reached"] for p in plain),
        locust_version=plain[0]["locust_version"],
        costly_users=sorted({name for p in plain for name in p["costly_users"]}),
    )
