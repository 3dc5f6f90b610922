"""The life of a run: plan, build, start collector and cluster, run every trial, seal.

Everything that a run starts is written down in its lease first, so that the next command can
clean up after a driver that was killed.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.blocks import blocks_of
from orchestrator.builds.binaries import Binaries, prepare_binaries
from orchestrator.bundles import pack_scenarios
from orchestrator.calibrate.margins import check_margins
from orchestrator.earlystop import EarlyStop, check_early_stop, holding_up, sentence
from orchestrator.fleet import Fleet, gather_fleet, teams_for
from orchestrator.interrupt import stop_on_interrupt
from orchestrator.leftovers import abandon_run
from orchestrator.matrix.arrivals import recordings
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.measure import measure_all
from orchestrator.ongoing import Run
from orchestrator.plan import (
    Plan,
    count_trials,
    estimate_ns,
    make_plan,
    plan_summary,
    scenarios,
)
from orchestrator.progress import Progress, format_seconds, show_progress
from orchestrator.systems import require_linux
from orchestrator.watching.board import Board, watched
from orchestrator.watching.endpoint import serve_metrics
from orchestrator.workplace import workplace
from results.archive.archive import Archive
from results.errors import EnvironmentLacks, HeapgateError, Interrupted, RunIncomplete, UserError
from results.files import file_digest
from results.schema import SCHEMA_VERSION
from workers.load.process import check_scenario

LARGE_RUN_TRIALS = 10_000
TRIALS_MAX = 1_000_000
"""More are years of measuring, and more than is held in memory."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says beside the matrix."""

    archive: Path
    trials: int | None = None
    seed: int | None = None
    yes: bool = False
    below_noise: bool = False
    metrics: str | None = None
    """Address and port to serve live metrics at; else $HEAPGATE_METRICS."""
    stop_early: bool = False
    """End the run when its sign-off is decided; so does the matrix's own key."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: `error` is None when every planned trial is valid, or it was decided."""

    archive: Path
    run_id: str
    status: str
    error: HeapgateError | None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return self.error.exit_code if self.error else 0


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
    require_linux("a run")
    matrix = load_for_run(matrix_path, trials=options.trials, seed=options.seed, yes=options.yes)
    return run_matrix(matrix, matrix_path, options, console)


def run_matrix(
    matrix: Matrix,
    matrix_path: Path,
    options: RunOptions,
    console: Console | Progress,
    *,
    text_path: Path | None = None,
    more: dict[str, Any] | None = None,
) -> RunResult:
    """Run a matrix that was read. Raises UserError for what is wrong before it starts.

    `text_path` is the file that is kept with the run when it is not the user's own at
    `matrix_path`, whose folder its paths count from; `more` is added to the run's document.
    """
    warnings = check_margins(matrix, below_noise=options.below_noise)
    plan = make_plan(matrix)
    # What makes a series of runs decides itself when it has enough of them.
    stop_early = (options.stop_early or matrix.document.stop_early) and not more
    if stop_early:
        check_early_stop(matrix)
        warnings = [*warnings, *holding_up(matrix.policy.objectives)]
    plan = replace(plan, warnings=[*plan.warnings, *warnings])
    with serve_metrics(options.metrics) as board:
        archive = Archive.create(options.archive)
        run_id = new_run_id()
        document = run_document(run_id, matrix_path, matrix, plan) | (more or {})
        document["stop_early"] = stop_early
        folder = archive.create_run(run_id, document, text_path or matrix_path)
        run = Run(run_id, matrix, plan, archive, folder, document)
        try:
            result = _execute(run, console, board)
            if isinstance(result.error, (UserError, EnvironmentLacks)) and not _began(folder):
                raise result.error
        except HeapgateError:
            shutil.rmtree(folder)  # what is `latest` stays so
            raise
    return result


def new_run_id() -> str:
    """An id by the time of day that no other run has."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _began(folder: Path) -> bool:
    """Whether anything was started that could measure."""
    return (folder / "logs").exists()


def resume_run(
    archive_path: Path,
    name: str,
    console: Console | Progress,
    *,
    metrics: str | None = None,
    everything: bool = False,
) -> RunResult:
    """Run what is missing or invalid in an earlier run, under the plan that it was begun with.

    Of a run that was ended early, because it was decided, the rest only with `everything`.
    """
    require_linux("a run")
    archive = Archive(archive_path)
    entry = archive.run(name)
    document = json.loads((entry.path / "run.json").read_text(encoding="utf-8"))
    matrix = load_matrix(
        entry.path / "matrix.yaml", relative_to=Path(document["matrix_path"]).parent
    ).with_overrides(trials=document["blocks"], seed=document["seed"])
    if (told := document.get("stopped_early")) and not everything:
        with show_progress(console) as progress:
            progress.done(f"run {entry.run_id} is {sentence(told)}")
            progress.done(f"measure the rest all the same with: bench resume {entry.run_id} --all")
        return RunResult(archive.path, entry.run_id, entry.status, None)
    if everything:
        document |= {"stop_early": False, "stopped_early": None}
    with serve_metrics(metrics) as board:
        document |= {"status": "running", "finished_ns": None}
        archive.write_run_document(entry.path, document)
        run = Run(entry.run_id, matrix, make_plan(matrix), archive, entry.path, document)
        return _execute(run, console, board)


def run_document(run_id: str, matrix_path: Path, matrix: Matrix, plan: Plan) -> dict[str, Any]:
    """`run.json` of a run that begins."""
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
        **matrix.policy.to_plain(),
        "planned": [trial.to_plain() for trial in plan.trials],
        "trial_estimate_ns": plan.trial_estimate_ns,
        "builds": {},
        "notes": list(plan.warnings),
    }


def _execute(run: Run, console: Console | Progress, board: Board | None) -> RunResult:
    error: HeapgateError | None = None
    with ExitStack() as stack:
        progress = watched(stack.enter_context(show_progress(console)), board, run)
        folder = stack.enter_context(workplace(run.run_id, run.folder))
        stack.enter_context(stop_on_interrupt(run.stop, lambda: _abandon(run, folder)))
        try:
            _prepare_and_measure(run, folder, progress)
        except HeapgateError as caught:
            # An interrupt reaches compilers and downloads too: what they say then is no news.
            error = run.stopped() if run.stop.is_set() else caught
    error = error or _missing(run)
    run.document["status"] = _status(run, error)
    run.document["finished_ns"] = time.time_ns()
    try:
        run.archive.write_run_document(run.folder, run.document)
    except EnvironmentLacks as full:
        error = error or full
    return RunResult(run.archive.path, run.run_id, run.document["status"], error)


def _status(run: Run, error: HeapgateError | None) -> str:
    if error is None:
        return "decided" if run.document.get("stopped_early") else "complete"
    return "interrupted" if isinstance(error, Interrupted) else "incomplete"


def _missing(run: Run) -> RunIncomplete | None:
    """What is still missing or invalid after the last trial."""
    blocks = blocks_of(run.plan, run.archive.records(run.run_id))
    left = sum(block.left for block in blocks)
    if not left or run.document.get("stopped_early"):
        return None
    return RunIncomplete(
        f"{left} of {len(run.plan.trials)} trials are missing or invalid; "
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
    teams_for(run.matrix)  # told before anything is built when there are none
    with run.stop.breaks_off():
        _check_scenarios(run, folder)
        _check_same_recordings(run)
        binaries = prepare_binaries(run.matrix, progress)
    _check_same_binaries(run, binaries)
    run.check_stop()
    bundles = pack_scenarios(scenarios(run.matrix), folder) if run.matrix.document.nodes else []
    progress.step("starting Ray and the collector")
    started_s = time.monotonic()
    run.document["cluster_started_ns"] = time.time_ns()
    with gather_fleet(run, folder, binaries, bundles, progress) as fleet:
        progress.done(f"Ray ready in {time.monotonic() - started_s:.1f} s: {_described(fleet)}")
        early = EarlyStop(run, progress) if run.document.get("stop_early") else None
        measure_all(run, binaries, bundles, fleet, progress, early)
    if early and (told := early.told()):
        run.document["stopped_early"] = told


def _described(fleet: Fleet) -> str:
    nodes = [crew.service for crew in fleet.crews]
    return "; ".join(f"{node.node_id}, {node.node_class}" for node in nodes)


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


def _check_same_recordings(run: Run) -> None:
    """A run never mixes two recordings of a rate either."""
    known = run.document.setdefault("recordings", {})
    for path in recordings(run.matrix):
        digest = file_digest(path)
        if known.setdefault(str(path), digest) != digest:
            raise UserError(
                f"recording {path} has changed since run {run.run_id} began; start a new run "
                "instead"
            )


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
