"""docs/sql.md, made from the views' own comments and from the schemas.

A view's file begins with `-- grain: …` and one line `-- name | unit | meaning` for each column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from results.database import COMPARED, PROFILED, VIEWS, view_text
from results.fragments import key_columns
from results.metrics import METRICS
from results.schema import TABLES

_INTRODUCTION = """\
# The archive in SQL

<!-- made by `make docs` from results/schema.py and results/views/*.sql; do not edit -->

`bench sql "select …"` asks the archive in the SQL of
[DuckDB](https://duckdb.org/docs/stable/sql/introduction). Every request and every
sample is a row. A query can read the archive and nothing else: no files, no network, no settings,
and it ends after `--timeout` seconds.

```sh
bench sql "select configuration, count(*), quantile_cont(latency_ns, 0.99) from requests group by 1"
bench sql "select configuration, metric, median, mad from cells where metric like '%rss'"
bench sql -f my.sql --format csv > my.csv
```

- Times are nanoseconds since the Unix epoch in UTC; `make_timestamp_ns(start_ns)` makes a
  timestamp of one.
- What an operating system does not offer is null, never 0.
- `valid` is false where a trial's numbers must not be used; `validity` says why. Only trials that
  are `counted` (the last valid attempt at each planned trial) are in `trial_metrics`, `cells` and
  `comparison`.
- Trials that were cut off before they were sealed are not in the tables; `bench sql` names them.
"""


_METRICS_HEAD: Final = """\
## Metrics

The names in the column `metric`. A trial has those of its system. Metrics of one `kind` are
counterparts: what decides on one system (`comparison.primary`) is decided by its counterpart on the
other, and their ratios stand side by side in the view `ratios`. They are not the same quantity:
values are never compared across systems, and a margin holds for the metric that it names alone.

"""


@dataclass(frozen=True, slots=True)
class ColumnText:
    """A column's name, unit ("" for none) and meaning."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ViewText:
    """What a view says of itself: its grain and its columns in their order."""

    name: str
    grain: str
    columns: tuple[ColumnText, ...]


def described_views() -> list[ViewText]:
    """All that SQL finds in an archive: the tables of rows, then the views made from them."""
    tables = [_table_text(name) for name in TABLES]
    views = (*VIEWS, *COMPARED, *PROFILED)
    return [*tables, *(parse_view(name, view_text(name)) for name in views)]


def parse_view(name: str, text: str) -> ViewText:
    """Read the comments of a view's file. Raises ValueError when they have another form."""
    lines = [line.removeprefix("--").strip() for line in text.splitlines() if line[:2] == "--"]
    if not lines or not lines[0].startswith("grain: "):
        raise ValueError(f"{name}.sql does not begin with its grain")
    columns = []
    for line in lines[1:]:
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3:
            raise ValueError(f"{name}.sql: not `name | unit | meaning`: {line}")
        columns.append(ColumnText(*parts))
    return ViewText(name, lines[0].removeprefix("grain: "), tuple(columns))


def sql_reference() -> str:
    """The text of docs/sql.md."""
    parts = [_INTRODUCTION, *map(_section, described_views()), _metrics()]
    return "\n".join(parts)


def _table_text(name: str) -> ViewText:
    table = TABLES[name]
    keys = [ColumnText(key, "", meaning) for key, _, meaning in key_columns(table)]
    own = [ColumnText(c.name, c.unit, c.meaning) for c in table.columns]
    return ViewText(name, table.grain, (*keys, *own))


def _section(view: ViewText) -> str:
    rows = ((f"`{c.name}`", c.unit, c.meaning) for c in view.columns)
    return f"## {view.name}\n\nA row is {view.grain}.\n\n" + _grid(
        ("column", "unit", "meaning"), rows
    )


def _metrics() -> str:
    rows = (
        (f"`{m.name}`", " ".join(m.systems), m.unit, m.direction, f"`{m.kind}`", m.meaning)
        for m in METRICS.values()
    )
    return _METRICS_HEAD + _grid(("metric", "on", "unit", "better", "kind", "meaning"), rows)


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
