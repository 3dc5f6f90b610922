"""Which trials count when a block was measured by more than one node."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from results.judging.counted import counted_trials
from results.record import Finding, TrialRecord

BASE = TrialRecord(
    schema_version=2, run_id="run", trial_id="", block=1, position=1, attempt=1,
    configuration="default", baseline=True, workload="steady", node_id="node-a",
    node_class="linux", started_ns=0, finished_ns=1, spec={}, node={}, versions={}, clock={},
)  # fmt: skip


def trial(
    name: str, node: str, attempt: int, started_ns: int, *, valid: bool = True
) -> TrialRecord:
    again = f"~{attempt}" if attempt > 1 else ""
    return replace(
        BASE,
        trial_id=f"{name}{again}",
        node_id=node,
        attempt=attempt,
        started_ns=started_ns,
        findings=[] if valid else [Finding("node_lost", "invalid", "gone")],
    )


def counted(*records: TrialRecord) -> set[str]:
    return {name for _, name in counted_trials(records)}


def test_the_last_valid_attempt_counts() -> None:
    assert counted(
        trial("b1-1-x", "node-a", 1, 1), trial("b1-1-x", "node-a", 2, 2),
        trial("b1-1-x", "node-a", 3, 3, valid=False),
    ) == {"b1-1-x~2"}  # fmt: skip


def test_a_block_that_was_repeated_on_another_node_is_wholly_that_nodes() -> None:
    assert counted(
        trial("b1-1-x", "node-a", 1, 1), trial("b1-2-y", "node-a", 1, 2, valid=False),
        trial("b1-1-x", "node-b", 2, 3), trial("b1-2-y", "node-b", 2, 4),
    ) == {"b1-1-x~2", "b1-2-y~2"}  # fmt: skip


def test_a_repetition_that_was_cut_off_does_not_mix_two_nodes() -> None:
    assert counted(
        trial("b1-1-x", "node-a", 1, 1), trial("b1-2-y", "node-a", 1, 2),
        trial("b1-1-x", "node-b", 2, 3),
    ) == {"b1-1-x", "b1-2-y"}  # fmt: skip


def test_each_group_of_nodes_has_blocks_of_its_own() -> None:
    found = counted(trial("b1-1-x@linux", "node-a", 1, 1), trial("b1-1-x@windows", "node-w", 1, 2))
    assert found == {"b1-1-x@linux", "b1-1-x@windows"}


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from("abc"), st.integers(1, 3), st.booleans()),
        max_size=20,
    )
)
def test_counted_trials_of_a_block_are_of_one_node_and_each_once(
    attempts: list[tuple[int, str, int, bool]],
) -> None:
    records = {
        f"{number}~{attempt}": trial(f"b1-{number}-x", f"node-{node}", attempt, when, valid=valid)
        for when, (number, node, attempt, valid) in enumerate(attempts)
    }
    chosen = [
        r for r in records.values() if ("run", r.trial_id) in counted_trials(records.values())
    ]
    assert len({r.node_id for r in chosen}) <= 1
    names = [r.trial_id.partition("~")[0] for r in chosen]
    assert len(names) == len(set(names))
    assert all(r.valid for r in chosen)
    assert bool(chosen) == any(r.valid for r in records.values())
