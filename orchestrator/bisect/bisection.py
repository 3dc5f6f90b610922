"""The search of a bisection: which commit to try next, and what is left. No measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.bisect.revisions import Commit
from results.statistics.interval import Interval


class Side(StrEnum):
    """On which side of the change a commit was found."""

    good = "good"
    bad = "bad"
    unknown = "can't tell"
    unbuilt = "does not build"


@dataclass(frozen=True, slots=True)
class Tried:
    """One commit and what was found of it.

    `change` is against the good revision, a fraction when `relative`, else a difference in the
    metric's unit; None where nothing was measured, and then `reason` says why. `pairs` are its
    blocks, `runs` those that hold them.
    """

    commit: Commit
    side: Side
    reason: str = ""
    change: Interval | None = None
    relative: bool = True
    pairs: int = 0
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a bisection ended: `remaining` are the commits one of which made the change.

    One commit there is the one that was sought. `tried` are in the order of history.
    """

    tried: tuple[Tried, ...]
    remaining: tuple[Commit, ...]

    @property
    def found(self) -> Commit | None:
        """The first bad commit, when it could be told."""
        return self.remaining[0] if len(self.remaining) == 1 else None


def search(commits: Sequence[Commit], bad: Tried, judge: Callable[[Commit], Tried]) -> Outcome:
    """Halve the commits, the oldest first and the last one bad, until one is left.

    A commit that can't be told is left out, and the one nearest to the middle is tried instead.
    """
    tried = [bad]
    low, high, passed = -1, len(commits) - 1, set[int]()
    while left := [i for i in range(low + 1, high) if i not in passed]:
        middle = (low + high) / 2
        index = min(left, key=lambda i: (abs(i - middle), i))
        found = judge(commits[index])
        tried.append(found)
        if found.side == Side.good:
            low = index
        elif found.side == Side.bad:
            high = index
        else:
            passed.add(index)
    tried.sort(key=lambda own: commits.index(own.commit))
    return Outcome(tuple(tried), tuple(commits[low + 1 : high + 1]))


def steps_at_most(commits: int) -> int:
    """How many of so many commits are tried when each can be told; the last is known."""
    return max(0, commits - 1).bit_length()
