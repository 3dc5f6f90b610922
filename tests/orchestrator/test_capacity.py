"""`bench capacity` with real runs: it searches, it goes on where it was, it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import matrices
import pytest
from bench_command import Workplace

ONE = matrices.SMALL.partition("  optimised:")[0] + (
    "workloads:" + matrices.SMALL.partition("workloads:")[2]
)
OBJECTIVES = "objectives: [p50 <= 5s, errors <= 50%]\n"


@pytest.mark.timeout(300)
def test_a_rate_that_is_carried_easily_and_a_search_that_goes_on(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, ONE + OBJECTIVES)
    asked = ("capacity", "matrix.yaml", "--highest", "200/s", "--json")
    first = place.bench(*asked)
    assert first.code == 0, first.text
    (found,) = first.json()
    assert found["configuration"] == "default"
    assert found["state"] == "above"
    assert found["notes"] == ["it holds at the highest rate too"]
    held = [trial["rate_rps"] for trial in found["trials"] if trial["holds"]]
    assert held == [150, 200, 200]
    assert found["memory_bytes"] > 2**20
    runs = place.run_ids()
    again = place.bench(*asked)
    assert again.json() == first.json()
    assert place.run_ids() == runs, "what is known is not measured again"
    assert place.strays() == []


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (ONE, (), "add another, or what it must hold"),
        (matrices.SMALL, (), "it has no limit that could be reached"),
        (matrices.CLOSED + OBJECTIVES, (), "a closed loop slows down with the service"),
        (ONE + OBJECTIVES, ("--workload", "night"), "there is no workload 'night'"),
        (ONE + OBJECTIVES, ("--lowest", "50"), "has no unit"),
        (ONE + OBJECTIVES, ("--lowest", "50/s", "--highest", "20/s"), "must be below"),
        (ONE + OBJECTIVES, ("--within", "10"), "is not a share"),
    ],
)
def test_what_can_not_be_searched(
    tmp_path: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, text)
    done = place.bench("capacity", "matrix.yaml", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.text
