"""One trial while it is open: its growing files, the account of each part, the sealing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from results.archive.archive import PARTIAL
from results.archive.journal import SUFFIX
from results.archive.trialfiles import Account, TableFile
from results.files import sync_file, sync_folder, write_sums, write_whole
from results.judging import steady, validity
from results.record import Finding, TrialRecord
from results.schema import TABLES
from results.streams import table_of
from results.wire import telemetry_pb2 as wire


class Refusal(Exception):
    """A message that can't be accepted, now or later."""


class TrialWriter:
    """One open trial. Its parts come from different nodes, so one may fail without the others.

    Several threads may add, each to streams of its own; whoever opens, finishes or seals does it
    alone (`OpenTrials`).
    """

    def __init__(self, folder: Path) -> None:
        """Open a trial's folder; what a crashed collector left in it is taken over."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._files = {name: self._opened(name) for name in sorted(self._left_streams())}
        self._closed: set[str] = set()
        self._parts: set[int] = set()

    def _left_streams(self) -> Iterator[str]:
        for name in [path.stem for path in self._folder.glob(f"*{SUFFIX}")]:
            with contextlib.suppress(KeyError):
                table_of(name)
                yield name

    def _opened(self, stream: str) -> TableFile:
        return TableFile(self._folder / f"{stream}.arrow", TABLES[table_of(stream).table])

    def accounts(self, part: int | None = None) -> dict[str, Account]:
        """What is on disk, by stream; of one part, or of all."""
        with self._lock:
            files = list(self._files.items())
        return {
            name: file.account
            for name, file in files
            if part is None or table_of(name).part == part
        }

    def reopen(self, part: int) -> None:
        """A node opens its part: what was let go of is taken up again."""
        self._parts.add(part)
        self._take_up(part)

    def _take_up(self, part: int | None) -> None:
        for name in self._left_streams():
            if name not in self._files and part in (None, table_of(name).part):
                self._files[name] = self._opened(name)

    def add(self, stream: str, part: int, sequence: int, data: bytes) -> None:
        """Write one batch of a part, or drop one that is there already."""
        self._file(stream, part).add(sequence, data)

    def _file(self, stream: str, part: int) -> TableFile:
        try:
            whose = table_of(stream).part
        except KeyError as error:
            raise Refusal(f"there is no table {stream!r}") from error
        with self._lock:
            if part not in self._parts:
                raise Refusal(f"part {part} was not opened")
            if whose != part:
                raise Refusal(f"stream {stream!r} does not belong to part {part}")
            if stream in self._closed:
                raise Refusal(f"part {part} was finished already")
            if stream not in self._files:
                self._files[stream] = self._opened(stream)
            return self._files[stream]

    def sync(self, stream: str) -> bool:
        """Return when a stream is on disk; False when it was let go of before."""
        file = self._files.get(stream)
        return file is not None and file.sync()

    def finish_part(self, finish: wire.FinishTrial) -> list[str]:
        """A load node is done: close its streams, compare, and remember what differs."""
        note = self._part_note(finish.part)
        if note.exists():
            return _texts(note)
        self._close(part=finish.part)
        found = differences(self.accounts(finish.part), finish)
        write_whole(note, json.dumps(found))
        return found

    def seal(self, finish: wire.FinishTrial) -> list[str]:
        """Compare both accounts, complete the record, and give the folder its final name."""
        self._close()
        record = read_record(finish.trial_json)
        found = differences(self.accounts(0), finish) + list(self._of_parts(finish, record))
        record.findings += [Finding("rows_lost", "invalid", text) for text in found]
        steady.settle(record, self._folder)
        self._seal(record, finish.service_log)
        return found

    def seal_lost(self, request: wire.AbandonTrial) -> TrialRecord:
        """Seal with what there is, because a node was lost; the record as it was written."""
        self._close()
        record = read_record(request.trial_json)
        rows = {name: account.rows for name, account in self.accounts().items()}
        archived = sum(n for name, n in rows.items() if table_of(name).table == "requests")
        if not any(finding.code == "node_lost" for finding in record.findings):
            why = request.why or "the trial's node was lost"
            lost = validity.node_lost(
                why, sent_at_least=max(request.sent_at_least, archived), archived=archived
            )
            record.findings.append(lost)
        self._seal(record, b"")
        return record

    def _of_parts(self, finish: wire.FinishTrial, record: TrialRecord) -> Iterator[str]:
        named = sorted(set(finish.parts))
        told = {g.get("part"): int(g.get("sent") or 0) for g in record.generators}
        for part in named:
            note = self._part_note(part)
            if note.exists():
                yield from _texts(note)
            else:
                rows = sum(account.rows for account in self.accounts(part).values())
                sent = validity.account_of(told.get(part, 0), rows)
                yield f"part {part}: its load node has not finished: {sent}"
        for stream, account in self.accounts().items():
            if table_of(stream).part not in (0, *named):
                yield f"{stream}: {account.rows} rows of a part that the trial does not have"

    def _part_note(self, part: int) -> Path:
        """Where a finished part's differences are kept until the trial is sealed."""
        return self._folder / f"part-{part}.json"

    def _close(self, part: int | None = None) -> None:
        self._take_up(part)
        for name in self.accounts(part):
            if name not in self._closed:
                self._files[name].close()
                self._closed.add(name)

    def _seal(self, record: TrialRecord, service_log: bytes) -> None:
        accounts = self.accounts()
        record.rows = {name: account.rows for name, account in accounts.items()}
        record.digests = {name: account.digest for name, account in accounts.items()}
        log = self._folder / "service.log"
        log.write_bytes(service_log)
        sync_file(log)
        write_whole(self._folder / "trial.json", record.to_json())
        sealed = [*self._folder.glob("*.arrow"), *self._folder.glob("trial.json"), log]
        write_sums(self._folder, (path.name for path in sealed))
        complete_seal(self._folder)

    def let_go(self, part: int | None = None) -> None:
        """Let go of the files of a part, or of all, as they are; it has to be opened again."""
        names = [name for name in self.accounts(part) if name not in self._closed]
        with self._lock:
            self._parts -= self._parts if part is None else {part}
            files = [self._files.pop(name) for name in names]
        for file in files:
            file.abandon()


def complete_seal(folder: Path) -> None:
    """Give a trial's folder its final name: everything is written, the digests last.

    What was only kept until then is dropped. After a crash in the middle it is done again.
    """
    sync_folder(folder)
    for leftover in (*folder.glob(f"*{SUFFIX}"), *folder.glob("part-*.json")):
        leftover.unlink()
    folder.rename(folder.with_name(folder.name.removesuffix(PARTIAL)))
    sync_folder(folder.parent)


def differences(here: dict[str, Account], finish: wire.FinishTrial) -> list[str]:
    """What the agent's account of its rows and ours do not agree on, in words."""
    nothing = Account(0, 0, "")
    sent = {t.stream: Account(t.batches, t.rows, t.digest.hex()) for t in finish.totals}
    found = []
    for stream in sorted(sent.keys() | here.keys()):
        theirs, ours = sent.get(stream, nothing), here.get(stream, nothing)
        # Without batches there is no digest to compare; rows that no disk ever took still count.
        nothing_came = theirs.batches == ours.batches == theirs.rows == 0
        if nothing_came or theirs == ours:
            continue
        what = "other bytes" if theirs.rows == ours.rows else f"{ours.rows} rows"
        found.append(f"{stream}: {theirs.rows} rows were measured, the archive has {what}")
    return found


def read_record(text: bytes) -> TrialRecord:
    """The record that came with a message. Raises Refusal."""
    try:
        return TrialRecord.from_json(text.decode())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refusal(f"the trial's record can't be read: {error}") from error


def _texts(note: Path) -> list[str]:
    return [str(text) for text in json.loads(note.read_bytes())]
