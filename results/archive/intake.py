"""Runs from elsewhere into an archive: each is verified first, and enters whole or not at all.

Nothing is overwritten. A run that is here already with the same digests stays as it is; one of the
same name with other digests is refused, and so is one that is damaged: by name, the others enter.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from results.archive.archive import Archive, RunEntry, has_form
from results.archive.fragments import read_trials
from results.archive.intact import digest_of_run
from results.archive.packing import files_of_run, unpack
from results.archive.verify import verify_run
from results.errors import EnvironmentLacks, UserError
from results.files import sync_file, sync_folder

STAGING: Final = ".import-"
"""In the archive's folder: runs that are not verified yet."""

_RUN_ID: Final = re.compile(r"[a-zA-Z0-9][\w.~+-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one run of the source; `why` it was refused."""

    run_id: str
    outcome: Literal["imported", "here already", "refused"]
    why: str = ""


def import_runs(archive: Archive, source: Path) -> list[Arrival]:
    """Take all runs of an archive's folder, of one run's folder, or of a tar or zip of them.

    Raises UserError when the source has no runs or is none, EnvironmentLacks when the archive can't
    be written to.
    """
    if not source.exists():
        raise UserError(f"there is no {source}")
    try:
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=archive.path) as folder:
            staging = Path(folder)
            if source.is_dir():
                folders = _folders_of(source)
            else:
                (staging / "unpacked").mkdir()
                unpack(source, staging / "unpacked")
                folders = _folders_of(staging / "unpacked")
            return [_take(archive, found, staging / "run") for found in folders]
    except OSError as error:
        raise EnvironmentLacks(f"{error.filename or archive.path}: {error.strerror}") from error


def _folders_of(source: Path) -> list[Path]:
    """The folders of runs in a folder, or a level below it, as when an archive was packed whole."""
    if (source / "trials").is_dir() or (source / "run.json").exists():
        return [source]
    for pattern in ("*/", "*/*/"):
        found = [
            path
            for path in sorted(source.glob(pattern))
            if (path / "run.json").exists() or (path / "trials").is_dir()
        ]
        if found:
            return [path for path in found if not path.name.startswith(".")]
    if any(source.glob("*/run_id=*")):
        raise UserError(
            f"{source} is a set of Parquet files: it has the rows, but neither the records of the "
            "trials nor the digests, so nothing could be verified; import the archive itself, or a "
            "file of bench export -o runs.tar.zst"
        )
    raise UserError(f"there are no runs in {source}")


def _take(archive: Archive, folder: Path, staged: Path) -> Arrival:
    """Copy one run beside the archive's own, verify the copy, and give it its place."""
    shutil.rmtree(staged, ignore_errors=True)
    try:
        if not _RUN_ID.fullmatch(folder.name):
            raise UserError("its name can't be that of a run")
        copy = staged / folder.name
        (copy / "trials").mkdir(parents=True)
        for path in files_of_run(folder):
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target, follow_symlinks=False)
            sync_file(target)
        run = _verified(staged)
        place = archive.path / run.run_id
        if place.exists():
            if digest_of_run(place) == digest_of_run(copy):
                return Arrival(folder.name, "here already")
            raise UserError("another run of this name, or another state of it, is here already")
        copy.rename(place)
        sync_folder(archive.path)
    except UserError as error:
        return Arrival(folder.name, "refused", str(error))
    return Arrival(folder.name, "imported")


def _verified(staged: Path) -> RunEntry:
    """The run in a folder of its own. Raises UserError for all that no archive should have."""
    archive = Archive(staged)
    for _, why in archive.unreadable():
        raise UserError(f"its run.json {why}")
    runs = archive.runs()
    if not runs:
        raise UserError("it has no run.json")
    (run,) = runs
    if run.status == "running":
        raise UserError("it is still running there, or its driver was killed; end it there first")
    for damage in verify_run(run, decode=True):
        name = damage.path.relative_to(run.path).as_posix()
        raise UserError(f"{name} {damage.text}")
    try:
        if not has_form(run.document):
            raise UserError("its run.json is not the document of a run")
        # Made, each of them: what a document lacks is found no sooner.
        list(read_trials(archive, [run]).tables.values())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the record of a trial lacks something: {error!r}"[:200]) from error
    return run


def abandoned_imports(archive: Archive, *, older_than_s: float) -> list[Path]:
    """What imports that were killed have left; a younger one may still go on."""
    now_s = time.time()
    found = archive.path.glob(f"{STAGING}*")
    return [path for path in found if now_s - path.stat().st_mtime > older_than_s]
