"""What is wrong with a file, one sentence for each place, in the order of the file."""

from __future__ import annotations

import difflib

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.matrix import values
from orchestrator.matrix.model import MatrixDocument, known_keys
from orchestrator.matrix.source import MatrixError, Path_, Source

ERRORS_MAX = 20
_RULES = {
    "missing": "is missing",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must not be empty",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
}
FoundAt = tuple[Path_, str, bool]
"""Where, what is wrong, and whether it is the key rather than its value."""

_NAME_RULE = (
    "use a-z, 0-9, dots, dashes and underscores, 42 of them at most, a letter or digit at both ends"
)


def joined(source: Source, found: list[FoundAt]) -> MatrixError:
    """All errors in the order of the file."""
    placed = [
        (source.key_place(path) if at_key else source.place(path), text)
        for path, text, at_key in found
    ]
    lines = [
        source.line(place, text)
        for place, text in sorted(placed, key=lambda p: (p[0].line, p[0].column))
    ]
    lines = list(dict.fromkeys(lines))
    if len(lines) > ERRORS_MAX:
        lines = [*lines[:ERRORS_MAX], f"… and {len(lines) - ERRORS_MAX} more"]
    return MatrixError("\n".join(lines))


def validation_errors(
    error: ValidationError, document: type[BaseModel] = MatrixDocument
) -> list[FoundAt]:
    """What pydantic found wrong in a document of this type, in our words."""
    found: list[FoundAt] = []
    for detail in error.errors(include_url=False):
        path: Path_ = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] == "extra_forbidden":
            found.append((path, _unknown_key(path, document), True))
        else:
            found.append((path, _sentence(detail), "[key]" in detail["loc"]))
    return found


def _unknown_key(path: Path_, document: type[BaseModel]) -> str:
    key, known = str(path[-1]), known_keys(path[:-1], document)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _sentence(detail: ErrorDetails) -> str:
    """Pydantic's finding in our words."""
    kind, name = detail["type"], _name_of(detail["loc"])
    given = values.shortened(detail.get("input"))
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{given} can't be a name: {_NAME_RULE}"
    if kind == "literal_error":
        return f"{name} must be {detail['ctx']['expected']}; {given} is there"
    rule = _RULES.get(kind, detail["msg"].lower()).format(**detail.get("ctx", {}))
    return f"{name} {rule}" + (f"; {given} is there" if kind != "missing" else "")


def _name_of(location: tuple[int | str, ...]) -> str:
    """`'trials'`, or `item 3 of 'arguments'`."""
    if not location:
        return "the file"
    if isinstance(location[-1], int):
        return f"item {location[-1] + 1} of {_name_of(location[:-1])}"
    return repr(location[-1])
