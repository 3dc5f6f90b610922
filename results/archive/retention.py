"""Which runs of an archive may go, and how they go.

A run that somebody relies on stays: one with a baseline's name, one with a sign-off or whose
figures another's sign-off rests on, one that is running. Of every other the age, the number of a
service's runs and the size of the archive decide.
A run goes by a rename first, so that a crash in between leaves nothing that looks like a run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.archive.archive import Archive, RunEntry
from results.errors import EnvironmentLacks
from results.files import remove_folder, sync_folder

REMOVED: Final = ".removed"
"""In the archive's folder: runs on their way out."""

SIGNED: Final = "signoff*.json"
"""A run's folder with such a record was signed: the record says which bytes it rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may go: at least one of the first three is set.

    Runs that ended longer ago than `older_than_ns`; of each service all but the newest `keep_last`
    (with an age, those are kept whatever their age); the oldest, until the archive has at most
    `size_max_bytes`. `last_too`: also the newest run of a service, which stays otherwise.
    """

    older_than_ns: int | None = None
    keep_last: int | None = None
    size_max_bytes: int | None = None
    last_too: bool = False


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a run: `why` it goes, or stays though it might have gone; "" if neither."""

    run: RunEntry
    size_bytes: int
    goes: bool
    why: str


def fates(
    archive: Archive,
    policy: Policy,
    *,
    now_ns: int,
    pinned: Collection[str] = (),
    held: Collection[str] = (),
) -> list[Fate]:
    """What becomes of each run, the oldest first. Reads sizes and documents, changes nothing.

    `pinned` are the ids of runs with a name, `held` those of runs that a live process works on.
    """
    runs = archive.runs()
    sizes = {run.run_id: folder_bytes(run.path) for run in runs}
    spared = set() if policy.last_too else _newest(runs, 1)
    relied = _relied_on(runs)
    stays = {run.run_id: _bound(run, pinned, held, spared, relied) for run in runs}
    wanted = _wanted(runs, policy, sizes, stays, now_ns)
    return [
        Fate(
            run,
            sizes[run.run_id],
            run.run_id in wanted and not stays[run.run_id],
            (stays[run.run_id] or wanted[run.run_id]) if run.run_id in wanted else "",
        )
        for run in runs
    ]


def _bound(
    run: RunEntry,
    pinned: Collection[str],
    held: Collection[str],
    spared: Collection[str],
    relied: Mapping[str, str],
) -> str:
    """Why a run must not go, whatever its age; empty when it may."""
    if run.run_id in pinned:
        return "it is a baseline"
    if any(run.path.glob(SIGNED)):
        return "it is signed"
    if run.run_id in relied:
        return f"the sign-off of {relied[run.run_id]} rests on it"
    if run.status == "running" or run.run_id in held:
        return "it is running"
    return "it is the newest of its service" if run.run_id in spared else ""


def _relied_on(runs: Sequence[RunEntry]) -> dict[str, str]:
    """Runs by which a capacity was signed off → the run whose sign-off it was."""
    found: dict[str, str] = {}
    for run in runs:
        for path in run.path.glob(SIGNED):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                searches = json.loads(path.read_bytes()).get("capacity") or ()
                found |= {trial["run_id"]: run.run_id for s in searches for trial in s["runs"]}
    return found


def _ended_ns(run: RunEntry) -> int:
    return int(run.document.get("finished_ns") or run.document["started_ns"])


def _wanted(
    runs: Sequence[RunEntry],
    policy: Policy,
    sizes: dict[str, int],
    bound: dict[str, str],
    now_ns: int,
) -> dict[str, str]:
    """The runs that the policy wants to go, bound ones too, and why."""
    kept = _newest(runs, policy.keep_last or 0)
    found: dict[str, str] = {}
    for run in runs:
        if run.run_id in kept:
            continue
        if policy.older_than_ns is not None:
            age_ns = now_ns - _ended_ns(run)
            if age_ns > policy.older_than_ns:
                found[run.run_id] = f"it ended {age_ns / 86_400e9:,.1f} days ago"
        elif policy.keep_last is not None:
            found[run.run_id] = f"{policy.keep_last} newer ones of its service are kept"
    if policy.size_max_bytes is not None:
        left = sum(sizes.values()) - sum(sizes[r] for r in found if not bound[r])
        for run in runs:
            if left > policy.size_max_bytes and run.run_id not in kept and run.run_id not in found:
                found[run.run_id] = "the archive is larger than it may be"
                left -= 0 if bound[run.run_id] else sizes[run.run_id]
    return found


def _newest(runs: Sequence[RunEntry], number: int) -> set[str]:
    """The ids of the newest runs of each service."""
    by_service: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        by_service[str(run.document.get("service"))].append(run.run_id)
    return {name for own in by_service.values() for name in (own[-number:] if number else ())}


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def remove_run(archive: Archive, run: RunEntry) -> None:
    """Take a run out of the archive, whole. Raises EnvironmentLacks when it can't be removed."""
    aside = archive.path / REMOVED
    try:
        aside.mkdir(exist_ok=True)
        gone = aside / f"{run.run_id}.{os.getpid()}"
        run.path.rename(gone)
        sync_folder(archive.path)
    except OSError as error:
        raise EnvironmentLacks(f"{run.path} can't be removed: {error.strerror}") from error
    if not remove_folder(gone):
        raise EnvironmentLacks(f"{gone} can't be removed: remove it by hand")


def finish_removals(archive: Archive) -> int:
    """Remove what a crash left of runs that were on their way out; how many bytes that frees."""
    aside = archive.path / REMOVED
    left = list(aside.iterdir()) if aside.is_dir() else []
    freed = sum(folder_bytes(folder) for folder in left)
    if not all(map(remove_folder, left)):
        raise EnvironmentLacks(f"{aside} can't be removed: remove it by hand")
    if aside.is_dir():
        aside.rmdir()
    return freed
