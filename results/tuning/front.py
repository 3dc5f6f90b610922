"""Which points are worth having: none that another one beats in everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final, TypeVar

Point = tuple[float, ...]
T = TypeVar("T")

SLACK: Final = (0.02, 0.20, 0.20)
"""By how much a single short trial may be off: memory, p99, GC CPU, as fractions."""

NEAR: Final = 0.03
"""Two settings whose memory is closer than this are one place of the front."""


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is nowhere greater than `b`, and somewhere less."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def front(items: Iterable[T], point: Callable[[T], Point | None]) -> list[T]:
    """The items that none dominates, by their points in ascending order; each point once."""
    known = sorted(((p, n, item) for n, item in enumerate(items) if (p := point(item))), key=_key)
    found: list[tuple[Point, T]] = []
    for own, _, item in known:
        if not any(dominates(other, own) or other == own for other, _ in found):
            found.append((own, item))
    return [item for _, item in found]


def _key(entry: tuple[Point, int, object]) -> tuple[Point, int]:
    """In this order nothing is dominated by what comes later."""
    return entry[0], entry[1]


def promising(
    items: Sequence[T], point: Callable[[T], Point | None], slack: Sequence[float] = SLACK
) -> list[T]:
    """The items that no other one beats by more than the slack everywhere, the least first."""
    known = sorted(((p, n, item) for n, item in enumerate(items) if (p := point(item))), key=_key)
    return [
        item
        for own, _, item in known
        if not any(dominates(_worsened(other, slack), own) for other, _, _ in known)
    ]


def _worsened(point: Point, slack: Sequence[float]) -> Point:
    return tuple(value * (1 + share) for value, share in zip(point, slack, strict=True))


def apart(items: Iterable[T], size: Callable[[T], float]) -> list[T]:
    """The items without those that are nearer than `NEAR` to one before them."""
    found: list[T] = []
    for item in items:
        if all(not 1 / (1 + NEAR) < size(item) / size(other) < 1 + NEAR for other in found):
            found.append(item)
    return found


def spread(items: Sequence[T], size: Callable[[T], float], count: int) -> list[T]:
    """So many of the items, apart from each other: the ends, then evenly between them.

    Items are in ascending order of `size`.
    """
    known = apart(items, size)
    if len(known) <= count:
        return known
    if count == 1:
        return known[:1]
    places = [round(n * (len(known) - 1) / (count - 1)) for n in range(count)]
    return [known[place] for place in dict.fromkeys(places)]


def smoothed(values: Sequence[float]) -> list[float]:
    """The median of each value and its two neighbours; at the ends the mean of two."""
    return [median(values[max(0, n - 1) : n + 2]) for n in range(len(values))]
