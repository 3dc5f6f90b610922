"""What traffic a workload was, so that two runs are only compared where it was the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from results.record import TrialRecord

Facts = dict[str, Any]


def traffic_of_run(document: Mapping[str, Any], records: Iterable[TrialRecord]) -> dict[str, Facts]:
    """Workload → what its requests were to be, but for the seed."""
    hashes = {
        PurePosixPath(path).name: digest
        for path, digest in (document.get("scenarios") or {}).items()
    }
    found = {}
    for record in records:
        load = record.spec["load"]
        scenario = PurePosixPath(str(load["scenario"])).name
        facts = {f"phase {k.removesuffix('_ns')}": v for k, v in record.spec["phases"].items()}
        facts |= {"scenario": scenario, "users": load["users"]}
        arrivals = load["arrivals"] or {"kind": "closed loop"}
        facts |= {key: value for key, value in arrivals.items() if value is not None}
        if scenario in hashes:
            facts["text of the scenario"] = hashes[scenario][:12]
        found[record.workload] = facts
    return found


def other_traffic(before: dict[str, Facts], after: dict[str, Facts]) -> dict[str, list[str]]:
    """Workloads of one name that are not the same traffic: name → what they differ in."""
    both = sorted(before.keys() & after.keys())
    found = {name: differences(before[name], after[name]) for name in both}
    return {name: differing for name, differing in found.items() if differing}


def differences(before: Facts, after: Facts) -> list[str]:
    """What both tell and differ in; an older format may not tell it."""
    return [
        f"{key} {_short(before[key])}, now {_short(after[key])}"
        for key in before
        if key in after and before[key] != after[key]
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:60]}…"
