"""A shift of level in words: how much, and what differs between the runs on both of its sides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from results.metrics import Metric, format_value

if TYPE_CHECKING:
    from results.comparing.history import Change, Difference

_TEXT_MAX: Final = 60


def size_text(metric: Metric, change: Change, size: float) -> str:
    """A size or a bound of one: in percent, or in the metric's own unit."""
    if change.relative:
        return f"{size * 100:+.1f} %"
    return ("+" if size > 0 else "−") + format_value(metric, abs(size))


def bounds_text(metric: Metric, change: Change) -> str:
    """The interval of a shift's size; why there is none."""
    if change.bounds is None:
        return "needs more runs for an interval"
    return " … ".join(size_text(metric, change, bound) for bound in change.bounds)


def difference_text(difference: Difference) -> str:
    """One thing that was not the same before and after."""
    before, after = (_near(difference, text) for text in (difference.before, difference.after))
    return f"{difference.what} {before} → {after}"


def _near(difference: Difference, text: str) -> str:
    """A commit by its first digits, anything else cut where it grows too long."""
    if difference.what == "commit":
        text = re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", text)
    return (text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…") or "none"
