"""The machines of a run: what each of them was, and what it did in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa

from results.record import TrialRecord

_TEXT, _NUMBER, _WHETHER = pa.string(), pa.int64(), pa.bool_()

_FACTS: Final = {
    "os": _TEXT,
    "distribution": _TEXT,
    "kernel": _TEXT,
    "wine": _TEXT,
    "architecture": _TEXT,
    "machine": _TEXT,
    "cpu_model": _TEXT,
    "hypervisor": _WHETHER,
    "cores_online": _NUMBER,
    "threads_per_core": _NUMBER,
    "memory_bytes": _NUMBER,
    "swap_bytes": _NUMBER,
    "commit_limit_bytes": _NUMBER,
    "huge_pages": _TEXT,
    "governor": _TEXT,
    "clock_source": _TEXT,
    "limits_mechanism": _TEXT,
    "limits_unavailable": _TEXT,
    "root": _WHETHER,
    "cores_shared": _WHETHER,
}
"""Facts as `trial.json` has them under `node`, each as a column of the same name."""

NODES: Final = pa.schema(
    {
        "run_id": _TEXT,
        "node_id": _TEXT,
        "node_class": _TEXT,
        "service_trials": _NUMBER,
        "load_trials": _NUMBER,
        "cores_allowed": _NUMBER,
        "facts_changed": _WHETHER,
        **_FACTS,
    }
)


def node_rows(records: Iterable[TrialRecord]) -> Iterator[dict[str, Any]]:
    """One row for each node of each run: the facts of its last trial, null for load nodes."""
    ran: dict[tuple[str, str], list[TrialRecord]] = {}
    sent: dict[tuple[str, str], int] = {}
    for record in sorted(records, key=lambda r: (r.started_ns, r.trial_id)):
        ran.setdefault((record.run_id, record.node_id), []).append(record)
        for generator in record.generators:
            if generator.get("part"):
                key = (record.run_id, str(generator["node_id"]))
                sent[key] = sent.get(key, 0) + 1
    for key in sorted(ran.keys() | sent.keys()):
        own = ran.get(key, [])
        run_id, node_id = key
        yield {
            "run_id": run_id,
            "node_id": node_id,
            "service_trials": len(own),
            "load_trials": sent.get(key, 0),
            **(_told(own) if own else {}),
        }


def _told(records: list[TrialRecord]) -> dict[str, Any]:
    last = records[-1]
    # What a trial has of the cores depends on its load: it is no fact about the machine.
    kept = [{k: v for k, v in r.node.items() if k != "cores_shared"} for r in records]
    return {
        "node_class": last.node_class,
        "cores_allowed": len(last.node.get("cores_allowed") or ()) or None,
        "facts_changed": len({json.dumps(facts, sort_keys=True) for facts in kept}) > 1,
        **{name: last.node.get(name) for name in _FACTS},
        "os": last.os,
        "wine": last.wine,
    }
