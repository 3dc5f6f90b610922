"""What is told of a run that ended: its verdict, its trials, where to look."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from results.errors import HeapgateError
from results.metrics import counted
from results.record import planned_id

if TYPE_CHECKING:
    from orchestrator.run import RunResult


def account_of_run(result: RunResult) -> list[str]:
    """Sentences; fewer where the archive can't be read."""
    from results.archive.archive import Archive

    archive = Archive(result.archive)
    entry = archive.run(result.run_id)
    records = archive.records(result.run_id)
    valid = {planned_id(record.trial_id) for record in records if record.valid}
    spoiled = sum(not record.valid for record in records)
    planned = counted(len(entry.document["planned"]), "trial")
    at = shlex.join(["--archive", str(result.archive.resolve())])
    return [
        *_verdict(result),
        f"Run {result.run_id} of {entry.document['service']}, {result.status}: of {planned} "
        f"{len(valid)} valid; {counted(spoiled, 'invalid attempt')}.",
        f"Look at it: bench report {result.run_id} {at}; every trial: "
        f"bench show {result.run_id} {at}",
    ]


def _verdict(result: RunResult) -> list[str]:
    from results.report.verdict import doubts, lead
    from results.sql.database import open_database

    try:
        with open_database(result.archive, [result.run_id]) as database:
            comparison = database.comparison()
    except HeapgateError:
        return []
    doubtful = doubts(comparison)
    return [
        lead(comparison),
        *([f"Before believing it: {'; '.join(doubtful)}."] if doubtful else []),
    ]
