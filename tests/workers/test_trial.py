"""The life of a trial without Ray: what becomes of a service that misbehaves."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from orchestrator.builds.builds import BuildFlags, build_go, build_launcher
from orchestrator.builds.toolchains import Toolchain
from results.profiles.pprof import costs
from results.record import TrialRecord
from workers.affinity import split_cores
from workers.facts import node_class, node_facts, node_id
from workers.launch.linux import UNPRIVILEGED_ID
from workers.leases import RUN_MARKER
from workers.spec import (
    ArrivalsSpec,
    BinarySpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ProfilesSpec,
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
def run_trial(
    toolchain: Toolchain,
    misbehave: BinarySpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[RunTrial]:
    """Run one trial of the misbehaving service with the given flags; nothing may stay behind."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    run_id = f"test-{tmp_path.name}"
    monkeypatch.setenv(RUN_MARKER, run_id)
    (tmp_path / "work").mkdir(mode=0o755)
    (tmp_path / "spool").mkdir()
    facts = node_facts()
    node = NodeContext(
        node_id=node_id(),
        node_class=node_class(facts),
        facts=facts,
        claim=run_id,
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
        profiles: ProfilesSpec | None = None,
    ) -> TrialRecord:
        spec = TrialSpec(
            run_id=run_id,
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
                environment=(
                    ("PATH", "/bin"),
                    ("GODEBUG", "gctrace=1,scavtrace=1"),
                    (RUN_MARKER, run_id),
                ),
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
            profiles=profiles,
        )
        return Trial(spec, node, stop or threading.Event()).run()

    yield run
    assert [p for p in psutil.process_iter() if _is_of(p, run_id)] == []
    assert list((tmp_path / "work").iterdir()) == []


def _is_of(process: psutil.Process, run_id: str) -> bool:
    """Whether it is alive and carries the mark of that run, as all that a trial starts does."""
    try:
        marker = process.environ().get(RUN_MARKER, "")
        return marker.startswith(run_id) and process.status() != psutil.STATUS_ZOMBIE
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


def test_profiles_are_taken_when_measure_is_over(
    run_trial: RunTrial, toolchain: Toolchain, tmp_path: Path
) -> None:
    record = run_trial("-eat-per-second", "64MiB", profiles=asked())
    taken = profile_files(tmp_path)
    assert record.valid, record.findings
    assert not {"profiles_in_measure", "profiles_missing"} & {f.code for f in record.findings}
    assert [(f["kind"], f["phase"], f["reason"]) for f in taken] == [
        ("heap", "cooldown", "end"),
        ("goroutine", "cooldown", "end"),
    ]
    # What holds the memory is on top: the heap profile is as of the last collection.
    heap = [cost for cost in costs(taken[0]["content"]) if cost.quantity == "inuse_space"]
    assert max(heap, key=lambda cost: cost.flat).function == "main.touch"
    assert {(c.function, c.flat, c.cumulative) for c in heap} == go_s_own(
        toolchain, tmp_path, taken[0]["content"]
    )
    assert forced_collections(tmp_path) == 0


def test_profiles_at_the_peak_disturb_and_the_trial_says_so(
    run_trial: RunTrial, tmp_path: Path
) -> None:
    spec = asked(at="peak", memory_over_bytes=30 * 2**20, kinds=("heap",), trace_ns=100 * MS)
    record = run_trial("-eat", "64MiB", profiles=spec)
    assert record.valid, record.findings
    (finding,) = [f for f in record.findings if f.code == "profiles_in_measure"]
    assert finding.level == "warning" and "heap, trace" in finding.text
    heap, trace = profile_files(tmp_path)
    assert (heap["phase"], heap["reason"]) == ("measure", "memory_over")
    assert heap["resident_bytes"] > 30 * 2**20
    assert trace["content"].startswith(b"go 1.")
    assert forced_collections(tmp_path) == 0


def test_a_peak_that_is_never_reached_is_told(run_trial: RunTrial, tmp_path: Path) -> None:
    record = run_trial(profiles=asked(at="peak", memory_over_bytes=2**40))
    assert record.valid and profile_files(tmp_path) == []
    (finding,) = [f for f in record.findings if f.code == "profiles_missing"]
    assert "never seen above" in finding.text


def test_a_service_that_gives_no_profile_is_measured_all_the_same(
    run_trial: RunTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sampling.profiles.PATIENCE_S", 0.5)
    record = run_trial(profiles=asked(path="/hang"))
    assert record.valid, record.findings
    assert record.load and record.load.planned == record.load.sent == 55
    (finding,) = [f for f in record.findings if f.code == "profiles_missing"]
    assert finding.level == "note" and "no whole answer within 0.5 s" in finding.text
    assert profile_files(tmp_path) == []


def go_s_own(toolchain: Toolchain, folder: Path, content: bytes) -> set[tuple[str, int, int]]:
    """What `go tool pprof` says that each function holds, alone and with what it called."""
    path = folder / "heap.pb.gz"
    path.write_bytes(content)
    options = ("-top", "-nodecount=100000", "-nodefraction=0", "-edgefraction=0", "-unit=B")
    done = subprocess.run(
        [toolchain.go, "tool", "pprof", *options, "-sample_index=inuse_space", path],
        env={"HOME": str(folder), "PATH": "/bin", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"^ *(\d+)B? +\S+% +\S+% +(\d+)B? +\S+% +(\S+)", done.stdout, re.MULTILINE)
    assert rows, done.stdout
    return {(name, int(flat), int(cumulative)) for flat, cumulative, name in rows}


def asked(**changed: Any) -> ProfilesSpec:
    plain = ProfilesSpec(
        at="end",
        memory_over_bytes=None,
        kinds=("heap", "goroutine"),
        trace_ns=None,
        path="/debug/pprof",
        port=None,
    )
    return dataclasses.replace(plain, **changed)


def spooled(tmp_path: Path, stream: str) -> list[dict[str, Any]]:
    """The rows of a stream of the trial, as the agent would find them."""
    paths = sorted(tmp_path.glob(f"spool/*/{stream}/*.arrow"))
    tables = [pa.ipc.open_stream(path.read_bytes()).read_all() for path in paths]
    return [row for table in tables for row in table.to_pylist()]


def profile_files(tmp_path: Path) -> list[dict[str, Any]]:
    return spooled(tmp_path, "profile_files")


def forced_collections(tmp_path: Path) -> int:
    cycles = [row for row in spooled(tmp_path, "gc") if row["kind"] == "cycle"]
    assert cycles
    return sum(row["forced"] for row in cycles)
