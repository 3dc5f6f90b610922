"""Whatever happens to the pipe: what was sent is in the archive, or counted as lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.faultypipe import IS_ROOT, KINDS, SEED, Fault, Plan, carried

RANDOM_RUNS = 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_the_middle_loses_nothing_uncounted(tmp_path: Path, kind: str) -> None:
    if kind.endswith("full") and not IS_ROOT:
        pytest.skip("needs root to mount a small file system")
    faults = (Fault(kind, at_s=0.3, for_s=0.5),)
    plan = Plan(
        seed=0, rows=100_000, processes=1, in_background=False, flush_bytes=60_000, faults=faults
    )
    account = carried(tmp_path / "pipe", plan)
    assert not account.wrong(plan), (plan, account)
    assert (account.lost > 0) == (kind == "spool disk full"), account


@pytest.mark.parametrize("number", range(RANDOM_RUNS))
def test_random_faults_lose_nothing_uncounted(tmp_path: Path, number: int) -> None:
    """HEAPGATE_TEST_SEED=… draws the same again; `make bench AREA=load` does two hundred."""
    print(f"HEAPGATE_TEST_SEED={SEED}")
    plan = Plan.drawn(SEED + number, 0.8)
    account = carried(tmp_path / "pipe", plan)
    assert not account.wrong(plan), (plan, account)
