"""What each valid trial of an archive tells a forecast: its load, its heap, its figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from results.archive.archive import Archive, RunEntry
from results.archive.fragments import read_trials
from results.errors import UserError
from results.gomodel import GOGC_DEFAULT, OFF, Measured
from results.record import TrialRecord
from results.sql.database import Database
from results.units import UNITS_BYTES

STEADY_ARRIVALS: Final = ("constant", "poisson")
"""Arrivals that have one rate; a ramp or a spike has many."""

_OWN: Final = "HEAPGATE_"
_COLLECTOR: Final = ("GOGC", "GOMEMLIMIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One valid trial. `facts` is all that must be alike for two trials to answer one question.

    `rate_rps` is what was really answered per second of measure. `metrics` are those of the trial
    by name. `heap` is what the runtime told of its collections; None where nothing was told. `gogc`
    is in percent, `memlimit_bytes` infinite for none.
    """

    run_id: str
    trial_id: str
    started_ns: int
    configuration: str
    workload: str
    node_class: str
    os: str
    rate_rps: float
    gogc: float
    memlimit_bytes: float
    metrics: Mapping[str, float]
    heap: Measured | None
    facts: Mapping[str, str]

    @property
    def gc_cores(self) -> float | None:
        """CPU seconds of collections per second of measure."""
        return self.heap.gc_cpu_s / self.heap.seconds if self.heap else None

    @property
    def other_cores(self) -> float | None:
        """CPU seconds of everything else per second of measure."""
        if self.heap is None:
            return None
        return (self.heap.service_cpu_s - self.heap.gc_cpu_s) / self.heap.seconds


@dataclass(frozen=True, slots=True)
class Observed:
    """The valid trials of a service; `damage` is what can't be believed any more."""

    service: str
    trials: tuple[Observation, ...]
    damage: tuple[str, ...]


def read_observations(archive_path: Path, service: str | None) -> Observed:
    """The valid trials of a service, None being that of the latest run.

    Trials of shaped arrivals have no rate and are left out, as are the runs of bisections. Raises
    UserError for an archive without runs of the service.
    """
    archive = Archive(archive_path)
    latest = archive.run("latest")
    name = service or str(latest.document["service"])
    runs = [run for run in archive.runs() if _is_of(run, name)]
    if not runs:
        known = sorted({str(run.document["service"]) for run in archive.runs()})
        raise UserError(f"there is no run of a service {name!r}; of {', '.join(known)}")
    with Database(read_trials(archive, runs)) as database:
        return Observed(name, tuple(observations(database)), database.damage)


def _is_of(run: RunEntry, service: str) -> bool:
    return run.document["service"] == service and "bisect" not in run.document


def observations(database: Database) -> Iterator[Observation]:
    """The counted trials of a database, in the order in which they began."""
    heaps = {(row["run_id"], row["trial_id"]): row for row in _heap_rows(database)}
    metrics: dict[tuple[str, str], dict[str, float]] = {}
    asked = "select run_id, trial_id, metric, value from trial_metrics where value is not null"
    for row in database.query(asked).to_pylist():
        metrics.setdefault((row["run_id"], row["trial_id"]), {})[row["metric"]] = row["value"]
    for record in sorted(database.records, key=lambda r: (r.started_ns, r.run_id, r.trial_id)):
        key = record.run_id, record.trial_id
        if key in metrics and _has_a_rate(record):
            yield _observation(record, metrics[key], heaps.get(key))


def _heap_rows(database: Database) -> list[dict[str, Any]]:
    """Medians over the collections of measure; roots and processors are of the trace alone."""
    rows: list[dict[str, Any]] = database.query(
        """
        with traced as (
          select run_id, trial_id,
            median(coalesce(stacks_bytes, 0) + coalesce(globals_bytes, 0)) as roots_bytes,
            max(procs) as procs
          from gc where counted and phase = 'measure' and kind = 'cycle' group by all
        )
        select g.*, t.roots_bytes, t.procs
        from gc_overhead g left join traced t using (run_id, trial_id)
        where g.cycles is not null
        """
    ).to_pylist()
    return rows


def _has_a_rate(record: TrialRecord) -> bool:
    arrivals = record.spec["load"]["arrivals"]
    return arrivals is None or arrivals["kind"] in STEADY_ARRIVALS


def _observation(
    record: TrialRecord, metrics: Mapping[str, float], heap: Mapping[str, Any] | None
) -> Observation:
    variables = dict(record.spec["service"].get("environment") or ())
    gogc, memlimit = gogc_of(variables.get("GOGC")), memlimit_of(variables.get("GOMEMLIMIT"))
    return Observation(
        run_id=record.run_id,
        trial_id=record.trial_id,
        started_ns=record.started_ns,
        configuration=record.configuration,
        workload=record.workload,
        node_class=record.node_class,
        os=record.os,
        rate_rps=metrics.get("throughput", 0.0),
        gogc=gogc,
        memlimit_bytes=memlimit,
        metrics=metrics,
        heap=_heap(record, gogc, memlimit, heap, _peak(metrics)) if heap else None,
        facts=_facts(record, variables),
    )


def gogc_of(text: str | None) -> float:
    """What Go makes of a GOGC: a whole number, `off` or less than zero for none, else 100."""
    if text == "off":
        return OFF
    if text is None or not re.fullmatch(r"-?[0-9]{1,9}", text):
        return GOGC_DEFAULT
    return float(text) if int(text) >= 0 else OFF


def memlimit_of(text: str | None) -> float:
    """A GOMEMLIMIT in bytes, infinite for none."""
    found = re.fullmatch(r"([0-9]+)((?:[KMGT]i)?B)?", text or "")
    return float(int(found[1]) * UNITS_BYTES[found[2] or "B"]) if found else OFF


def _peak(metrics: Mapping[str, float]) -> float:
    return metrics.get("peak_rss", metrics.get("peak_working_set", math.nan))


def _heap(
    record: TrialRecord, gogc: float, memlimit: float, row: Mapping[str, Any], peak: float
) -> Measured | None:
    measure = next((span for span in record.phases if span.name == "measure"), None)
    told = (row["gc_cpu_ns"], row["service_cpu_ns"])
    if measure is None or None in told:
        return None
    return Measured(
        gogc=gogc,
        memlimit_bytes=memlimit,
        live_bytes=float(row["heap_live_median_bytes"] or 0),
        goal_bytes=float(row["heap_goal_median_bytes"] or 0),
        roots_bytes=float(row["roots_bytes"] or 0),
        peak_bytes=peak,
        cycles=float(row["cycles"]),
        gc_cpu_s=row["gc_cpu_ns"] / 1e9,
        service_cpu_s=row["service_cpu_ns"] / 1e9,
        seconds=(measure.end_ns - measure.start_ns) / 1e9,
        procs=float(row["procs"] or record.node.get("cpus") or 1),
    )


def _facts(record: TrialRecord, variables: Mapping[str, str]) -> dict[str, str]:
    """By the word under which a difference is told."""
    service, load = record.spec["service"], record.spec["load"]
    arrivals = load["arrivals"] or {"kind": "closed loop"}
    others = {
        name: value
        for name, value in variables.items()
        if name not in _COLLECTOR and not name.startswith(_OWN)
    }
    return {
        "machines": record.node_class,
        "scenario": PurePosixPath(str(load["scenario"]).replace("\\", "/")).stem,
        "arrivals": str(arrivals["kind"]),
        "measure": f"{record.spec['phases']['measure_ns'] / 1e9:g} s",
        "program": str(service["binary"].get("sha256", ""))[:12],
        "arguments": " ".join(service.get("arguments") or ()),
        "variables": _listed(others),
        "limits": _listed({k: f"{v:g}" for k, v in record.spec["limits"].items() if v}),
    }


def _listed(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(named.items()))


def names_of(found: Sequence[Observation]) -> str:
    """The cells that there are, for who asked for another."""
    cells = sorted({(o.configuration, o.workload) for o in found})
    return "; ".join(f"{configuration} × {workload}" for configuration, workload in cells[:8])
