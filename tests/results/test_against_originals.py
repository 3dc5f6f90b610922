"""The same samples through the programs and the tables that our statistics follow.

What each of them says was written down once, by that program itself:

- R 4.2.2, `wilcox.test(d, exact = TRUE, conf.int = TRUE)`: estimate, interval and p of paired
  differences without ties; `exact = FALSE, correct = FALSE` where pairs are many; `p.adjust`
- R's package coin 1.4-2, `wilcoxsign_test(distribution = "exact", zero.method = "Pratt")`, and
  exactRankTests 0.8-35, `wilcox.exact`: p with ties and zeros
- golang.org/x/perf at 712aea8b4705 (benchstat), `AssumeNothing.Summary`: which values bound the
  interval of a median
- R's `qsignrank`: the critical values of the signed-rank test, as in Wilcoxon's table (M. Hollander
  and D. Wolfe, Nonparametric Statistical Methods, table A.4)
"""

from __future__ import annotations

import math

import pytest

from results.statistics.paired import holm, median_interval, paired_shift

UNTIED = {
    "six": (-0.612, -0.655, -0.701, -0.598, -0.663, -0.640),
    "eight": (0.031, -0.012, 0.045, 0.022, -0.004, 0.051, 0.017, 0.038),
    "ten": (-0.21, 0.34, 0.11, -0.05, 0.48, 0.27, -0.13, 0.39, 0.02, 0.18),
    "twelve": (1.2, -0.7, 3.4, 2.2, -1.9, 0.3, 4.1, -2.6, 0.9, 1.7, 2.9, -0.2),
    "twenty": (
        12.5, -3.1, 7.7, 0.4, -9.2, 15.8, 4.6, -1.3, 8.9, 2.7,
        -6.5, 11.4, 5.2, -0.8, 9.6, 3.3, -4.9, 13.1, 6.1, 1.9,
    ),
}  # fmt: skip

# Sample, confidence: estimate, low, high, p.
R_SAYS = {
    ("six", 0.90): (-0.6475, -0.678, -0.612, 0.03125),
    ("six", 0.95): (-0.6475, -0.701, -0.598, 0.03125),
    ("eight", 0.90): (0.02375, 0.0065, 0.041, 0.0390625),
    ("eight", 0.95): (0.02375, 0.0025, 0.0445, 0.0390625),
    ("eight", 0.99): (0.02375, -0.012, 0.051, 0.0390625),
    ("ten", 0.90): (0.145, -0.015, 0.295, 0.130859375),
    ("ten", 0.95): (0.145, -0.05, 0.33, 0.130859375),
    ("ten", 0.99): (0.145, -0.13, 0.39, 0.130859375),
    ("twelve", 0.90): (1, -0.2, 2.15, 0.1513671875),
    ("twelve", 0.95): (1, -0.45, 2.3, 0.1513671875),
    ("twelve", 0.99): (1, -1.05, 2.9, 0.1513671875),
    ("twenty", 0.90): (3.975, 1.1, 6.75, 0.0295753479004),
    ("twenty", 0.95): (3.975, 0.55, 7.4, 0.0295753479004),
    ("twenty", 0.99): (3.975, -0.8, 8.65, 0.0295753479004),
}

TIED = {
    "ties": ((1, 2, 2, -1, 3, 3, -2, 4, 1, 5), 0.0390625),
    "zeros": ((0, 1, 0, 2, -1, 3, 4, 0, 5, 2), 0.046875),
    "steps": ((-0.5, -0.5, -0.5, 0.5, -0.5, -0.5, -0.5, -0.5), 0.0703125),
    "many of both": (
        (0, 0, 1, 1, 1, -1, 2, 2, -2, 3, 3, -3, 4, 0, 5, 1, -4, 6, 2, 7),
        0.0396728515625,
    ),
}
"""Differences, and p by coin. exactRankTests says the same where there are no zeros."""

# Pairs: the greatest statistic that is significant at 5 % and at 1 %, two-sided.
CRITICAL = {
    6: (0, None), 7: (2, None), 8: (3, 0), 9: (5, 1), 10: (8, 3), 11: (10, 5), 12: (13, 7),
    13: (17, 9), 14: (21, 12), 15: (25, 15), 16: (29, 19), 17: (34, 23), 18: (40, 27),
    19: (46, 32), 20: (52, 37), 25: (89, 68), 30: (137, 109),
}  # fmt: skip

# Values: the places of both bounds, by benchstat, at 95 %.
BENCHSTAT = {
    6: (1, 6), 7: (1, 7), 8: (1, 7), 9: (2, 8), 10: (2, 9), 11: (2, 9), 12: (3, 10), 13: (3, 11),
    14: (3, 11), 15: (4, 12), 16: (4, 12), 17: (5, 13), 18: (5, 14), 19: (5, 14), 20: (6, 15),
    21: (6, 16), 22: (6, 16), 23: (7, 17), 24: (8, 18), 25: (8, 18), 26: (8, 19), 27: (8, 19),
    28: (9, 20), 29: (9, 20), 30: (10, 21), 31: (10, 22), 32: (10, 22), 33: (11, 23), 34: (11, 23),
    35: (12, 24), 36: (12, 24), 37: (13, 25), 38: (13, 26), 39: (13, 26), 40: (14, 27),
}  # fmt: skip


@pytest.mark.parametrize(("sample", "confidence"), R_SAYS)
def test_estimate_interval_and_p_are_those_of_r(sample: str, confidence: float) -> None:
    found = paired_shift(UNTIED[sample], confidence)
    shift = found.shift
    assert (shift.estimate, shift.low, shift.high, found.p) == pytest.approx(
        R_SAYS[sample, confidence], rel=1e-9
    )


def test_where_r_lowers_the_confidence_there_is_no_interval() -> None:
    """R gives the range of six values at 99 %, and says that it holds for 96.9 % only."""
    assert not paired_shift(UNTIED["six"], 0.99).bounds_hold


@pytest.mark.parametrize("name", TIED)
def test_p_with_ties_and_zeros_is_that_of_coin(name: str) -> None:
    values, p = TIED[name]
    assert paired_shift(values, 0.95).p == pytest.approx(p, rel=1e-12)


def test_many_pairs_have_rs_normal_p_and_nearly_its_interval() -> None:
    values = [
        *UNTIED["twenty"],
        *(2 * v + 0.013 for v in UNTIED["twelve"]),
        *(7 * v + 0.0071 for v in UNTIED["ten"]),
        *(111 * v + 0.00013 for v in UNTIED["eight"]),
        *(3.7 * v for v in UNTIED["six"]),
    ]
    found = paired_shift(values, 0.95)
    assert len(values) == 56
    assert found.p == pytest.approx(0.00527531735991, rel=1e-9)
    # R searches for the bounds' roots where the statistic is a step: to a ten thousandth.
    want = (1.82495016778, 0.527644807996, 3.18400897112)
    shift = found.shift
    assert (shift.estimate, shift.low, shift.high) == pytest.approx(want, abs=0.03)


def test_holms_correction_is_rs() -> None:
    adjusted = holm([0.01, 0.02, 0.02, 0.3, 0.004, 0.9])
    assert adjusted == pytest.approx([0.05, 0.08, 0.08, 0.6, 0.024, 0.9])


@pytest.mark.parametrize("pairs", CRITICAL)
def test_critical_values_of_the_signed_rank_test_are_the_published_ones(pairs: int) -> None:
    for level, critical in zip((0.05, 0.01), CRITICAL[pairs], strict=True):
        if critical is None:
            assert paired_shift(_with_statistic(pairs, 0), 0.95).p > level
        else:
            assert paired_shift(_with_statistic(pairs, critical), 0.95).p <= level
            assert paired_shift(_with_statistic(pairs, critical + 1), 0.95).p > level


def _with_statistic(pairs: int, statistic: int) -> list[float]:
    """Differences whose negative ones have ranks of this sum."""
    values, left = [], statistic
    for rank in range(pairs, 0, -1):
        below = rank <= left
        left -= rank if below else 0
        values.append(float(-rank if below else rank))
    assert left == 0
    return values


@pytest.mark.parametrize("count", BENCHSTAT)
def test_a_medians_interval_is_benchstats_wherever_that_is_symmetric(count: int) -> None:
    """Where one place less on one side alone still covers 95 %, benchstat takes that side in; ours
    leaves out as much on either side.
    """
    found = median_interval([float(n) for n in range(1, count + 1)], 0.95)
    low, high = BENCHSTAT[count]
    if low + high == count + 1:
        assert (found.low, found.high) == (low, high)
    else:
        assert (low - found.low) + (found.high - high) == 1
        assert found.low <= low
        assert high <= found.high


def test_fewer_than_six_values_bound_no_median_for_benchstat_and_for_us() -> None:
    for count in range(2, 6):
        found = median_interval([float(n) for n in range(1, count + 1)], 0.95)
        assert not math.isfinite(found.high - found.low)
