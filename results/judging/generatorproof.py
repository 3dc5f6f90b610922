"""The load generator proves itself: a slow generator looks just like a slow service.

Everything that it tells of its own state becomes a finding when it goes beyond what leaves the
service's figures true.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from results.record import Finding, LoadRecord, TrialRecord

SENT_SHARE_MIN: Final = 0.99
LAG_P99_WARN_NS: Final = 10_000_000
LAG_P99_MAX_NS: Final = 50_000_000
CPU_MAX: Final = 0.9
WAITING_SHARE_WARN: Final = 0.02
CHANCE_SPREADS: Final = 4
EXHAUSTED_REMEDY: Final = (
    "keep connections alive, raise `ulimit -n` and net.ipv4.ip_local_port_range, or use other nodes"
)


def findings(record: TrialRecord, load: LoadRecord) -> Iterator[Finding]:
    """What was wrong with the load itself: a service that did not keep up, or a generator."""
    at_least = _at_least(record, load)
    relief = _relief(record, load)
    yield from _not_sent(record, load, at_least, relief)
    if load.exhausted:
        text = (
            f"generator saturated: {at_least}; for {load.exhausted:,} requests it had no free port "
            "or file"
        )
        yield Finding("generator_exhausted", "invalid", text, EXHAUSTED_REMEDY)
    if load.cpu_share > CPU_MAX:
        text = f"generator saturated: {at_least}; it used {load.cpu_share:.0%} of a core"
        yield Finding("generator_saturated", "invalid", text, relief)
    yield from _late(load, at_least, relief)


def _not_sent(
    record: TrialRecord, load: LoadRecord, at_least: str, relief: str
) -> Iterator[Finding]:
    if load.in_flight_max_reached and load.planned and load.not_sent > load.planned * 0.01:
        text = (
            f"the service did not keep up: {load.not_sent:,} arrivals were never sent; {at_least}"
        )
        yield Finding(
            "service_saturated", "invalid", text, "lower the rate: latency has no meaning"
        )
    elif load.in_flight_max_reached:
        text = "arrivals waited because in_flight_max requests were unanswered"
        yield Finding("service_saturated", "warning", text, "raise in_flight_max or lower the rate")
    elif load.planned and load.not_sent > load.planned * (1 - SENT_SHARE_MIN):
        text = f"generator saturated: {at_least}; {load.not_sent:,} arrivals were not sent"
        yield Finding("generator_saturated", "invalid", text, relief)
    elif _waiting_grew(load, _rates(record)):
        text = (
            f"the service did not keep up: {load.waiting_before:,} requests were unanswered when "
            f"measure began and {load.waiting_after:,} when it ended"
        )
        lower = "lower the rate: these latencies grow with the length of measure"
        yield Finding("service_saturated", "warning", text, lower)


def _late(load: LoadRecord, at_least: str, relief: str) -> Iterator[Finding]:
    """Its own delays are in the latencies: those of sending, or those of its loop, if greater."""
    sending_ns, loop_ns = load.lag_p99_ns or 0, load.loop_lag_p99_ns or 0
    worst_ns = max(sending_ns, loop_ns)
    if worst_ns <= LAG_P99_WARN_NS:
        return
    if worst_ns == sending_ns:
        late = f"the generator itself sent {sending_ns / 1e6:.0f} ms late (p99)"
    else:
        late = f"the generator's loop came {loop_ns / 1e6:.0f} ms late to what was due (p99)"
    if worst_ns > LAG_P99_MAX_NS:
        text = f"generator saturated: {at_least}; {late}"
        yield Finding("generator_late", "invalid", text, relief)
    else:
        text = f"{late}: that much of the latencies is not the service's"
        yield Finding("generator_late", "warning", text, relief)


def _at_least(record: TrialRecord, load: LoadRecord) -> str:
    """The rate that was carried; of a shape its mean, whatever its peak."""
    seconds = sum(p.end_ns - p.start_ns for p in record.phases if p.name == "measure") / 1e9
    if not seconds:
        return "the rate is not known"
    mean = " on average" if _rates(record) else ""
    return f"at least {load.measured / seconds:,.0f}/s{mean}"


def _relief(record: TrialRecord, load: LoadRecord) -> str:
    """What would help a generator that can't keep up, the cheapest first."""
    ways = []
    if load.costly_users:
        ways.append(f"workloads.users.HttpUser instead of Locust's {load.costly_users[0]}")
    plan = record.spec.get("load") or {}
    ways.append(f"more `processes:` than {plan.get('processes', 1)} where cores are free")
    ways.append("load from other nodes (`load:`)")
    return "; ".join(ways)


def _rates(record: TrialRecord) -> list[dict[str, float]]:
    """The pieces of a rate that changes; none when it does not."""
    arrivals = (record.spec.get("load") or {}).get("arrivals") or {}
    return arrivals.get("rates") or []


def _waiting_grew(load: LoadRecord, rates: Sequence[dict[str, float]]) -> bool:
    """Whether requests piled up in measure, by more than the chance of random arrivals explains.

    As many wait as come in while one is answered (Little), so that more wait when the rate is
    higher at the end; where it began at 0, nothing can be said.
    """
    if load.waiting_before is None or load.waiting_after is None:
        return False
    first, last = (rates[0]["from_rps"], rates[-1]["to_rps"]) if rates else (1.0, 1.0)
    if first == 0:
        return False
    growth = load.waiting_after - load.waiting_before * max(1.0, last / first)
    # Numbers of requests in a system that keeps up scatter about as their root (Little; Poisson).
    chance = CHANCE_SPREADS * math.sqrt(load.waiting_before + load.waiting_after)
    return growth > max(chance, load.measured * WAITING_SHARE_WARN)
