"""The archive's profiles as rows: what each function of the service costs, trial by trial.

The files themselves are rows of the table `profile_files`. They are unpacked when a query first
names one of the views that need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from results.pprof import BadProfile, costs

PPROF_KINDS: Final = ("heap", "goroutine", "allocs", "mutex", "block")
"""Kinds of profiles in pprof's form; `trace` is not."""

PROFILES: Final = pa.schema(
    {
        "run_id": pa.string(),
        "trial_id": pa.string(),
        "time_ns": pa.int64(),
        "phase": pa.string(),
        "reason": pa.string(),
        "kind": pa.string(),
        "quantity": pa.string(),
        "unit": pa.string(),
        "function": pa.string(),
        "file": pa.string(),
        "flat": pa.int64(),
        "cumulative": pa.int64(),
        "total": pa.int64(),
    }
)
_OF_FILE: Final = ("run_id", "trial_id", "time_ns", "phase", "reason", "kind")


def profile_table(files: list[dict[str, Any]], notes: list[str]) -> pa.Table:
    """One row for each function of each profile; what can't be read is left out and noted.

    `files` are rows of `profile_files`.
    """
    return pa.Table.from_pylist(
        [row for file in files for row in _rows(file, notes)], schema=PROFILES
    )


def _rows(file: dict[str, Any], notes: list[str]) -> Iterator[dict[str, Any]]:
    own = {name: file[name] for name in _OF_FILE}
    try:
        found = list(costs(file["content"]))
    except BadProfile as error:
        notes.append(f"{file['run_id']}: {file['kind']} profile of {file['trial_id']}: {error}")
        return
    for cost in found:
        yield own | {
            "quantity": cost.quantity,
            "unit": cost.unit,
            "function": cost.function,
            "file": cost.file,
            "flat": cost.flat,
            "cumulative": cost.cumulative,
            "total": cost.total,
        }
