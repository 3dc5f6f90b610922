"""What Heapgate says against what is known: one real run of a service that keeps its own books.

The service (tests/services/known) writes them as a line of JSON when it ends. `default` holds
32 MiB, for 200 ms 96 MiB more, and forces 20 collections, all in measure; `other` has a process
that holds 24 MiB and stops answering for a second. Memory is sampled once a second only: no figure
may depend on a sample that happens to be at the right moment.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matrices
import numpy as np
import pytest
from bench_command import Workplace

from results.sql.database import Database, open_database
from workers.affinity import split_cores

MIB = 2**20
MS_NS = 10**6
SECOND_NS = 10**9
EDGE_NS = 50 * MS_NS
"""What a busy machine may add between an instant and its being noticed."""

RATE_RPS, MEASURE_S, IN_FLIGHT_MAX = 200, 3, 16
LIMIT_BYTES = 256 * MIB + 4096

MATRIX = f"""\
service:
  go: {{source: {matrices.ROOT / "tests" / "services" / "known"}}}
  arguments: [-addr, "127.0.0.1:{{port}}", -hold, "32"]
  ready: {{http: /healthz, timeout: 10s}}
limits: {{memory_max: {LIMIT_BYTES}B}}
configurations:
  default:
    baseline: true
    go: "1.23"
    arguments: [-spike, "96", -spike-at, 1500ms, -collect, "20", -collect-at, 900ms]
  other:
    go: "1.23"
    env: {{GOGC: off, GOMEMLIMIT: 90%, GOMAXPROCS: 3}}
    arguments: [-child, "24", -stall, 1s, -stall-at, 1500ms]
workloads:
  open: {{scenario: known.py, arrivals: {{constant: {RATE_RPS}/s, in_flight_max: {IN_FLIGHT_MAX}}},
    idle: 500ms, warmup: 500ms, measure: {MEASURE_S}s, cooldown: 100ms}}
  closed: {{scenario: known.py, users: 3,
    idle: 500ms, warmup: 500ms, measure: {MEASURE_S}s, cooldown: 100ms}}
sampling: {{rate: 1/s}}
trials: 1
"""


@dataclass(frozen=True)
class Trial:
    """One counted trial: its record, its rows, its metrics, and the service's own books."""

    record: dict[str, Any]
    requests: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    gc: list[dict[str, Any]]
    metrics: dict[str, float | None]
    books: dict[str, Any]

    def span(self, phase: str) -> dict[str, Any]:
        return next(p for p in self.record["phases"] if p["name"] == phase)

    def peak(self, phase: str) -> dict[str, Any]:
        return next(p for p in self.record["peaks"] if p["phase"] == phase)

    def measured(self, name: str) -> list[dict[str, Any]]:
        return [r for r in self.requests if (r["phase"], r["name"]) == ("measure", name)]

    def in_measure(self, figure: str) -> float:
        """What the service's own counter gained in measure, between its moments."""
        measure, moments = self.span("measure"), self.books["moments"]
        ends_ns = [measure["start_ns"], measure["end_ns"]]
        at = np.interp(ends_ns, [m["time_ns"] for m in moments], [m[figure] for m in moments])
        return float(at[1] - at[0])


Trials = dict[tuple[str, str], Trial]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """The counted trial of each configuration and workload."""
    workplace = Workplace(tmp_path_factory.mktemp("truth"))
    scenario = matrices.ROOT / "tests" / "scenarios" / "known.py"
    (workplace.root / "known.py").write_text(scenario.read_text())
    matrices.write(workplace.root, MATRIX)
    finished = workplace.bench("run", "matrix.yaml")
    assert finished.code == 0, finished.text
    with open_database(workplace.archive) as database:
        counted = rows(database, "select run_id, trial_id, configuration, workload from trials "
                                 "where counted")  # fmt: skip
        return {
            (t["configuration"], t["workload"]): _trial(database, workplace.archive, t)
            for t in counted
        }


def _trial(database: Database, archive: Path, trial: dict[str, Any]) -> Trial:
    folder = archive / trial["run_id"] / "trials" / trial["trial_id"]
    books = [line for line in (folder / "service.log").read_text().splitlines() if "num_gc" in line]
    where = f"where trial_id = '{trial['trial_id']}'"
    metrics = rows(database, f"select metric, value from trial_metrics {where}")
    return Trial(
        record=json.loads((folder / "trial.json").read_text()),
        requests=rows(database, f"select * from requests {where}"),
        memory=rows(database, f"select * from memory {where} order by time_ns"),
        gc=rows(database, f"select * from gc {where} and kind = 'cycle' order by cycle"),
        metrics={m["metric"]: m["value"] for m in metrics},
        books=json.loads(books[0]),
    )


def rows(database: Database, sql: str) -> list[dict[str, Any]]:
    return database.query(sql).to_pylist()


def every(check: Callable[[Trial], None]) -> Callable[[Trials], None]:
    """A test of all four trials."""

    def test(trials: Trials) -> None:
        assert len(trials) == 4
        for trial in trials.values():
            check(trial)

    return test


@every
def test_rows_are_what_the_generator_sent_and_what_the_service_counted(trial: Trial) -> None:
    named = Counter(r["name"] for r in trial.requests)
    assert len(trial.requests) == trial.record["load"]["sent"]
    assert trial.books["requests"] == {
        "/sleep": named["sleep"] + named["redirect"],  # a redirect leads there: one row, as Locust
        "/status": named["error"],
        "/redirect": named["redirect"],
    }
    assert {r["error"] is not None for r in trial.requests if r["name"] == "error"} == {True}
    assert {r["error"] for r in trial.requests if r["name"] != "error"} == {None}


@every
def test_throughput_and_errors_are_counts(trial: Trial) -> None:
    measure = trial.span("measure")
    answered = sum(
        measure["start_ns"] <= r["start_ns"] + r["service_ns"] < measure["end_ns"]
        for r in trial.requests
        if r["error"] is None
    )
    length_s = (measure["end_ns"] - measure["start_ns"]) / SECOND_NS
    assert trial.metrics["throughput"] == pytest.approx(answered / length_s)
    belonging = [r for r in trial.requests if r["phase"] == "measure"]
    failed = sum(r["error"] is not None for r in belonging)
    assert trial.metrics["error_share"] == pytest.approx(failed / len(belonging))
    assert len(belonging) == trial.record["load"]["measured"]


@every
def test_times_of_a_row_agree(trial: Trial) -> None:
    for r in trial.requests:
        due_ns = r["start_ns"] if r["intended_ns"] is None else r["intended_ns"]
        assert r["start_ns"] >= due_ns
        assert abs(r["start_ns"] - due_ns + r["service_ns"] - r["latency_ns"]) <= 1000
        span = trial.span(r["phase"])
        assert span["start_ns"] - EDGE_NS <= due_ns <= span["end_ns"] + EDGE_NS
    for row in [*trial.memory, *trial.gc]:
        span = trial.span(row["phase"])
        assert span["start_ns"] - EDGE_NS <= row["time_ns"] <= span["end_ns"] + EDGE_NS


@every
def test_phases_are_as_long_as_they_should_be(trial: Trial) -> None:
    for phase, length_s in (("idle", 0.5), ("measure", MEASURE_S)):
        span = trial.span(phase)
        late_ns = span["end_ns"] - span["start_ns"] - length_s * SECOND_NS
        assert abs(late_ns) < 5 * EDGE_NS, phase


@every
def test_the_service_answers_after_20_ms(trial: Trial) -> None:
    service_ms = [r["service_ns"] / MS_NS for r in trial.measured("sleep")]
    assert 20 <= median(service_ms) < 25
    assert min(service_ms) >= 20


def test_a_constant_schedule_is_kept_by_all(trials: Trials) -> None:
    schedules = []
    for configuration in ("default", "other"):
        due_ns = sorted(r["intended_ns"] for r in trials[configuration, "open"].measured("sleep"))
        assert len(due_ns) == RATE_RPS * MEASURE_S
        schedules.append([instant - due_ns[0] for instant in due_ns])
    assert schedules[0] == schedules[1] == [n * SECOND_NS // RATE_RPS for n in range(600)]


def test_a_stall_is_in_the_latency_of_all_that_was_due_meanwhile(trials: Trials) -> None:
    stalled = trials["other", "open"]
    sleeps = stalled.measured("sleep")
    late = sum(r["latency_ns"] > 100 * MS_NS for r in sleeps)
    # 200/s for one second, less those in its last tenth, and more while the queue is worked off.
    assert late >= 0.85 * RATE_RPS
    slow = sum(r["service_ns"] > 500 * MS_NS for r in sleeps)
    assert 1 <= slow <= IN_FLIGHT_MAX, "only those that were under way"
    assert "service_saturated" in {f["code"] for f in stalled.record["findings"]}


def test_a_closed_loop_waits_and_sees_a_stall_once_a_user(trials: Trials) -> None:
    stalled = trials["other", "closed"]
    assert all(r["intended_ns"] is None for r in stalled.requests)
    assert all(r["latency_ns"] == r["service_ns"] for r in stalled.requests)
    assert sum(r["service_ns"] > 500 * MS_NS for r in stalled.requests) <= 3


def test_a_peak_of_200_ms_is_seen_and_only_in_its_phase(trials: Trials) -> None:
    for workload in ("open", "closed"):
        trial = trials["default", workload]
        peaks = {phase: trial.peak(phase) for phase in ("idle", "warmup", "measure", "cooldown")}
        assert 128 * MIB < peaks["measure"]["rss_bytes"] < 160 * MIB
        assert 128 * MIB < peaks["measure"]["cgroup_bytes"] < 160 * MIB
        assert trial.metrics["peak_rss"] == peaks["measure"]["rss_bytes"]
        for phase in ("idle", "warmup", "cooldown"):
            assert 32 * MIB < peaks[phase]["rss_bytes"] < 64 * MIB, phase
        rest_kib = [m["rss_kib"] for m in trial.books["moments"][:4]]
        assert trial.metrics["initial_rss"] == pytest.approx(median(rest_kib) * 1024, abs=2 * MIB)


def test_memory_of_a_child_is_in_the_tree_and_told(trials: Trials) -> None:
    trial = trials["other", "open"]
    others = trial.peak("measure")["others_rss_bytes"]
    assert 24 * MIB < others < 40 * MIB
    own_kib = median(m["rss_kib"] for m in trial.books["moments"][:4])
    assert trial.metrics["initial_rss"] == pytest.approx(own_kib * 1024 + others, abs=3 * MIB)
    assert "peak_of_one_process" in {f["code"] for f in trial.record["findings"]}
    assert "peak_of_one_process" not in {
        f["code"] for f in trials["default", "open"].record["findings"]
    }


@every
def test_every_collection_is_a_row(trial: Trial) -> None:
    assert [row["cycle"] for row in trial.gc] == list(range(1, trial.books["num_gc"] + 1))
    # The books are open to a tenth of a second.
    assert trial.metrics["gc_cycles"] == pytest.approx(trial.in_measure("cycles"), abs=2)


def test_forced_collections_are_those_that_were_forced(trials: Trials) -> None:
    for workload in ("open", "closed"):
        default = trials["default", workload]
        assert sum(r["forced"] for r in default.gc if r["phase"] == "measure") == 20
        assert default.books["num_forced_gc"] == 20
        assert not any(r["forced"] for r in trials["other", workload].gc)


@every
def test_processor_time_is_that_of_the_kernels_own_account(trial: Trial) -> None:
    length_s = (trial.span("measure")["end_ns"] - trial.span("measure")["start_ns"]) / SECOND_NS
    used_s = trial.in_measure("cpu_seconds")
    cpu_cores, share = trial.metrics["cpu_cores"], trial.metrics["gc_cpu_share"]
    assert cpu_cores is not None and share is not None
    # /proc counts in hundredths of a second, for user and system each.
    assert cpu_cores * length_s == pytest.approx(used_s, abs=0.03, rel=0.05)
    gc_s = trial.in_measure("gc_seconds")
    assert share * cpu_cores * length_s == pytest.approx(gc_s, abs=0.01, rel=0.3)


@every
def test_settings_in_the_process_are_those_of_the_matrix(trial: Trial) -> None:
    books = trial.books
    asked = {
        "default": (100, 2**63 - 1, len(service_cores())),
        "other": (-1, LIMIT_BYTES * 9 // 10, 3),
    }[trial.record["configuration"]]
    assert (books["gogc"], books["gomemlimit"], books["gomaxprocs"]) == asked
    assert books["uid"] == (61234 if os.geteuid() == 0 else os.getuid())
    if not trial.record["node"]["cores_shared"]:
        assert cores_of(books["cores_allowed"]) == set(service_cores())
    if trial.record["limits"][0]["enforced"]:
        assert trial.record["limits"][0]["read_back"] == LIMIT_BYTES
        assert f"/heapgate/{trial.record['run_id']}/" in books["cgroups"]


def test_environment_blocks_are_equally_long(trials: Trials) -> None:
    assert len({trial.books["environ_bytes"] for trial in trials.values()}) == 1


def service_cores() -> tuple[int, ...]:
    return split_cores(os.sched_getaffinity(0), None).service


def cores_of(listed: str) -> set[int]:
    """`0-2,5` as numbers."""
    found: set[int] = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
