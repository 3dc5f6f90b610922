"""Several archives as one: which folders are meant, and what is in them together.

A run that lies in two archives is one run that was copied: when all that is sealed of it has the
same digests, it is read once, from the archive that was named first. When it differs, nobody can
tell which is right, and it is an error.
"""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from results.archive.archive import Archive, RunEntry
from results.archive.fragments import Tables, Trials, read_trials, tables_of_rows
from results.archive.intact import digest_of_run
from results.errors import UserError

Checked = Callable[[Path], Path]
"""Archive → the file that says what of it was found right lately."""


def find_archives(named: Iterable[str | Path]) -> list[Archive]:
    """The archives that are named, each once, in their order: by folder, or by a pattern.

    Of a pattern such as `nightly/*`, those folders count that hold a run. Raises UserError for a
    folder that is not there or that is a run, and for a pattern that finds nothing.
    """
    found: dict[Path, Archive] = {}
    for name in named:
        for path in _folders(str(name)):
            archive = Archive(path)
            found.setdefault(archive.path.resolve(), archive)
    return list(found.values())


def _folders(name: str) -> list[Path]:
    if Path(name).is_dir() or not glob.has_magic(name):
        path = Path(name)
        if (path / "run.json").is_file():
            raise UserError(f"{path} is a run; its archive is {path.absolute().parent}")
        return [path]
    matches = sorted(glob.glob(os.path.expanduser(name), recursive=True))  # noqa: PTH111, PTH207
    found = [Path(match) for match in matches if any(Path(match).glob("*/run.json"))]
    if not found:
        raise UserError(f"no folder that fits {name!r} is an archive: none holds a run")
    return found


def read_archives(
    archives: Sequence[Archive],
    names: Sequence[str] = (),
    checked: Checked | None = None,
    *,
    leave_out: bool = False,
) -> Trials:
    """All runs of these archives, or those that are named (ids, beginnings of ids, or `latest`).

    Raises UserError when there is no run at all, or not the one that was named, and for a run that
    lies in two archives and differs. With `leave_out` that one is missing, with a note.
    """
    found = agreed(_chosen(archives, names))
    if found.differing and not leave_out:
        raise UserError(found.differing[0])
    chosen, notes = found.runs, [*found.notes, *found.differing]
    if not chosen:
        raise UserError(found.differing[0]) if found.differing else archives[0].no_runs()
    parts = [
        read_trials(archive, own, checked and checked(archive.path))
        for archive in archives
        if (own := [run for run in chosen if run.path.parent == archive.path])
    ]
    if not names:
        notes += [
            f"{folder.name}: its run.json {why}"
            for archive in archives
            for folder, why in archive.unreadable()
        ]
    read = _together(parts)
    read.notes.extend(notes)
    return read


def _chosen(archives: Sequence[Archive], names: Sequence[str]) -> list[RunEntry]:
    if not names:
        return [run for archive in archives for run in archive.runs()]
    if len(archives) == 1:
        return archives[0].chosen(names)
    return [run for name in names for run in _named(archives, name)]


def _named(archives: Sequence[Archive], name: str) -> list[RunEntry]:
    """A run by its name, once for each archive that has it."""
    runs = [run for archive in archives for run in archive.runs()]
    if name == "latest" and runs:
        name = max(runs, key=lambda run: (run.document["started_ns"], run.run_id)).run_id
    fitting = {run.run_id for run in runs if run.run_id.startswith(name)}
    if len(fitting) > 1 and name not in fitting:
        raise UserError(f"run {name!r} is not unique; there are: {', '.join(sorted(fitting))}")
    run_id = name if name in fitting else next(iter(fitting), None)
    if run_id is None:
        folders = ", ".join(str(archive.path) for archive in archives)
        raise UserError(f"run {name!r} is in none of the archives {folders}")
    return [run for run in runs if run.run_id == run_id]


@dataclass(frozen=True, slots=True)
class Agreed:
    """Each run once; notes on the copies that are left out; why others can't be believed."""

    runs: list[RunEntry]
    notes: list[str]
    differing: list[str]


def agreed(runs: Iterable[RunEntry]) -> Agreed:
    """Of runs of several archives, those of whose id there is one state only, in their order."""
    copies: dict[str, list[RunEntry]] = defaultdict(list)
    for run in runs:
        if all(run.path != other.path for other in copies[run.run_id]):
            copies[run.run_id].append(run)
    found = Agreed([], [], [])
    for first, *others in copies.values():
        told = [why for other in others if (why := _difference(first, other))]
        found.differing.extend(told)
        if not told:
            found.runs.append(first)
            found.notes.extend(
                f"{first.run_id}: the copy in {other.path.parent} is the same and is left out"
                for other in others
            )
    return found


def _difference(run: RunEntry, other: RunEntry) -> str:
    """Why two runs of one id are not copies of each other; empty when they are."""
    try:
        if _digest(run) == _digest(other):
            return ""
    except UserError as error:
        return str(error)
    return (
        f"run {run.run_id} lies in {run.path.parent} and in {other.path.parent}, and the two "
        "differ: name only one of these archives"
    )


def _digest(run: RunEntry) -> str:
    try:
        return digest_of_run(run.path)
    except OSError as error:
        raise UserError(
            f"run {run.run_id} lies in two archives, and {run.path} can't be compared with its "
            f"copy: {error.strerror or error}"
        ) from error


def _together(parts: Sequence[Trials]) -> Trials:
    """What was read of several archives as one."""
    if len(parts) == 1:
        return parts[0]
    files = {
        name: tuple(own for part in parts for own in part.files[name]) for name in parts[0].files
    }
    documents = {
        name: partial(_one_table, parts, name) for name in parts[0].tables if name not in files
    }
    return Trials(
        runs=tuple(run for part in parts for run in part.runs),
        records=tuple(record for part in parts for record in part.records),
        tables=Tables(documents | tables_of_rows(files)),
        files=files,
        notes=[note for part in parts for note in part.notes],
        damage=tuple(text for part in parts for text in part.damage),
    )


def _one_table(parts: Sequence[Trials], name: str) -> pa.Table:
    return pa.concat_tables([part.tables[name] for part in parts])
