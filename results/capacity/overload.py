"""What an overload did: latency, failures and memory before, in and after it.

A trial whose arrivals are base, peak, base (`steps:` of a matrix): its own record says when. Every
figure is from rows that are in the archive, so that it can be made again; a request belongs to the
second in which it was meant to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from results.capacity.holds import GENERATOR
from results.judging.validity import spoiled_by_node
from results.record import TrialRecord
from results.signoff.objectives import Objective

if TYPE_CHECKING:
    from results.sql.database import Database

DEATHS: Final = frozenset(
    {"service_died", "oom_killed", "go_out_of_memory", "commit_refused", "access_violation"}
)
COLUMN: Final = {
    "latency_p50": "latency_p50_ns",
    "latency_p99": "latency_p99_ns",
    "latency_p999": "latency_max_ns",
}
"""What of a second is held against a limit: below 1,000 requests its p999 is the maximum."""

SETTLED: Final = 3
"""So many seconds at least must follow, for a recovery to be told from chance."""

NEARLY: Final = 0.8
"""Latency is back when the limits are kept this share of as often as before."""

REST_SHARE: Final = 0.5
"""Memory before and after is the median of this last share of the part: the first is no rest."""


@dataclass(frozen=True, slots=True)
class Second:
    """A second of measure, from its begin: its requests, those that failed, and its latencies."""

    second: int
    requests: int
    failed: int
    latency_p50_ns: float
    latency_p99_ns: float
    latency_max_ns: float


@dataclass(frozen=True, slots=True)
class Shape:
    """Base, peak and base again: rates per second, and for how many seconds each."""

    base_rps: float
    peak_rps: float
    before_s: float
    over_s: float
    after_s: float

    @property
    def ends_s(self) -> float:
        """When the overload is over."""
        return self.before_s + self.over_s

    def part(self, at_s: float) -> int:
        """0 before the overload, 1 in it, 2 after it."""
        return int(at_s >= self.before_s) + int(at_s >= self.ends_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """What an overload did.

    `latency_p99_ns` are those before, in and after; None where nothing came. `back_after_s` is the
    time from the overload's end to the first second from which on the limits were kept nearly as
    often as before it; None when there was none, or no latency is limited. `within_before` and
    `within_after` are shares of seconds that kept them, the latter from the first one on.
    `memory_bytes` are before, peak and after. `died` says how the service ended, when it did.
    `sent_rps` is what was really sent in the overload; `spoiled` is why nothing can be said.
    """

    run_id: str
    base_rps: float
    peak_rps: float
    over_s: float
    after_s: float
    latency_p99_ns: tuple[float | None, float | None, float | None]
    failed_share: float | None
    not_sent: int
    limited: bool
    back_after_s: float | None
    within_before: float | None
    within_after: float | None
    memory_bytes: tuple[float | None, float | None, float | None]
    died: str
    sent_rps: float
    generator_at_its_end: bool
    spoiled: str
    took_ns: int = 0

    @property
    def memory_kept(self) -> float | None:
        """The share by which memory stays above what it was; below zero when it fell."""
        before, _, after = self.memory_bytes
        return after / before - 1 if before and after is not None else None

    @property
    def factor(self) -> float:
        """How many times the rate before was sent in it."""
        return self.sent_rps / self.base_rps


@dataclass(frozen=True, slots=True)
class Rows:
    """What the archive has of the trial; `memory` is (seconds since measure began, bytes)."""

    seconds: Sequence[Second]
    latency_p99_ns: tuple[float | None, float | None, float | None]
    sent_in_overload: int
    memory: Sequence[tuple[float, float]]


def shape_of(record: TrialRecord) -> Shape | None:
    """The shape of an overload's arrivals; None for another trial's."""
    rates = ((record.spec.get("load") or {}).get("arrivals") or {}).get("rates") or []
    if len(rates) != 3:
        return None
    before_s, over_s, after_s = (rate["for_ns"] / 1e9 for rate in rates)
    return Shape(rates[0]["from_rps"], rates[1]["from_rps"], before_s, over_s, after_s)


def read_overload(
    database: Database, record: TrialRecord, limits: Sequence[Objective], took_ns: int = 0
) -> Overload | None:
    """What the trial of an overload did; None when the trial is none."""
    shape = shape_of(record)
    if shape is None:
        return None
    return overload_of(record, shape, _rows(database, record, shape), limits, took_ns)


def overload_of(
    record: TrialRecord,
    shape: Shape,
    rows: Rows,
    limits: Sequence[Objective],
    took_ns: int = 0,
) -> Overload:
    """The figures, from what the archive has of it."""
    parts: list[list[Second]] = [[], [], []]
    for second in rows.seconds:
        parts[shape.part(second.second)].append(second)
    own = [o for o in limits if o.metric in COLUMN or o.metric == "error_share"]
    limited = any(o.metric in COLUMN for o in own)
    within_before = _share_within(parts[0], own)
    back_after_s = _back_after(parts[2], shape, own, within_before or 1.0) if limited else None
    since_back = [s for s in parts[2] if back_after_s is not None
                  and s.second >= shape.ends_s + back_after_s]  # fmt: skip
    codes = {f.code for f in record.findings if f.level == "invalid"}
    load = record.load
    return Overload(
        run_id=record.run_id,
        base_rps=shape.base_rps,
        peak_rps=shape.peak_rps,
        over_s=shape.over_s,
        after_s=shape.after_s,
        latency_p99_ns=rows.latency_p99_ns,
        failed_share=_failed_share(parts[1]),
        not_sent=load.not_sent if load else 0,
        limited=limited,
        back_after_s=back_after_s,
        within_before=within_before,
        within_after=_share_within(since_back, own),
        memory_bytes=_memory(rows.memory, shape),
        died=next((f.text for f in record.findings if f.code in DEATHS), ""),
        sent_rps=rows.sent_in_overload / shape.over_s,
        generator_at_its_end=bool(codes & GENERATOR),
        spoiled=_spoiled(record, rows),
        took_ns=took_ns,
    )


def keeps(second: Second, limits: Sequence[Objective]) -> bool:
    """Whether a second by itself keeps the limits of latency and errors."""
    for limit in limits:
        if limit.metric == "error_share":
            value = second.failed / second.requests
        else:
            value = getattr(second, COLUMN[limit.metric])
        if value > limit.bound:
            return False
    return True


def _back_after(
    after: Sequence[Second], shape: Shape, limits: Sequence[Objective], usual: float
) -> float | None:
    """Seconds from the overload's end to the first second from which on all is nearly as it was.

    `usual` is the share of seconds that kept the limits before it: at its capacity a service does
    not keep them in each. One good second among bad ones is no recovery, nor one bad one among many
    a relapse.
    """
    for index in range(len(after) - SETTLED + 1):
        left = after[index:]
        share = sum(keeps(second, limits) for second in left) / len(left)
        if keeps(after[index], limits) and share >= NEARLY * usual:
            return after[index].second - shape.ends_s
    return None


def _share_within(seconds: Sequence[Second], limits: Sequence[Objective]) -> float | None:
    if not seconds or not limits:
        return None
    return sum(keeps(second, limits) for second in seconds) / len(seconds)


def _failed_share(seconds: Sequence[Second]) -> float | None:
    requests = sum(second.requests for second in seconds)
    return sum(second.failed for second in seconds) / requests if requests else None


def _memory(
    samples: Sequence[tuple[float, float]], shape: Shape
) -> tuple[float | None, float | None, float | None]:
    """At rest before, the most since the overload began, and at rest at the end."""
    before_from_s = shape.before_s * (1 - REST_SHARE)
    after_from_s = shape.ends_s + shape.after_s * (1 - REST_SHARE)
    before = [b for at_s, b in samples if before_from_s <= at_s < shape.before_s]
    since = [b for at_s, b in samples if at_s >= shape.before_s]
    after = [b for at_s, b in samples if at_s >= after_from_s]
    return (
        median(before) if before else None,
        max(since, default=None),
        median(after) if after else None,
    )


def _spoiled(record: TrialRecord, rows: Rows) -> str:
    """Why it says nothing: it never began, or what happened around it is in its figures.

    A generator at its end is told beside them: what it sent was less than planned.
    """
    first = next((f.text for f in record.findings if f.level == "invalid"), "")
    if not rows.seconds:
        return first or "it has no requests"
    codes = {f.code for f in record.findings if f.level == "invalid"}
    stopped = codes & {"interrupted", "not_run"}
    return first if stopped or (spoiled_by_node(record) and not codes & GENERATOR) else ""


def _rows(database: Database, record: TrialRecord, shape: Shape) -> Rows:
    trial = {"run": record.run_id, "trial": record.trial_id}
    parts = trial | {"before": shape.before_s * 1e9, "ends": shape.ends_s * 1e9}
    p99_ns: list[float | None] = [None, None, None]
    sent = 0
    for row in database.query(_PARTS, parts).to_pylist():
        if row["latency_p99_ns"] is not None:
            p99_ns[row["part"]] = row["latency_p99_ns"]
    for row in database.query(_SENT, parts).to_pylist():
        sent = row["sent"]
    return Rows(
        seconds=[Second(**row) for row in database.query(_SECONDS, trial).to_pylist()],
        latency_p99_ns=(p99_ns[0], p99_ns[1], p99_ns[2]),
        sent_in_overload=sent,
        memory=list(_samples(database, trial)),
    )


def _samples(database: Database, trial: dict[str, str]) -> Iterator[tuple[float, float]]:
    for row in database.query(_MEMORY, trial).to_pylist():
        if row["bytes"] is not None:
            yield row["at_s"], float(row["bytes"])


_SECONDS: Final = """
select second, requests, failed, latency_p50_ns, latency_p99_ns, latency_max_ns
from latency_by_second where run_id = $run and trial_id = $trial order by second
"""
_PARTS: Final = """
select
  (intended_ns - measure_start_ns >= $before)::int + (intended_ns - measure_start_ns >= $ends)::int
    as part,
  quantile_cont(latency_ns, 0.99) as latency_p99_ns
from requests
where run_id = $run and trial_id = $trial and phase = 'measure'
group by part
"""
_SENT: Final = """
select count(*) as sent
from requests
where run_id = $run and trial_id = $trial
  and start_ns - measure_start_ns >= $before and start_ns - measure_start_ns < $ends
"""
_MEMORY: Final = """
select (m.time_ns - p.start_ns) / 1e9 as at_s, coalesce(m.rss_bytes, m.working_set_bytes) as bytes
from memory m join phases p using (run_id, trial_id)
where m.run_id = $run and m.trial_id = $trial and m.phase = 'measure' and p.phase = 'measure'
order by at_s
"""
