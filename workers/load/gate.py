"""The open loop: arrivals of a schedule are handed to users, whatever the service does.

Written against gevent's primitives, which are given by the caller, so that this file itself
imports neither gevent nor Locust.
"""

from __future__ import annotations

import random
from array import array
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Protocol

from results.clock import steady_ns
from workers.load.arrivals import Offsets


class Slot(Protocol):
    """Where one user waits."""

    def get(self) -> int:
        """Wait for an arrival's instant."""

    def set(self, intended_ns: int) -> None:
        """Let the user have it; it begins at once."""


class Gate:
    """Users wait here for their next arrival; the schedule lets them through.

    A kind of user is drawn by weight among those that have one free; of that kind the user that
    became free last goes first: its connection is warm. When no user is free, arrivals wait in
    their order and keep their intended start.
    """

    def __init__(self, offsets: Offsets, make_slot: Callable[[], Slot], seed: int) -> None:
        self._offsets = offsets
        self._make_slot = make_slot
        self._random = random.Random(seed)
        self._free: defaultdict[Any, list[Slot]] = defaultdict(list)
        self._weights: dict[Any, float] = {}
        self._backlog: deque[int] = deque()
        self._instants_ns = array("q")
        self._next = 0
        self.lags_ns = array("q")
        self._lags_told = 0
        self.busy = 0
        self.backlog_max = 0

    def take(self, kind: Any, weight: float) -> int:
        """Wait for an arrival and give its intended start, in monotonic nanoseconds.

        Called by a user of this kind that is free.
        """
        self._weights[kind] = weight
        if self._backlog:
            self.busy += 1
            # The generator's own delay counts from when this user became free: now.
            self.lags_ns.append(0)
            return self._backlog.popleft()
        slot = self._make_slot()
        self._free[kind].append(slot)
        try:
            intended_ns = slot.get()
        except BaseException:  # its user was ended while it waited
            if slot in self._free[kind]:
                self._free[kind].remove(slot)
            raise
        self.lags_ns.append(max(0, steady_ns() - intended_ns))
        return intended_ns

    def give_back(self) -> None:
        """A user is done with its arrival."""
        self.busy -= 1

    def begin(self, start_ns: int) -> array[int]:
        """Fix the schedule's first instant; the monotonic instants of all arrivals."""
        self._instants_ns = array("q", (self._offsets + start_ns).astype("q").tobytes())
        return self._instants_ns

    @property
    def next_ns(self) -> int | None:
        """When the next arrival is due; None when all were let in."""
        return self._instants_ns[self._next] if self._next < len(self._instants_ns) else None

    def close(self) -> None:
        """Let nobody in any more; what waits for a free user is not sent."""
        del self._instants_ns[self._next :]
        self._backlog.clear()

    def let_in_due(self) -> None:
        """Let in every arrival whose instant has come."""
        while (due_ns := self.next_ns) is not None and due_ns <= steady_ns():
            self._next += 1
            self._let_in(due_ns)

    def _let_in(self, intended_ns: int) -> None:
        kinds = [kind for kind, slots in self._free.items() if slots]
        if kinds:
            self.busy += 1
            self._free[self._drawn(kinds)].pop().set(intended_ns)
        else:
            self._backlog.append(intended_ns)
            self.backlog_max = max(self.backlog_max, len(self._backlog))

    def _drawn(self, kinds: list[Any]) -> Any:
        if len(kinds) == 1:
            return kinds[0]
        weights = [self._weights[kind] for kind in kinds]
        return self._random.choices(kinds, weights)[0]

    @property
    def free(self) -> int:
        """Users that wait for an arrival."""
        return sum(map(len, self._free.values()))

    @property
    def unanswered(self) -> int:
        """Arrivals that are due and not done: with a user, or waiting for one."""
        return self.busy + len(self._backlog)

    @property
    def due(self) -> int:
        """Arrivals whose instant has come."""
        return self._next

    def newest_lag_ns(self) -> int:
        """The greatest delay since this was last asked."""
        newest = self.lags_ns[self._lags_told :]
        self._lags_told += len(newest)
        return max(newest, default=0)

    @property
    def planned(self) -> int:
        """Arrivals of the whole schedule."""
        return len(self._offsets)

    @property
    def not_sent(self) -> int:
        """Arrivals that no user has begun."""
        return self.planned - len(self.lags_ns)

    @property
    def settled(self) -> bool:
        """Whether every arrival that was let in is done."""
        all_in = self._next == len(self._instants_ns)
        return all_in and not self._backlog and self.busy == 0
