"""The archive: a folder of runs, each a folder of trials, readable without Heapgate.

    <archive>/<run_id>/run.json, matrix.yaml, SHA256SUMS, logs/
    <archive>/<run_id>/trials/<trial_id>/memory.arrow, requests.arrow, …, trial.json, service.log,
                                         SHA256SUMS

The requests of load nodes are in `requests-1.arrow`, `requests-2.arrow` …: parts of one table.
A trial's folder is called `<trial_id>.partial` until it is sealed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks, UserError
from results.files import RUN_FILES, file_digest, read_sums, write_sums, write_whole
from results.record import Finding, TrialRecord
from results.streams import stream_of, table_of

PARTIAL = ".partial"
_ARROW_END = b"ARROW1"
"""The last bytes of a complete Arrow IPC file."""

_WRITING_S = 0.2
"""A run that goes on writes its document and then the digest: a reader in between looks again."""


def default_archive() -> Path:
    """`HEAPGATE_ARCHIVE`, or the folder `archive` where the command is called."""
    return Path(os.environ.get("HEAPGATE_ARCHIVE") or "archive")


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One run in the archive and its document (`run.json`).

    `doubt` is why the document may not be what the run wrote; empty when its digest is right.
    """

    run_id: str
    path: Path
    document: dict[str, Any]
    doubt: str = ""

    @property
    def status(self) -> str:
        """running, complete, decided (ended early), incomplete or interrupted, as the run wrote."""
        return str(self.document["status"])

    @property
    def format(self) -> int:
        """The version of the format in which it was written."""
        return int(self.document.get("schema_version") or 1)


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
        found = [entry for entry in entries if isinstance(entry, RunEntry)]
        return sorted(found, key=lambda entry: (entry.document["started_ns"], entry.run_id))

    def unreadable(self) -> Iterator[tuple[Path, str]]:
        """Folders that hold trials and are no run any more, and why."""
        for trials in sorted(self.path.glob("*/trials")):
            entry = _entry(trials.parent)
            if isinstance(entry, str):
                yield trials.parent, entry

    def run(self, name: str) -> RunEntry:
        """A run by its id, by the beginning of one, or `latest`. Raises UserError."""
        runs = self.runs()
        if not runs and not any(folder.name == name for folder, _ in self.unreadable()):
            raise self.no_runs()
        if name == "latest":
            return runs[-1]
        fitting = [entry for entry in runs if entry.run_id.startswith(name)]
        exact = [entry for entry in fitting if entry.run_id == name]
        if exact or len(fitting) == 1:
            return (exact or fitting)[0]
        for folder, why in self.unreadable() if not fitting else ():
            if folder.name == name:
                raise UserError(f"run {name} is in the archive {self.path}, but its run.json {why}")
        ids = [entry.run_id for entry in fitting or runs]
        near = [e.run_id for e in fitting] or difflib.get_close_matches(name, ids, 3, 0.3)
        problem = "is not unique" if fitting else "is not in the archive"
        hint = f"; there are: {', '.join(near or ids[-3:])}"
        raise UserError(f"run {name!r} {problem} {self.path}{hint}")

    def no_runs(self) -> UserError:
        """What is told when a run is wanted and there is none."""
        if next(self.unreadable(), None):
            return UserError(f"the archive {self.path} has no run that can be read: bench verify")
        return UserError(f"the archive {self.path} has no runs yet; try: bench demo")

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
        return self.read_records(run_id)[0]

    def read_records(self, run_id: str) -> tuple[list[TrialRecord], dict[str, str]]:
        """The same, and why the other sealed trials have none that can be believed, by trial id."""
        found, lost = [], {}
        for folder in sorted((self.path / run_id / "trials").glob("*")):
            if folder.is_dir() and not folder.name.endswith(PARTIAL):
                record = _record(folder, run_id)
                if isinstance(record, str):
                    lost[folder.name] = record
                else:
                    found.append(record)
        return sorted(found, key=lambda r: (r.started_ns, r.trial_id)), lost

    def trial_names(self, run_id: str) -> list[str]:
        """The ids of all trials that have a folder, sealed or not."""
        folders = (self.path / run_id / "trials").glob("*")
        return sorted(path.name.removesuffix(PARTIAL) for path in folders if path.is_dir())

    def partial_trials(self, run_id: str) -> list[Path]:
        """Folders of trials that were cut off before they were sealed."""
        return sorted((self.path / run_id / "trials").glob(f"*{PARTIAL}"))


def _entry(folder: Path) -> RunEntry | str:
    """A run, or why its document can't be believed at all."""
    try:
        document = json.loads((folder / "run.json").read_bytes())
        int(document["started_ns"])
        run_id = document["run_id"]
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return "can't be read: it is not the document of a run"
    if run_id != folder.name:
        return f"is that of run {str(run_id)[:80]!r}: its folder must have that name"
    doubt = _doubt(folder) if document.get("status") != "running" else ""
    if doubt and not has_form(document):
        return "can't be read: it is damaged"
    return RunEntry(run_id, folder, document, doubt)


def _doubt(folder: Path) -> str:
    """Why a run's document may not be what the run wrote."""
    looked_until_s = time.monotonic() + _WRITING_S
    while True:
        try:
            if read_sums(folder).get("run.json") == file_digest(folder / "run.json"):
                return ""
            why = "is not what its digest says"
        except (OSError, ValueError):
            why = "can't be checked: its SHA256SUMS can't be read"
        if time.monotonic() > looked_until_s:
            return f"run.json {why}; service, builds and margins may not be what was run"
        time.sleep(_WRITING_S / 10)


def has_form(document: dict[str, Any]) -> bool:
    """Whether a run's document, which may be damaged or anybody's, has what its readers need."""
    try:
        asked = document["comparison"]
        float(asked["confidence"]), list(asked["primary"]), dict(asked["margins"])
        int(document["blocks"]), str(document["service"]), str(document["status"])
        [(t["trial_id"], t["configuration"], t["baseline"]) for t in document["planned"]]
        builds = document["builds"].values()
        [(b["size_bytes"], b["sha256"], b["go_version"], b["build_flags"]) for b in builds]
        return 0 < asked["confidence"] < 1 and "seed" in document and "finished_ns" in document
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _record(folder: Path, run_id: str) -> TrialRecord | str:
    """A trial's record, or why there is none to believe: its trial counts as missing then."""
    try:
        sealed = (folder / "trial.json").read_bytes()
        if read_sums(folder).get("trial.json") != hashlib.sha256(sealed).hexdigest():
            return "its trial.json has changed since it was sealed"
        record = TrialRecord.from_json(sealed)
        if (record.run_id, record.trial_id) != (run_id, folder.name):
            return f"its trial.json is that of {record.run_id}/{record.trial_id}"
        streams = [table_of(name) for name, rows in record.rows.items() if rows]
        names = [f"{stream_of(*stream)}.arrow" for stream in streams]
        lost = sorted(name for name in names if not is_whole(f"{folder}{os.sep}{name}"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "it has no readable trial.json or SHA256SUMS"
    if lost:
        text = f"{' and '.join(lost)} damaged or missing since the trial was sealed"
        record.findings.append(Finding("rows_lost", "invalid", text))
    return record


def is_whole(path: str) -> bool:
    """Whether an Arrow file was written to its end and not cut off afterwards."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 — of thousands of files
            if file.seek(0, os.SEEK_END) < 2 * len(_ARROW_END):
                return False
            file.seek(-len(_ARROW_END), os.SEEK_END)
            return file.read() == _ARROW_END
    except OSError:
        return False
