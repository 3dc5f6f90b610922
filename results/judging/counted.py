"""Which trials count: the last valid attempts, one node in each block."""

from __future__ import annotations

from collections.abc import Iterable

from results.record import TrialRecord, planned_id


def counted_trials(records: Iterable[TrialRecord]) -> set[tuple[str, str]]:
    """(run_id, trial_id) of the last valid attempt at each planned trial, one node in each block.

    Comparison is within blocks, on one node. Where a block was begun on one node and repeated on
    another, the node that measured more of it counts, of equal ones the later.
    """
    valid = [record for record in records if record.valid]
    node = _node_of_blocks(valid)
    last: dict[tuple[str, str], TrialRecord] = {}
    for record in valid:
        key = (record.run_id, planned_id(record.trial_id))
        if record.node_id == node[_block(record)] and (
            key not in last or last[key].attempt < record.attempt
        ):
            last[key] = record
    return {(record.run_id, record.trial_id) for record in last.values()}


def _block(record: TrialRecord) -> tuple[str, int, str, str]:
    """Run, number, workload and group of nodes."""
    group = planned_id(record.trial_id).partition("@")[2]
    return record.run_id, record.block, record.workload, group


def _node_of_blocks(valid: Iterable[TrialRecord]) -> dict[tuple[str, int, str, str], str]:
    """The node whose trials count, by block."""
    measured: dict[tuple[str, int, str, str], dict[str, tuple[set[str], int]]] = {}
    for record in valid:
        nodes = measured.setdefault(_block(record), {})
        trials, latest_ns = nodes.get(record.node_id, (set(), 0))
        nodes[record.node_id] = (
            trials | {planned_id(record.trial_id)},
            max(latest_ns, record.started_ns),
        )
    return {
        block: max(nodes, key=lambda node: (len(nodes[node][0]), nodes[node][1]))
        for block, nodes in measured.items()
    }
