"""Whatever happens to the pipe: what was sent is in the archive, or counted as lost."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.workers.faultypipe import KINDS, Account, Fault, FaultyPipe, Plan

IS_ROOT = os.geteuid() == 0
SEED = int(os.environ.get("HEAPGATE_TEST_SEED") or random.randrange(2**31))
RANDOM_RUNS = 6


def carried(folder: Path, plan: Plan) -> Account:
    with FaultyPipe(folder, small_disks=IS_ROOT).running() as pipe:
        return pipe.carry(plan)


def check(plan: Plan, account: Account) -> None:
    """`sent = archived + counted as lost`, and what was lost makes the trial invalid."""
    assert account.sent == account.archived + account.lost, (plan, account)
    assert account.in_order, (plan, account)
    assert account.valid == (not account.differences) == (account.lost == 0), (plan, account)
    if plan.spool_has_room:
        assert account.lost == 0, (plan, account)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_the_middle_loses_nothing_uncounted(tmp_path: Path, kind: str) -> None:
    if kind.endswith("full") and not IS_ROOT:
        pytest.skip("needs root to mount a small file system")
    faults = (Fault(kind, at_s=0.3, for_s=0.5),)
    plan = Plan(
        seed=0, rows=100_000, processes=1, in_background=False, flush_bytes=60_000, faults=faults
    )
    account = carried(tmp_path / "pipe", plan)
    check(plan, account)
    assert (account.lost > 0) == (kind == "spool disk full"), account


@pytest.mark.parametrize("number", range(RANDOM_RUNS))
def test_random_faults_lose_nothing_uncounted(tmp_path: Path, number: int) -> None:
    """HEAPGATE_TEST_SEED=… draws the same again; `make bench AREA=load` does two hundred."""
    print(f"HEAPGATE_TEST_SEED={SEED}")
    plan = Plan.drawn(SEED + number, 0.8, needs_root=IS_ROOT)
    check(plan, carried(tmp_path / "pipe", plan))
