"""The archive: a folder of runs, each a folder of trials, readable without Heapgate.

    <archive>/<run_id>/run.json, matrix.yaml, SHA256SUMS, logs/
    <archive>/<run_id>/trials/<trial_id>/memory.arrow, requests.arrow, …, trial.json, service.log,
                                         SHA256SUMS

The requests of load nodes are in `requests-1.arrow`, `requests-2.arrow` …: parts of one table.
A trial's folder is called `<trial_id>.partial` until it is sealed.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks, UserError
from results.files import RUN_FILES, write_sums, write_whole
from results.record import Finding, TrialRecord
from results.streams import stream_of, table_of

PARTIAL = ".partial"
_ARROW_END = b"ARROW1"
"""The last bytes of a complete Arrow IPC file."""


def default_archive() -> Path:
    """`HEAPGATE_ARCHIVE`, or the folder `archive` where the command is called."""
    return Path(os.environ.get("HEAPGATE_ARCHIVE") or "archive")


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One run in the archive and its document (`run.json`)."""

    run_id: str
    path: Path
    document: dict[str, Any]

    @property
    def status(self) -> str:
        """running, complete, incomplete or interrupted, as the run itself wrote."""
        return str(self.document["status"])


class Archive:
    """A folder of runs. Opening one reads nothing but names."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(
                f"there is no archive {path}; run a matrix first, or name the folder with --archive"
            )
        self.path = path.absolute()

    @classmethod
    def create(cls, path: Path) -> Archive:
        """Open an archive, made when it is not there. Raises EnvironmentLacks when it can't be."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise EnvironmentLacks(
                f"the archive {path} can't be written to: {error.strerror}"
            ) from error
        return cls(path)

    def runs(self) -> list[RunEntry]:
        """All runs, the newest last; a folder without a readable `run.json` is none."""
        entries = [_entry(path.parent) for path in sorted(self.path.glob("*/run.json"))]
        found = [entry for entry in entries if entry]
        return sorted(found, key=lambda entry: (entry.document["started_ns"], entry.run_id))

    def run(self, name: str) -> RunEntry:
        """A run by its id, by the beginning of one, or `latest`. Raises UserError."""
        runs = self.runs()
        if not runs:
            raise UserError(f"the archive {self.path} has no runs yet; try: bench demo")
        if name == "latest":
            return runs[-1]
        fitting = [entry for entry in runs if entry.run_id.startswith(name)]
        exact = [entry for entry in fitting if entry.run_id == name]
        if exact or len(fitting) == 1:
            return (exact or fitting)[0]
        ids = [entry.run_id for entry in fitting or runs]
        near = [e.run_id for e in fitting] or difflib.get_close_matches(name, ids, 3, 0.3)
        problem = "is not unique" if fitting else "is not in the archive"
        hint = f"; there are: {', '.join(near or ids[-3:])}"
        raise UserError(f"run {name!r} {problem} {self.path}{hint}")

    def chosen(self, names: Sequence[str]) -> list[RunEntry]:
        """The runs that were named, each once; all of them when none was. Raises as `run` does."""
        entries = {entry.run_id: entry for entry in map(self.run, names)}
        return list(entries.values()) if names else self.runs()

    def create_run(self, run_id: str, document: dict[str, Any], matrix_path: Path) -> Path:
        """The folder of a new run, with its document and a copy of the matrix."""
        folder = self.path / run_id
        try:
            (folder / "trials").mkdir(parents=True)
            shutil.copyfile(matrix_path, folder / "matrix.yaml")
        except OSError as error:
            raise EnvironmentLacks(f"{folder} can't be written to: {error.strerror}") from error
        self.write_run_document(folder, document)
        return folder

    def write_run_document(self, folder: Path, document: dict[str, Any]) -> None:
        """Write `run.json`; it is whole at any time."""
        try:
            write_whole(folder / "run.json", json.dumps(document, indent=1) + "\n")
            write_sums(folder, RUN_FILES)
        except OSError as error:
            raise EnvironmentLacks(f"{folder} can't be written to: {error.strerror}") from error

    def records(self, run_id: str) -> list[TrialRecord]:
        """The records of all sealed trials, in order of their start."""
        folders = (self.path / run_id / "trials").glob("*/trial.json")
        found = [_record(path) for path in folders if not path.parent.name.endswith(PARTIAL)]
        return sorted((r for r in found if r), key=lambda r: (r.started_ns, r.trial_id))

    def trial_names(self, run_id: str) -> list[str]:
        """The ids of all trials that have a folder, sealed or not."""
        folders = (self.path / run_id / "trials").iterdir()
        return sorted(path.name.removesuffix(PARTIAL) for path in folders if path.is_dir())

    def partial_trials(self, run_id: str) -> list[Path]:
        """Folders of trials that were cut off before they were sealed."""
        return sorted((self.path / run_id / "trials").glob(f"*{PARTIAL}"))


def _entry(folder: Path) -> RunEntry | None:
    try:
        document = json.loads((folder / "run.json").read_bytes())
        int(document["started_ns"])
        return RunEntry(document["run_id"], folder, document)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(path: Path) -> TrialRecord | None:
    """None for a `trial.json` that can't be read: its trial counts as missing."""
    try:
        record = TrialRecord.read(path)
        tables = [
            path.with_name(f"{stream_of(*table_of(name))}.arrow")
            for name, rows in record.rows.items()
            if rows
        ]
        lost = sorted(table.name for table in tables if not is_whole(table))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if lost:
        text = f"{' and '.join(lost)} damaged or missing since the trial was sealed"
        record.findings.append(Finding("rows_lost", "invalid", text))
    return record


def is_whole(path: Path) -> bool:
    """Whether an Arrow file was written to its end and not cut off afterwards."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < 2 * len(_ARROW_END):
                return False
            file.seek(-len(_ARROW_END), os.SEEK_END)
            return file.read() == _ARROW_END
    except OSError:
        return False
