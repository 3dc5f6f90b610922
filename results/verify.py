"""Is an archive still what was measured? Digests, then rows and columns of every table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from results.archive import PARTIAL, Archive, RunEntry
from results.files import RUN_FILES, SUMS, file_digest, read_sums
from results.record import TrialRecord
from results.schema import TABLES
from results.streams import table_of
from results.trialfiles import sealed_account


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of an archive that is not what it was when it was sealed."""

    path: Path
    text: str


def unreadable_runs(archive: Archive) -> Iterator[Damage]:
    """Folders that hold trials and are no run any more."""
    known = {run.path for run in archive.runs()}
    for trials in sorted(archive.path.glob("*/trials")):
        if trials.parent not in known:
            yield Damage(
                trials.parent / "run.json", "can't be read: its run is not listed any more"
            )


def verify_run(run: RunEntry) -> Iterator[Damage]:
    """All damage in a run: its documents, then each sealed trial. Reads every byte."""
    yield from _verify_folder(run.path, RUN_FILES)
    for folder in sorted((run.path / "trials").iterdir()):
        if folder.is_dir() and not folder.name.endswith(PARTIAL):
            yield from _verify_trial(folder)


def _verify_trial(folder: Path) -> Iterator[Damage]:
    present = {path.name for path in folder.iterdir()} - {SUMS}
    damage = list(_verify_folder(folder, present))
    yield from damage
    if not damage:
        yield from _verify_tables(folder)


def _verify_folder(folder: Path, names: Iterable[str]) -> Iterator[Damage]:
    """Files that changed, went or came since their digests were written."""
    try:
        known = read_sums(folder)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        yield Damage(folder / SUMS, f"can't be read: {why}")
        return
    for name in sorted({*known, *names}):
        path = folder / name
        if name not in known:
            yield Damage(path, "has come since the folder was sealed")
        elif not path.is_file():
            yield Damage(path, "is gone")
        elif file_digest(path) != known[name]:
            yield Damage(path, "has changed since it was sealed")


def _verify_tables(folder: Path) -> Iterator[Damage]:
    """Whole files may still not be what the record says: rows and columns of each table."""
    record = TrialRecord.read(folder / "trial.json")
    for name in sorted({path.stem for path in folder.glob("*.arrow")} - record.rows.keys()):
        yield Damage(folder / f"{name}.arrow", "is not in the trial's record")
    for name, rows in record.rows.items():
        path = folder / f"{name}.arrow"
        if not path.exists():
            if rows:
                yield Damage(path, f"is missing, the record counts {rows:,} rows")
            continue
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            counted, digest = sealed_account(file)
            if digest != record.digests.get(name, digest):
                yield Damage(path, "was made of other batches than those that came")
            if counted != rows:
                yield Damage(path, f"has {counted:,} rows, the record counts {rows:,}")
            if not file.schema.equals(_columns_of(name, record.schema_version)):
                yield Damage(path, "has other columns than its version's tables")


def _columns_of(stream: str, version: int) -> pa.Schema:
    """The columns that a file of this name has; none at all when it belongs to no table."""
    try:
        return TABLES[table_of(stream).table].arrow_of(version)
    except KeyError:
        return pa.schema([])
