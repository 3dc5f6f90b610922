"""An archive as tables: its documents, and the rows of its trials' files.

Every document is read and every file's digest is asked when an archive is opened. A table is made
of them when somebody asks for it, which most queries do for few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from results.archive.archive import PARTIAL, Archive, RunEntry
from results.archive.documents import document_tables
from results.archive.intact import damaged_trials
from results.archive.rowfiles import RowFiles, SealedTrial, dataset_of, row_files
from results.errors import UserError
from results.judging.counted import counted_trials
from results.record import Finding, TrialRecord
from results.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

Made: TypeAlias = "pa.Table | ds.Dataset"


class Tables(Mapping[str, Made]):
    """Tables and datasets by the name under which SQL finds them; each is made once, when asked."""

    def __init__(self, makers: Mapping[str, Callable[[], Made]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, Made] = {}

    def __getitem__(self, name: str) -> Made:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __or__(self, others: Mapping[str, Made]) -> Tables:
        """These, and others in the place of those of the same names."""
        return Tables(self._makers | {name: partial(others.__getitem__, name) for name in others})


@dataclass(frozen=True, slots=True)
class Trials:
    """What was read: tables, the files behind those of rows, and notes on what is not there.

    `damage` are those of the notes that no table may be without: what was measured once and can't
    be believed any more.
    """

    runs: tuple[RunEntry, ...]
    records: tuple[TrialRecord, ...]
    tables: Tables
    files: Mapping[str, Sequence[RowFiles]]
    notes: list[str]
    damage: tuple[str, ...] = ()


def read_trials(archive: Archive, runs: Sequence[RunEntry], checked: Path | None = None) -> Trials:
    """Read all documents of these runs, and the digests of all files of their trials.

    A trial that is not what was sealed is invalid, and no file of it that changed is opened. Every
    byte is read, but for what `checked` says was right lately (`results/archive/intact.py`). Raises
    UserError when all runs are of a newer format than this one.
    """
    runs, damage = _of_known_format(runs)
    records: list[TrialRecord] = []
    notes: list[str] = []
    for run in runs:
        found, lost = archive.read_records(run.run_id)
        records += found
        notes += _cut_off(archive, run)
        damage += _unbelievable(run, lost)
    folders = [_folder(archive.path, record) for record in records]
    damaged = damaged_trials(folders, checked)
    for record, folder in zip(records, folders, strict=True):
        told = list(_settle(record, damaged.get(folder, {})))
        # The reasons of an invalid trial stand beside every table already.
        (damage if record.valid else notes).extend(told)
    notes += damage
    counted = counted_trials(records)
    sealed = [
        SealedTrial(
            record,
            str(folder),
            (record.run_id, record.trial_id) in counted,
            frozenset(damaged.get(folder, ())),
        )
        for record, folder in zip(records, folders, strict=True)
    ]
    files = {name: (found,) for name, found in row_files(sealed).items()}
    makers = document_tables(runs, records, counted)
    tables = Tables(makers | tables_of_rows(files))
    return Trials(tuple(runs), tuple(records), tables, files, notes, tuple(damage))


def tables_of_rows(
    files: Mapping[str, Sequence[RowFiles]],
) -> dict[str, Callable[[], Made]]:
    """What makes each table of rows."""
    return {name: partial(dataset_of, found) for name, found in files.items()}


def _folder(root: Path, record: TrialRecord) -> Path:
    return root / record.run_id / "trials" / record.trial_id


def _of_known_format(runs: Sequence[RunEntry]) -> tuple[list[RunEntry], list[str]]:
    """The runs that this version can read, and a note for each other."""
    newer = [run for run in runs if run.format > SCHEMA_VERSION]
    told = [
        f"{run.run_id} was written in format {run.format}, by Heapgate "
        f"{run.document.get('heapgate_version')}; this one reads formats up to {SCHEMA_VERSION}"
        for run in newer
    ]
    if newer and len(newer) == len(runs):
        raise UserError(f"{told[-1]}: update Heapgate")
    return [run for run in runs if run not in newer], [f"{text}: it is left out" for text in told]


def _settle(record: TrialRecord, wrong: dict[str, str]) -> Iterator[str]:
    """A damaged trial's numbers don't count, unless only its log is damaged; what is damaged."""
    told = [f"{name} {why}" for name, why in wrong.items()]
    if any(name != "service.log" for name in wrong):
        record.findings.append(Finding("rows_lost", "invalid", " and ".join(told)))
    return (f"{record.run_id}: {record.trial_id}: {text}" for text in told)


def _cut_off(archive: Archive, run: RunEntry) -> Iterator[str]:
    for path in archive.partial_trials(run.run_id):
        name = path.name.removesuffix(PARTIAL)
        yield f"{run.run_id}: {name} was cut off; its rows are left out"


def _unbelievable(run: RunEntry, lost: dict[str, str]) -> Iterator[str]:
    """What was in a run and can't be told any more."""
    if run.doubt:
        yield f"{run.run_id}: {run.doubt}"
    for trial_id, why in lost.items():
        yield f"{run.run_id}: {trial_id} is left out: {why}"
