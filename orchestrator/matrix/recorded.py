"""A recorded rate of requests: a CSV, Parquet or Arrow file → the rate over measure.

Read and checked on the head when a matrix is loaded; nodes get plain numbers and need no file.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.matrix import values
from orchestrator.matrix.model import Replay
from orchestrator.matrix.shapes import PIECES_MAX, Pieces, ShapeError, held

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Numbers = npt.NDArray[np.float64]
    Instants = npt.NDArray[np.int64]

FILE_BYTES_MAX = 512 * 2**20
RATE_MAX_RPS = 10_000_000
SPAN_MAX_S = 10 * 366 * 86_400


def recorded_rate(replay: Replay, path: Path, measure_ns: int) -> Pieces:
    """The first `measure_ns` of a recording, scaled. Raises ShapeError on what can't be used."""
    table = _read(replay, path)
    rates = _rates(replay, path, table)
    starts_ns, lasts_ns = _times(replay, path, table)
    covered_ns = int(starts_ns[-1] + lasts_ns)
    if covered_ns < measure_ns:
        covered, measured = values.duration_text(covered_ns), values.duration_text(measure_ns)
        raise _wrong("file", f"{path.name} covers {covered}, but measure lasts {measured}")
    used = starts_ns < measure_ns
    ends_ns = [*starts_ns[used][1:].tolist(), measure_ns]
    pairs = zip(starts_ns[used].tolist(), ends_ns, rates[used].tolist(), strict=True)
    pieces = _merged(pairs)
    if len(pieces) > PIECES_MAX:
        text = f"{path.name} has {len(pieces):,} rates in measure, more than {PIECES_MAX:,}"
        raise _wrong("file", f"{text}; record it at longer intervals")
    return pieces


def _wrong(key: str, text: str) -> ShapeError:
    """What is wrong with a key of `replay:`."""
    return ShapeError(text, "replay", key)


def _merged(pairs: Any) -> Pieces:
    """Neighbours of one rate are one piece."""
    found: list[tuple[int, float]] = []
    for start_ns, end_ns, rate_rps in pairs:
        if found and found[-1][1] == rate_rps:
            found[-1] = (found[-1][0] + end_ns - start_ns, rate_rps)
        else:
            found.append((end_ns - start_ns, rate_rps))
    return tuple(held(for_ns, rate_rps) for for_ns, rate_rps in found)


def _read(replay: Replay, path: Path) -> pa.Table:
    """The columns that are asked for."""
    import pyarrow as pa

    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _wrong("file", f"{path.name} has more than {FILE_BYTES_MAX:,} bytes")
        table = _opened(path)
        names = table.column_names
    except OSError as error:
        text = error.strerror or str(error).splitlines()[0]
        raise _wrong("file", f"{path}: {text}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _wrong("file", f"{path.name} can't be read: {str(error)[:200]}") from error
    for key in ("column", "time"):
        name = getattr(replay, key)
        if name is not None:
            _require(names, path, key, name)
    if table.num_rows == 0:
        raise _wrong("file", f"{path.name} has no rows")
    return table


def _opened(path: Path) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if suffix in (".arrow", ".feather", ".ipc"):
        import pyarrow.feather

        return pyarrow.feather.read_table(path)
    if suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    raise _wrong(
        "file", f"{path.name} is of no known kind: .csv, .parquet, .arrow and .feather are"
    )


def _require(names: list[str], path: Path, key: str, name: str) -> None:
    count = names.count(name)
    if count > 1:
        raise _wrong(key, f"{path.name} has {count} columns {name!r}")
    if not count:
        near = difflib.get_close_matches(name, names, 1, 0.5)
        listed = ", ".join(names[:8])
        hint = f"did you mean {near[0]!r}?" if near else f"it has {values.shortened(listed)}"
        raise _wrong(key, f"there is no column {name!r} in {path.name}; {hint}")


def _row(path: Path, index: int) -> str:
    """A row as its reader finds it: the header of a CSV is line 1."""
    return f"line {index + 2}" if path.suffix.lower() == ".csv" else f"row {index + 1}"


def _numbers(column: pa.ChunkedArray, path: Path, key: str, name: str) -> Numbers:
    """A column of finite numbers."""
    import numpy as np
    import pyarrow as pa

    try:
        found = column.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _wrong(key, f"column {name!r} of {path.name} is not numbers") from error
    wrong = np.flatnonzero(~np.isfinite(found))
    if wrong.size:
        text = f"column {name!r} of {path.name} has no number in {_row(path, int(wrong[0]))}"
        raise _wrong(key, text)
    return np.asarray(found, dtype=np.float64)


def _rates(replay: Replay, path: Path, table: pa.Table) -> Numbers:
    import numpy as np

    rates = _numbers(table[replay.column], path, "column", replay.column) * replay.scale
    for wrong, what in ((rates < 0, "below zero"), (rates > RATE_MAX_RPS, "above 10 million/s")):
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            text = f"the rate in {_row(path, index)} of {path.name} is {what}: {rates[index]:g}/s"
            raise _wrong("column", text)
    return rates


def _times(replay: Replay, path: Path, table: pa.Table) -> tuple[Instants, int]:
    """Where each rate begins, from 0, and how long the last one holds."""
    import numpy as np

    if replay.time is None:
        every_ns = replay.every or 0
        return np.arange(table.num_rows, dtype=np.int64) * every_ns, every_ns
    starts_ns = _instants(table[replay.time], path, replay.time)
    gaps_ns = np.diff(starts_ns)
    if (gaps_ns <= 0).any():
        index = int(np.flatnonzero(gaps_ns <= 0)[0]) + 1
        text = f"the time in {_row(path, index)} of {path.name} is not after the one before it"
        raise _wrong("time", text)
    if not gaps_ns.size:
        raise _wrong("time", f"{path.name} has one row: it does not say how long it holds")
    return starts_ns - starts_ns[0], int(gaps_ns[-1])


def _instants(column: pa.ChunkedArray, path: Path, name: str) -> Instants:
    """Times in nanoseconds: timestamps, or seconds as numbers."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        seconds = _numbers(column, path, "time", name)
        # Away from the epoch first, so that a double holds the nanoseconds.
        since_s = seconds - seconds[0]
        if np.abs(since_s).max() > SPAN_MAX_S:
            raise _wrong("time", f"column {name!r} of {path.name} spans more than ten years")
        return np.asarray(np.round(since_s * 1e9), dtype=np.int64)
    if column.null_count:
        raise _wrong("time", f"column {name!r} of {path.name} has empty places")
    try:
        plain = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise _wrong("time", f"column {name!r} of {path.name}: {str(error)[:200]}") from error
    return np.asarray(plain.to_numpy(), dtype=np.int64)
