"""Every live metric: its name, kind, labels and meaning. docs/watching.md is held against this.

Names follow Prometheus: base units in the name (`_seconds`, `_bytes`) and `_total` for what only
grows. Elsewhere in Heapgate times are `_ns`; here they are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

TRIAL_LABELS: Final = ("configuration", "workload", "node")
"""On everything of a running trial: there are never more of them than cells and nodes."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `trial` says that there is one for each trial that runs, with its labels."""

    name: str
    kind: Literal["gauge", "counter", "summary"]
    meaning: str
    labels: tuple[str, ...] = ()
    trial: bool = False

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Its labels, those of a trial first."""
        return (TRIAL_LABELS if self.trial else ()) + self.labels

    @property
    def unit(self) -> str:
        """As the name tells it; empty for plain numbers."""
        base = self.name.removesuffix("_total")
        return next((u for u in ("seconds", "bytes", "ratio") if base.endswith(f"_{u}")), "")


def _run(
    name: str,
    kind: Literal["gauge", "counter"],
    meaning: str,
    *labels: str,
) -> Metric:
    return Metric(f"heapgate_{name}", kind, meaning, labels)


def _trial(
    name: str,
    kind: Literal["gauge", "counter", "summary"],
    meaning: str,
    *labels: str,
) -> Metric:
    return Metric(f"heapgate_trial_{name}", kind, meaning, labels, trial=True)


METRICS: Final = (
    _run("run_info", "gauge", "1; which run this is", "run_id", "service", "version"),
    _run("run_start_timestamp_seconds", "gauge", "when the command began"),
    _run(
        "run_last_change_timestamp_seconds",
        "gauge",
        "when anything last moved: a step, a phase, a sample, an answered request, a sealed trial",
    ),
    _run("run_measuring", "gauge", "0 while it is prepared, 1 from the first trial on"),
    _run("run_planned_trials", "gauge", "trials of the plan"),
    _run("run_done_trials", "gauge", "trials of the plan that are over, before a resume too"),
    _run("run_left_seconds", "gauge", "how long the rest of the trials will take, about"),
    _run(
        "run_sealed_trials_total",
        "counter",
        "trials that ended since the command began, repetitions too, valid or invalid",
        "outcome",
    ),
    _run("run_repeated_trials_total", "counter", "trials that were begun once more"),
    _run(
        "run_findings_total",
        "counter",
        "reasons for doubt in trials that ended; level invalid takes a trial out of the comparison",
        "level",
        "code",
    ),
    _run("run_warnings_total", "counter", "warnings that the run told besides"),
    _run("archive_rows_total", "counter", "rows that the collector has written", "table"),
    _run(
        "archive_size_bytes", "gauge", "size of the run's trials; it shrinks when one is compressed"
    ),
    _run("archive_free_bytes", "gauge", "room left where the archive lies"),
    _trial("info", "gauge", "1; in which phase the trial is", "phase"),
    _trial("block", "gauge", "number of its block"),
    _trial("phase_left_seconds", "gauge", "what is left of the phase, where that is planned"),
    _trial("resident_bytes", "gauge", "RSS of the service's process tree, on Windows working set"),
    _trial("commit_bytes", "gauge", "commit of the process tree (Windows)"),
    _trial("cgroup_usage_bytes", "gauge", "memory charged to the cgroup, page cache included"),
    _trial("cgroup_anon_bytes", "gauge", "anonymous memory charged to the cgroup"),
    _trial("memory_limit_bytes", "gauge", "hard memory limit, where one is in force"),
    _trial("cpu_seconds_total", "counter", "processor time of the process tree since its start"),
    _trial(
        "gc_cpu_seconds_total",
        "counter",
        "processor time of garbage collections, idle workers left out",
    ),
    _trial("gc_cycles_total", "counter", "garbage collections"),
    _trial("heap_live_bytes", "gauge", "heap marked live by the last collection (whole MiB)"),
    _trial("requests_due_total", "counter", "arrivals whose instant has come (open loop)"),
    _trial("requests_total", "counter", "requests with an answer, failed ones too, of warmup too"),
    _trial("requests_failed_total", "counter", "failed requests among them"),
    _trial("requests_waiting", "gauge", "arrivals that are due and not answered (open loop)"),
    _trial(
        "latency_seconds",
        "summary",
        "latency from the intended start: quantiles 0.5 and 0.99, exact, of the rows of the last "
        "10 seconds (0.99 of 100 requests or more); sum and count since the load began",
    ),
    _trial(
        "generator_lag_seconds",
        "gauge",
        "the generator's own greatest delay in the last half second (open loop)",
    ),
    _trial(
        "generator_cpu_ratio",
        "gauge",
        "share of a core that the generator used in the last half second, of several the busiest",
    ),
    _trial("samples_total", "counter", "memory samples taken"),
    _trial("missed_samples_total", "counter", "sampling instants that passed without one"),
    _trial("spool_batches", "gauge", "batches on the service's node that are not delivered yet"),
)

BY_NAME: Final = {metric.name: metric for metric in METRICS}


def reference() -> str:
    """The metrics as a table in Markdown."""
    lines = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        if metric.trial:
            labels = f"trial's, {labels}" if labels else "trial's"
        name, unit = f"`{metric.name}`", metric.unit or "–"
        lines.append(f"| {name} | {metric.kind} | {unit} | {labels or '–'} | {metric.meaning} |")
    return "\n".join(lines) + "\n"
