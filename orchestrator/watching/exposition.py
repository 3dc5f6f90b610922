"""The board and the journals as samples of the metrics, in the order of their list."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

from prometheus_client.core import Metric as Family

from orchestrator.watching.board import Board, Facts, RunningTrial
from orchestrator.watching.journals import Journals
from orchestrator.watching.metrics import BY_NAME, METRICS, Metric
from results.serve.tail import TrialTail

QUANTILES: Final = ((0.5, 1), (0.99, 100))
"""Each with the requests without which it is not told: of fewer, p99 is just the greatest one."""

_NS: Final = 1e9
Reading = tuple[str, tuple[str, ...], float | None]
"""A metric without `heapgate_`, the values of its labels, its value; None is not told."""


class Exposition:
    """What a registry of prometheus_client collects."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._journals: Journals | None = None
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Family]:
        """Nothing: asked when it is registered, before there is a run."""
        return ()

    def collect(self) -> list[Family]:
        """Every metric; of one without a value its meaning alone. For one scraper at a time."""
        with self._lock:
            return self._collected(self._board.facts())

    def _collected(self, facts: Facts) -> list[Family]:
        families = {metric.name: _family(metric) for metric in METRICS}
        for name, labels, value in self._readings(facts):
            if value is not None:
                metric = BY_NAME[f"heapgate_{name}"]
                named = dict(zip(metric.all_labels, labels, strict=True))
                families[metric.name].add_sample(metric.name, named, value)
        for trial, tail in self._with_rows(facts):
            _add_latencies(families["heapgate_trial_latency_seconds"], trial, tail)
        return list(families.values())

    def _readings(self, facts: Facts) -> Iterator[Reading]:
        yield from _of_run(facts)
        if facts.folder is None:
            return
        self._journals = self._journals or Journals(facts.folder / "trials")
        self._journals.update()
        yield from _of_archive(facts, self._journals)
        for trial in facts.running.values():
            yield from _of_trial(trial)
        for trial, tail in self._with_rows(facts):
            yield "trial_gc_cpu_seconds_total", trial.labels, tail.gc_cpu_ns / _NS
            yield "trial_gc_cycles_total", trial.labels, tail.gc_cycles
            yield "trial_heap_live_bytes", trial.labels, tail.heap_live_bytes

    def _with_rows(self, facts: Facts) -> Iterator[tuple[RunningTrial, TrialTail]]:
        tails = self._journals.tails if self._journals else {}
        for trial in facts.running.values():
            if tail := tails.get(trial.trial_id):
                yield trial, tail


def _family(metric: Metric) -> Family:
    # The library adds `_total` to the name of a counter by itself.
    name = metric.name.removesuffix("_total")
    return Family(name, metric.meaning, metric.kind)


def _of_run(facts: Facts) -> Iterator[Reading]:
    if facts.run_id:
        yield "run_info", (facts.run_id, facts.service, version("heapgate")), 1
    yield "run_start_timestamp_seconds", (), facts.started_s
    yield "run_last_change_timestamp_seconds", (), facts.changed_s
    yield "run_measuring", (), int(facts.measuring)
    yield "run_planned_trials", (), facts.planned
    yield "run_done_trials", (), facts.done
    if facts.ends_s is not None:
        yield "run_left_seconds", (), max(0.0, facts.ends_s - time.time())
    for outcome in ("valid", "invalid"):
        yield "run_sealed_trials_total", (outcome,), facts.sealed[outcome]
    yield "run_repeated_trials_total", (), facts.repeated
    for (level, code), count in facts.findings.items():
        yield "run_findings_total", (level, code), count
    yield "run_warnings_total", (), facts.warnings


def _of_archive(facts: Facts, journals: Journals) -> Iterator[Reading]:
    for table, rows in journals.rows.items():
        yield "archive_rows_total", (table,), rows
    yield "archive_size_bytes", (), journals.size_bytes
    with suppress(OSError):
        assert facts.folder
        yield "archive_free_bytes", (), shutil.disk_usage(facts.folder).free


def _of_trial(trial: RunningTrial) -> Iterator[Reading]:
    told = trial.snapshot
    yield "trial_info", (*trial.labels, str(told.get("phase", "starting"))), 1
    yield "trial_block", trial.labels, trial.block
    if not told:
        return
    memory: dict[str, Any] = told.get("memory") or {}
    for name in ("resident_bytes", "commit_bytes", "cgroup_usage_bytes", "cgroup_anon_bytes"):
        yield f"trial_{name}", trial.labels, memory.get(name)
    yield "trial_cpu_seconds_total", trial.labels, _cpu_s(memory)
    yield "trial_memory_limit_bytes", trial.labels, told.get("memory_limit_bytes")
    yield "trial_phase_left_seconds", trial.labels, _seconds(told.get("phase_left_ns"))
    yield "trial_samples_total", trial.labels, told.get("samples")
    yield "trial_missed_samples_total", trial.labels, told.get("samples_missed")
    yield "trial_spool_batches", trial.labels, told.get("spool_batches")
    load: dict[str, Any] = told.get("load") or {}
    yield "trial_requests_total", trial.labels, load.get("sent")
    yield "trial_requests_failed_total", trial.labels, load.get("failed")
    yield "trial_requests_due_total", trial.labels, load.get("due")
    yield "trial_requests_waiting", trial.labels, load.get("waiting")
    yield "trial_generator_lag_seconds", trial.labels, _seconds(load.get("lag_max_ns"))
    yield "trial_generator_cpu_ratio", trial.labels, load.get("cpu_share")


def _add_latencies(family: Family, trial: RunningTrial, tail: TrialTail) -> None:
    named = dict(zip(BY_NAME[family.name].all_labels, trial.labels, strict=True))
    for quantile, at_least in QUANTILES:
        latency_ns = tail.latency_ns(quantile, at_least)
        if latency_ns is not None:
            of = named | {"quantile": str(quantile)}
            family.add_sample(family.name, of, latency_ns / _NS)
    family.add_sample(f"{family.name}_sum", named, tail.latency_total_ns / _NS)
    family.add_sample(f"{family.name}_count", named, tail.sent)


def _seconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / _NS


def _cpu_s(memory: dict[str, Any]) -> float | None:
    user_ns, system_ns = memory.get("cpu_user_ns"), memory.get("cpu_system_ns")
    return None if user_ns is None or system_ns is None else (user_ns + system_ns) / _NS
