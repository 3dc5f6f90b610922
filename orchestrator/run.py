"""The life of a run: plan, build, start collector and cluster, run every trial, seal.

Everything that a run starts is written down in its lease first, so that the next command can
clean up after a driver that was killed. Every trial is sealed in the archive when it ends, so a
run that is stopped, by whatever, loses at most the trial that was running.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.binaries import Binaries, prepare_binaries
from orchestrator.cluster import Node, NodeLost
from orchestrator.interrupt import Stop, stop_on_interrupt
from orchestrator.leftovers import abandon_run
from orchestrator.matrix import Matrix, load_matrix
from orchestrator.plan import (
    Plan,
    PlannedTrial,
    count_trials,
    estimate_ns,
    make_plan,
    plan_summary,
    scenarios,
    trial_spec,
)
from orchestrator.progress import Progress, format_seconds, show_progress
from orchestrator.workplace import measuring_node, temp_root, workplace
from results.archive import Archive
from results.collector_process import CollectorProcess
from results.errors import EnvironmentLacks, HeapgateError, Interrupted, RunIncomplete, UserError
from results.files import file_digest
from results.record import Finding, TrialRecord, planned_id
from results.schema import SCHEMA_VERSION
from results.validity import spoiled_by_node
from workers.load.process import check_scenario

LARGE_RUN_TRIALS = 10_000
TRIALS_MAX = 1_000_000
"""More are years of measuring, and more than is held in memory."""

FREE_SPACE_BYTES = 64 * 2**20
"""A trial is not begun with less than this free where the archive or the spool lies."""

POLL_S = 0.25
SPOILED_REPETITIONS_MAX = 3
"""After so many repetitions in vain the node is taken for what it is."""

READY_FAILURES_MAX = 2
"""A configuration that does not become ready this often in a row is not tried again."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says beside the matrix."""

    archive: Path
    trials: int | None = None
    seed: int | None = None
    yes: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: `error` is None when every planned trial is valid."""

    archive: Path
    run_id: str
    status: str
    error: HeapgateError | None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return self.error.exit_code if self.error else 0


@dataclass(slots=True)
class Run:
    """One run while it goes on."""

    run_id: str
    matrix: Matrix
    plan: Plan
    archive: Archive
    folder: Path
    document: dict[str, Any]
    stop: Stop = field(default_factory=Stop)
    not_ready: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    spoiled_repetitions: int = 0
    collector: CollectorProcess | None = None
    durations_s: list[float] = field(default_factory=list)


def load_for_run(path: Path, *, trials: int | None, seed: int | None, yes: bool) -> Matrix:
    """Read a matrix. Raises MatrixError, or UserError when it means too many trials."""
    matrix = load_matrix(path).with_overrides(trials=trials, seed=seed)
    count = count_trials(matrix)
    planned = f"{path}: {count:,} trials are planned, {format_seconds(estimate_ns(matrix) / 1e9)}"
    if count > LARGE_RUN_TRIALS and not yes:
        raise UserError(f"{planned}; is that meant? Then add --yes")
    if count > TRIALS_MAX:
        raise UserError(f"{planned}; a run has {TRIALS_MAX:,} at most: make several of it")
    return matrix


def start_run(matrix_path: Path, options: RunOptions, console: Console) -> RunResult:
    """Run a matrix from the beginning. Raises UserError for what is wrong before it starts."""
    matrix = load_for_run(matrix_path, trials=options.trials, seed=options.seed, yes=options.yes)
    plan = make_plan(matrix)
    archive = Archive.create(options.archive)
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    document = _document(run_id, matrix_path, matrix, plan)
    folder = archive.create_run(run_id, document, matrix_path)
    try:
        result = _execute(Run(run_id, matrix, plan, archive, folder, document), console)
        if isinstance(result.error, (UserError, EnvironmentLacks)) and not _began(folder):
            raise result.error
    except HeapgateError:
        shutil.rmtree(folder)  # what is `latest` stays so
        raise
    return result


def _began(folder: Path) -> bool:
    """Whether anything was started that could measure."""
    return (folder / "logs").exists()


def resume_run(archive_path: Path, name: str, console: Console) -> RunResult:
    """Run what is missing or invalid in an earlier run, under the plan that it was begun with."""
    archive = Archive(archive_path)
    entry = archive.run(name)
    document = json.loads((entry.path / "run.json").read_text(encoding="utf-8"))
    matrix = load_matrix(
        entry.path / "matrix.yaml", relative_to=Path(document["matrix_path"]).parent
    ).with_overrides(trials=document["blocks"], seed=document["seed"])
    document |= {"status": "running", "finished_ns": None}
    archive.write_run_document(entry.path, document)
    run = Run(entry.run_id, matrix, make_plan(matrix), archive, entry.path, document)
    return _execute(run, console)


def _document(run_id: str, matrix_path: Path, matrix: Matrix, plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "running",
        "started_ns": time.time_ns(),
        "finished_ns": None,
        "heapgate_version": version("heapgate"),
        "matrix_path": str(matrix_path.resolve()),
        "seed": matrix.seed,
        "blocks": matrix.trials,
        "service": matrix.service.name,
        "comparison": matrix.comparison.to_plain(),
        "planned": [trial.to_plain() for trial in plan.trials],
        "builds": {},
        "notes": list(plan.warnings),
    }


def _execute(run: Run, console: Console) -> RunResult:
    error: HeapgateError | None = None
    with ExitStack() as stack:
        progress = stack.enter_context(show_progress(console))
        folder = stack.enter_context(workplace(run.run_id, run.folder))
        stack.enter_context(stop_on_interrupt(run.stop, lambda: _abandon(run, folder)))
        try:
            _prepare_and_measure(run, folder, progress)
        except HeapgateError as caught:
            # An interrupt reaches compilers and downloads too: what they say then is no news.
            error = _stopped(run) if run.stop.is_set() else caught
    error = error or _missing(run)
    run.document["status"] = _status(error)
    run.document["finished_ns"] = time.time_ns()
    try:
        run.archive.write_run_document(run.folder, run.document)
    except EnvironmentLacks as full:
        error = error or full
    return RunResult(run.archive.path, run.run_id, run.document["status"], error)


def _status(error: HeapgateError | None) -> str:
    if error is None:
        return "complete"
    return "interrupted" if isinstance(error, Interrupted) else "incomplete"


def _missing(run: Run) -> RunIncomplete | None:
    """What is still missing or invalid after the last trial."""
    left = remaining(run.plan, run.archive.records(run.run_id))
    if not left:
        return None
    return RunIncomplete(
        f"{len(left)} of {len(run.plan.trials)} trials are missing or invalid; "
        f"repeat them with: bench resume {run.run_id}"
    )


def _abandon(run: Run, folder: Path) -> None:
    """Second interrupt: end everything of this run at once. What is on disk stays."""
    abandon_run(run.run_id, folder)
    run.document["status"] = "interrupted"
    with suppress(EnvironmentLacks):
        run.archive.write_run_document(run.folder, run.document)


def _prepare_and_measure(run: Run, folder: Path, progress: Progress) -> None:
    progress.done(
        f"{run.matrix.service.name}: {plan_summary(run.matrix)}, about "
        f"{format_seconds(run.plan.estimate_ns / 1e9)} after building"
    )
    for warning in run.plan.warnings:
        progress.warn(warning)
    with run.stop.breaks_off():
        _check_scenarios(run, folder)
        binaries = prepare_binaries(run.matrix, progress)
    _check_same_binaries(run, binaries)
    _check_stop(run)
    progress.step("starting Ray and the collector")
    started_s = time.monotonic()
    run.document["cluster_started_ns"] = time.time_ns()
    cpus_limit = run.matrix.largest_cpus
    with measuring_node(run.run_id, run.folder, folder, binaries.launcher, cpus_limit) as started:
        node, run.collector = started
        took_s = time.monotonic() - started_s
        progress.done(f"Ray ready in {took_s:.1f} s: {node.node_id}, {node.node_class}")
        _run_trials(run, node, binaries, progress)


def _check_scenarios(run: Run, folder: Path) -> None:
    """Import each scenario once, so that a broken one is told before anything is measured.

    A run never mixes two scenarios either: a resumed run needs those that it began with.
    """
    known = run.document.setdefault("scenarios", {})
    for path, load in scenarios(run.matrix).items():
        digest = file_digest(Path(path))
        if known.setdefault(path, digest) != digest:
            raise UserError(
                f"scenario {path} has changed since run {run.run_id} began; start a new run instead"
            )
        check_scenario(load, folder)


def _check_same_binaries(run: Run, binaries: Binaries) -> None:
    """A run never mixes two builds of one configuration: a resumed run needs the same source."""
    for name, build in binaries.to_plain().items():
        earlier = run.document["builds"].setdefault(name, build)
        if earlier["sha256"] != build["sha256"]:
            raise UserError(
                f"configuration {name!r} now builds to another binary than when run {run.run_id} "
                "began (its source, flags or toolchain changed); start a new run instead"
            )
    run.archive.write_run_document(run.folder, run.document)


def remaining(plan: Plan, records: list[TrialRecord]) -> list[PlannedTrial]:
    """The planned trials without a valid record, in their order."""
    valid = {planned_id(record.trial_id) for record in records if record.valid}
    return [trial for trial in plan.trials if trial.trial_id not in valid]


def _run_trials(run: Run, node: Node, binaries: Binaries, progress: Progress) -> None:
    queue = remaining(run.plan, run.archive.records(run.run_id))
    run.attempts.update(planned_id(name) for name in run.archive.trial_names(run.run_id))
    total = len(run.plan.trials)
    progress.trials(total, total - len(queue), run.plan.trial_estimate_ns * len(queue))
    for index, planned in enumerate(queue):
        if run.not_ready[planned.configuration] >= READY_FAILURES_MAX:
            continue
        record = _run_planned(run, node, binaries, planned, progress)
        progress.left_ns(_left_ns(run, len(queue) - index - 1))
        _note_readiness(run, record, progress)


def _run_planned(
    run: Run, node: Node, binaries: Binaries, planned: PlannedTrial, progress: Progress
) -> TrialRecord:
    """A planned trial, and once more when the node spoiled it.

    What the service itself does wrong is a result and is not repeated; nor is a trial on a node
    that has spoiled repetitions too.
    """
    record = _attempt(run, node, binaries, planned, progress)
    if not spoiled_by_node(record) or run.spoiled_repetitions >= SPOILED_REPETITIONS_MAX:
        return record
    progress.warn(f"{record.trial_id} was spoiled by the node, not by the service: once more")
    record = _attempt(run, node, binaries, planned, progress)
    run.spoiled_repetitions += spoiled_by_node(record)
    return record


def _attempt(
    run: Run, node: Node, binaries: Binaries, planned: PlannedTrial, progress: Progress
) -> TrialRecord:
    _check_stop(run)
    _check_space(run)
    run.attempts[planned.trial_id] += 1
    binary, attempt = binaries.of(planned.configuration), run.attempts[planned.trial_id]
    spec = trial_spec(run.matrix, planned, binary, run.run_id, attempt)
    progress.trial_started(spec.trial_id, node.node_id)
    began_s = time.monotonic()
    record = _run_trial(run, node, spec, progress)
    run.durations_s.append(time.monotonic() - began_s)
    progress.trial_finished(record)
    return record


def _left_ns(run: Run, trials: int) -> int:
    return int(sum(run.durations_s) / len(run.durations_s) * trials * 1e9)


def _run_trial(run: Run, node: Node, spec: Any, progress: Progress) -> TrialRecord:
    """One trial on one node, from the order to the sealed record."""
    node.start_trial(spec)
    told = False
    while True:
        try:
            outcome = node.wait_trial(POLL_S)
            if outcome is not None:
                break
            progress.snapshot(node.snapshot())
            if run.collector and run.collector.ensure_alive():
                progress.warn("the collector had died and was started again; nothing is lost")
        except NodeLost as error:
            raise RunIncomplete(
                f"the node's worker died in trial {spec.trial_id}: {error}\n"
                f"what was measured is kept; go on with: bench resume {run.run_id}"
            ) from error
        if run.stop.is_set() and not told:
            node.stop_trial()
            told = True
    if outcome["abort"]:
        raise _error_of(outcome["abort"])
    record = TrialRecord.from_json(outcome["record"])
    if outcome["differences"]:
        record.findings.append(Finding("rows_lost", "invalid", "; ".join(outcome["differences"])))
    return record


def _error_of(abort: dict[str, Any]) -> HeapgateError:
    """The error that a node sent as text and exit code."""
    for kind in (UserError, RunIncomplete, EnvironmentLacks):
        if kind.exit_code == abort["exit_code"]:
            return kind(abort["text"])
    return HeapgateError(abort["text"])


def _note_readiness(run: Run, record: TrialRecord, progress: Progress) -> None:
    """Count failures to start; stop when no configuration starts at all."""
    name = record.configuration
    if any(span.name == "idle" for span in record.phases) or run.stop.is_set():
        run.not_ready[name] = 0
        return
    run.not_ready[name] += 1
    if all(run.not_ready[c] for c in run.plan.configurations):
        raise RunIncomplete(
            "no configuration of the service became ready; the reasons are above, its own words "
            f"in {run.folder / 'trials' / record.trial_id / 'service.log'}"
        )
    if run.not_ready[name] == READY_FAILURES_MAX:
        progress.warn(
            f"{name} did not become ready {READY_FAILURES_MAX} times: its other trials are left out"
        )


def _check_stop(run: Run) -> None:
    if run.stop.is_set():
        raise _stopped(run)


def _stopped(run: Run) -> Interrupted:
    return Interrupted(f"stopped; go on with: bench resume {run.run_id}")


def _check_space(run: Run) -> None:
    for place in (run.folder, temp_root()):
        free = shutil.disk_usage(place).free
        if free < FREE_SPACE_BYTES:
            raise EnvironmentLacks(
                f"only {free / 2**20:.0f} MiB are free where {place} lies, a trial is not begun "
                f"with less than {FREE_SPACE_BYTES / 2**20:.0f} MiB; make room, then: "
                f"bench resume {run.run_id}"
            )
