"""docs/sql.md, made from the views' own comments and from the schemas.

A view's file begins with `-- grain: …` and one line `-- name | unit | meaning` for each column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from results.archive.rowfiles import key_columns
from results.metrics import METRICS
from results.schema import TABLES
from results.sql.database import COMPARED, PROFILED, VIEWS, view_text

_INTRODUCTION = """\
# Archives in SQL

<!-- made by `make docs` from results/schema.py and results/views/*.sql; do not edit -->

`bench sql "select …"` asks archives in the SQL of
[DuckDB](https://duckdb.org/docs/stable/sql/introduction). Every request and every sample is a row.
Of the tables of rows, only the files of the trials and the columns that a query names are read.

```sh
bench sql "select configuration, count(*), quantile_cont(latency_ns, 0.99) from requests group by 1"
bench sql "select configuration, metric, median, mad from cells where metric like '%rss'"
bench sql 'from requests where run_id = $run and latency_ns > $ns' -p run=RUN -p ns=5e6
bench sql -f my.sql --format csv > my.csv
bench sql --archive 'nightly/*' --archive release "from ablation where is_primary"
bench sql                                # a prompt, with history and completion
```

- Times are nanoseconds since the Unix epoch in UTC; `make_timestamp_ns(start_ns)` makes a
  timestamp of one.
- What an operating system does not offer is null, never 0.
- `valid` is false where a trial's numbers must not be used; `validity` says why. Only trials that
  are `counted` (the last valid attempt at each planned trial) are in `trial_metrics`, `cells`,
  `comparison` and `ablation`.
- Trials that were cut off before they were sealed are not in the tables; `bench sql` names them.
- Formats: `table` (the first 500 rows), `csv`, `json`, `markdown`, `parquet`, `arrow` (a file such
  as the archive's own).

## Percentiles of many requests

- `quantile_cont(latency_ns, 0.99)` over `requests` is exact and holds all values that it sorts:
  over 100 million requests by configuration about 7 s of processor time and 2 GiB (14 s and 2.4 GiB
  by `name` and `phase`). `approx_quantile` takes twice the time, and hardly less memory.
- `answers` has 81 exact percentiles of each counted trial, and `latency_by_second` those of each
  second: counted file by file, in the same time, with 0.4 GiB. For a figure with its uncertainty
  that is also the right way: a trial is one observation, its requests are not independent.

```sql
select configuration, median(latency_ns[41]) as p99_ns  -- a list's first number is 1
from answers join trials using (run_id, trial_id) group by all
```

## Several archives

`--archive` may be repeated, and may be a pattern in quotes: of the folders that fit, those that
hold a run are taken. All runs are in one set of views; `runs.archive` tells where each is. A run
that lies in two archives is read once when all that is sealed of it has the same digests, and
`bench sql` says so. When the two differ it is an error, because nothing tells which is right.

## Parameters

`$name` in a query stands for a value, which `--param name=value` gives. A value that is JSON is
what it says: `400`, `0.5`, `true`, `null`, `[1, 2]`, `"400"` (text). Anything else is text. A
value never becomes part of the query's text, so quotes in it do no harm. One that is missing, or
that the query does not ask for, is an error.

## From Python

`results.open` opens the same views within the same bounds: of a folder, a pattern, a list of them,
or the usual archive. Parameters are keywords. Errors are `results.errors.HeapgateError`, in words
for a person. Every file of the runs is read once when they are opened, to see that it is what was
sealed.

```python
import results

with results.open("nightly/*", timeout_s=60, memory="2GiB") as archives:
    slow = archives.sql(
        "select configuration, count(*) as requests from requests"
        " where phase = 'measure' and latency_ns > $ns group by all order by all",
        ns=1_500_000,
    )
    print(slow)  # a notebook shows it as a table

    table = slow.arrow()  # pyarrow.Table; .df() is pandas, .pl() is Polars, where installed
    for row in slow:
        print(row["configuration"], row["requests"])

    with archives.stream("select service_ns from requests") as batches:
        print(sum(batch.num_rows for batch in batches))  # more than memory holds
```

## What a query may do

One SELECT (or FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, PIVOT), which sees the views and nothing
else: no files, no network, no Python variables, no settings. It ends after `--timeout` seconds
of its own: while the answer's reader takes its time, as a pager does, they don't count.
Beyond `--memory` it spills to a temporary folder, at most half of what is free there; the folder
goes with the query, and what a killed one left goes with the next.

A function that makes one huge value (`repeat`, a list of a billion numbers) is neither counted nor
stopped by DuckDB. `bench sql` bounds its own process: half again as much memory and 1 GiB (on
Linux), and 5 seconds more, then it ends. In Python the process is yours, and that is not done.

The tables of rows come first below, then the views that are made from them.
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
