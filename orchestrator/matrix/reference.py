"""docs/matrix.md, made from the matrix's own types and their descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.matrix.matrix import matrix_json_schema
from workloads.shipped import matrix_path, shipped_scenarios

_INTRODUCTION = """\
# The matrix file

<!-- made by `make docs` from orchestrator/matrix/model.py; do not edit -->

One YAML file says what is measured: a service, the configurations to compare, the traffic, and how
often. `bench init` writes a first one for your own service, `bench plan matrix.yaml` checks it and
shows what would happen, and `bench schema` prints its JSON Schema for editors. This is the matrix
that `bench demo` runs:

```yaml
{demo}```

- Paths count from the matrix's own folder.
- Unknown keys are errors, and all errors are told at once, as `file:line:column: what and why`.
- Anchors, aliases and tabs for indentation are not allowed.
- Write Go versions in quotes (`"1.20"`), as an editor's YAML would make 1.2 of them.
"""

_VALUES = """\
## How values are written

| value | form | not allowed |
| --- | --- | --- |
| duration | `300ms`, `30s`, `5m`, `1m30s`, `2h` | without a unit, negative |
| rate | `400/s`, `90/m`, `1000/h` | without a unit, zero, negative |
| size | `512MiB`, `4GiB`, `2GB` | without a unit, zero |
| share | `2%` | 0% and less, 100% and more |
| Go version | `"1.22"` is the newest 1.22 there is, `"1.22.10"` exactly that | anything else |
| name | a-z, 0-9, dots, dashes, underscores; 42 at most | capitals, spaces |

### Variables of the Go runtime

They are checked by the runtime's own rules, because Go passes over most mistakes in silence.

| variable | form | what Go makes of mistakes |
| --- | --- | --- |
| `GOGC` | a whole number above 0, or `off` | `30%`, ` 30` and an empty value silently mean 100 |
| `GOMEMLIMIT` | `1280MiB`, `2GiB`, a number of bytes, or `off` | with `1280M` or `1.5GiB` the \
process dies at its start |
| `GOMAXPROCS` | a whole number above 0 | anything else is silently ignored |

`GOMEMLIMIT: 90%` is a share of `limits.memory_max`, worked out before the service starts.
`GODEBUG` may be set too; while `gc_trace` is true, `gctrace=1,scavtrace=1` is added to it. Flags of
the Java virtual machine are errors where the service is a Go program.

The environment of a service starts empty, but for `PATH`, `HOME`, `LANG`, `TZ`, `HEAPGATE_RUN` and
`HEAPGATE_PAD`. The last one makes the environment equally long in every configuration, because its
length alone can change a program's speed.
"""

_AXES = """\
## axes

Each axis is a setting of a configuration (`go`, `env.NAME`, `build.KEY` or `limits.KEY`) with a
list of values. Every combination becomes one configuration more: the baseline's settings with the
combination's on top, named after them.

```yaml
axes:
  env.GOGC: [30, 50]
  go: ["1.22", "1.23"]
  exclude: [{env.GOGC: 30, go: "1.22"}]    # combinations that have all of these are left out
  include: [{env.GOGC: off, env.GOMEMLIMIT: 1GiB}]
```

This adds `gogc-30.go-1.23`, `gogc-50.go-1.22`, `gogc-50.go-1.23` and `gogc-off.gomemlimit-1gib`.
"""

_BOUND_MAX = 2**32
"""Bounds beyond it tell a reader nothing."""


def matrix_reference() -> str:
    """The text of docs/matrix.md."""
    schema = matrix_json_schema()
    demo = matrix_path("demo").read_text(encoding="utf-8")
    parts = [
        _INTRODUCTION.replace("{demo}", demo),
        _VALUES,
        *_sections(schema, schema["$defs"]),
        _AXES,
        _scenarios(),
    ]
    return "\n".join(parts)


def _sections(schema: dict[str, Any], types: dict[str, Any]) -> Iterator[str]:
    """The whole file first, then each section below it, named by its path."""
    yield "## Keys of the file\n\n" + _table(schema, types)
    yield from _below(schema, types, "")


def _below(section: dict[str, Any], types: dict[str, Any], path: str) -> Iterator[str]:
    for key, field in section["properties"].items():
        inner, named = _section_in(field, types)
        if inner is None:
            continue
        place = f"{path}{key}" + (".NAME" if named else "[]" if _is_list(field) else "")
        if inner is types["Limits"] and path:
            continue  # the same keys as those of the whole matrix
        yield f"## {place}\n\n{inner['description']}\n\n{_table(inner, types)}"
        yield from _below(inner, types, f"{place}.")


def _section_in(field: dict[str, Any], types: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """The section that a key holds, and whether it holds many of them by name."""
    named = _by_name(field)
    for option in [*_options(field), *([named] if named else [])]:
        if "$ref" in option:
            return types[option["$ref"].rpartition("/")[2]], named is not None
    return None, False


def _options(field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a key may hold, and what the items of a list may be."""
    for option in field.get("anyOf", [field]):
        yield option
        yield from _options(option["items"]) if "items" in option else ()


def _is_list(field: dict[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in field.get("anyOf", [field]))


def _by_name(field: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the values of a mapping with free names."""
    patterns = list(field.get("patternProperties", {}).values())
    found = patterns[0] if patterns else field.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _table(section: dict[str, Any], types: dict[str, Any]) -> str:
    required = section.get("required", [])
    rows = (
        (f"`{key}`", _form(field, types), _default(key, field, required), field["description"])
        for key, field in section["properties"].items()
    )
    return _grid(("key", "value", "default", "meaning"), rows)


def _default(key: str, field: dict[str, Any], required: list[str]) -> str:
    if key in required:
        return "required"
    default = field.get("default")
    if default in (None, "", [], {}):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`"


def _form(field: dict[str, Any], types: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if _section_in(field, types)[0] is not None:
        lists = "list of rates or sections" if _is_list(field) else "section"
        return "sections by name" if _by_name(field) else lists
    options = [o for o in field.get("anyOf", [field]) if o.get("type") != "null"]
    return " or ".join(_plain_form(option) for option in options)


def _plain_form(option: dict[str, Any]) -> str:
    if "const" in option:
        return f"`{option['const']}`"
    if option.get("examples"):
        return f"such as `{option['examples'][0]}`"
    kind = option.get("type")
    if kind == "array":
        return "list of text"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(option)
    return {"boolean": "true or false", "object": "mapping"}.get(str(kind), "text")


def _bounds(option: dict[str, Any]) -> str:
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
    }
    told = {key: value for key, value in option.items() if key in words and value < _BOUND_MAX}
    found = [text.format(f"{told[key]:,}") for key, text in words.items() if key in told]
    return f", {' '.join(found)}" if found else ""


def _scenarios() -> str:
    names = "".join(f"- `{name}`\n" for name in shipped_scenarios())
    return (
        "## Shipped scenarios\n\nA scenario is an ordinary locustfile: give the path of your own, "
        f"or the name of one of these.\n\n{names}"
    )


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
