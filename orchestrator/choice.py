"""Which nodes of the cluster a matrix gets; where none fits, which demand fails on which node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.matrix.matrix import Matrix
from orchestrator.matrix.model import NodeGroup
from orchestrator.membership.nodes import NodeEntry
from results.errors import EnvironmentLacks


@dataclass(frozen=True, slots=True)
class Team:
    """A node that runs the service, and those that make its load (none: it does itself)."""

    group: str
    service: NodeEntry
    load: tuple[NodeEntry, ...] = ()


def choose(matrix: Matrix, entries: Sequence[NodeEntry]) -> list[Team]:
    """Nodes for every group of a matrix; no node is in two teams.

    Groups that can choose least choose first, quiet nodes are taken first. Raises EnvironmentLacks,
    with the place in the matrix, for a group that can't be satisfied.
    """
    free = sorted(entries, key=lambda entry: (entry.quiet is False, entry.name))
    teams: list[Team] = []
    groups = matrix.groups
    for name in sorted(groups, key=lambda name: sum(1 for e in free if fits(groups[name], e))):
        services = _services(matrix, name, groups[name], free, entries)
        free = [entry for entry in free if entry not in services]
        for service in services:
            load = _load(matrix, name, groups[name], free, entries)
            free = [entry for entry in free if entry not in load]
            teams.append(Team(name, service, tuple(load)))
    order = list(groups)
    return sorted(teams, key=lambda team: order.index(team.group))


def fits(group: NodeGroup, entry: NodeEntry) -> bool:
    """Whether a node may run a group's service."""
    return not list(failing(group, entry))


def failing(group: NodeGroup, entry: NodeEntry) -> Iterator[str]:
    """Which demands of a group a node does not meet, in words."""
    yield from _unusable(entry)
    if entry.os != group.os:
        yield f"its system is {entry.os}"
    yield from _wrong_labels(group.labels, entry)
    if group.node_class and group.node_class.lower() not in entry.node_class.lower():
        yield f"its class is {entry.node_class}"


def _unusable(entry: NodeEntry) -> Iterator[str]:
    if entry.draining:
        yield "it is being drained"
    elif entry.state == "lost":
        yield "it does not answer"
    elif entry.state == "starting":
        yield "it is still starting"
    elif entry.state == "measuring":
        yield f"it measures for run {entry.measuring_run}"


def _wrong_labels(labels: dict[str, str], entry: NodeEntry) -> Iterator[str]:
    for label, wanted in labels.items():
        found = entry.labels.get(label)
        if found is None:
            yield f"it has no label {label}"
        elif found != wanted:
            yield f"its label {label} is {found}, not {wanted}"


def _services(
    matrix: Matrix,
    name: str,
    group: NodeGroup,
    free: Sequence[NodeEntry],
    entries: Sequence[NodeEntry],
) -> list[NodeEntry]:
    """The nodes of a group, all of one class: what differs can't be compared."""
    by_class: dict[str, list[NodeEntry]] = {}
    for entry in free:
        if fits(group, entry):
            by_class.setdefault(entry.node_class, []).append(entry)
    for fitting in by_class.values():
        if len(fitting) >= group.count:
            return fitting[: group.count]
    demand = _described(group.count, group.os, group.labels, group.node_class)
    if len(by_class) > 1:
        found = "; ".join(f"{len(own)} × {kind}" for kind, own in by_class.items())
        text = f"{demand} of one class wanted, there are {found}: choose with `class:` or labels"
        raise _lacks(matrix, name, text)
    raise _lacks(matrix, name, _no_node(demand, group, free, entries))


def _load(
    matrix: Matrix,
    name: str,
    group: NodeGroup,
    free: Sequence[NodeEntry],
    entries: Sequence[NodeEntry],
) -> list[NodeEntry]:
    wanted = group.load
    if wanted is None:
        return []
    demand = NodeGroup(os=wanted.os, labels=wanted.labels)
    fitting = [
        entry
        for entry in free
        if not [*_unusable(entry), *_wrong_labels(wanted.labels, entry)]
        and wanted.os in (None, entry.os)
    ]
    if len(fitting) >= wanted.nodes:
        return fitting[: wanted.nodes]
    text = _described(wanted.nodes, wanted.os, wanted.labels, None)
    raise _lacks(matrix, name, _no_node(f"load from {text}", demand, free, entries))


def _described(
    count: int, system: str | None, labels: dict[str, str], node_class: str | None
) -> str:
    parts = [f"{count} {system or ''} node{'s' * (count != 1)}".replace("  ", " ")]
    parts += [f"{label}={value}" for label, value in labels.items()]
    parts += [f"class {node_class!r}"] if node_class else []
    return ", ".join(parts)


def _no_node(
    demand: str, group: NodeGroup, free: Sequence[NodeEntry], entries: Sequence[NodeEntry]
) -> str:
    """Every node of the cluster with what speaks against it."""
    if not entries:
        return f"{demand} wanted, and no node has joined; `bench node head` prints how one does"
    lines = []
    for entry in entries:
        reasons = list(failing(group, entry)) if group.os else [*_unusable(entry)]
        if not reasons:
            reasons = ["it fits"] if entry in free else ["it is taken by another group"]
        lines.append(f"\n  {entry.name} ({entry.node_class}): {', '.join(reasons)}")
    return f"{demand} wanted, the cluster has not enough:{''.join(lines)}"


def _lacks(matrix: Matrix, group: str, text: str) -> EnvironmentLacks:
    return EnvironmentLacks(str(matrix.error(("nodes", group), text)))
