"""The matrices of a search's single trials, and what makes two searches the same one."""

from __future__ import annotations

from pathlib import Path

import matrices
import pytest
import yaml

from orchestrator.capacity.trialmatrix import TRIALS_MAX, Asked, Question
from orchestrator.matrix.matrix import load_matrix

LIMITS = "objectives: [p99 <= 40ms, errors <= 1%]\n"
LONG = matrices.SMALL.replace("measure: 1s", "measure: 7s")


def question(folder: Path, text: str, asked: Asked | None = None) -> Question:
    return Question(matrices.write(folder, text), asked or Asked())


def test_an_overload_is_a_rate_a_higher_one_and_the_rate_before(tmp_path: Path) -> None:
    own = question(tmp_path, LONG + LIMITS)
    path = tmp_path / "overload.yaml"
    path.write_text(yaml.safe_dump(own.overload("optimised", 200, 260, 3)))
    planned = load_matrix(path, relative_to=tmp_path)
    assert list(planned.configurations) == ["optimised"]
    assert planned.trials == 1
    rates = planned.arrivals["steady"].rates
    assert [(r.from_rps, r.to_rps) for r in rates] == [(200, 200), (260, 260), (200, 200)]
    assert [r.for_ns / 1e9 for r in rates] == [4, 4, 7], "halves of 7 s, as whole seconds"
    assert planned.arrivals["steady"].spacing == "random"
    even = question(tmp_path, (LONG + LIMITS).replace("poisson", "constant"))
    assert even.overload("default", 200, 260, 3)["workloads"]["steady"]["arrivals"]["spacing"] == (
        "even"
    )


def test_a_trial_is_one_configuration_at_one_rate(tmp_path: Path) -> None:
    own = question(tmp_path, LONG + LIMITS)
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(own.trial("optimised", 1234, 3)))
    planned = load_matrix(path, relative_to=tmp_path)
    assert planned.arrivals["steady"].rate_rps == 1234
    assert planned.seed == 10
    assert planned.environment_of("optimised")["GOGC"] == "20"


def test_the_bounds_are_rates_that_can_be_written(tmp_path: Path) -> None:
    # 1,200 requests in 7 s are 171.43/s, 150/s × 32 are 4,800/s.
    bounds = question(tmp_path, LONG + LIMITS).bounds
    assert (bounds.lowest_rps, bounds.highest_rps) == (172, 4_800)
    assert bounds.trials_max == 15
    timed = question(tmp_path, LONG + LIMITS, Asked(budget_ns=10**12)).bounds
    assert timed.trials_max == TRIALS_MAX


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (LIMITS.replace("]", ", throughput >= 10/s]"), True),
        (LIMITS.replace("]", ", p99 not worse by > 5%]"), True),
        (LIMITS + "comparison: {confidence: 0.9}\n", True),
        (LIMITS.replace("40ms", "50ms"), False),
        (LIMITS.replace("]", ", peak_rss <= 1GiB]"), False),
    ],
)
def test_a_search_goes_on_when_it_asks_for_the_same(
    tmp_path: Path, text: str, *, same: bool
) -> None:
    key = question(tmp_path, LONG + LIMITS).key
    assert (question(tmp_path, LONG + text).key == key) is same
    assert question(tmp_path, LONG + LIMITS.replace("40", "41")).key != key
    assert question(tmp_path, LONG.replace("24MiB", "25MiB") + LIMITS).key != key
    assert question(tmp_path, LONG.replace("trials: 2", "trials: 9") + LIMITS).key == key
