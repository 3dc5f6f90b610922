"""Which trials were measured at one level of a rate, a live heap or a heap's goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from results.forecast.intervals import Fold

APART: Final = 1.1
"""A level ends where the next value is farther up than this: arrivals and heaps scatter."""

SLACK: Final = 1.03
"""Twice 400/s is 800/s, also where only 395/s arrived."""

LEVELS_AT_LEAST: Final = 3
"""With one of them left out, two still tell a line."""

BEYOND_MAX: Final = 2.0
"""No forecast lies farther out than by this factor of the lowest or the highest measured."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something that was varied and that is asked for: the value of each row, and the asked one.

    `show` writes a value for a person.
    """

    name: str
    values: tuple[float, ...]
    asked: float
    show: Callable[[float], str]

    @property
    def lowest(self) -> float:
        """The lowest level that was measured."""
        return self.level_values[0]

    @property
    def highest(self) -> float:
        """The highest level that was measured."""
        return self.level_values[-1]

    @property
    def levels(self) -> list[tuple[int, ...]]:
        """The rows of each level, ascending."""
        return levels_of(self.values)

    @property
    def level_values(self) -> list[float]:
        """The median of each level, ascending."""
        return [median(self.values[index] for index in level) for level in self.levels]

    @property
    def beyond(self) -> float:
        """By which factor the asked value lies outside of what was measured; 1 for inside."""
        if self.lowest <= self.asked <= self.highest:
            return 1.0
        ends = (self.asked / self.highest, self.lowest / self.asked)
        return max(ends)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest that may be asked for."""
        return self.lowest / BEYOND_MAX, self.highest * BEYOND_MAX

    @property
    def is_too_far(self) -> bool:
        """Whether more than the bounds is asked for, but for a little slack."""
        low, high = self.bounds
        return not low / SLACK <= self.asked <= high * SLACK

    @property
    def is_measured(self) -> bool:
        """Whether the asked value is one that was measured."""
        return any(self.asked / APART < v < self.asked * APART for v in self.level_values)

    def of(self, rows: Sequence[int]) -> Dimension:
        """The same of some rows alone."""
        return Dimension(self.name, tuple(self.values[i] for i in rows), self.asked, self.show)


def levels_of(values: Sequence[float]) -> list[tuple[int, ...]]:
    """The places of the values of each level, ascending."""
    found: list[list[int]] = []
    before = 0.0
    for index in sorted(range(len(values)), key=lambda i: (values[i], i)):
        if not found or values[index] > before * APART:
            found.append([])
        found[-1].append(index)
        before = values[index]
    return [tuple(level) for level in found]


def folds_of(dimensions: Sequence[Dimension], rows: int) -> list[Fold]:
    """What to leave out in turn: each level of each dimension that has enough of them.

    Where none has, every row for itself.
    """
    by_level = [
        Fold(dimension.name, value, level)
        for dimension in dimensions
        if len(dimension.levels) >= LEVELS_AT_LEAST
        for value, level in zip(dimension.level_values, dimension.levels, strict=True)
    ]
    return by_level or [Fold("", 0.0, (index,)) for index in range(rows)]
