"""Answers to a user's query in the form that was asked for: a table, CSV, JSON, Parquet …

Answers are written batch by batch; only the table for a person is cut off, and says so.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

from results.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console
    from rich.table import Table

FORMS: Final = ("table", "csv", "json", "markdown", "parquet", "arrow")
TABLE_ROWS_MAX: Final = 500


def write_result(answer: pa.RecordBatchReader, form: str, stream: TextIO) -> None:
    """Write an answer to `stream`. Raises UserError for a form that it can't take.

    JSON is a list of objects, one for each row, all with the same keys. Arrow is the file format,
    as the archive's own files have it.
    """
    if form == "table":
        from rich.console import Console

        write_table(answer, Console(file=stream))
    elif form == "csv":
        _write_csv(answer, stream)
    elif form == "json":
        _write_json(answer, stream)
    elif form == "markdown":
        _write_markdown(answer, stream)
    elif form == "parquet":
        _write_parquet(answer, stream)
    elif form == "arrow":
        _write_arrow(answer, stream)
    else:
        raise UserError(f"there is no format {form!r}; there are: {', '.join(FORMS)}")


@dataclass(frozen=True, slots=True)
class Shown:
    """The first rows of an answer as text without control sequences, for a person."""

    names: list[str]
    numbers: list[bool]
    """Which columns are numbers."""
    cells: list[list[str]]
    more: bool
    """Whether there are more rows than these."""


def first_rows(answer: pa.RecordBatchReader, most: int = TABLE_ROWS_MAX) -> Shown:
    """As many rows of an answer as a person looks at."""
    rows = list(islice(_rows(answer), most + 1))
    names = [_printable(name) for name in answer.schema.names]
    cells = [[_cell(value) for value in row] for row in rows[:most]]
    return Shown(names, list(map(_is_number, answer.schema.types)), cells, len(rows) > most)


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def write_table(answer: pa.RecordBatchReader, console: Console) -> None:
    """Print the first rows: as a table where it fits, else row by row."""
    shown = first_rows(answer)
    grid = grid_of(shown)
    width = _width(grid, console)
    if not console.is_terminal:
        # A pipe has no width: nothing is cut off there.
        console.width = max(console.width, width)
    if width <= console.width:
        console.print(grid)
    else:
        _print_records(shown.names, shown.cells, console)
    if shown.more:
        console.print(
            f"only the first {TABLE_ROWS_MAX} rows are shown; for all: --format csv, json, "
            "parquet …",
            style="yellow",
        )


def grid_of(shown: Shown) -> Table:
    """A table for a console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, is_number in zip(shown.names, shown.numbers, strict=True):
        table.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True)
    for row in shown.cells:
        table.add_row(*map(Text, row))
    return table


def _width(table: Table, console: Console) -> int:
    """How wide a table would like to be, whatever the console."""
    from rich.measure import Measurement

    endless = console.options.update(width=1_000_000)
    return Measurement.get(console, endless, table).maximum


def _print_records(names: list[str], cells: list[list[str]], console: Console) -> None:
    from rich.text import Text

    width = max(map(len, names))
    for number, row in enumerate(cells, 1):
        console.print(Text(f"row {number}", style="bold"))
        for name, cell in zip(names, row, strict=True):
            console.print(Text(f"  {name:<{width}}  {cell}"))


def _cell(value: Any) -> str:
    """A value as text; whole numbers with separators would not go back into a query."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.10g}" if math.isfinite(value) else str(value)
    plain = _plain(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return _printable(text)


def _printable(text: str) -> str:
    """Names and errors come from the service: no control sequence may reach the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write_csv(answer: pa.RecordBatchReader, stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for row in _rows(answer):
        writer.writerow([_csv_value(value) for value in row])


def _csv_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, (str, int, float)) else json.dumps(plain, ensure_ascii=False)


def _write_json(answer: pa.RecordBatchReader, stream: TextIO) -> None:
    names = _unique(answer.schema.names)
    separator = "[\n"
    for row in _rows(answer):
        plain = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        stream.write(separator + json.dumps(plain, ensure_ascii=False))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _unique(names: list[str]) -> list[str]:
    """Two columns of one name would be one key."""
    taken: list[str] = []
    for name in names:
        new, number = name, 1
        while new in taken:
            new, number = f"{name}_{number}", number + 1
        taken.append(new)
    return taken


def _write_markdown(answer: pa.RecordBatchReader, stream: TextIO) -> None:
    stream.write(_line(_printable(name) for name in answer.schema.names))
    stream.write(_line("--:" if _is_number(kind) else "---" for kind in answer.schema.types))
    for row in _rows(answer):
        stream.write(_line(map(_cell, row)))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _write_parquet(answer: pa.RecordBatchReader, stream: TextIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetWriter(_binary(stream, "Parquet"), answer.schema) as writer:
            for batch in answer:
                writer.write_batch(batch)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UserError(f"Parquet can't hold this answer: {error}") from error


def _write_arrow(answer: pa.RecordBatchReader, stream: TextIO) -> None:
    import pyarrow as pa

    with pa.ipc.new_file(_binary(stream, "Arrow"), answer.schema) as writer:
        for batch in answer:
            writer.write_batch(batch)


def _binary(stream: TextIO, form: str) -> BinaryIO:
    """Where bytes go. Raises UserError for a terminal."""
    if stream.isatty():
        raise UserError(
            f"{form} is not text: send it to a file, … --format {form.lower()} > answer"
        )
    return stream.buffer


def _rows(answer: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    """Row by row, by place: names may be the same."""
    for batch in answer:
        if batch.num_columns:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _plain(value: Any) -> Any:
    """A value as JSON knows it: not finite is null, times are ISO 8601, bytes are hexadecimal."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
