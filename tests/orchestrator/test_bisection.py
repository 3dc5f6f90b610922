"""The search for a commit: on histories whose truth is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bisect.bisection import Outcome, Side, Tried, search, steps_at_most
from orchestrator.bisect.revisions import Commit


def commit(number: int) -> Commit:
    return Commit(f"{number:040x}", "2026-11-28", "Ann", f"number {number}")


def searched(sides: list[Side]) -> tuple[Outcome, list[int]]:
    """The outcome over commits of which these sides would be found, and which were tried."""
    commits = [commit(number) for number in range(len(sides))]
    tried = []

    def judge(own: Commit) -> Tried:
        number = commits.index(own)
        tried.append(number)
        return Tried(own, sides[number])

    return search(commits, Tried(commits[-1], Side.bad), judge), tried


@given(st.integers(1, 300), st.data())
def test_the_first_bad_commit_is_found_in_few_steps(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    outcome, tried = searched([Side.good] * first + [Side.bad] * (count - first))
    assert outcome.found == commit(first)
    assert len(tried) <= steps_at_most(count)
    assert len(set(tried)) == len(tried)


@given(
    st.lists(st.sampled_from([Side.unknown, Side.unbuilt, None]), min_size=1, max_size=60),
    st.data(),
)
def test_what_is_left_holds_the_first_bad_commit_and_only_what_could_not_be_told(
    gaps: list[Side | None], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(gaps) - 1))
    sides = [gap or (Side.good if number < first else Side.bad) for number, gap in enumerate(gaps)]
    sides[-1] = Side.bad
    outcome, tried = searched(sides)
    left = [int(own.sha, 16) for own in outcome.remaining]
    assert left == list(range(left[0], left[-1] + 1))
    assert first in left
    assert sides[left[-1]] == Side.bad
    assert all(sides[number] in (Side.unknown, Side.unbuilt) for number in left[:-1])
    assert len(set(tried)) == len(tried)


def test_one_commit_is_the_one() -> None:
    outcome, tried = searched([Side.bad])
    assert (outcome.found, tried) == (commit(0), [])


def test_what_was_tried_is_in_the_order_of_history() -> None:
    outcome, tried = searched([Side.good] * 3 + [Side.unbuilt] + [Side.bad] * 4)
    assert tried[0] == 3
    numbers = [int(own.commit.sha, 16) for own in outcome.tried]
    assert numbers == sorted(numbers)
    assert outcome.remaining == (commit(3), commit(4))
    assert outcome.found is None
