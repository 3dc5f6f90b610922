"""A number and its unit stay on one line."""

from __future__ import annotations

import re
from typing import Final

_UNIT: Final = re.compile(r"(\d) (%|pp|[KMG]iB|[mµn]?s)(?!\w)")


def glue(text: str) -> str:
    """The same text, with a space that does not break between a number and its unit."""
    return _UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", text)
