"""The files behind the tables of rows, as one Arrow dataset per table.

A dataset opens no file until it is asked. Each file carries what is known of its trial as a
partition expression: a constant column for the reader, and a reason to skip the file for a filter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from results.archive.documents import measure_of
from results.files import SUMS
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION, TABLES, TableSchema
from results.streams import Stream, stream_of, table_of

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_NUMBER: Final = pa.int64()

KEY_COLUMNS: Final = (
    ("run_id", _WORD, "run of the trial"),
    ("trial_id", _WORD, "trial"),
    ("configuration", _WORD, "configuration of the trial"),
    ("baseline", pa.bool_(), "whether that is the one which the others are compared with"),
    ("workload", _WORD, "workload of the trial"),
    ("block", _NUMBER, "block of the trial"),
    ("node_class", _WORD, "machines that may be compared with each other"),
    ("valid", pa.bool_(), "whether the trial's numbers may be used at all"),
    ("counted", pa.bool_(), "whether the trial is in trial_metrics and cells"),
    (
        "measure_start_ns",
        _NUMBER,
        "when phase measure of the trial began, by the clock of the row's node",
    ),
    ("measure_end_ns", _NUMBER, "when phase measure of the trial ended, by the same clock"),
)
"""The columns that each row has from its trial: name, type, meaning."""

PART_COLUMNS: Final = {
    "requests": (
        (
            "generator",
            pa.int16(),
            "who sent it: 0 the service's node, from 1 a load node (`generators` of trial.json)",
        ),
        ("process", pa.int16(), "which of that generator's processes, from 0"),
    )
}
"""The columns that tell a row's file, for the tables that come in parts."""


@dataclass(frozen=True, slots=True)
class SealedTrial:
    """A trial with its folder, whether it counts, and which of its files are damaged."""

    record: TrialRecord
    folder: str
    counted: bool
    damaged: frozenset[str]
    _known: dict[int, ds.Expression] = field(default_factory=dict)

    def streams(self, table: str) -> Iterator[tuple[Stream, str]]:
        """The undamaged streams of a table with their files, in their order."""
        if SUMS in self.damaged:
            return
        named = (table_of(name) for name in self.record.rows if name.startswith(table))
        for stream in sorted({Stream(table), *(s for s in named if s.table == table)}):
            name = f"{stream_of(*stream)}.arrow"
            path = f"{self.folder}{os.sep}{name}"
            if name not in self.damaged and os.path.exists(path):  # noqa: PTH110
                yield stream, path

    def known_of(self, part: int) -> ds.Expression:
        """What the files of a part all carry; made once, for it takes a while."""
        if part not in self._known:
            self._known[part] = self._expression(part)
        return self._known[part]

    def _expression(self, part: int) -> ds.Expression:
        record = self.record
        measure, behind_ns = measure_of(record), record.clock_behind_ns(part)
        known = {
            "counted": self.counted,
            "measure_start_ns": measure and measure.start_ns - behind_ns,
            "measure_end_ns": measure and measure.end_ns - behind_ns,
        }
        values = (
            known[name] if name in known else getattr(record, name) for name, _, _ in KEY_COLUMNS
        )
        return _all_of(KEY_COLUMNS, values)


class RowFiles:
    """A table's files in one form of storage; looked for when they are first asked for."""

    def __init__(self, table: TableSchema, version: int, trials: Sequence[SealedTrial]) -> None:
        self.schema = row_schema(table, version)
        self._table = table.name
        self._trials = trials
        self._found: list[tuple[SealedTrial, Stream, str]] | None = None

    def found(self) -> list[tuple[SealedTrial, Stream, str]]:
        """Each file with its trial and stream."""
        if self._found is None:
            self._found = [(t, *own) for t in self._trials for own in t.streams(self._table)]
        return self._found


def dataset_of(files: Iterable[RowFiles]) -> pa.Table | ds.Dataset:
    """All rows of these files, which have one schema."""
    # A tenth of a second, and many a query asks for no rows.
    import pyarrow.dataset as ds
    import pyarrow.fs

    parts = list(files)
    found = [file for part in parts for file in part.found()]
    if not found:
        return parts[0].schema.empty_table()
    return ds.FileSystemDataset.from_paths(
        [path for _, _, path in found],
        schema=parts[0].schema,
        format=ds.IpcFileFormat(),
        filesystem=pyarrow.fs.LocalFileSystem(),
        partitions=[_partition(trial, stream) for trial, stream, _ in found],
    )


def forms_of(table: TableSchema, trials: Sequence[SealedTrial]) -> Iterator[tuple[str, RowFiles]]:
    """A table's files by the form in which they are stored, with the name of each form.

    Most tables have one form, under their own name. Where what a row shows is computed from other
    columns than it once was, a view of the table's name is made of both forms.
    """
    last = table.other_form_until
    newer = [trial for trial in trials if trial.record.schema_version > last]
    if not last:
        yield table.name, RowFiles(table, SCHEMA_VERSION, newer)
        return
    yield f"raw_{table.name}", RowFiles(table, SCHEMA_VERSION, newer)
    older = [trial for trial in trials if trial.record.schema_version <= last]
    yield f"raw_{table.name}_v{last}", RowFiles(table, last, older)


def row_files(trials: Sequence[SealedTrial]) -> dict[str, RowFiles]:
    """All tables of rows by the name under which SQL finds them."""
    return {name: files for table in TABLES.values() for name, files in forms_of(table, trials)}


def row_schema(table: TableSchema, version: int = SCHEMA_VERSION) -> pa.Schema:
    """The columns of a table of rows as it is stored: those of the trial, then its own."""
    keys = [pa.field(name, kind) for name, kind, _ in key_columns(table)]
    return pa.schema([*keys, *table.arrow_of(version)])


def key_columns(table: TableSchema) -> tuple[tuple[str, pa.DataType, str], ...]:
    """What a row of a table has from its trial and from its file: name, type, meaning."""
    return (*KEY_COLUMNS, *PART_COLUMNS.get(table.name, ()))


def _partition(trial: SealedTrial, stream: Stream) -> ds.Expression:
    known = trial.known_of(stream.part)
    columns = PART_COLUMNS.get(stream.table)
    return known & _all_of(columns, (stream.part, stream.process)) if columns else known


def _all_of(
    columns: Sequence[tuple[str, pa.DataType, str]], values: Iterable[Any]
) -> ds.Expression:
    """Columns with these values, together."""
    import pyarrow.dataset as ds

    fields = [
        ds.field(name).is_null() if value is None else ds.field(name) == pa.scalar(value, kind)
        for (name, kind, _), value in zip(columns, values, strict=True)
    ]
    whole = fields[0]
    for one in fields[1:]:
        whole &= one
    return whole
