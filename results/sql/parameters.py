"""Values for `$name` in a query: from a command line, and held against what it asks for."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from results.errors import UserError

_NAMED: Final = re.compile(r"\s*\$?([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)


def read_parameters(given: Iterable[str]) -> dict[str, Any]:
    """`name=value`, several times, as values by name. Raises UserError for another form.

    A value that is JSON is what it says: `400`, `0.5`, `true`, `null`, `[1, 2]`, `"400"` (text).
    Anything else is text as it stands.
    """
    found: dict[str, Any] = {}
    for text in given:
        named = _NAMED.fullmatch(text)
        if not named:
            raise UserError(f"--param {text!r} is not name=value")
        name, value = named.groups()
        if name in found:
            raise UserError(f"--param {name} is given twice")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(text: str) -> Any:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(text)


def check_parameters(asked: Collection[str], given: Collection[str]) -> None:
    """Raise UserError unless exactly what the query asks for is given."""
    if numbered := sorted(name for name in asked if name.isdigit()):
        raise UserError(f"parameters have names here: write $name, not ? or ${numbered[0]}")
    if missing := sorted(set(asked) - set(given)):
        names = " and ".join(f"${name}" for name in missing)
        raise UserError(
            f"the query asks for {names}, which has no value; give one with "
            f"--param {missing[0]}=…, in Python with {missing[0]}=…"
        )
    for name in sorted(set(given) - set(asked)):
        near = difflib.get_close_matches(name, asked, 1) or sorted(asked)
        has = f"it has ${', $'.join(near)}" if near else "it has no parameter"
        raise UserError(f"the query does not ask for ${name}; {has}")
