"""The words of the measurement of measuring: what is shown, and what is not."""

from __future__ import annotations

import math
import re

import pytest

from tests.benchmarks.bench_effect import _figure

BLOCKS = [1.004, 0.997, 1.002, 0.995, 1.001, 0.999, 1.003, 0.998]


def differences(*, spread: float = 1.0, centre: float = 0.0, blocks: int = 8) -> list[float]:
    return [centre + spread * math.log(ratio) for ratio in BLOCKS[:blocks]]


def test_a_narrow_interval_within_the_margin_shows_it() -> None:
    figure = _figure("sampler: CPU", differences(), 0.02)
    assert figure.holds
    assert figure.name == "sampler: CPU, 90 % -0.25 … +0.25 %, 8 blocks, shown"
    assert figure.target == "within ±2 %"


def test_a_wide_interval_shows_nothing_and_says_how_many_blocks_would() -> None:
    figure = _figure("sampler: CPU", differences(spread=20), 0.02)
    assert not figure.holds
    found = re.search(r"not shown: about (\d+) blocks needed", figure.name)
    assert found and 8 < int(found[1]) < 200


def test_so_many_blocks_would_do() -> None:
    figure = _figure("sampler: CPU", differences(spread=20), 0.02)
    needed = int(figure.name.rsplit("about ", 1)[1].split()[0])
    more = differences(spread=20) * math.ceil(needed / 8)
    assert _figure("sampler: CPU", more, 0.02).holds


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (differences(centre=0.05), "beyond it"),
        (differences(centre=0.012, spread=5), "not shown: about"),
        (differences(centre=0.021, spread=5), "not shown: the estimate itself lies outside"),
        (differences(spread=1000), "not shown: more than 200 blocks needed"),
        (differences(blocks=4), "90 % -inf … +inf %, 4 blocks, not shown"),
    ],
)
def test_what_is_not_shown(given: list[float], want: str) -> None:
    figure = _figure("sampler: CPU", given, 0.02)
    assert not figure.holds
    assert want in figure.name
