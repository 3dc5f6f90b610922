"""The answer to a query, for Python: as Arrow, as a data frame, as a table in a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from results.errors import EnvironmentLacks

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS: Final = 50
"""As many rows are shown of an answer in a notebook or at a prompt; it has them all."""

_STYLE: Final = (
    "text-align:{align};padding:2px 8px;white-space:pre;font-variant-numeric:tabular-nums"
)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Answer:
    """All rows of one answer, in memory. It stays when the archives are closed."""

    table: pa.Table

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [str(name) for name in self.table.column_names]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Row by row, as values by column."""
        for batch in self.table.to_batches():
            yield from batch.to_pylist()

    def arrow(self) -> pa.Table:
        """As an Arrow table."""
        return self.table

    def df(self) -> Any:
        """As a pandas data frame. Raises EnvironmentLacks without pandas.

        Whole numbers with nulls keep their exact values: they become pandas' own nullable integers,
        not floats, in which nanoseconds since the epoch have no room.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise _lacking("pandas") from error
        import pyarrow as pa

        exact = {
            getattr(pa, f"{sign}int{bits}")(): getattr(pd, f"{sign.upper()}Int{bits}Dtype")()
            for sign in ("", "u")
            for bits in (8, 16, 32, 64)
        }
        has_nulls = {
            field.type
            for field, column in zip(self.table.schema, self.table.columns, strict=True)
            if column.null_count
        }
        kinds = {kind: made for kind, made in exact.items() if kind in has_nulls}
        return self.table.to_pandas(types_mapper=kinds.get)

    def pl(self) -> Any:
        """As a Polars data frame. Raises EnvironmentLacks without Polars."""
        try:
            import polars
        except ImportError as error:
            raise _lacking("polars") from error
        return polars.from_arrow(self.table)

    def __repr__(self) -> str:
        """The first rows as a table."""
        from rich.console import Console

        from results.sql.query import first_rows, grid_of

        shown = first_rows(self.table.to_reader(), SHOWN_ROWS)
        console = Console(file=io.StringIO(), width=10_000, color_system=None)
        console.print(grid_of(shown))
        assert isinstance(console.file, io.StringIO)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return "\n".join([*lines, self._counted()])

    def _repr_html_(self) -> str:
        """The first rows as a table, for a notebook."""
        from results.sql.query import first_rows

        shown = first_rows(self.table.to_reader(), SHOWN_ROWS)
        head = _row("th", shown.names, shown.numbers)
        body = "".join(_row("td", cells, shown.numbers) for cells in shown.cells)
        return (
            f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self._counted())}</p>"
        )

    def _counted(self) -> str:
        count = f"{len(self):,} row{'s' * (len(self) != 1)}"
        return count if len(self) <= SHOWN_ROWS else f"{count}, the first {SHOWN_ROWS} are shown"


def _row(tag: str, texts: Sequence[str], numbers: Sequence[bool]) -> str:
    styles = (_STYLE.format(align="right" if number else "left") for number in numbers)
    cells = (
        f'<{tag} style="{style}">{html.escape(text)}</{tag}>'
        for text, style in zip(texts, styles, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _lacking(package: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"{package} is not installed here: pip install {package}, or take .arrow() or rows"
    )
