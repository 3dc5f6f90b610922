"""A machine's noise floor: what is found between two names of one and the same configuration.

In such an A/A comparison every difference is noise. Its spread says how small a change so many
blocks can show, how narrow a margin they can show something to be within, and how often a verdict
is a false alarm [Abedi & Brecht 2017].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from results.comparing.compare import Measurement, PairKey, Row, Settings, compare
from results.metrics import METRICS
from results.statistics.paired import PAIRS_MAX, detectable_shift, expected_half_width

POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """One metric of an A/A comparison.

    `spread` is the root mean square of the paired differences, whose truth is zero: of log ratios
    when `relative`, else in the metric's unit. `low` and `high` bound the change that was found,
    None when the pairs were too few.
    `alarm`: the comparison took the two for different.
    """

    metric: str
    relative: bool
    pairs: int
    value: float
    spread: float
    low: float | None
    high: float | None
    p: float
    alarm: bool

    @property
    def half_width(self) -> float | None:
        """Half of the interval that was found."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def floor(self, blocks: int, confidence: float, shrink: float = 1.0) -> float:
        """The narrowest margin within which so many blocks can show that nothing changed.

        An interval of the equivalence test around no change at all is that wide on average: a
        margin as narrow is shown in one or two runs of ten, one twice as wide in nine.
        `shrink` scales the spread.
        """
        inner = 1 - 2 * (1 - confidence)
        return self._as_change(expected_half_width(blocks, inner), shrink)

    def smallest_change(self, blocks: int, confidence: float, contrasts: int = 1) -> float:
        """The smallest change that so many blocks show in four of five runs; infinite if none.

        Corrected for so many contrasts that decide together.
        """
        corrected = 1 - (1 - confidence) / max(1, contrasts)
        return self._as_change(detectable_shift(blocks, corrected, POWER))

    def blocks_for_margin(
        self, margin: float, confidence: float, shrink: float = 1.0
    ) -> int | None:
        """About the fewest blocks whose floor lies below a margin; None: more than PAIRS_MAX."""
        wanted = math.log1p(margin) if self.relative else margin
        # The half width of many pairs is at most 1.7 spreads by their root: begin near there.
        blocks = min(PAIRS_MAX, max(2, math.ceil((1.7 * self.spread * shrink / wanted) ** 2)))
        while blocks < PAIRS_MAX and self.floor(blocks, confidence, shrink) >= margin:
            blocks += 1
        while blocks > 2 and self.floor(blocks - 1, confidence, shrink) < margin:
            blocks -= 1
        return blocks if blocks < PAIRS_MAX else None

    def _as_change(self, spreads: float, shrink: float = 1.0) -> float:
        """So many spreads as a change, a fraction where `relative`."""
        if not math.isfinite(spreads):
            return spreads
        difference = spreads * self.spread * shrink
        if not self.relative:
            return difference
        return math.expm1(difference) if difference < 700 else math.inf


def noise_of(measurements: Iterable[Measurement], baseline: str, confidence: float) -> list[Noise]:
    """The noise of every metric that can be compared, in the order of the tables.

    The measurements are those of two names of one configuration; one of them is the baseline.
    """
    found = list(measurements)
    tables = compare(found, Settings(baseline=baseline, confidence=confidence, primary=()))
    spreads = _spreads(found, baseline)
    rows = [row for table in tables for row in table.rows if row.change and row.pairs > 1]
    return [_noise(row, spreads[row.metric.name], 1 - confidence) for row in rows]


def _noise(row: Row, differences: list[float], alpha: float) -> Noise:
    assert row.change and row.baseline is not None and row.p is not None
    spread = math.sqrt(sum(d * d for d in differences) / len(differences))
    return Noise(
        metric=row.metric.name,
        relative=row.relative,
        pairs=row.pairs,
        value=row.baseline,
        spread=spread,
        low=row.change.low if math.isfinite(row.change.low) else None,
        high=row.change.high if math.isfinite(row.change.high) else None,
        p=row.p,
        alarm=row.metric.direction != "none" and row.p <= alpha,
    )


def _spreads(measurements: list[Measurement], baseline: str) -> dict[str, list[float]]:
    """Metric → its paired differences, as the comparison takes them."""
    values: dict[str, dict[PairKey, dict[bool, float]]] = defaultdict(lambda: defaultdict(dict))
    for m in measurements:
        if m.value is not None:
            values[m.metric][m.pair][m.configuration == baseline] = m.value
    found = {}
    for metric in METRICS:
        pairs = [(p[True], p[False]) for p in values[metric].values() if len(p) == 2]
        relative = all(a > 0 and b > 0 for a, b in pairs)
        found[metric] = [math.log(b / a) if relative else b - a for a, b in pairs]
    return found
