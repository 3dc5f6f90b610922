"""A trial on a Windows node: real Windows Python, a real Windows service, a collector on Linux."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from orchestrator.builds.builds import BuildFlags, Built, build_go
from orchestrator.builds.toolchains import Toolchain
from results.archive.archive import Archive
from results.collecting.process import CollectorProcess
from results.judging.validity import spoiled_by_node
from results.record import TrialRecord
from results.schema import MEMORY, SCHEMA_VERSION
from tests.wine.machine import WindowsPython, windows_path
from tests.wine.prefix import why_unavailable, windows_python
from workers.facts import node_facts, node_id
from workers.spec import (
    ArrivalsSpec,
    BinarySpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ServiceSpec,
    TrialSpec,
    to_plain,
)

ROOT = Path(__file__).resolve().parents[2]
RUN = "20260101-000000-abcd"
MS = 1_000_000
MIB = 2**20
RATE_RPS = 50.0
ATTEMPTS = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]


@pytest.fixture(scope="module")
def windows() -> Iterator[WindowsPython]:
    with windows_python() as machine:
        yield machine


@dataclass(frozen=True)
class Outcome:
    """What the node said of itself, the record that it made, and where the archive has it."""

    identity: dict[str, Any]
    differences: list[str]
    record: TrialRecord
    folder: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        with pa.ipc.open_file(str(self.folder / f"{table}.arrow")) as reader:
            rows: list[dict[str, Any]] = reader.read_all().to_pylist()
            return rows


RunTrial = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run_trial(windows: WindowsPython, tmp_path_factory: pytest.TempPathFactory) -> RunTrial:
    """Run a trial on the Windows machine against a collector of its own on this one."""
    numbers = iter(range(1, 100))

    def run(built: Built, scenario: Path, arguments: tuple[str, ...], **others: Any) -> Outcome:
        folder = tmp_path_factory.mktemp("trial")
        trial_id = f"b01-{next(numbers)}-default-steady"
        document = folder / "document.json"
        (folder / "token").write_text("secret")
        (folder / "matrix.yaml").write_text("")
        archive = Archive.create(folder / "archive")
        opened = {"schema_version": SCHEMA_VERSION, "run_id": RUN, "status": "running"}
        archive.create_run(RUN, opened | {"started_ns": 1}, folder / "matrix.yaml")
        for name in ("work", "spool", "logs"):
            (folder / name).mkdir()
        collector = CollectorProcess.start(
            archive=archive.path,
            run_id=RUN,
            token_file=folder / "token",
            log=folder / "collector.log",
        )
        settings = {
            "run_id": RUN,
            "claim": RUN,
            "work_root": windows_path(folder / "work"),
            "spool_root": windows_path(folder / "spool"),
            "log_folder": windows_path(folder / "logs"),
            "launcher": "",
            "collector": collector.address,
            "token_file": windows_path(folder / "token"),
        }
        spec = trial_spec(trial_id, built, scenario, arguments, **others)
        document.write_text(json.dumps({"settings": settings, "spec": to_plain(spec)}))
        try:
            done = windows.run(["-m", "tests.wine.one_trial", document])
        finally:
            collector.stop()
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["outcome"]["abort"] is None
        sealed = archive.path / RUN / "trials" / trial_id
        assert list((folder / "work").iterdir()) == [], "the trial's folder is removed"
        assert list((folder / "spool").iterdir()) == [], "all that was spooled is delivered"
        return Outcome(
            told["identity"],
            told["outcome"]["differences"],
            TrialRecord.read(sealed / "trial.json"),
            sealed,
        )

    return run


def trial_spec(
    trial_id: str,
    built: Built,
    scenario: Path,
    arguments: tuple[str, ...],
    *,
    limits: LimitsSpec | None = None,
    measure_ns: int = 3000 * MS,
) -> TrialSpec:
    return TrialSpec(
        run_id=RUN,
        trial_id=trial_id,
        block=1,
        position=1,
        attempt=1,
        configuration="default",
        baseline=True,
        workload="steady",
        os="windows",
        service=ServiceSpec(
            name=built.path.stem,
            binary=BinarySpec(
                argv0=windows_path(built.path),
                copy=True,
                sha256=built.sha256,
                size_bytes=built.size_bytes,
            ),
            arguments=("-addr", "{host}:{port}", *arguments),
            environment=(("GODEBUG", "gctrace=1,scavtrace=1"),),
            port=None,
            ready_path="/healthz",
            ready_timeout_ns=20_000 * MS,
            stop_timeout_ns=2000 * MS,
            go_runtime=True,
        ),
        limits=limits or LimitsSpec(),
        load=LoadSpec(
            scenario=windows_path(scenario),
            users=None,
            arrivals=ArrivalsSpec(kind="constant", rate_rps=RATE_RPS, in_flight_max=8),
            seed=1,
        ),
        phases=PhasesSpec(
            idle_ns=500 * MS, warmup_ns=1000 * MS, measure_ns=measure_ns, cooldown_ns=200 * MS
        ),
        sampling_interval_ns=100 * MS,
        gc_trace=True,
    )


def build(toolchain: Toolchain, source: Path) -> Built:
    built = build_go(toolchain, source, flags=BuildFlags(), goos="windows")
    assert built.path.suffix == ".exe"
    assert built.path.read_bytes()[:2] == b"MZ"
    return built


@pytest.fixture(scope="module")
def trial(toolchain: Toolchain, run_trial: RunTrial) -> Outcome:
    """One trial of the session cache; the tests look at its record and its rows."""
    built = build(toolchain, ROOT / "workloads" / "services" / "sessioncache")
    scenario = ROOT / "workloads" / "scenarios" / "cache_mix.py"
    limits = LimitsSpec(memory_max_bytes=2048 * MIB, memory_high_bytes=1024 * MIB)
    for _ in range(ATTEMPTS):
        outcome = run_trial(built, scenario, (), limits=limits)
        if not spoiled_by_node(outcome.record):  # a busy machine: a run repeats such a trial too
            break
    return outcome


def test_it_is_valid(trial: Outcome) -> None:
    assert trial.record.valid, trial.record.findings
    assert trial.differences == []
    load = trial.record.load
    assert load and load.planned == load.sent == 4 * RATE_RPS
    assert load.failed == 0 and load.measured == 3 * RATE_RPS
    requests = trial.rows("requests")
    assert all(200 <= row["status"] < 300 for row in requests)
    # An open loop: what was sent late counts from when it was meant to be sent.
    assert all(row["lag_ns"] >= 0 and row["service_ns"] > 0 for row in requests)
    assert trial.rows("gc"), "the Go runtime reports its collections there too"


def test_the_memory_columns_are_those_of_windows(trial: Outcome) -> None:
    rows = trial.rows("memory")
    linux = [
        name
        for name in MEMORY.arrow.names
        if name.startswith(("rss_", "cgroup_", "pressure_", "swap_", "minor_", "major_"))
    ]
    assert linux and all(row[name] is None for row in rows for name in linux)
    measured = [row for row in rows if row["phase"] == "measure"]
    assert len(measured) >= 27, "ten a second"
    for row in measured:
        # 64 MiB of sessions, kept alive; Wine's commit is what was really touched.
        assert 64 * MIB < row["commit_bytes"] <= row["working_set_bytes"] + 16 * MIB
        assert row["peak_working_set_bytes"] >= row["working_set_bytes"]
        assert row["processes"] == 1
    told = [row for row in rows if row["system_commit_bytes"] is not None]
    assert told, "once a second"
    assert all(row["system_commit_bytes"] < row["system_commit_limit_bytes"] for row in told)


def test_what_wine_does_not_tell_is_null_and_not_0(trial: Outcome) -> None:
    """Wine 8 knows no page faults and no job's peak, calls the commit of now its peak, and tells
    everybody's CPU time as that of who asks.
    """
    untold = ("page_faults", "peak_commit_bytes", "job_peak_bytes", "private_working_set_bytes")
    for name in (*untold, "cpu_user_ns", "cpu_system_ns"):
        assert {row[name] for row in trial.rows("memory")} == {None}, name


def test_a_peak_is_that_of_the_phase_in_which_it_rose(trial: Outcome) -> None:
    peaks = {peak.phase: peak for peak in trial.record.peaks}
    startup = peaks["startup"]
    assert startup.working_set_bytes and startup.working_set_bytes > 64 * MIB
    marks = [peak.working_set_bytes for peak in trial.record.peaks if peak.working_set_bytes]
    assert marks == sorted(set(marks)), "a mark that can't be reset only rises"
    measure = peaks["measure"]
    assert measure.sampled_working_set_bytes and measure.sampled_commit_bytes
    if measure.working_set_bytes is not None:
        assert measure.working_set_bytes >= measure.sampled_working_set_bytes
    assert measure.rss_bytes is None and measure.cgroup_bytes is None


def test_a_limit_that_can_not_be_read_back_is_not_in_force(trial: Outcome) -> None:
    limits = {limit.name: limit for limit in trial.record.limits}
    memory = limits["memory_max_bytes"]
    assert (memory.enforced, memory.read_back) == (False, 0)
    assert "does not enforce" in memory.reason
    assert "no limit that throttles" in limits["memory_high_bytes"].reason
    codes = [finding.code for finding in trial.record.findings]
    assert codes.count("limit_not_enforced") == 2


def test_its_end_says_that_it_could_not_be_asked(trial: Outcome) -> None:
    end = trial.record.exit
    assert end and end.cause == "stopped" and "could not be asked" in end.text
    assert end.leaked_processes == 0


def test_the_node_is_a_windows_one_on_this_very_machine(trial: Outcome) -> None:
    facts = trial.identity["facts"]
    here = node_facts()
    assert facts["os"] == "windows" and facts["wine"] and facts["kernel"].startswith("10.0.")
    assert set(facts) == set(here)
    assert facts["machine"] == here["machine"], "both disturb each other"
    assert trial.identity["node_id"] != node_id()
    assert trial.identity["node_class"].startswith(f"windows (Wine {facts['wine']}) · ")
    assert facts["commit_limit_bytes"] >= facts["memory_bytes"] > 0


def test_a_service_that_dies_is_explained(toolchain: Toolchain, run_trial: RunTrial) -> None:
    built = build(toolchain, ROOT / "tests" / "services" / "misbehave")
    scenario = ROOT / "tests" / "scenarios" / "plain.py"
    dead = run_trial(built, scenario, ("-exit-at-once", "3"))
    assert not dead.record.valid
    assert dead.record.exit and dead.record.exit.code == 3
    assert any("exit code 3" in f.text and "last words" in f.text for f in dead.record.findings)


def test_what_outlives_the_service_is_counted_and_ended(
    toolchain: Toolchain, run_trial: RunTrial
) -> None:
    built = build(toolchain, ROOT / "tests" / "services" / "misbehave")
    scenario = ROOT / "tests" / "scenarios" / "plain.py"
    left = run_trial(built, scenario, ("-leak-children", "2", "-die-after", "2500ms"))
    assert left.record.exit and left.record.exit.leaked_processes == 2
    alive = [p for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE]
    assert [p for p in alive if p.name() == built.path.name] == []
