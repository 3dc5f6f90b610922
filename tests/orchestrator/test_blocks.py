"""Which blocks are left, and who takes them: comparison happens within a block, on one node."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.blocks import Block, BlockQueue
from orchestrator.plan import PlannedTrial


def block(number: int, *, group: str = "linux", trials: int = 2) -> Block:
    own = tuple(
        PlannedTrial(f"b{number}-{n}-c{n}-steady", number, n, f"c{n}", n == 1, "steady", "linux",
                     group)
        for n in range(1, trials + 1)
    )  # fmt: skip
    return Block((group, number, "steady"), own)


def measured(of: Block, *pairs: tuple[int, str]) -> Block:
    return replace(of, valid=tuple((of.trials[n].trial_id, node) for n, node in pairs))


def test_another_nodes_trials_are_no_use_to_a_node() -> None:
    half = measured(block(1), (0, "node-a"))
    assert [t.position for t in half.left_for("node-a")] == [2]
    assert [t.position for t in half.left_for("node-b")] == [1, 2]
    assert not half.complete
    assert half.left == 1


def test_a_block_of_two_halves_by_two_nodes_is_not_complete() -> None:
    halves = measured(block(1), (0, "node-a"), (1, "node-b"))
    assert not halves.complete
    assert measured(block(1), (0, "node-b"), (1, "node-b"), (0, "node-a")).complete


def test_a_node_first_goes_on_with_what_it_has_begun() -> None:
    queue = BlockQueue([block(1), measured(block(2), (0, "node-b"))])
    taken = queue.take("linux", "node-b")
    assert taken is not None
    assert taken.key[1] == 2


def test_a_block_that_lost_its_node_is_the_next_one_for_another() -> None:
    queue = BlockQueue([block(1), block(2)])
    lost = queue.take("linux", "node-a")
    assert lost is not None
    queue.give_back(lost)
    again = queue.take("linux", "node-b")
    assert again == lost
    assert not queue.idle("linux")


def test_groups_do_not_take_each_others_blocks() -> None:
    queue = BlockQueue([block(1, group="linux"), block(1, group="windows")])
    assert queue.take("windows", "node-w") is not None
    assert queue.take("windows", "node-w") is None
    assert queue.waiting("linux") == 1


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10**6))
def test_every_block_is_measured_exactly_once_whatever_nodes_are_lost(
    blocks: int, nodes: int, seed: int
) -> None:
    queue, chance = BlockQueue([block(n) for n in range(1, blocks + 1)]), random.Random(seed)
    done: list[int] = []
    while (taken := queue.take("linux", f"node-{chance.randrange(nodes)}")) is not None:
        if chance.random() < 0.3:
            queue.give_back(taken)
        else:
            queue.done(taken)
            done.append(taken.key[1])
    assert sorted(done) == list(range(1, blocks + 1))
    assert queue.idle("linux")


def test_one_machine_measures_one_block_at_a_time() -> None:
    queue = BlockQueue([])
    at_work, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with queue.alone_on({"machine-1", "machine-2"}):
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
                at_work[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
