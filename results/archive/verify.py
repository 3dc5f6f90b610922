"""Is an archive still what was measured? Digests, then rows and columns of every table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from results.archive.archive import PARTIAL, Archive, RunEntry
from results.archive.intact import damaged_files, threads
from results.archive.pins import FILE, doubts
from results.archive.trialfiles import sealed_account
from results.files import RUN_FILES, SUMS
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION, TABLES
from results.streams import table_of


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of an archive that is not what it was when it was sealed."""

    path: Path
    text: str


def unreadable_runs(archive: Archive) -> Iterator[Damage]:
    """Folders that hold trials and are no run any more."""
    for folder, why in archive.unreadable():
        yield Damage(folder / "run.json", f"{why}; its run is not listed any more")


def damaged_pins(archive: Archive) -> Iterator[Damage]:
    """Names of runs that changed, or whose runs are not what was named."""
    for text in doubts(archive):
        yield Damage(archive.path / FILE, text)


def verify_run(run: RunEntry, *, decode: bool = False) -> Iterator[Damage]:
    """All damage in a run: its documents, then each sealed trial. Reads every byte.

    Rows are counted by what the files say of themselves, whose bytes are right; with `decode` every
    value is unpacked and checked too, as is right for an archive whose digests anybody may have
    written.
    """
    yield from _damage(run.path, RUN_FILES)
    if run.format > SCHEMA_VERSION:
        why = f"is of format {run.format}; this Heapgate knows formats up to {SCHEMA_VERSION}"
        yield Damage(run.path / "run.json", why)
        return
    trials = run.path / "trials"
    if not trials.is_dir():
        yield Damage(trials, "is gone")
        return
    folders = [f for f in sorted(trials.iterdir()) if f.is_dir() and not f.name.endswith(PARTIAL)]
    with ThreadPoolExecutor(threads()) as pool:
        for found in pool.map(partial(_verify_trial, run, decode=decode), folders):
            yield from found


def _verify_trial(run: RunEntry, folder: Path, *, decode: bool) -> list[Damage]:
    present = {path.name for path in folder.iterdir()} - {SUMS}
    return list(_damage(folder, present)) or list(_verify_tables(run, folder, decode=decode))


def _damage(folder: Path, names: Iterable[str]) -> Iterator[Damage]:
    """Files that changed, went or came since their digests were written."""
    for name, why in damaged_files(folder, names).items():
        yield Damage(folder / name, why)


def _verify_tables(run: RunEntry, folder: Path, *, decode: bool) -> Iterator[Damage]:
    """Whole files may still not be what the record says: rows and columns of each table."""
    try:
        record = TrialRecord.read(folder / "trial.json")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        yield Damage(folder / "trial.json", f"is not the record of a trial: {error!r}"[:200])
        return
    if (record.run_id, record.trial_id) != (run.run_id, folder.name):
        yield Damage(folder / "trial.json", f"is that of {record.run_id}/{record.trial_id}")
    for name in sorted({path.stem for path in folder.glob("*.arrow")} - record.rows.keys()):
        yield Damage(folder / f"{name}.arrow", "is not in the trial's record")
    for name, rows in record.rows.items():
        path = folder / f"{name}.arrow"
        if path.exists():
            for text in _verify_table(path, record, decode=decode):
                yield Damage(path, text)
        elif rows:
            yield Damage(path, f"is missing, the record counts {rows:,} rows")


def _verify_table(path: Path, record: TrialRecord, *, decode: bool) -> Iterator[str]:
    name = path.stem
    try:
        with pa.memory_map(str(path)) as source:
            columns = pa.ipc.open_file(source).schema
            counted, digest = sealed_account(source, decode=decode)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield f"can't be read as a table: {error}"
        return
    if digest != record.digests.get(name, digest):
        yield "was made of other batches than those that came"
    if counted != record.rows[name]:
        yield f"has {counted:,} rows, the record counts {record.rows[name]:,}"
    if not columns.equals(_columns_of(name, record.schema_version)):
        yield "has other columns than its version's tables"


def _columns_of(stream: str, version: int) -> pa.Schema:
    """The columns that a file of this name has; none at all when it belongs to no table."""
    try:
        return TABLES[table_of(stream).table].arrow_of(version)
    except KeyError:
        return pa.schema([])
