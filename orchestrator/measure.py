"""All trials of a run on all its nodes: one thread for each crew, block after block.

A block whose node is lost is measured again, whole, on another node of its class. Every trial is
sealed in the archive when it ends, so a run that is stopped, by whatever, loses at most the trials
that were running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.blocks import Block, BlockQueue, blocks_of
from orchestrator.builds.binaries import Binaries
from orchestrator.bundles import Bundle
from orchestrator.cluster import NodeLost
from orchestrator.earlystop import EarlyStop
from orchestrator.fleet import Crew, Fleet
from orchestrator.lost import seal_lost
from orchestrator.ongoing import Run
from orchestrator.plan import PlannedTrial, trial_spec
from orchestrator.progress import Progress
from results.errors import EnvironmentLacks, HeapgateError, RunIncomplete, UserError
from results.judging.validity import spoiled_by_node
from results.record import Finding, TrialRecord, planned_id
from workers.spec import TrialSpec

POLL_S = 0.25
SPOILED_REPETITIONS_MAX = 3
"""After so many repetitions in vain the node is taken for what it is."""

READY_FAILURES_MAX = 2
"""A configuration that does not become ready this often in a row is not tried again."""

RETURN_S = 60.0
"""How long a group without a node waits for one: a restarted worker is back within seconds."""


@dataclass(slots=True)
class Measuring:
    """What the crews of one run share."""

    run: Run
    binaries: Binaries
    bundles: Mapping[str, Bundle]
    queue: BlockQueue
    fleet: Fleet
    progress: Progress
    left: int
    """Trials that were to be measured when it began."""

    early: EarlyStop | None = None
    over_once: set[str] = field(default_factory=set)
    errors: list[HeapgateError] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether no crew should begin anything more."""
        return bool(self.errors) or self.run.stop.is_set()

    @property
    def ends(self) -> bool:
        """Whether no crew should begin another block; one that was begun is measured whole."""
        return self.over or (self.early is not None and self.early.decided)


def measure_all(
    run: Run,
    binaries: Binaries,
    bundles: list[Bundle],
    fleet: Fleet,
    progress: Progress,
    early: EarlyStop | None = None,
) -> None:
    """Run every trial that is not archived yet, or until the run is decided `early`.

    Raises the first error that ends the run.
    """
    blocks = blocks_of(run.plan, run.archive.records(run.run_id))
    run.attempts.update(planned_id(name) for name in run.archive.trial_names(run.run_id))
    left, total = sum(block.left for block in blocks if not block.complete), len(run.plan.trials)
    progress.trials(total, total - left, run.plan.trial_estimate_ns * left)
    named = {str(bundle.scenario): bundle for bundle in bundles}
    measuring = Measuring(run, binaries, named, BlockQueue(blocks), fleet, progress, left, early)
    if early:
        early.look()
    with fleet.watched(measuring.errors.append):
        if len(fleet.crews) == 1:
            _work(measuring, fleet.crews[0])
        else:
            _side_by_side(measuring)
    if measuring.errors:
        raise measuring.errors[0]
    run.check_stop()


def _side_by_side(measuring: Measuring) -> None:
    threads = [
        threading.Thread(target=_work, args=(measuring, crew), name=f"crew-{index}")
        for index, crew in enumerate(list(measuring.fleet.crews))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # a signal is handled between two waits only
            thread.join(POLL_S)


def _work(measuring: Measuring, crew: Crew) -> None:
    """One crew's life: blocks until there are none, or until it is lost and not replaced."""
    current: Crew | None = crew
    try:
        while current is not None:
            current = _blocks(measuring, current)
    except HeapgateError as error:
        measuring.errors.append(error)


def _blocks(measuring: Measuring, crew: Crew) -> Crew | None:
    """Measure blocks; the crew that goes on after this one was lost, None when all is done."""
    queue = measuring.queue
    while not measuring.ends:
        block = queue.take(crew.group, crew.service.node_id)
        if block is None:
            if queue.idle(crew.group) or not _wait_for_work(measuring, crew):
                return None
            continue
        try:
            with queue.alone_on(crew.machines):
                _measure_block(measuring, crew, block)
            queue.done(block)
        except NodeLost as lost:
            queue.give_back(_as_archived(measuring, block))
            if measuring.fleet.replaceable:
                measuring.progress.warn(f"{lost}; its block is measured again")
            return _replacement(measuring, crew, str(lost))
        except BaseException:
            queue.done(block)
            raise
        if measuring.early:
            measuring.early.look()
    return None


def _wait_for_work(measuring: Measuring, crew: Crew) -> bool:
    """Whether a block of another crew came back meanwhile: until all are over, one may."""
    while not measuring.ends and not measuring.queue.idle(crew.group):
        if measuring.queue.waiting(crew.group):
            return True
        time.sleep(POLL_S)
    return False


def _as_archived(measuring: Measuring, block: Block) -> Block:
    """The block with what was measured of it meanwhile."""
    ids = {trial.trial_id for trial in block.trials}
    valid = tuple(
        (planned_id(record.trial_id), record.node_id)
        for record in measuring.run.archive.records(measuring.run.run_id)
        if record.valid and planned_id(record.trial_id) in ids
    )
    return replace(block, valid=valid)


def _replacement(measuring: Measuring, lost: Crew, why: str) -> Crew | None:
    """Another crew for a lost one's blocks; None when others are at work on them.

    Raises RunIncomplete when the group has no node any more.
    """
    fleet, group = measuring.fleet, lost.group
    if not fleet.replaceable:
        raise RunIncomplete(
            f"{why}\nwhat was measured is kept; go on with: bench resume {measuring.run.run_id}"
        )
    with measuring.run.lock:
        fleet.crews.remove(lost)
    deadline_s = time.monotonic() + RETURN_S
    measuring.progress.step(f"looking for another node for {group or 'this run'}")
    while not measuring.ends:
        with measuring.run.lock:
            crew = fleet.replacement(lost, measuring.progress)
            if crew is not None:
                fleet.crews.append(crew)
                return crew
        if any(other.group == group for other in fleet.crews):
            return None
        if time.monotonic() > deadline_s:
            left = measuring.queue.waiting(group)
            raise RunIncomplete(
                f"no node is left{f' for {group}' if group else ''}: {left} blocks are missing; "
                f"what was measured is kept; go on with: bench resume {measuring.run.run_id}"
            )
        time.sleep(POLL_S)
    return None


def _measure_block(measuring: Measuring, crew: Crew, block: Block) -> None:
    run = measuring.run
    for planned in block.left_for(crew.service.node_id):
        if measuring.over:
            return
        if run.not_ready[_place(planned)] >= READY_FAILURES_MAX:
            continue
        record = _run_planned(measuring, crew, planned)
        measuring.over_once.add(planned.trial_id)
        measuring.progress.left_ns(_left_ns(measuring))
        _note_readiness(measuring, planned, record)


def _place(planned: PlannedTrial) -> str:
    return f"{planned.configuration}@{planned.group}"


def _left_ns(measuring: Measuring) -> int:
    """What is left, if every crew goes on as until now; a trial that is repeated counts once."""
    run = measuring.run
    left = measuring.left - len(measuring.over_once)
    mean_s = sum(run.durations_s) / len(run.durations_s)
    return int(mean_s * left / max(1, len(measuring.fleet.crews)) * 1e9)


def _run_planned(measuring: Measuring, crew: Crew, planned: PlannedTrial) -> TrialRecord:
    """A planned trial, and once more when the node spoiled it.

    What the service itself does wrong is a result and is not repeated; nor is a trial on a node
    that has spoiled repetitions too.
    """
    run = measuring.run
    record = _attempt(measuring, crew, planned)
    if not spoiled_by_node(record) or run.spoiled_repetitions >= SPOILED_REPETITIONS_MAX:
        return record
    measuring.progress.warn(
        f"{record.trial_id} was spoiled by the node, not by the service: once more"
    )
    record = _attempt(measuring, crew, planned)
    with run.lock:
        run.spoiled_repetitions += spoiled_by_node(record)
    return record


def _attempt(measuring: Measuring, crew: Crew, planned: PlannedTrial) -> TrialRecord:
    run = measuring.run
    run.check_stop()
    run.check_space()
    with run.lock:
        run.attempts[planned.trial_id] += 1
        attempt = run.attempts[planned.trial_id]
    spec = _spec(measuring, planned, attempt)
    measuring.progress.trial_started(spec.trial_id, crew.service.node_id)
    began_s = time.monotonic()
    record = _run_trial(measuring, crew, spec)
    with run.lock:
        run.durations_s.append(time.monotonic() - began_s)
    measuring.progress.trial_finished(record)
    return record


def _spec(measuring: Measuring, planned: PlannedTrial, attempt: int) -> TrialSpec:
    run = measuring.run
    binary = measuring.binaries.of(planned.configuration, planned.os)
    spec = trial_spec(run.matrix, planned, binary, run.run_id, attempt)
    bundle = measuring.bundles.get(spec.load.scenario)
    if bundle is None:
        return spec
    load = replace(spec.load, scenario=bundle.scenario.name, bundle_sha256=bundle.sha256)
    return replace(spec, load=load)


def _run_trial(measuring: Measuring, crew: Crew, spec: TrialSpec) -> TrialRecord:
    """One trial on one crew, from the order to the sealed record.

    Raises NodeLost when a node of the crew died: what had arrived of the trial is then sealed.
    """
    run, node = measuring.run, crew.service
    told = False
    try:
        node.start_trial(spec, crew.load)
        while (outcome := node.wait_trial(POLL_S)) is None:
            measuring.progress.snapshot(spec.trial_id, node.snapshot())
            _keep_collector(measuring)
            if (run.stop.is_set() or measuring.errors) and not told:
                node.stop_trial()
                told = True
    except NodeLost as lost:
        record = seal_lost(run, node, spec, str(lost))
        measuring.progress.trial_finished(record)
        raise NodeLost(f"the node's worker died in trial {spec.trial_id}: {lost}") from lost
    if outcome["abort"]:
        raise _error_of(outcome["abort"])
    record = TrialRecord.from_json(outcome["record"])
    if outcome["differences"]:
        record.findings.append(Finding("rows_lost", "invalid", "; ".join(outcome["differences"])))
    if outcome["lost_load_node"]:
        measuring.progress.trial_finished(record)
        raise NodeLost(f"load node {outcome['lost_load_node']} was lost in trial {spec.trial_id}")
    return record


def _keep_collector(measuring: Measuring) -> None:
    """Start the collector again where it died; one thread does."""
    with measuring.run.lock:
        collector = measuring.run.collector
        if collector and collector.ensure_alive():
            measuring.progress.warn("the collector had died and was started again; nothing is lost")


def _error_of(abort: dict[str, Any]) -> HeapgateError:
    """The error that a node sent as text and exit code."""
    for kind in (UserError, RunIncomplete, EnvironmentLacks):
        if kind.exit_code == abort["exit_code"]:
            return kind(abort["text"])
    return HeapgateError(abort["text"])


def _note_readiness(measuring: Measuring, planned: PlannedTrial, record: TrialRecord) -> None:
    """Count failures to start; stop when no configuration starts at all."""
    run, place = measuring.run, _place(planned)
    with run.lock:
        if any(span.name == "idle" for span in record.phases) or run.stop.is_set():
            run.not_ready[place] = 0
            return
        run.not_ready[place] += 1
        configurations = [f"{name}@{planned.group}" for name in run.plan.configurations]
    if all(run.not_ready[c] for c in configurations):
        raise RunIncomplete(
            "no configuration of the service became ready; the reasons are above, its own words "
            f"in {run.folder / 'trials' / record.trial_id / 'service.log'}"
        )
    if run.not_ready[place] == READY_FAILURES_MAX:
        measuring.progress.warn(
            f"{planned.configuration} did not become ready {READY_FAILURES_MAX} times: its other "
            "trials are left out"
        )
