"""The order of trials: complete blocks at random, the same for the same seed on any machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import matrices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import plan, run
from orchestrator.environment import block_length, environment_blocks
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.plan import count_trials, estimate_ns, make_plan, planned_trials
from results.errors import UserError
from workers.spec import BinarySpec

WIDE = (
    matrices.SMALL.replace("workloads:\n", "workloads:\n  burst: {scenario: cache_mix, users: 2}\n")
    + 'axes: {env.GOGC: [50, 200, off], include: [{env.A_MUCH_LONGER_NAME: "and a value"}]}\n'
)
BINARY = BinarySpec(argv0="/bin/true", copy=True, sha256="", size_bytes=1)
RUN_ID = "20260131-235959-abcd"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """Six configurations under two workloads."""
    return load_matrix(matrices.write(tmp_path_factory.mktemp("plan"), WIDE))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**63 - 1))
def test_every_block_is_complete_and_in_its_place(wide: Matrix, trials: int, seed: int) -> None:
    matrix = wide.with_overrides(trials=trials, seed=seed)
    planned = make_plan(matrix).trials
    assert len({trial.trial_id for trial in planned}) == len(planned) == count_trials(matrix)
    size = len(matrix.configurations)
    pieces = [planned[at : at + size] for at in range(0, len(planned), size)]
    wanted = [(block, name) for block in range(1, trials + 1) for name in matrix.workloads]
    for piece, (block, workload) in zip(pieces, wanted, strict=True):
        assert {(t.block, t.workload) for t in piece} == {(block, workload)}
        assert {t.configuration for t in piece} == set(matrix.configurations)
        assert [t.position for t in piece] == list(range(1, size + 1))
        assert [t.configuration for t in piece if t.baseline] == ["default"]


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**63 - 1))
def test_the_same_seed_gives_the_same_plan(wide: Matrix, trials: int, seed: int) -> None:
    first = make_plan(wide.with_overrides(trials=trials, seed=seed))
    assert make_plan(wide.with_overrides(trials=trials, seed=seed)) == first
    longer = make_plan(wide.with_overrides(trials=trials + 1, seed=seed)).trials
    shape = [(t.block, t.position, t.configuration, t.workload) for t in longer]
    assert shape[: len(first.trials)] == [
        (t.block, t.position, t.configuration, t.workload) for t in first.trials
    ], "more blocks are added at the end and change nothing before"


def test_the_plan_of_a_seed_is_what_it_always_was(wide: Matrix) -> None:
    """Archived runs are resumed under their plan: it must not change with a release."""
    planned = make_plan(wide.with_overrides(trials=1, seed=7)).trials
    assert [t.trial_id for t in planned] == [
        "b1-1-a-much-longer-name-and-a-value-burst",
        "b1-2-optimised-burst",
        "b1-3-default-burst",
        "b1-4-gogc-off-burst",
        "b1-5-gogc-200-burst",
        "b1-6-gogc-50-burst",
        "b1-1-default-steady",
        "b1-2-a-much-longer-name-and-a-value-steady",
        "b1-3-optimised-steady",
        "b1-4-gogc-50-steady",
        "b1-5-gogc-200-steady",
        "b1-6-gogc-off-steady",
    ]


def test_positions_are_balanced_over_many_blocks(wide: Matrix) -> None:
    """Each of 6 configurations is first in 1 of 6 blocks: of 1,200, in 200 ± 4.5 deviations."""
    planned = planned_trials(wide.with_overrides(trials=600, seed=1))
    first = Counter(t.configuration for t in planned if t.position == 1)
    assert set(first) == set(wide.configurations)
    deviation = (1200 * (1 / 6) * (5 / 6)) ** 0.5
    assert all(abs(count - 200) < 4.5 * deviation for count in first.values()), first


def test_environment_blocks_have_one_length(wide: Matrix) -> None:
    blocks = environment_blocks(wide, RUN_ID, "linux")
    assert set(blocks) == set(wide.configurations)
    assert len({block_length(dict(block)) for block in blocks.values()}) == 1
    assert all(block == tuple(sorted(block)) for block in blocks.values())


def test_a_block_shares_its_arrivals_and_no_two_blocks_do(wide: Matrix) -> None:
    seeds: dict[tuple[int, str], set[int]] = {}
    for trial in planned_trials(wide.with_overrides(trials=4, seed=3)):
        spec = plan.trial_spec(wide, trial, BINARY, RUN_ID, 1)
        seeds.setdefault((trial.block, trial.workload), set()).add(spec.load.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == len(seeds)


def test_a_repeated_attempt_has_a_name_of_its_own(wide: Matrix) -> None:
    trial = next(planned_trials(wide))
    second = plan.trial_spec(wide, trial, BINARY, RUN_ID, 2)
    assert second.trial_id == f"{trial.trial_id}~2"


def test_a_plan_of_millions_is_counted_but_not_made(wide: Matrix) -> None:
    many = wide.with_overrides(trials=1_000_000, seed=None)
    assert count_trials(many) == 12_000_000
    one_block_ns = estimate_ns(wide.with_overrides(trials=1, seed=None))
    assert estimate_ns(many) == one_block_ns * 1_000_000
    assert next(planned_trials(many)).trial_id.startswith("b0000001-1-")


@pytest.mark.parametrize(
    ("trials", "yes", "want"),
    [(900, False, "add --yes"), (900, True, None), (800, False, None), (90_000, True, "at most")],
)
def test_a_very_large_run_has_to_be_meant(
    tmp_path: Path, trials: int, yes: bool, want: str | None
) -> None:
    path = matrices.write(tmp_path, WIDE)
    if want is None:
        assert run.load_for_run(path, trials=trials, seed=None, yes=yes).trials == trials
        return
    with pytest.raises(UserError, match=want) as caught:
        run.load_for_run(path, trials=trials, seed=None, yes=yes)
    assert f"{trials * 12:,} trials are planned" in str(caught.value)
