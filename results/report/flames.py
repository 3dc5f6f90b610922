"""Profiles as pictures of nested calls: what each call holds, beside the baseline's.

A frame is as wide as what it and its calls hold; all configurations of a figure share one scale, so
a narrower picture is a saving. The frames stand outermost on top and by name from left to right,
the same call at the same place in each picture (B. Gregg, The Flame Graph, ACM Queue 14, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from results.metrics import format_bytes, format_time

NARROWEST: Final = 0.002
"""A frame of less than this share of the widest picture is not drawn."""
ROWS_MAX: Final = 48
"""Calls deeper than this are part of the last frame above them."""
_STRENGTHS: Final = (0.05, 0.25, 0.5)
"""Where a change gets a stronger colour: a half is also twice as much."""

Calls = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One call. `left` and `width` are percent of the picture, `row` counts from the top.

    `path` is the same number for the same call in all pictures of a figure, 0 for all of them
    together. `mark` is more1 … more3, less1 … less3, new or an empty word: colour by change.
    """

    label: str
    told: str
    row: int
    left: float
    width: float
    path: int
    mark: str


@dataclass(frozen=True, slots=True)
class Flame:
    """The picture of one configuration; `left_out` frames are too narrow to be drawn."""

    configuration: str
    description: str
    frames: tuple[Frame, ...]
    rows: int
    left_out: int


@dataclass(slots=True)
class _Node:
    value: float = 0.0
    calls: dict[str, _Node] = field(default_factory=dict)


def flames(
    rows: Sequence[dict[str, Any]], configurations: Sequence[str], baseline: str
) -> list[Flame]:
    """Pictures of one kind of profile: `rows` of `profile_stacks.sql`, one quantity only."""
    known = {row["configuration"] for row in rows}
    trees = {
        name: _tree(row for row in rows if row["configuration"] == name)
        for name in configurations
        if name in known
    }
    widest = max((tree.value for tree in trees.values()), default=0.0)
    if widest <= 0:
        return []
    unit = str(rows[0]["unit"])
    paths: dict[Calls, int] = {(): 0}
    base = dict(_values(trees[baseline])) if baseline in trees else {}
    return [
        _flame(name, tree, _Scale(widest, unit, {} if name == baseline else base, baseline), paths)
        for name, tree in trees.items()
    ]


@dataclass(frozen=True, slots=True)
class _Scale:
    """What all frames of a picture are measured by."""

    widest: float
    unit: str
    base: dict[Calls, float]
    """What the baseline holds by path; empty for the baseline itself."""
    baseline: str


def _tree(rows: Iterable[dict[str, Any]]) -> _Node:
    root = _Node()
    for row in rows:
        node = root
        node.value += row["value"]
        for name in row["calls"][:ROWS_MAX]:
            node = node.calls.setdefault(name, _Node())
            node.value += row["value"]
    return root


def _values(node: _Node, path: Calls = ()) -> Iterator[tuple[Calls, float]]:
    yield path, node.value
    for name, called in node.calls.items():
        yield from _values(called, (*path, name))


def _flame(name: str, tree: _Node, scale: _Scale, paths: dict[Calls, int]) -> Flame:
    drawn: list[Frame] = []
    left_out = _place(tree, (), 0.0, scale, paths, drawn)
    first, *others = drawn
    total = f"{name}: {amount(scale.unit, tree.value)}"
    told = f"{name}, all: {first.told.partition(': ')[2]}"
    whole = Frame(total, told, first.row, first.left, first.width, first.path, first.mark)
    rows = 1 + max(frame.row for frame in drawn)
    description = f"What calls hold in {total}; a frame is as wide as its share"
    return Flame(name, description, (whole, *others), rows, left_out)


def _place(
    node: _Node,
    path: Calls,
    left: float,
    scale: _Scale,
    paths: dict[Calls, int],
    drawn: list[Frame],
) -> int:
    """Draw a node and what it calls from `left` on; returns how many frames are too narrow."""
    width = node.value / scale.widest
    if path and width < NARROWEST:
        return sum(1 for _ in _values(node))
    number = paths.setdefault(path, len(paths))
    name = path[-1] if path else ""
    drawn.append(
        Frame(
            label=short_name(name),
            told=f"{name}: {_told(node.value, scale, path)}",
            row=len(path),
            left=round(left * 100, 3),
            width=round(width * 100, 3),
            path=number,
            mark=_mark(node.value, scale, path),
        )
    )
    left_out = 0
    for called in sorted(node.calls):
        left_out += _place(node.calls[called], (*path, called), left, scale, paths, drawn)
        left += node.calls[called].value / scale.widest
    return left_out


def short_name(function: str) -> str:
    """Without the path of its package: `http.(*conn).serve` of `net/http.(*conn).serve`."""
    bracket = function.find("[")
    end = bracket if bracket >= 0 else len(function)
    return function[function.rfind("/", 0, end) + 1 :]


def _told(value: float, scale: _Scale, path: Calls) -> str:
    shown = amount(scale.unit, value)
    if not scale.base:
        return shown
    before = scale.base.get(path, 0.0)
    if not before:
        return f"{shown}, none in {scale.baseline}"
    change = value - before
    word = "more" if change > 0 else "less"
    share = f"{abs(change) / before * 100:.0f} %"
    same = f"as in {scale.baseline}"
    than = f"{amount(scale.unit, abs(change))} ({share}) {word} than {scale.baseline}"
    return f"{shown}, {than if abs(change) >= before * 0.005 else same}"


def _mark(value: float, scale: _Scale, path: Calls) -> str:
    if not scale.base:
        return ""
    before = scale.base.get(path, 0.0)
    if not before:
        return "new"
    share = value / before - 1
    # A half less weighs as much as twice as much.
    size = 1 - math.exp(-abs(math.log1p(share))) if share > -1 else 1.0
    step = sum(size >= least for least in _STRENGTHS)
    return f"{'more' if share > 0 else 'less'}{step}" if step else ""


def amount(unit: str, value: float) -> str:
    """A quantity of a profile for a person: bytes, nanoseconds or a count."""
    if unit == "bytes":
        return format_bytes(value)
    if unit == "nanoseconds":
        return format_time(value)
    return f"{value:,.0f}" if value >= 9.95 or value == int(value) else f"{value:.1f}"
