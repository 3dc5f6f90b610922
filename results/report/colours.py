"""The colours of the page for charts, and in light for pictures that have no style sheet.

`style.css` holds them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, Final

AXIS: Final = {
    "labelColor": "var(--muted)",
    "titleColor": "var(--muted)",
    "titleFontWeight": "normal",
    "gridColor": "var(--line)",
    "domainColor": "var(--line)",
    "tickColor": "var(--line)",
}
"""What the axes of all charts look like, for Vega-Lite's `config`."""

_NAMED: Final = re.compile(r"var\((--[\w-]+)\)")


@cache
def light_colours() -> dict[str, str]:
    """Variables of the style sheet and their colours: `--c0` → `#7b8594`."""
    style = (resources.files("results.report") / "style.css").read_text(encoding="utf-8")
    root = style[style.index(":root {") : style.index("}")]
    return dict(re.findall(r"(--[\w-]+): (#\w+)", root))


def coloured(value: Any) -> Any:
    """The same specification or text with its variables filled in."""
    if isinstance(value, str):
        return _NAMED.sub(lambda found: light_colours()[found[1]], value)
    if isinstance(value, dict):
        return {key: coloured(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [coloured(inner) for inner in value]
    return value


def mixed(colour: str, share: float, other: str) -> str:
    """`share` of one colour and the rest of another, as CSS's color-mix in srgb."""
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def _channels(colour: str) -> tuple[int, ...]:
    digits = colour.removeprefix("#")
    whole = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    return tuple(int(whole[i : i + 2], 16) for i in (0, 2, 4))
