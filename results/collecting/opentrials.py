"""The trials of a run that a collector has open, and those that it will not open any more."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from pathlib import Path

from results.archive.archive import PARTIAL
from results.collecting.trialwriter import Refusal, TrialWriter, complete_seal, read_record
from results.files import SUMS
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION
from results.wire import telemetry_pb2 as wire

_TRIAL_ID = re.compile(r"[a-zA-Z0-9][\w.~+@-]{0,199}")
PART_MAX = 999


class OpenTrials:
    """By trial id.

    Several threads may use it. What opens, finishes or seals a trial takes its turn with that trial
    alone, so that the sealing of one, which takes long, keeps no other waiting.
    """

    def __init__(self, trials: Path, run_id: str) -> None:
        self._trials = trials
        self._run_id = run_id
        self._open: dict[str, TrialWriter] = {}
        self._turns: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def open(self, message: wire.OpenTrial) -> dict[str, int]:
        """Open a part of a trial; the last sequence number of each of its streams on disk."""
        trial_id = message.trial_id
        self._check_ids(message.run_id, trial_id)
        if message.schema_version != SCHEMA_VERSION:
            raise Refusal(
                f"schema version {message.schema_version} is not {SCHEMA_VERSION}: "
                "agent and collector are of different releases"
            )
        if message.part > PART_MAX:
            raise Refusal(f"a trial has at most {PART_MAX} parts")
        with self._turns[trial_id]:
            if self._is_sealed(trial_id):
                if _is_lost(self._sealed_record(trial_id)):
                    raise Refusal(
                        "its node was given up as lost, and the trial was sealed without it"
                    )
                return {}
            writer = self._opened(trial_id)
            writer.reopen(message.part)
            accounts = writer.accounts(message.part)
        return {name: account.batches for name, account in accounts.items()}

    def writer(self, trial_id: str) -> TrialWriter:
        """An open trial. Raises Refusal for any other."""
        writer = self._open.get(trial_id)
        if writer is None:
            raise Refusal(f"trial {trial_id!r} was not opened")
        return writer

    def sync(self, trial_id: str, stream: str) -> bool:
        """Return when a stream is on disk; False when it was let go of. Raises OSError."""
        writer = self._open.get(trial_id)
        if writer is None:
            return self._has_final_name(trial_id)
        return writer.sync(stream)

    def finish(self, message: wire.FinishTrial) -> list[str]:
        """Finish a part, or seal the whole; what the two accounts differ in."""
        trial_id = message.trial_id
        with self._turns[trial_id]:
            if trial_id not in self._open and self._is_sealed(trial_id):
                record = self._sealed_record(trial_id)
                return [f.text for f in record.findings if f.code == "rows_lost"]
            writer = self.writer(trial_id)
            if message.part:
                return writer.finish_part(message)
            try:
                found = writer.seal(message)
            except BaseException:
                self.forget(trial_id)
                raise
            del self._open[trial_id]
            return found

    def give_up(self, message: wire.AbandonTrial) -> wire.Abandoned:
        """Seal a trial whose node is lost, unless the node sealed it after all."""
        trial_id = message.trial_id
        self._check_ids(message.run_id, trial_id)
        with self._turns[trial_id]:
            sealed_before = trial_id not in self._open and self._is_sealed(trial_id)
            if sealed_before:
                record = self._sealed_record(trial_id)
            else:
                record = self._sealed_without_node(message)
        return wire.Abandoned(
            rows=record.rows,
            trial_json=record.to_json().encode(),
            sealed_before=sealed_before,
        )

    def _sealed_without_node(self, message: wire.AbandonTrial) -> TrialRecord:
        trial_id = message.trial_id
        if read_record(message.trial_json).trial_id != trial_id:
            raise Refusal(f"the record is not that of {trial_id}")
        try:
            record = self._opened(trial_id).seal_lost(message)
        except BaseException:
            self.forget(trial_id)
            raise
        del self._open[trial_id]
        return record

    def let_go(self, trial_id: str, part: int) -> None:
        """A part was refused: its files stay as they are; other parts go on."""
        with self._turns[trial_id]:
            if trial_id in self._open:
                self._open[trial_id].let_go(part)

    def forget(self, trial_id: str) -> None:
        """Let go of a whole trial; it can be opened again."""
        with self._turns[trial_id]:
            writer = self._open.pop(trial_id, None)
            if writer:
                writer.let_go()

    def _opened(self, trial_id: str) -> TrialWriter:
        if trial_id not in self._open:
            self._open[trial_id] = TrialWriter(self._trials / f"{trial_id}{PARTIAL}")
        return self._open[trial_id]

    def _check_ids(self, run_id: str, trial_id: str) -> None:
        if not _TRIAL_ID.fullmatch(trial_id):
            raise Refusal(f"{trial_id!r} can't be the id of a trial")
        if run_id != self._run_id:
            raise Refusal(f"this collector is for run {self._run_id}, not {run_id!r}")

    def _is_sealed(self, trial_id: str) -> bool:
        partial = self._trials / f"{trial_id}{PARTIAL}"
        if trial_id not in self._open and (partial / SUMS).exists():
            complete_seal(partial)
        return self._has_final_name(trial_id)

    def _has_final_name(self, trial_id: str) -> bool:
        return (self._trials / trial_id / "trial.json").exists()

    def _sealed_record(self, trial_id: str) -> TrialRecord:
        return TrialRecord.read(self._trials / trial_id / "trial.json")


def _is_lost(record: TrialRecord) -> bool:
    return any(finding.code == "node_lost" for finding in record.findings)
