"""What load generators tell of themselves, one or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from results.errors import HeapgateError
from results.record import LoadRecord

Account = tuple[LoadRecord | None, list[dict[str, list[Any]]]]
"""The account of a load and the events of its generator; None when it can't give one."""


@dataclass(frozen=True, slots=True)
class Live:
    """The generator's rate over the last half second, and its counts since the start."""

    rate_rps: float
    sent: int
    failed: int


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
    )


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
