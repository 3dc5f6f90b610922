"""The list of runs, and what one run has: read anew whenever a file has changed.

A run that lies in two archives is listed once when both are the same, and not at all when they
differ, as for SQL (`results/archive/archives.py`): nobody can tell which is right.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from results.archive.archive import PARTIAL, Archive, RunEntry
from results.archive.archives import agreed, find_archives
from results.errors import HeapgateError, UserError
from results.metrics import format_bytes
from results.record import TrialRecord, planned_id
from results.schema import SCHEMA_VERSION

PAGE_ROWS: Final = 50
STATUSES: Final = ("running", "complete", "decided", "incomplete", "interrupted")


class NotFound(HeapgateError):
    """There is no such page."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs are wanted; empty fields want all."""

    text: str = ""
    service: str = ""
    status: str = ""
    since: str = ""
    until: str = ""
    archive: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """From the fields of an address. Raises UserError for what is no date."""
        for name in ("since", "until"):
            if query.get(name):
                _day(query[name])
        page = query.get("page", "1")
        return cls(
            text=query.get("q", "").strip(),
            service=query.get("service", ""),
            status=query.get("status", ""),
            since=query.get("since", ""),
            until=query.get("until", ""),
            archive=query.get("archive", ""),
            page=max(1, int(page)) if page.isdecimal() and len(page) < 9 else 1,
        )

    @property
    def is_empty(self) -> bool:
        """Whether it wants every run."""
        return self == Filter(page=self.page)

    def wants(self, entry: RunEntry) -> bool:
        """Whether a run fits."""
        document = entry.document
        searched = (
            f"{entry.run_id} {document.get('service')} {document.get('matrix_path')} "
            f"{entry.path.parent}"
        )
        began = _began(entry)
        return (
            self.text.lower() in searched.lower()
            and self.service in ("", str(document.get("service")))
            and self.status in ("", entry.status)
            and self.archive in ("", str(entry.path.parent))
            and (not self.since or began >= _day(self.since))
            and (not self.until or began <= _day(self.until))
        )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{text[:40]!r} is no date; dates are like 2026-01-31") from error


def _began(entry: RunEntry) -> date:
    return datetime.fromtimestamp(entry.document["started_ns"] / 1e9, UTC).date()


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the list shows it; texts are for a person."""

    run_id: str
    archive: Path
    service: str
    status: str
    began: str
    took: str
    planned: int
    valid: int
    size: str
    newer_format: int | None
    """Its format, when that is newer than what this Heapgate reads."""
    doubt: str
    """Why its document may not be what the run wrote."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of the list."""

    rows: list[RunRow]
    found: int
    total: int
    services: list[str]
    pages: int
    archives: dict[Path, str]
    """What each archive is called: by its folder's name where no other has it."""
    doubts: list[str]
    """What holds trials and is not listed, and why."""


class Runs:
    """The runs of these archives, by folder or pattern; several threads may ask."""

    def __init__(self, named: Sequence[str | Path]) -> None:
        self._named = tuple(named)
        self._lock = threading.Lock()
        self._listed: tuple[Any, list[RunEntry], list[str]] = (None, [], [])
        self._rows: dict[Path, tuple[Any, RunRow]] = {}

    def archives(self) -> list[Archive]:
        """The archives that are there now: a pattern may find more. Raises UserError."""
        return find_archives(self._named)

    def entries(self) -> list[RunEntry]:
        """All runs, the newest first."""
        return self._list()[0]

    def _list(self) -> tuple[list[RunEntry], list[str]]:
        """All runs, and why others are none of them."""
        archives = self.archives()
        now = [_stamp(p) for a in archives for p in sorted(a.path.glob("*/run.json"))]
        with self._lock:
            known, entries, doubts = self._listed
            if known == now:
                return entries, doubts
        # A document may say that it is another run's: only its folder's name leads anywhere.
        found = [e for a in archives for e in a.runs() if e.run_id == e.path.name]
        told = agreed(found)
        entries, doubts = told.runs, told.differing
        entries.sort(key=lambda e: (e.document["started_ns"], e.run_id), reverse=True)
        with self._lock:
            # A copy that is not whole yet may become so without a new document.
            self._listed = None if doubts else now, entries, doubts
        return entries, doubts

    def entry(self, run_id: str) -> RunEntry:
        """The run of exactly this id. Raises NotFound."""
        for entry in self.entries():
            if entry.run_id == run_id:
                return entry
        raise NotFound("there is no such run here")

    def beside(self, entry: RunEntry) -> list[RunEntry]:
        """The runs of its service in its archive, itself among them: its report shows them too."""
        service, archive = entry.document.get("service"), entry.path.parent
        return [
            other
            for other in self.entries()
            if other.path.parent == archive and other.document.get("service") == service
        ]

    def page(self, wanted: Filter) -> RunPage:
        """The runs that fit, some at a time."""
        entries, doubts = self._list()
        archives = self.archives()
        names = _names([archive.path for archive in archives])
        fitting = [entry for entry in entries if wanted.wants(entry)]
        start = (wanted.page - 1) * PAGE_ROWS
        return RunPage(
            rows=[self._row(entry) for entry in fitting[start : start + PAGE_ROWS]],
            found=len(fitting),
            total=len(entries),
            services=sorted({str(entry.document.get("service")) for entry in entries}),
            pages=max(1, -(-len(fitting) // PAGE_ROWS)),
            archives=names,
            doubts=[
                *doubts,
                *(
                    f"{path if len(names) > 1 else path.name} holds trials, but its run.json {why}"
                    for archive in archives
                    for path, why in archive.unreadable()
                ),
            ],
        )

    def _row(self, entry: RunEntry) -> RunRow:
        stamp = state_of(entry)
        with self._lock:
            known = self._rows.get(entry.path)
        if known and known[0] == stamp:
            return known[1]
        row = _run_row(entry, self.records(entry))
        with self._lock:
            self._rows[entry.path] = stamp, row
        return row

    def records(self, entry: RunEntry) -> list[TrialRecord]:
        """The sealed trials of a run; none of one in a newer format."""
        return self.read_records(entry)[0]

    def read_records(self, entry: RunEntry) -> tuple[list[TrialRecord], dict[str, str]]:
        """The same, and why other sealed trials have none, by trial id."""
        if newer_format(entry) is not None or not (entry.path / "trials").is_dir():
            return [], {}
        return Archive(entry.path.parent).read_records(entry.run_id)

    def trial(self, entry: RunEntry, trial_id: str) -> tuple[TrialRecord, Path]:
        """The sealed trial of exactly this id, and its folder. Raises NotFound."""
        for record in self.records(entry):
            if record.trial_id == trial_id:
                names = {path.name: path for path in (entry.path / "trials").iterdir()}
                if trial_id in names:
                    return record, names[trial_id]
        raise NotFound("there is no such sealed trial in this run")


def _names(archives: Sequence[Path]) -> dict[Path, str]:
    folders = [path.name for path in archives]
    return {p: p.name if folders.count(p.name) == 1 else str(p) for p in archives}


def newer_format(entry: RunEntry) -> int | None:
    """The format of a run that this Heapgate can't read yet."""
    return entry.format if entry.format > SCHEMA_VERSION else None


def state_of(entry: RunEntry) -> str:
    """What changes with everything in a run that a page shows: a digest of its files' times."""
    trials = entry.path / "trials"
    stamps = [_stamp(entry.path / "run.json")]
    if trials.is_dir():
        for folder in sorted(trials.iterdir()):
            sealed = not folder.name.endswith(PARTIAL)
            stamps.append(_stamp(folder / "trial.json" if sealed else folder))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_mtime_ns, status.st_size


def _run_row(entry: RunEntry, records: Iterable[TrialRecord]) -> RunRow:
    document = entry.document
    planned = document.get("planned")
    return RunRow(
        run_id=entry.run_id,
        archive=entry.path.parent,
        service=str(document.get("service")),
        status=entry.status,
        began=when(document["started_ns"]),
        took=took(document["started_ns"], document.get("finished_ns")),
        planned=len(planned) if isinstance(planned, list) else 0,
        valid=len({planned_id(record.trial_id) for record in records if record.valid}),
        size=format_bytes(_size_bytes(entry.path)),
        newer_format=newer_format(entry),
        doubt=entry.doubt,
    )


def _size_bytes(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            total += _stamp(Path(where) / name)[2]
    return total


def when(time_ns: int | None) -> str:
    """A time for a person, in UTC."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}" if time_ns else "–"


def took(start_ns: int, end_ns: int | None) -> str:
    """How long something took; a dash when it is not over."""
    return duration((end_ns - start_ns) / 1e9) if end_ns and end_ns >= start_ns else "–"


def duration(seconds: float) -> str:
    """`45 s`, `2:05 min` or `3:20 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
