"""Every request becomes a row: numbers in preallocated blocks, made into columns block by block.

A row costs a fraction of a microsecond where the load is made. Everything else happens in blocks,
and where the generator wants it: on a thread that its own loop does not wait for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from results.schema import PHASE_TYPE, REQUESTS
from workers.spool import StreamWriter

ERROR_CHARACTERS_MAX: Final = 200
EXHAUSTED: Final = (
    "the generator has no free",
    "too many open files",
    "cannot assign requested address",
)
"""In errors of requests that this machine could not begin: it has no port or no file left."""

BLOCK_ROWS: Final = 8192
NOT_DUE: Final = -(2**63)
"""In place of an intended start: there is none in a closed loop."""

NO_LENGTH: Final = -1
NO_ERROR: Final = 0

_ROW: Final = struct.Struct("<qqqqiih")
_COLUMNS: Final = np.dtype(
    [
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),
        ("due_ns", "<i8"),
        ("response_bytes", "<i8"),
        ("kind", "<i4"),
        ("error", "<i4"),
        ("status", "<i2"),
    ]
)
_PHASES: Final = ("warmup", "measure", "cooldown")

Rows = npt.NDArray[np.void]
Job = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the phases of the load begin, in nanoseconds since the epoch (UTC).

    What users do before their first task is warmup too.
    """

    start_ns: int
    measure_ns: int
    end_ns: int

    def phases(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """The phase of each instant, as a place in warmup, measure, cooldown."""
        bounds = np.array([self.measure_ns, self.end_ns])
        return np.searchsorted(bounds, times_ns, side="right").astype(np.int8)


NOT_STARTED: Final = Timeline(2**62, 2**62, 2**62)


def at_once(job: Job) -> bool:
    """Do the work here and now."""
    job()
    return True


class Words:
    """Texts, or tuples of them, by number in the order of their first use."""

    def __init__(self, first: Any = None) -> None:
        self._numbers: dict[Any, int] = {first: 0}
        self.texts: list[Any] = [first]

    def number(self, text: Any) -> int:
        """Its number; the same one each time."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found


class Recorder:
    """Takes rows and hands them to the spool, a block at a time.

    `hand_over` does the work of a block, now or later but in order; it says False when it can't
    take more, and then the block's rows are counted in `lost` and nobody waits.
    """

    def __init__(self, stream: StreamWriter, hand_over: Callable[[Job], bool] = at_once) -> None:
        self.stream = stream
        self.timeline = NOT_STARTED
        self.measured = 0
        self.failed = 0
        self.lost = 0
        self.exhausted = 0
        self._hand_over = hand_over
        self._kinds = Words(("", ""))
        self._errors = Words()
        self._handed = 0
        self._begin_block()
        self.kind_of = lambda method, name: self._kinds.number((method, name))

    def _begin_block(self) -> None:
        self._block = bytearray(BLOCK_ROWS * _ROW.size)
        self._used = 0

    @property
    def sent(self) -> int:
        """Rows so far."""
        return self._handed + self._used // _ROW.size

    def add(
        self,
        start_ns: int,
        end_ns: int,
        due_ns: int | None,
        kind: int,
        status: int,
        response_bytes: int,
        error: str | None,
    ) -> None:
        """One request; its phase is that of its intended start, where there is one.

        Times are nanoseconds since the epoch. `status` 0 and `response_bytes` -1 stand for none.
        """
        _ROW.pack_into(
            self._block,
            self._used,
            start_ns,
            end_ns,
            NOT_DUE if due_ns is None else due_ns,
            response_bytes,
            kind,
            NO_ERROR if error is None else self._errors.number(error),
            status,
        )
        self._used += _ROW.size
        if self._used == len(self._block):
            self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        block, count = self._block, self._used // _ROW.size
        if count:
            self._begin_block()
            self._handed += count
            rows = np.frombuffer(block, _COLUMNS, count)
            if not self._hand_over(lambda: self._write(rows)):
                self.lost += count
        if count < BLOCK_ROWS:
            self._hand_over(self.stream.flush)

    def rehearse(self) -> None:
        """Make a block into columns that are thrown away.

        The first time parts of NumPy and Arrow are loaded, which takes a tenth of a second: in the
        load, requests would be late by that.
        """
        rows = np.zeros(BLOCK_ROWS, _COLUMNS)
        self._count_exhausted(rows["error"])
        self.stream.rehearse(self._batch(rows, NOT_STARTED.phases(rows["start_ns"])))

    def _write(self, rows: Rows) -> None:
        times_ns = np.where(rows["due_ns"] == NOT_DUE, rows["start_ns"], rows["due_ns"])
        phases = self.timeline.phases(times_ns)
        self.measured += int((phases == _PHASES.index("measure")).sum())
        self.failed += int((rows["error"] != NO_ERROR).sum())
        self._count_exhausted(rows["error"])
        self.stream.write(self._batch(rows, phases))

    def _count_exhausted(self, errors: npt.NDArray[np.int32]) -> None:
        """Rows whose request had no port or file: words of our client, and of the system."""
        for number, count in zip(*np.unique(errors, return_counts=True), strict=True):
            text = self._errors.texts[number] or ""
            if any(word in text.lower() for word in EXHAUSTED):
                self.exhausted += int(count)

    def _batch(self, rows: Rows, phases: npt.NDArray[np.int8]) -> pa.RecordBatch:
        closed = rows["due_ns"] == NOT_DUE
        kinds, kind = np.unique(rows["kind"], return_inverse=True)
        errors, error = np.unique(rows["error"], return_inverse=True)
        columns = {
            "start_ns": pa.array(rows["start_ns"]),
            "lag_ns": pa.array(rows["start_ns"] - rows["due_ns"], mask=closed),
            "phase": pa.DictionaryArray.from_arrays(phases, list(_PHASES)).cast(PHASE_TYPE),
            "service_ns": pa.array(rows["end_ns"] - rows["start_ns"]),
            "method": _worded([self._kinds.texts[k][0] for k in kinds], kind),
            "name": _worded([self._kinds.texts[k][1] for k in kinds], kind),
            "status": pa.array(rows["status"], mask=rows["status"] == 0),
            "response_bytes": pa.array(
                rows["response_bytes"], mask=rows["response_bytes"] == NO_LENGTH
            ),
            "error": _worded([self._errors.texts[e] for e in errors], error),
        }
        schema = REQUESTS.arrow
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _worded(words: list[str | None], places: npt.NDArray[np.int64]) -> pa.Array:
    """A dictionary column of a few words, by their places."""
    return pa.array(words, pa.string()).dictionary_encode().take(pa.array(places))


def error_text(exception: BaseException | str) -> str:
    """Why a request failed, short enough to be a word in a dictionary."""
    text = exception if isinstance(exception, str) else str(exception) or repr(exception)
    return " ".join(text.split())[:ERROR_CHARACTERS_MAX]
