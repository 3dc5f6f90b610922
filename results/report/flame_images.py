"""Pictures of nested calls for an image, where no style sheet and no browser cuts words off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from results.report.colours import light_colours, mixed
from results.report.flames import Flame, Frame

ROW: Final = 19
_LETTER: Final = 6.1
"""About how wide a letter is, in the font and size of the template."""
_SHARES: Final = {
    "less1": 0.22, "less2": 0.45, "less3": 0.7, "more1": 0.25, "more2": 0.5, "more3": 0.8,
    "new": 0.65,
}  # fmt: skip
"""How strong a mark's colour is: as in style.css."""


@dataclass(frozen=True, slots=True)
class Box:
    """A frame in an image: place and size, colour, and as much of its name as fits."""

    x: float
    y: float
    width: float
    fill: str
    label: str


def boxes(flame: Flame, width: float) -> Iterator[Box]:
    """The frames of a picture that is `width` wide at most."""
    for frame in flame.frames:
        own = frame.width / 100 * width
        yield Box(
            x=round(frame.left / 100 * width, 1),
            y=frame.row * ROW,
            width=round(max(own - 1, 0.5), 1),
            fill=_fill(frame),
            label=_fitting(frame.label, own - 6),
        )


def _fill(frame: Frame) -> str:
    colours = light_colours()
    if not frame.mark:
        return colours["--frame"]
    strong = colours["--less" if frame.mark.startswith("less") else "--more"]
    return mixed(strong, _SHARES[frame.mark], colours["--frame"])


def _fitting(label: str, width: float) -> str:
    letters = int(width / _LETTER)
    if len(label) <= letters:
        return label
    return f"{label[: letters - 1]}…" if letters >= 4 else ""
