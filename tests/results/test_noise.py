"""The noise floor: found again where the noise is known, and true to the comparison's own words."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.comparing.compare import Measurement
from results.comparing.noise import Noise, noise_of
from results.statistics.paired import (
    PAIRS_MAX,
    equivalent,
    expected_half_width,
    paired_shift,
)

CONFIDENCE = 0.95
Draw = Callable[[random.Random], float]


def twins(blocks: int, draw: Draw, seed: int = 1, *, metric: str = "peak_rss") -> list[Measurement]:
    """Blocks of two equal configurations on a machine that drifts from block to block."""
    source, drift = random.Random(seed), 0.0
    found = []
    for block in range(1, blocks + 1):
        drift += source.gauss(0, 0.05)
        for name in ("twin-a", "twin-b"):
            value = 1e8 * math.exp(drift + draw(source))
            found.append(
                Measurement(("run", block), "linux", "equals", name, metric, value, ("", "n"))
            )
    return found


def gauss(spread: float) -> Draw:
    """So noisy that a paired difference has this spread."""
    return lambda source: source.gauss(0, spread / math.sqrt(2))


def noise(spread: float, *, relative: bool = True) -> Noise:
    return Noise(
        metric="peak_rss", relative=relative, pairs=12, value=1e8, spread=spread,
        low=-0.01, high=0.01, p=0.5, alarm=False,
    )  # fmt: skip


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.2])
def test_known_noise_is_found_again_whatever_the_machine_drifts(spread: float) -> None:
    (found,) = noise_of(twins(200, gauss(spread)), "twin-a", CONFIDENCE)
    # The mean square of 200 normal values: its own spread is sqrt(2 / 200), a tenth.
    assert found.spread**2 == pytest.approx(spread**2, rel=0.4)
    assert found.pairs == 200
    assert found.relative
    assert found.half_width == pytest.approx(1.96 * spread / math.sqrt(200), rel=0.4)


def test_a_machine_without_noise_has_a_floor_of_nothing() -> None:
    (found,) = noise_of(twins(8, lambda _: 0.0), "twin-a", CONFIDENCE)
    # exp and log may differ in the last digit
    assert found.spread < 1e-12
    assert found.floor(6, CONFIDENCE) < 1e-12
    assert found.smallest_change(6, CONFIDENCE) < 1e-12
    assert not found.alarm
    assert noise(0.0).floor(4, CONFIDENCE) == math.inf
    assert noise(0.0).blocks_for_margin(0.01, CONFIDENCE) == 5


def test_heavy_tails_are_noise_too() -> None:
    def heavy(source: random.Random) -> float:
        return source.gauss(0, 0.01) + (0.3 if source.random() < 0.1 else 0.0)

    (found,) = noise_of(twins(60, heavy), "twin-a", CONFIDENCE)
    (quiet,) = noise_of(twins(60, gauss(0.01 * math.sqrt(2))), "twin-a", CONFIDENCE)
    assert found.floor(10, CONFIDENCE) > 3 * quiet.floor(10, CONFIDENCE)


def test_values_of_zero_are_compared_by_their_difference() -> None:
    found = [
        Measurement(("r", b), "linux", "w", name, "error_share", value, ("", "n"))
        for b in range(1, 9)
        for name, value in (("twin-a", 0.0), ("twin-b", 0.01 * (b % 2)))
    ]
    (noisy,) = noise_of(found, "twin-a", CONFIDENCE)
    assert not noisy.relative
    assert noisy.spread == pytest.approx(0.01 * math.sqrt(4 / 8))


def test_a_trial_without_a_partner_is_no_pair() -> None:
    found = [m for m in twins(9, gauss(0.02)) if m.block[1] > 1 or m.configuration == "twin-a"]
    assert noise_of(found, "twin-a", CONFIDENCE)[0].pairs == 8


def test_with_too_few_pairs_there_is_a_spread_and_no_interval() -> None:
    (found,) = noise_of(twins(4, gauss(0.02)), "twin-a", CONFIDENCE)
    assert found.spread > 0
    assert (found.low, found.high, found.half_width) == (None, None, None)


@pytest.mark.parametrize(("blocks", "spread"), [(8, 0.02), (16, 0.05)])
def test_a_margin_at_the_floor_is_seldom_shown_and_one_of_twice_the_floor_is(
    blocks: int, spread: float
) -> None:
    floor = noise(spread).floor(blocks, CONFIDENCE)
    shares = {
        factor: _share_equivalent(blocks, spread, floor * factor) for factor in (0.4, 1.0, 2.2)
    }
    assert shares[0.4] < 0.05, shares
    assert 0.05 < shares[1.0] < 0.4, shares
    assert shares[2.2] > 0.9, shares


def _share_equivalent(blocks: int, spread: float, margin: float) -> float:
    """How often equals are found equal within a margin, by the comparison's own test."""
    source, runs = random.Random(blocks), 300
    low, high = math.log1p(-margin), math.log1p(margin)
    shown = sum(
        equivalent([source.gauss(0, spread) for _ in range(blocks)], low, high, CONFIDENCE)
        for _ in range(runs)
    )
    return shown / runs


@pytest.mark.parametrize("blocks", [6, 8, 24, 60])
def test_the_smallest_change_is_shown_in_four_of_five_runs(blocks: int) -> None:
    change = noise(0.03).smallest_change(blocks, CONFIDENCE)
    source, runs = random.Random(blocks), 400
    shown = 0
    for _ in range(runs):
        differences = [math.log1p(change) + source.gauss(0, 0.03) for _ in range(blocks)]
        shown += paired_shift(differences, CONFIDENCE).p <= 1 - CONFIDENCE
    # The share has a spread of 2 %, and so has the simulated shift.
    assert 0.72 < shown / runs < 0.88


def test_fewer_blocks_than_any_verdict_needs_show_nothing() -> None:
    assert noise(0.01).smallest_change(5, CONFIDENCE) == math.inf
    assert noise(0.01).floor(4, CONFIDENCE) == math.inf
    assert noise(0.01).smallest_change(6, CONFIDENCE, contrasts=2) == math.inf


def test_false_alarms_are_as_rare_as_they_are_said_to_be() -> None:
    runs = 300
    alarms = sum(
        noise_of(twins(10, gauss(0.05), seed), "twin-a", CONFIDENCE)[0].alarm
        for seed in range(runs)
    )
    # At most 5 %: of 300 that is 15, and four spreads (sqrt(300 × 0.05 × 0.95) = 3.8) more are 30.
    assert alarms <= 30


def test_equals_that_differ_by_a_lot_are_an_alarm() -> None:
    shifted = [
        m if m.configuration == "twin-a" or m.value is None
        else Measurement(m.block, "linux", "equals", "twin-b", m.metric, m.value * 1.5, m.place)
        for m in twins(10, gauss(0.01))
    ]  # fmt: skip
    assert noise_of(shifted, "twin-a", CONFIDENCE)[0].alarm


@given(st.floats(1e-4, 0.5), st.integers(5, 60))
def test_more_blocks_and_less_noise_lower_the_floor(spread: float, blocks: int) -> None:
    floor = noise(spread).floor(blocks, CONFIDENCE)
    assert noise(spread).floor(4 * blocks, CONFIDENCE) < floor
    assert noise(spread / 2).floor(blocks, CONFIDENCE) < floor
    assert noise(spread).floor(blocks, CONFIDENCE, 0.5) == pytest.approx(
        noise(spread / 2).floor(blocks, CONFIDENCE)
    )


@given(st.floats(0.001, 0.2), st.floats(0.001, 0.5))
def test_the_blocks_that_a_margin_needs_are_the_fewest(spread: float, margin: float) -> None:
    enough = noise(spread).blocks_for_margin(margin, CONFIDENCE)
    if enough is None:
        assert noise(spread).floor(PAIRS_MAX - 1, CONFIDENCE) >= margin
    else:
        assert noise(spread).floor(enough, CONFIDENCE) < margin
        assert enough == 2 or noise(spread).floor(enough - 1, CONFIDENCE) >= margin


def test_the_expected_width_of_an_interval_is_that_of_the_comparisons_intervals() -> None:
    source, runs = random.Random(3), 300
    for pairs in (6, 15, 40):
        total = 0.0
        for _ in range(runs):
            shift = paired_shift([source.gauss(0, 1) for _ in range(pairs)], 0.9).shift
            total += (shift.high - shift.low) / 2
        assert expected_half_width(pairs, 0.9) == pytest.approx(total / runs, rel=0.12)
    # The formula for many pairs takes over where counting ends.
    assert expected_half_width(51, 0.9) == pytest.approx(expected_half_width(50, 0.9), rel=0.06)
