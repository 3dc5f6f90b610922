"""Objectives and waivers of a matrix and of a policy file that services share."""

from __future__ import annotations

from pathlib import Path

import matrices
import pytest

from orchestrator.matrix.matrix import load_matrix
from orchestrator.matrix.policy import Policy, load_policy
from orchestrator.matrix.source import MatrixError
from orchestrator.plan import make_plan
from orchestrator.run import run_document

OWN = """objectives:
  - peak_rss <= 1GiB
  - {require: "p99 <= 40ms", severity: warn, configurations: [optimised], workloads: [steady]}
policy: shared/policy.yaml
"""
SHARED = """objectives:
  - errors <= 0.1%
  - peak_rss <= 1GiB
waivers:
  - objective: errors <= 0.1%
    owner: Jane <jane@example.org>
    reason: the cache is cold for the first second
    expires: 2027-01-31
"""


def test_both_count_and_are_in_the_runs_document(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    matrices.write(tmp_path / "shared", SHARED, "policy.yaml")
    path = matrices.write(tmp_path, matrices.SMALL + OWN)
    matrix = load_matrix(path)
    texts = [objective.text for objective in matrix.policy.objectives]
    assert texts == ["peak_rss <= 1GiB", "p99 <= 40ms", "errors <= 0.1%"]
    warned = matrix.policy.objectives[1]
    assert (warned.severity, warned.configurations) == ("warn", ("optimised",))
    (waiver,) = matrix.policy.waivers
    assert (waiver.owner, waiver.expires.isoformat()) == ("Jane <jane@example.org>", "2027-01-31")
    document = run_document("r", path, matrix, make_plan(matrix))
    assert Policy.from_plain(document) == matrix.policy


def test_a_wrong_policy_file_is_told_with_its_own_place(tmp_path: Path) -> None:
    path = matrices.write(tmp_path, SHARED.replace("errors <= 0.1%\n  -", "x <= 1\n  -"))
    with pytest.raises(MatrixError) as raised:
        load_policy(path)
    assert str(raised.value).startswith(f"{path}:2:5: there is no metric 'x'")
    path = matrices.write(tmp_path, SHARED.replace("waivers:", "waiver:"))
    with pytest.raises(MatrixError, match="did you mean 'waivers'"):
        load_policy(path)


def test_a_matrix_without_objectives_has_none(tmp_path: Path) -> None:
    matrix = load_matrix(matrices.write(tmp_path, matrices.SMALL))
    assert matrix.policy == Policy()
    assert Policy.from_plain({}) == Policy()


LIMITED = "limits: {memory_max: 1GiB}\n"


@pytest.mark.parametrize("line", ["headroom >= 20%", "headroom not worse by > 5%"])
def test_headroom_without_a_hard_limit_is_told_before_the_run(tmp_path: Path, line: str) -> None:
    wanted = f"objectives:\n  - {line}\n"
    path = matrices.write(tmp_path, matrices.SMALL + wanted)
    place = f"{path}:{matrices.SMALL.count(chr(10)) + 2}:5: "
    with pytest.raises(MatrixError) as raised:
        load_matrix(path)
    said = (
        f"{place}{line!r} is about a share of limits.memory_max, which is not set for 'optimised'"
    )
    assert said in str(raised.value)
    assert load_matrix(matrices.write(tmp_path, matrices.SMALL + wanted + LIMITED))
    matrices.write(tmp_path, wanted, "policy.yaml")
    path = matrices.write(tmp_path, matrices.SMALL + "policy: policy.yaml\n")
    with pytest.raises(MatrixError, match=r":\d+:9: 'headroom .*not set for 'optimised'"):
        load_matrix(path)


def test_a_closed_loop_has_no_capacity(tmp_path: Path) -> None:
    wanted = "objectives: [capacity >= 800/s, p99 <= 40ms]\n"
    with pytest.raises(MatrixError, match=r":\d+:14: 'steady' is a closed loop"):
        load_matrix(matrices.write(tmp_path, matrices.CLOSED + wanted))
    matrix = load_matrix(matrices.write(tmp_path, matrices.SMALL + wanted))
    assert [o.kind for o in matrix.policy.objectives] == ["capacity", "limit"]
