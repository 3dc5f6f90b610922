"""YAML as the user wrote it: plain data, and the line and column of every key and value.

Only what a matrix needs: mappings, lists, text, whole numbers, true, false and null. A number with
a fraction stays the text that it was (`go: 1.20` is not 1.2), and `off` and `on` are words, as in
YAML 1.2. Anchors and aliases are refused: a few lines of them can mean gigabytes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from results.errors import UserError

FILE_BYTES_MAX: Final = 8 * 2**20
DEPTH_MAX: Final = 32
Path_ = tuple[str | int, ...]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"0|-?[1-9][0-9]{0,18}")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "~": None, "": None}
_PLAIN: Final = (None, "")
"""The style of a scalar without quotes: the pure loader says None, the C loader an empty text."""


class MatrixError(UserError):
    """Everything that is wrong with a matrix, one line each: `file:line:column: what and why`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the file, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Source:
    """A parsed file. `places` has the place of the value at a path, `keys` that of its key."""

    path: Path
    data: Any = None
    places: dict[Path_, Place] = field(default_factory=dict)
    keys: dict[Path_, Place] = field(default_factory=dict)

    def place(self, path: Path_) -> Place:
        """Where the value at a path is, or the nearest thing around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))

    def key_place(self, path: Path_) -> Place:
        """Where the key at a path is."""
        return self.keys.get(path) or self.place(path)

    def error(self, place: Place, text: str) -> MatrixError:
        """One error, in the form that editors understand."""
        return MatrixError(self.line(place, text))

    def line(self, place: Place, text: str) -> str:
        """The text of one error."""
        return f"{self.path}:{place.line}:{place.column}: {text}"


def read_source(path: Path) -> Source:
    """Read and parse a file. Raises MatrixError with the place of what can't be understood."""
    source = Source(path)
    text = _read_text(source)
    try:
        _check_events(source, text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(source, text, error) from error
    except yaml.YAMLError as error:
        raise source.error(Place(1, 1), f"not YAML: {error}") from error
    if node is None:
        raise source.error(Place(1, 1), "the file is empty; `bench init` writes a first matrix")
    source.data = _construct(source, node, ())
    if not isinstance(source.data, dict):
        raise source.error(Place(1, 1), "a matrix is a mapping of keys such as service and trials")
    return source


def _read_text(source: Source) -> str:
    try:
        with source.path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(_not_opened(source.path, error)) from error
    if len(data) > FILE_BYTES_MAX:
        raise UserError(f"{source.path} has more than the {FILE_BYTES_MAX:,} bytes of a matrix")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(data[: error.start].count(b"\n") + 1, 1)
        raise source.error(place, "not UTF-8 text: is this the right file?") from error
    wrong = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if wrong:
        before = text[: wrong.start()]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise source.error(
            place,
            f"the character U+{ord(wrong[0]):04X} can't be in a matrix: is it the right file?",
        )
    return text


def _not_opened(path: Path, error: OSError) -> str:
    """Why a matrix can't be read, and which file was perhaps meant."""
    if isinstance(error, IsADirectoryError):
        inside = sorted(p.name for p in path.glob("*.y*ml"))
        return f"{path} is a folder; name the matrix in it" + (
            f", such as {path / inside[0]}" if inside else ""
        )
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 1)
        hint = (
            f"did you mean {path.parent / near[0]}?" if near else "`bench init` writes a first one"
        )
        return f"there is no file {path}; {hint}"
    return f"{path}: {error.strerror}"


def _check_events(source: Source, text: str) -> None:
    """Refuse aliases and deep nesting before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise source.error(
                _place(event.start_mark), f"aliases (*{event.anchor}) are not allowed; write it out"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise source.error(_place(event.start_mark), "nested too deeply for a matrix")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(source: Source, text: str, error: yaml.MarkedYAMLError) -> MatrixError:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark else Place(1, 1)
    lines = text.splitlines()
    here = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())] or here[place.column - 1 :][:1] == "\t":
        return source.error(place, "YAML does not allow tabs for indentation; use spaces")
    return source.error(place, f"not YAML: {error.problem or error.context}")


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _construct(source: Source, node: yaml.Node, path: Path_) -> Any:
    source.places[path] = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(source, item, (*path, n)) for n, item in enumerate(node.value)]
    if "\0" in node.value:
        raise source.error(source.places[path], "text can't hold a NUL character")
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node)


def _mapping(source: Source, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _place(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode) or "\0" in key_node.value:
            raise source.error(place, "a key must be a word")
        key = key_node.value
        if key in found:
            first = source.keys[(*path, key)].line
            raise source.error(place, f"key {key!r} is there twice; the first is in line {first}")
        source.keys[(*path, key)] = place
        found[key] = _construct(source, value_node, (*path, key))
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    """Only plain words can be anything but text."""
    if node.style not in _PLAIN:
        return node.value
    if node.value in _WORDS:
        return _WORDS[node.value]
    return int(node.value) if _INT.fullmatch(node.value) else node.value
