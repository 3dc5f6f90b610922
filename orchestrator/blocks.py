"""Which blocks are left to measure, and which node takes the next one.

A block is one trial of each configuration on one node, back to back: comparison happens within it,
so a block that lost its node is measured again from its first trial on another one.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.plan import BlockKey, Plan, PlannedTrial
from results.record import TrialRecord, planned_id


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its trials in their order, and who has a valid record of which."""

    key: BlockKey
    trials: tuple[PlannedTrial, ...]
    valid: tuple[tuple[str, str], ...] = ()
    """Pairs of planned trial and node."""

    @property
    def group(self) -> str:
        """The group of nodes that measures it."""
        return self.key[0]

    def left_for(self, node_id: str) -> list[PlannedTrial]:
        """What this node would have to measure: another one's trials are no use to it."""
        done = {trial for trial, node in self.valid if node == node_id}
        return [trial for trial in self.trials if trial.trial_id not in done]

    @property
    def complete(self) -> bool:
        """Whether one node has measured all of it."""
        return any(not self.left_for(node) for node in {node for _, node in self.valid})

    @property
    def left(self) -> int:
        """The fewest trials that are still to be measured."""
        nodes = {node for _, node in self.valid} | {""}
        return min(len(self.left_for(node)) for node in nodes)


def blocks_of(plan: Plan, records: Iterable[TrialRecord]) -> list[Block]:
    """All blocks of a plan in their order, with what is archived of each."""
    trials: defaultdict[BlockKey, list[PlannedTrial]] = defaultdict(list)
    for trial in plan.trials:
        trials[trial.block_key].append(trial)
    valid = defaultdict(list)
    for record in records:
        if record.valid:
            valid[planned_id(record.trial_id)].append(record.node_id)
    return [
        Block(key, tuple(own), tuple((t.trial_id, n) for t in own for n in valid[t.trial_id]))
        for key, own in trials.items()
    ]


class BlockQueue:
    """Blocks that wait for a node of their group. Used by one thread for each node."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._waiting: defaultdict[str, deque[Block]] = defaultdict(deque)
        for block in blocks:
            if not block.complete:
                self._waiting[block.group].append(block)
        self._lock = threading.Lock()
        self._machines: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._under_way: Counter[str] = Counter()

    def take(self, group: str, node_id: str) -> Block | None:
        """The next block for a node, first one that it has begun before; None: no more."""
        with self._lock:
            waiting = self._waiting[group]
            if not waiting:
                return None
            own = (b for b in waiting if any(node == node_id for _, node in b.valid))
            block = next(own, waiting[0])
            waiting.remove(block)
            self._under_way[group] += 1
            return block

    def done(self, block: Block) -> None:
        """A block is over, whatever came of it."""
        with self._lock:
            self._under_way[block.group] -= 1

    def give_back(self, block: Block) -> None:
        """A block lost its node: another one is to take it, and next."""
        with self._lock:
            self._under_way[block.group] -= 1
            self._waiting[block.group].appendleft(block)

    def waiting(self, group: str) -> int:
        """Blocks of a group that no node has."""
        with self._lock:
            return len(self._waiting[group])

    def idle(self, group: str) -> bool:
        """Whether nothing of a group waits or is being measured."""
        with self._lock:
            return not self._waiting[group] and not self._under_way[group]

    @contextmanager
    def alone_on(self, machines: Iterable[str]) -> Iterator[None]:
        """Only one block at a time is measured on a machine, however many nodes it has."""
        locks = [self._machine(name) for name in sorted(set(machines))]
        for lock in locks:
            lock.acquire()
        try:
            yield
        finally:
            for lock in reversed(locks):
                lock.release()

    def _machine(self, name: str) -> threading.Lock:
        with self._lock:
            return self._machines[name]
