"""What archived runs of a tuning say: outcomes of single trials, and of full blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from results.capacity.holds import Held, held
from results.comparing.compare import Measurement
from results.gomodel import Measured
from results.record import TrialRecord
from results.signoff.language import objective_from_plain
from results.signoff.objectives import Evidence, decide
from results.sql.database import Database
from results.statistics.paired import median_interval
from results.tuning.outcomes import SPIRAL_SHARE, Confirmed, Outcome
from results.tuning.settings import MIB, Setting

LIMITED: Final = ("peak_cgroup", "peak_job")
"""What a hard limit counts, where there is one."""

_COLLECTIONS: Final = """
select
  t.configuration, t.trial_id, g.cycles, g.gc_cpu_ns, g.service_cpu_ns, g.limiter_cycle,
  g.heap_live_median_bytes as live_bytes, g.heap_goal_median_bytes as goal_bytes,
  c.roots_bytes, c.procs, c.first_cycle, c.mark_s * g.cycles as mark_s,
  (t.measure_end_ns - t.measure_start_ns) / 1e9 as seconds
from trials t
join gc_overhead g using (run_id, trial_id)
left join (
  select
    run_id, trial_id, median(stacks_bytes + globals_bytes) as roots_bytes, max(procs) as procs,
    min(cycle) as first_cycle,
    avg(concurrent_ns + stw_sweep_ns + stw_mark_ns) / 1e9 as mark_s
  from gc
  where phase = 'measure' and kind = 'cycle'
  group by all
) c using (run_id, trial_id)
where t.counted
"""

Row = Mapping[str, Any]


def read_outcomes(
    database: Database, settings: Sequence[Setting], memory_metric: str, rate_rps: float
) -> list[Outcome]:
    """The outcomes of a run of one block, in the order of the settings.

    `rate_rps` is what came in an open loop, infinite in a closed one.
    """
    (run,) = database.runs
    values: dict[str, dict[str, float | None]] = defaultdict(dict)
    for measurement in database.measurements(run.run_id):
        values[measurement.configuration][measurement.metric] = measurement.value
    rows = {row["configuration"]: row for row in database.query(_COLLECTIONS).to_pylist()}
    last = {r.configuration: r for r in sorted(database.records, key=_how_good)}
    return [
        _outcome(s, last.get(s.name), values[s.name], rows.get(s.name), memory_metric, rate_rps)
        for s in settings
    ]


def _how_good(record: TrialRecord) -> tuple[bool, int]:
    return record.valid, record.started_ns


def _outcome(
    setting: Setting,
    record: TrialRecord | None,
    values: Mapping[str, float | None],
    row: Row | None,
    memory_metric: str,
    rate_rps: float,
) -> Outcome:
    if record is None:
        return Outcome(setting=setting, unusable="no trial of it has ended")
    took_s = (record.finished_ns - record.started_ns) / 1e9
    said = held(record, values, (), rate_rps)
    if not record.valid:
        own_doing = said.holds is False
        spiral = said.reason if own_doing and math.isfinite(setting.memlimit_bytes) else ""
        return Outcome(
            setting=setting, unusable=said.reason, own_doing=own_doing, spiral=spiral, took_s=took_s
        )
    peak = values.get(memory_metric)
    share = _share(row)
    return Outcome(
        setting=setting,
        memory_bytes=peak,
        p99_ns=values.get("latency_p99"),
        gc_share=share,
        throughput_rps=values.get("throughput"),
        values=values,
        measured=_measured(setting, row, peak),
        spiral=_spiral(row, share, said),
        took_s=took_s,
    )


def _share(row: Row | None) -> float | None:
    """The collector's share of CPU time; 1 where its own account is more than all of it."""
    if row is None or row["gc_cpu_ns"] is None or not row["service_cpu_ns"]:
        return None
    return min(1.0, float(row["gc_cpu_ns"] / row["service_cpu_ns"]))


def _spiral(row: Row | None, share: float | None, said: Held) -> str:
    """Why the collector has taken over; empty when it has not."""
    if row and row["limiter_cycle"] and row["limiter_cycle"] >= (row["first_cycle"] or 0):
        return "Go's limiter of the collector stepped in"
    # With idle processors most of the marking is done there, and is no price: time tells it.
    if row and row["mark_s"] and row["mark_s"] >= SPIRAL_SHARE * row["seconds"]:
        return "collections went on for at least half of the time"
    if share is not None and share >= SPIRAL_SHARE:
        return "at least half of the CPU time went to the collector"
    return "the service fell behind" if said.holds is False else ""


def _measured(setting: Setting, row: Row | None, peak: float | None) -> Measured | None:
    known = ("cycles", "live_bytes", "goal_bytes", "roots_bytes", "procs", "service_cpu_ns")
    if row is None or peak is None or any(row[name] is None for name in known):
        return None
    return Measured(
        gogc=setting.gogc,
        memlimit_bytes=setting.memlimit_bytes,
        # The runtime reports whole MiB and cuts off the rest: half of one, on average.
        live_bytes=row["live_bytes"] + MIB / 2,
        goal_bytes=row["goal_bytes"] + MIB / 2,
        roots_bytes=row["roots_bytes"],
        peak_bytes=peak,
        cycles=row["cycles"],
        gc_cpu_s=row["gc_cpu_ns"] / 1e9,
        service_cpu_s=row["service_cpu_ns"] / 1e9,
        seconds=row["seconds"],
        procs=row["procs"],
        mark_s=row["mark_s"] or 0.0,
    )


def read_confirmed(
    database: Database,
    arms: Mapping[str, Setting],
    memory_metric: str,
    written: str,
    rate_rps: float,
) -> list[Confirmed]:
    """What each arm of a run of full blocks showed, by the name of its configuration.

    `rate_rps` as for `read_outcomes`.
    """
    (run,) = database.runs
    measured = database.measurements(run.run_id)
    comparison = database.comparison()
    evidence = Evidence.of(comparison, database.records, measured)
    asked = [objective_from_plain(plain) for plain in run.document["objectives"]]
    decisions = decide(asked, evidence)
    spirals = _spirals(database, rate_rps)
    found = []
    for name, setting in arms.items():
        values = _values([m for m in measured if m.configuration == name])
        intervals = {
            metric: median_interval(own, evidence.confidence) for metric, own in values.items()
        }
        # A group may be charged less than is resident: whoever first read the program has paid it.
        peaks = [value for metric in (*LIMITED, memory_metric) for value in values.get(metric, [])]
        found.append(
            Confirmed(
                setting=setting,
                trials=len(values.get(memory_metric, [])),
                intervals=intervals,
                memory_metric=memory_metric,
                greatest_bytes=max(peaks, default=None),
                decisions=[d for d in decisions if d.cell.configuration == name],
                written=name == written,
                spiral=_mostly(spirals[name]),
            )
        )
    return found


def _spirals(database: Database, rate_rps: float) -> dict[str, list[str]]:
    """By configuration, what `_spiral` says of each trial."""
    records = {record.trial_id: record for record in database.records}
    found: dict[str, list[str]] = defaultdict(list)
    for row in database.query(_COLLECTIONS).to_pylist():
        said = held(records[row["trial_id"]], {}, (), rate_rps)
        found[row["configuration"]].append(_spiral(row, _share(row), said))
    return found


def _mostly(reasons: Sequence[str]) -> str:
    """The first reason, when at least half of the trials have one."""
    seen = [reason for reason in reasons if reason]
    return seen[0] if seen and 2 * len(seen) >= len(reasons) else ""


def _values(measured: Sequence[Measurement]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for measurement in measured:
        value = measurement.value
        if value is None and measurement.metric == "gc_cpu_share":
            value = 1.0  # the trace is on: the collector's own account is more than all of it
        if value is not None:
            found[measurement.metric].append(value)
    return found
