"""Markdown that shows what others wrote as it is: no name becomes markup, a link or a mention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_SPECIAL: Final = re.compile(r"[\\`*|~#]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")
_ENTITY: Final = re.compile(r"[&<>@]")
_LINK: Final = re.compile(r"(?i)\b(https?|ftp)://|\bwww\.")


def markdown_text(text: str) -> str:
    """The text in one line, with everything escaped that Markdown or GitHub would act on."""
    escaped = _SPECIAL.sub(lambda found: f"\\{found[0]}", _one_line(text))
    # A zero-width space ends what GitHub would make a link of.
    plain = _LINK.sub(lambda f: f"{f[0][:-1]}\N{ZERO WIDTH SPACE}{f[0][-1]}", escaped)
    return _with_entities(plain)


def html_text(text: str) -> str:
    """The same for a line of HTML inside Markdown."""
    return _with_entities(_one_line(text))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _with_entities(text: str) -> str:
    return _ENTITY.sub(lambda found: _ENTITIES[found[0]], text)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table: words in the first and last column, numbers between them to the right.

    Cells are Markdown already.
    """
    yield f"| {' | '.join(heads)} |".replace("|  |", "| |", 1)
    yield f"|---|{'---:|' * (len(heads) - 2)}---|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
