"""Objectives and waivers of a matrix and of a policy file that services share."""

from __future__ import annotations

from pathlib import Path

import matrices
import pytest

from orchestrator.matrix.matrix import load_matrix
from orchestrator.matrix.policy import Policy, load_policy
from orchestrator.matrix.source import MatrixError
from orchestrator.plan import make_plan, plan_warnings
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


@pytest.mark.parametrize(
    ("own", "shared", "where"),
    [
        ("[gc_cycles <= 3]", "[gc_cycles >= 5]", "matrix.yaml:23:9: "),
        ("[{require: gc_cycles <= 3, configurations: [optimised]}]", "[gc_cycles >= 5]",
         "matrix.yaml:23:9: "),
        ("[p99 <= 1s]", "[gc_cycles <= 3, gc_cycles >= 5]", "policy.yaml:1:30: "),
        ("[gc_cycles <= 3, gc_cycles >= 5]", "[p99 <= 1s]", "matrix.yaml:22:30: "),
        ("[{require: gc_cycles <= 3, configurations: [optimised]}]",
         "[{require: gc_cycles >= 5, configurations: [default]}]", ""),
        ("[{require: gc_cycles <= 3, configurations: [default]}]", "[gc_cycles >= 5]", ""),
        ("[{require: gc_cycles <= 3, workloads: [steady]}]",
         "[{require: gc_cycles >= 5, workloads: [night]}]", ""),
        ("[{require: gc_cycles <= 3, configurations: [default]}, "
         "{require: gc_cycles >= 5, configurations: [optimised]}]", "[p99 <= 1s]", ""),
    ],
)  # fmt: skip
def test_contradictions_are_found_where_objectives_meet_and_nowhere_else(
    tmp_path: Path, own: str, shared: str, where: str
) -> None:
    matrices.write(tmp_path, f"objectives: {shared}\n", "policy.yaml")
    text = f"{matrices.SMALL}objectives: {own}\npolicy: policy.yaml\n"
    path = matrices.write(tmp_path, text)
    if not where:
        assert len(load_matrix(path).policy.objectives) > 1
        return
    with pytest.raises(MatrixError) as raised:
        load_matrix(path)
    assert where in str(raised.value)
    assert "can't both hold" in str(raised.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no_leak", "'no_leak' needs 300 s of `measure` to be told, 'steady' has 1 s"),
        ("no_leak over 24h", "'no_leak over 24h' needs 86,400 s of"),
    ],
)
def test_a_leak_that_measure_is_too_short_for_is_told_before_the_run(
    tmp_path: Path, line: str, said: str
) -> None:
    wanted = f"objectives:\n  - {line}\n"
    with pytest.raises(MatrixError) as raised:
        load_matrix(matrices.write(tmp_path, matrices.SMALL + wanted))
    assert f"matrix.yaml:23:5: {said}" in str(raised.value)
    matrices.write(tmp_path, wanted, "policy.yaml")
    path = matrices.write(tmp_path, matrices.SMALL + "policy: policy.yaml\n")
    with pytest.raises(MatrixError, match=r":22:9: 'no_leak"):
        load_matrix(path)
    long = matrices.SMALL.replace("measure: 1s", "measure: 24h")
    assert load_matrix(matrices.write(tmp_path, long + wanted))


def test_a_name_of_the_policy_that_the_matrix_lacks_is_told_and_not_refused(
    tmp_path: Path,
) -> None:
    shared = "objectives: [errors <= 1%, {require: p99 <= 40ms, configurations: [optimisd]}]\n"
    matrices.write(tmp_path, shared, "policy.yaml")
    path = matrices.write(tmp_path, matrices.SMALL + "policy: policy.yaml\n")
    (warning,) = [text for text in plan_warnings(load_matrix(path)) if "policy" in text]
    assert warning == (
        "policy: p99 <= 40ms is about configuration 'optimisd', which this matrix lacks: "
        "not checked there"
    )


def test_a_waiver_may_name_workloads(tmp_path: Path) -> None:
    waiver = (
        "waivers: [{objective: p99 <= 40ms, owner: J, reason: x, expires: 2027-01-31, "
        "workloads: [steady]}]\n"
    )
    text = f"{matrices.SMALL}objectives: [p99 <= 40ms]\n{waiver}"
    (found,) = load_matrix(matrices.write(tmp_path, text)).policy.waivers
    assert found.workloads == ("steady",)
    with pytest.raises(MatrixError, match=r":23:\d+: there is no workload 'stead'"):
        load_matrix(matrices.write(tmp_path, text.replace("[steady]", "[stead]")))


def test_a_closed_loop_has_no_capacity(tmp_path: Path) -> None:
    wanted = "objectives: [capacity >= 800/s, p99 <= 40ms]\n"
    with pytest.raises(MatrixError, match=r":\d+:14: 'steady' is a closed loop"):
        load_matrix(matrices.write(tmp_path, matrices.CLOSED + wanted))
    matrix = load_matrix(matrices.write(tmp_path, matrices.SMALL + wanted))
    assert [o.kind for o in matrix.policy.objectives] == ["capacity", "limit"]
