"""Files of rows, and which of the rows are whose: what `workloads.feeders` hands out to users."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Mode = Literal["once", "circular", "random"]
MODES: Final = ("once", "circular", "random")
ARROW: Final = frozenset({".arrow", ".feather", ".ipc"})
ROWS_AT_A_TIME: Final = 1024

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stripe:
    """Which share of the rows is this process's: number `index` of `count` equal ones."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no stripe {self.index} of {self.count}")

    @classmethod
    def of_process(cls) -> Stripe:
        """As the load generator's `HEAPGATE_STRIPE` says: `2/8` is the third of eight."""
        index, _, count = os.environ.get("HEAPGATE_STRIPE", "0/1").partition("/")
        return cls(int(index), int(count))


def own_rows(total: int, stripe: Stripe, shuffle_seed: int | None) -> npt.NDArray[np.int64]:
    """The numbers of a stripe's rows, in the order of their use. Together the stripes are all."""
    order = np.arange(total)
    if shuffle_seed is not None:
        # The same order in every process: each takes its share of one and the same.
        order = np.random.default_rng(shuffle_seed).permutation(total)
    return order[stripe.index :: stripe.count]


def in_order(table: pa.Table, numbers: npt.NDArray[np.int64]) -> Iterator[Row]:
    """The rows of these numbers, one after the other."""
    for first in range(0, len(numbers), ROWS_AT_A_TIME):
        yield from table.take(numbers[first : first + ROWS_AT_A_TIME]).to_pylist()


def drawn(table: pa.Table, seed: int, stripe: Stripe) -> Iterator[Row]:
    """Rows drawn at random, without end; each stripe draws others."""
    draw = random.Random(f"{seed} {stripe.index}").randrange
    while True:
        yield table.slice(draw(table.num_rows), 1).to_pylist()[0]


def read_table(path: Path) -> pa.Table:
    """A file's rows. Raises ValueError when it can't be read or has none."""
    try:
        table = _read(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} can't be read: {error}") from error
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path.name} has two columns with the name {twice[0]!r}")
    if not table.num_rows:
        raise ValueError(f"{path.name} has no rows")
    return table


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path, use_threads=False)
    if path.suffix in ARROW:
        with pa.OSFile(str(path)) as source:
            try:
                return pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                return pa.ipc.open_stream(source).read_all()
    return _read_csv(path)


def _read_csv(path: Path) -> pa.Table:
    """Every column as the text that is written there, empty fields too."""
    reading = pa.csv.ReadOptions(use_threads=False)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, read_options=reading, parse_options=parsing) as reader:
        names = reader.schema.names
    as_text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    return pa.csv.read_csv(path, reading, parsing, as_text)
