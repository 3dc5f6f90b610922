"""The archive's profiles as rows: what each function and each stack of calls of the service costs,
trial by trial.

The files themselves are rows of the table `profile_files`. They are unpacked when a query first
names one of the views that need them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import pyarrow as pa

from results.profiles.pprof import BadProfile, Cost, Stack, costs_and_stacks

PPROF_KINDS: Final = ("heap", "goroutine", "allocs", "mutex", "block")
"""Kinds of profiles in pprof's form; `trace` is not."""

_OF_FILE: Final = ("run_id", "trial_id", "time_ns", "phase", "reason", "kind")
_FILE_FIELDS: Final = [
    (name, pa.int64() if name.endswith("_ns") else pa.string()) for name in _OF_FILE
]
PROFILES: Final = pa.schema(
    [
        *_FILE_FIELDS,
        ("quantity", pa.string()),
        ("unit", pa.string()),
        ("function", pa.string()),
        ("file", pa.string()),
        ("flat", pa.int64()),
        ("cumulative", pa.int64()),
        ("total", pa.int64()),
    ]
)
STACKS: Final = pa.schema(
    [
        *_FILE_FIELDS,
        ("quantity", pa.string()),
        ("unit", pa.string()),
        ("calls", pa.list_(pa.string())),
        ("value", pa.int64()),
    ]
)
_COST: Final = tuple(field.name for field in fields(Cost))
_STACK: Final = tuple(field.name for field in fields(Stack))


def profile_tables(files: list[dict[str, Any]], notes: list[str]) -> dict[str, pa.Table]:
    """The tables behind the views; what can't be read is left out and noted.

    `files` are rows of `profile_files`. `raw_profiles` has one row for each function of each
    profile, `raw_stacks` one for each stack of calls.
    """
    functions: list[dict[str, Any]] = []
    stacks: list[dict[str, Any]] = []
    for file in files:
        own = {name: file[name] for name in _OF_FILE}
        try:
            found, whole = costs_and_stacks(file["content"])
        except BadProfile as error:
            kind, trial_id = file["kind"], file["trial_id"]
            notes.append(f"{file['run_id']}: {kind} profile of {trial_id}: {error}")
            continue
        # Not asdict: it copies each tuple of names, which takes longer than all the rest.
        functions += [own | {name: getattr(cost, name) for name in _COST} for cost in found]
        stacks += [own | {name: getattr(stack, name) for name in _STACK} for stack in whole]
    return {
        "raw_profiles": pa.Table.from_pylist(functions, schema=PROFILES),
        "raw_stacks": pa.Table.from_pylist(stacks, schema=STACKS),
    }
