"""The life of a trial without Ray: what becomes of a service that misbehaves."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.builds import BuildFlags, build_go, build_launcher
from orchestrator.toolchains import Toolchain
from results.record import TrialRecord
from workers.affinity import split_cores
from workers.facts import node_class, node_facts, node_id
from workers.launch.linux import UNPRIVILEGED_ID
from workers.spec import (
    ArrivalsSpec,
    BinarySpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ServiceSpec,
    TrialSpec,
)
from workers.trial import NodeContext, Trial

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
RunTrial = Callable[..., TrialRecord]


@pytest.fixture(scope="module")
def misbehave(toolchain: Toolchain) -> BinarySpec:
    built = build_go(toolchain, ROOT / "tests" / "services" / "misbehave", flags=BuildFlags())
    return BinarySpec(
        argv0=str(built.path), copy=True, sha256=built.sha256, size_bytes=built.size_bytes
    )


@pytest.fixture
def run_trial(toolchain: Toolchain, misbehave: BinarySpec, tmp_path: Path) -> Iterator[RunTrial]:
    """Run one trial of the misbehaving service with the given flags; nothing may stay behind."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    (tmp_path / "work").mkdir(mode=0o755)
    (tmp_path / "spool").mkdir()
    facts = node_facts()
    node = NodeContext(
        node_id=node_id(),
        node_class=node_class(facts),
        facts=facts,
        claim=f"test-{tmp_path.name}",
        address="127.0.0.1",
        launcher=build_launcher(toolchain),
        work_root=tmp_path / "work",
        spool_root=tmp_path / "spool",
        cores=split_cores(set(psutil.Process().cpu_affinity() or [0]), None),
    )
    numbers = iter(range(100))

    def run(
        *arguments: str,
        limits: LimitsSpec | None = None,
        stop: threading.Event | None = None,
        measure_ns: int = 1000 * MS,
        ready_timeout_ns: int = 2000 * MS,
        binary: BinarySpec = misbehave,
    ) -> TrialRecord:
        spec = TrialSpec(
            run_id=f"test-{tmp_path.name}",
            trial_id=f"b1-{next(numbers)}-default-steady",
            block=1,
            position=1,
            attempt=1,
            configuration="default",
            baseline=True,
            workload="steady",
            os="linux",
            service=ServiceSpec(
                name="misbehave",
                binary=binary,
                arguments=("-addr", "127.0.0.1:{port}", *arguments),
                environment=(("PATH", "/bin"), ("GODEBUG", "gctrace=1,scavtrace=1")),
                port=None,
                ready_path="/healthz",
                ready_timeout_ns=ready_timeout_ns,
                stop_timeout_ns=1000 * MS,
                go_runtime=True,
            ),
            limits=limits or LimitsSpec(),
            load=LoadSpec(
                scenario=str(ROOT / "tests" / "scenarios" / "plain.py"),
                users=None,
                arrivals=ArrivalsSpec(kind="constant", rate_rps=50.0, in_flight_max=16),
                seed=1,
            ),
            phases=PhasesSpec(
                idle_ns=100 * MS, warmup_ns=100 * MS, measure_ns=measure_ns, cooldown_ns=0
            ),
            sampling_interval_ns=50 * MS,
            gc_trace=True,
        )
        return Trial(spec, node, stop or threading.Event()).run()

    before = {p.pid for p in psutil.process_iter() if _is_ours(p)}
    yield run
    left = [p for p in psutil.process_iter() if _is_ours(p) and p.pid not in before]
    assert left == []
    assert list((tmp_path / "work").iterdir()) == []


def _is_ours(process: psutil.Process) -> bool:
    try:
        return process.name() in ("misbehave", "launcher") and (
            process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def codes(record: TrialRecord) -> set[str]:
    return {finding.code for finding in record.findings if finding.level == "invalid"}


def test_a_well_behaved_trial_is_valid(run_trial: RunTrial) -> None:
    record = run_trial()
    assert record.valid, record.findings
    assert record.load and record.load.planned == record.load.sent == 55
    assert record.exit and record.exit.cause == "stopped"
    assert {peak.phase for peak in record.peaks} >= {"idle", "warmup", "measure"}


def test_the_service_has_no_rights_of_ours(run_trial: RunTrial) -> None:
    record = run_trial()
    assert UNPRIVILEGED_ID > 0
    # The launcher's own peak must not show through: a small Go service stays far below Python.
    assert record.exit and record.exit.max_rss_bytes
    assert record.exit.max_rss_bytes < 40 * 2**20


def test_exit_at_once(run_trial: RunTrial) -> None:
    record = run_trial("-exit-at-once", "3")
    assert record.exit and record.exit.code == 3
    assert not record.valid
    assert any("exit code 3" in f.text and "last words" in f.text for f in record.findings)


def test_never_ready(run_trial: RunTrial) -> None:
    record = run_trial("-never-ready")
    assert codes(record) >= {"never_ready"}
    assert any("HTTP status 503" in f.text for f in record.findings)


def test_dies_in_the_measure_phase(run_trial: RunTrial) -> None:
    record = run_trial("-die-after", "2500ms", measure_ns=4000 * MS)
    assert codes(record) >= {"service_died"}
    assert record.load and record.load.sent > 0, "what was measured is kept"


def test_ignores_sigterm(run_trial: RunTrial) -> None:
    record = run_trial("-ignore-term")
    assert record.exit and record.exit.cause == "killed"
    assert record.valid, "a service that must be killed was measured all the same"
    assert "ignored_sigterm" in {f.code for f in record.findings}


def test_leaks_children(run_trial: RunTrial) -> None:
    record = run_trial("-leak-children", "2")
    assert record.exit and record.exit.leaked_processes == 2
    assert "leaked_processes" in {f.code for f in record.findings}


def test_oom_kill_is_explained(run_trial: RunTrial, needs_memory_cgroup: None) -> None:
    record = run_trial(
        "-eat-per-second",
        "400MiB",
        limits=LimitsSpec(memory_max_bytes=64 * 2**20),
        measure_ns=2000 * MS,
    )
    assert record.exit and record.exit.cause == "oom_kill"
    assert any("hard memory limit" in f.text for f in record.findings)
    (limit,) = record.limits
    assert limit.enforced and limit.read_back == 64 * 2**20


def test_stop_keeps_what_was_measured(run_trial: RunTrial) -> None:
    stop = threading.Event()
    timer = threading.Timer(2.5, stop.set)
    timer.start()
    record = run_trial(stop=stop, measure_ns=60_000 * MS)
    timer.join()
    assert codes(record) == {"interrupted"}
    assert record.load and record.load.sent > 0


def test_a_binary_that_is_not_the_planned_one_is_not_run(
    run_trial: RunTrial, misbehave: BinarySpec
) -> None:
    record = run_trial(binary=dataclasses.replace(misbehave, sha256="0" * 64))
    assert not record.valid
    assert record.exit is None
    assert any("changed after it was planned" in f.text for f in record.findings)
