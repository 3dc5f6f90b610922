"""`Matrix` → the trials in their order: randomised complete blocks, and what each node is told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.environment import environment_blocks
from orchestrator.matrix import values
from orchestrator.matrix.matrix import THIS_MACHINE, Matrix
from orchestrator.matrix.model import Metrics, Profiles, Workload
from results.metrics import counted
from results.statistics.paired import blocks_at_least
from workers.affinity import allowed_cores
from workers.spec import (
    BinarySpec,
    EndpointSpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ProfilesSpec,
    ServiceSpec,
    TrialSpec,
)

OVERHEAD_NS = 1_500_000_000
"""Deploy, start, ready, teardown and delivery of a small service, as measured."""

SMALL_LIMIT_BYTES = 4 * 2**20
NAMES_MAX = 8


BlockKey = tuple[str, int, str]
"""Group of nodes, number, workload."""


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One trial to run; `position` counts from 1 within its block.

    `group` is the group of nodes that measures it, `os` that group's system.
    """

    trial_id: str
    block: int
    position: int
    configuration: str
    baseline: bool
    workload: str
    os: str
    group: str = THIS_MACHINE

    @property
    def block_key(self) -> BlockKey:
        """The block that it belongs to: what must be measured by one node, back to back."""
        return self.group, self.block, self.workload

    def to_plain(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Plan:
    """All trials in the order in which they run, and what to know before they do."""

    trials: list[PlannedTrial]
    configurations: list[str]
    warnings: list[str]
    estimate_ns: int

    @property
    def trial_estimate_ns(self) -> int:
        """What a trial takes on average."""
        return self.estimate_ns // max(1, len(self.trials))


def count_trials(matrix: Matrix) -> int:
    """How many trials the matrix means, without making them."""
    cells = len(matrix.configurations) * len(matrix.workloads) * len(matrix.groups)
    return matrix.trials * cells


def make_plan(matrix: Matrix) -> Plan:
    """Order the trials. The same matrix and seed give the same plan, on any machine.

    A block has one trial of each configuration under one workload, in random order, back to back.
    """
    return Plan(
        list(planned_trials(matrix)),
        list(matrix.configurations),
        plan_warnings(matrix),
        estimate_ns(matrix),
    )


def planned_trials(matrix: Matrix) -> Iterator[PlannedTrial]:
    """The trials one after the other, for those who need only the first of very many.

    All groups of nodes measure the same blocks in the same order.
    """
    names, baseline, groups = list(matrix.configurations), matrix.baseline, matrix.groups
    width = len(str(matrix.trials))
    for block in range(1, matrix.trials + 1):
        for workload, (group, nodes) in itertools.product(matrix.workloads, groups.items()):
            order = random.Random(f"{matrix.seed}/{block}/{workload}").sample(names, len(names))
            for position, name in enumerate(order, 1):
                place = f"@{group}" if len(groups) > 1 else ""
                yield PlannedTrial(
                    f"b{block:0{width}d}-{position}-{name}-{workload}{place}",
                    block,
                    position,
                    name,
                    name == baseline,
                    workload,
                    nodes.os or "linux",
                    group,
                )


def estimate_ns(matrix: Matrix) -> int:
    """How long all trials take, without building; groups of nodes work side by side."""
    one_each_ns = sum(_trial_ns(workload) for workload in matrix.workloads.values())
    one_block_ns = one_each_ns * len(matrix.configurations)
    return max(one_block_ns * -(-matrix.trials // g.count) for g in matrix.groups.values())


def plan_summary(matrix: Matrix) -> str:
    """How many trials of what, in one line."""
    names = list(matrix.configurations)
    listed = ", ".join(names[:NAMES_MAX]) + (", …" if len(names) > NAMES_MAX else "")
    return (
        f"{counted(count_trials(matrix), 'trial')} = {counted(matrix.trials, 'block')} of "
        f"{counted(len(names), 'configuration')} ({listed}){_on_groups(matrix)}"
    )


def _on_groups(matrix: Matrix) -> str:
    if not matrix.document.nodes:
        return ""
    groups = (f"{name} ({counted(g.count, 'node')})" for name, g in matrix.groups.items())
    return f" on each of {', '.join(groups)}"


def _trial_ns(workload: Workload) -> int:
    return _phases(workload).total_ns + OVERHEAD_NS


def _phases(workload: Workload) -> PhasesSpec:
    return PhasesSpec(
        idle_ns=workload.idle,
        warmup_ns=workload.warmup,
        measure_ns=workload.measure,
        cooldown_ns=workload.cooldown,
    )


def blocks_needed(matrix: Matrix) -> int:
    """The fewest blocks with which any verdict is possible, all that decides corrected together."""
    comparison = matrix.document.comparison
    candidates = len(matrix.configurations) - 1
    contrasts = len(comparison.primary) * candidates * len(matrix.workloads) * len(matrix.groups)
    return blocks_at_least(comparison.confidence, contrasts)


def plan_warnings(matrix: Matrix) -> list[str]:
    """What is probably not meant, though it can be run."""
    found = []
    needed = blocks_needed(matrix)
    if matrix.trials < needed:
        found.append(
            f"with {counted(matrix.trials, 'block')} no verdict can be reached: a paired test "
            f"needs at least {needed} blocks"
        )
    cores = len(allowed_cores())
    for name in matrix.configurations:
        environment, limits = matrix.environment_of(name), matrix.limits_of(name)
        limit_bytes = values.gomemlimit_bytes(environment.get("GOMEMLIMIT", ""))
        hard_bytes = limits.memory_max
        if limit_bytes is not None and limit_bytes < SMALL_LIMIT_BYTES:
            found.append(f"{name}: a GOMEMLIMIT of {limit_bytes:,} bytes makes Go collect all the "
                         "time; is the unit missing?")  # fmt: skip
        if limit_bytes and hard_bytes and limit_bytes >= hard_bytes:
            found.append(
                f"{name}: GOMEMLIMIT is not below limits.memory_max, so the kernel kills the "
                "service before Go feels its own limit; 90% of it is usual"
            )
        here = not matrix.document.nodes
        if here and limits.cpus is not None and limits.cpus > cores:
            found.append(f"{name}: limits.cpus is {limits.cpus:g}, this machine has {cores}")
        if environment.get("GOGC") == "off" and "GOMEMLIMIT" not in environment:
            found.append(f"{name}: GOGC=off without GOMEMLIMIT never frees memory")
    return found + _absent_names(matrix)


def _absent_names(matrix: Matrix) -> list[str]:
    """Of a policy file: services share it, so another one's name may be meant, or it is a typo."""
    asked = [
        (o, o.absent(matrix.configurations, matrix.workloads)) for o in matrix.policy.objectives
    ]
    return [
        f"policy: {objective.text} is about {names}, which this matrix lacks: not checked there"
        for objective, names in asked
        if names
    ]


def trial_spec(
    matrix: Matrix, planned: PlannedTrial, binary: BinarySpec, run_id: str, attempt: int
) -> TrialSpec:
    """All that a node is told about one trial; a repeated attempt has `~n` in its id."""
    workload = matrix.workloads[planned.workload]
    limits = _limits(matrix, planned)
    return TrialSpec(
        run_id=run_id,
        trial_id=planned.trial_id if attempt == 1 else f"{planned.trial_id}~{attempt}",
        block=planned.block,
        position=planned.position,
        attempt=attempt,
        configuration=planned.configuration,
        baseline=planned.baseline,
        workload=planned.workload,
        os=planned.os,  # type: ignore[arg-type]
        service=_service(matrix, planned, binary, run_id),
        limits=limits,
        load=_load(matrix, planned),
        phases=_phases(workload),
        sampling_interval_ns=round(1e9 / matrix.document.sampling.rate),
        gc_trace=matrix.document.gc_trace,
        profiles=_profiles(matrix.document.profiles),
    )


def _service(matrix: Matrix, planned: PlannedTrial, binary: BinarySpec, run_id: str) -> ServiceSpec:
    service, configuration = matrix.document.service, planned.configuration
    arguments = (*service.arguments, *matrix.configurations[configuration].arguments)
    command = tuple(service.command[1:]) if service.command else ()
    return ServiceSpec(
        name=matrix.service.name,
        binary=binary,
        arguments=(*command, *arguments),
        environment=environment_blocks(matrix, run_id, planned.os)[configuration],
        port=service.port,
        ready_path=service.ready.http,
        ready_timeout_ns=service.ready.timeout,
        stop_timeout_ns=service.stop_timeout,
        go_runtime=service.command is None,
        metrics=_metrics(service.metrics),
    )


def _metrics(metrics: Metrics | None) -> EndpointSpec | None:
    if metrics is None:
        return None
    return EndpointSpec(
        kind="prometheus" if metrics.prometheus else "expvar",
        path=metrics.prometheus or metrics.expvar or "",
        interval_ns=metrics.every,
        port=metrics.port,
    )


def _profiles(profiles: Profiles | None) -> ProfilesSpec | None:
    if profiles is None:
        return None
    return ProfilesSpec(
        at=profiles.at,
        memory_over_bytes=profiles.memory_over,
        kinds=tuple(dict.fromkeys(profiles.kinds)),
        trace_ns=profiles.trace,
        path=profiles.path.rstrip("/"),
        port=profiles.port,
    )


def _limits(matrix: Matrix, planned: PlannedTrial) -> LimitsSpec:
    limits = matrix.limits_of(planned.configuration)
    windows = matrix.configurations[planned.configuration].windows
    return LimitsSpec(
        memory_max_bytes=limits.memory_max,
        memory_high_bytes=limits.memory_high,
        cpus=limits.cpus,
        working_set_max_bytes=windows.working_set_max if planned.os == "windows" else None,
    )


def _load(matrix: Matrix, planned: PlannedTrial) -> LoadSpec:
    """The load's seed is that of the block: every configuration in it gets the same arrivals."""
    workload = matrix.workloads[planned.workload]
    seed = random.Random(f"load/{matrix.seed}/{planned.block}/{planned.workload}").getrandbits(32)
    return LoadSpec(
        scenario=str(matrix.scenario(planned.workload)),
        users=workload.users,
        arrivals=matrix.arrivals.get(planned.workload),
        seed=seed,
        processes=workload.processes,
    )


def scenarios(matrix: Matrix) -> Mapping[str, LoadSpec]:
    """A load of each scenario, by its path, for trying whether it can be imported."""
    trials = [PlannedTrial("", 1, 1, "", False, name, "linux") for name in matrix.workloads]
    return {load.scenario: load for load in (_load(matrix, trial) for trial in trials)}
