"""The record of a sign-off: what was decided about which build, and everything that it rests on.

It is made from the archive alone, so that anybody who has the archive can make it again and must
come to the same (`results.signoff.check`). As text it is JSON with sorted keys: the same record is
the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from results.archive.intact import digest_of_run
from results.comparing.compare import comparison_rows
from results.errors import UserError
from results.record import TrialRecord
from results.signoff.objectives import Decision, Evidence, Objective, decide
from results.signoff.waivers import Waiver, remarks, waiver_of
from results.statistics.interval import Interval

if TYPE_CHECKING:
    from results.archive.archive import RunEntry
    from results.capacity.archived import Searched
    from results.comparing.compare import Comparison
    from results.sql.database import Database

KIND: Final = "heapgate sign-off"
RECORD_VERSION: Final = 1
GO: Final = "GO"
NO_GO: Final = "NO-GO"
GO_VARIABLES: Final = ("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG")
"""Of a service's environment only these values are told; of the others the names."""

_DIRTY: Final = "-dirty"


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be signed off, by which rules, when."""

    configuration: str
    objectives: tuple[Objective, ...]
    waivers: tuple[Waiver, ...]
    decided_at: datetime
    """In UTC; waivers are judged by its day."""

    command: str = ""
    """The command that asked, for who wants to ask again."""

    noise: Mapping[str, Any] | None = None
    """What a calibration of the machine said of its noise; None: there is none."""


def make_record(database: Database, question: Question) -> dict[str, Any]:
    """The whole record, as plain data. Raises UserError when there is nothing to decide."""
    if not question.objectives:
        raise UserError(
            "nothing to sign off: there are no objectives; write `objectives:` into the matrix, "
            "or give them with --policy FILE"
        )
    comparison = database.comparison()
    own = [r for r in database.records if r.configuration == question.configuration]
    if not own:
        known = ", ".join(sorted({r.configuration for r in database.records}))
        raise UserError(f"no trial is of {question.configuration!r}; there are: {known or 'none'}")
    about = _about(question)
    if not any(objective.severity == "block" for objective in about):
        raise UserError(
            f"nothing to sign off: no blocking objective is about {question.configuration!r}; "
            "what a GO is to mean is written in `objectives:` of the matrix, or in --policy FILE"
        )
    measured = [m for run in database.runs for m in database.measurements(run.run_id)]
    evidence = Evidence.of(
        comparison,
        database.records,
        measured,
        [run.document for run in database.runs],
        _searches(database, question),
    )
    decisions = decide(about, evidence)
    decisions = [d for d in decisions if d.cell.configuration in ("", question.configuration)]
    day = question.decided_at.date()
    decided = [_decision(d, waiver_of(d, question.waivers, day)) for d in decisions]
    doubts = [*_doubts(database), *database.damage]
    blocked = bool(doubts) or any(d["blocks"] for d in decided)
    return {
        "kind": KIND,
        "record_version": RECORD_VERSION,
        "decision": NO_GO if blocked else GO,
        "decided_at": question.decided_at.isoformat(timespec="seconds"),
        "service": comparison.service,
        "configuration": question.configuration,
        "baseline": comparison.settings.baseline,
        "confidence": comparison.settings.confidence,
        "objectives": decided,
        "policy": {
            "objectives": [o.to_plain() for o in question.objectives],
            "waivers": [w.to_plain() for w in question.waivers],
            "remarks": remarks(decisions, question.waivers, day),
            "absent": list(_absent(question.objectives, database.records)),
        },
        "doubts": doubts,
        "build": _builds(own),
        "settings": _settings(own),
        "nodes": _nodes(database.records),
        "workloads": comparison.descriptions,
        "figures": _figures(comparison, question.configuration),
        "validity": _validity(comparison, database.records),
        "noise": dict(question.noise) if question.noise else None,
        "evidence": [_evidence_of(run) for run in database.runs],
        "capacity": _capacity(decisions),
        "command": question.command,
    }


def text_of(record: Mapping[str, Any]) -> str:
    """The bytes that are signed. Numbers that JSON lacks are null."""
    plain = _finite(record)
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def _searches(database: Database, question: Question) -> list[Searched]:
    """The searches of the capacity that had ended when it was decided, where one is asked for."""
    if not any(objective.kind == "capacity" for objective in question.objectives):
        return []
    from results.capacity.archived import searches_in

    run, until_ns = database.runs[0], question.decided_at.timestamp() * 1e9
    service = str(run.document["service"])
    return searches_in(run.path.parent, service, [question.configuration], until_ns)


def _capacity(decisions: Iterable[Decision]) -> list[dict[str, Any]] | None:
    """The searches that decided, each once, with the digests of their runs; None: none did."""
    found = {d.rests_on: None for d in decisions if d.rests_on}
    return [searched.to_plain() for searched in found] or None


def _about(question: Question) -> list[Objective]:
    """The objectives that are about this configuration; those for others are not its business."""
    own = question.configuration
    return [
        replace(objective, configurations=(own,))
        for objective in question.objectives
        if not objective.configurations or own in objective.configurations
    ]


def _absent(objectives: Iterable[Objective], records: Sequence[TrialRecord]) -> Iterator[str]:
    """What a misspelt name would have taken away unseen; another service's may be meant."""
    configurations = {record.configuration for record in records}
    workloads = {record.workload for record in records}
    for objective in objectives:
        if names := objective.absent(configurations, workloads):
            yield f"{objective.text} is about {names}, which no trial is of: not checked there"


def _decision(decision: Decision, waiver: Waiver | None) -> dict[str, Any]:
    cell, objective = decision.cell, decision.objective
    return {
        "objective": objective.text,
        "severity": objective.severity,
        "os": cell.os,
        "node_class": cell.node_class,
        "workload": cell.workload,
        "decision": decision.word,
        "reason": decision.reason,
        "trials": decision.trials,
        "trials_needed": decision.trials_needed,
        "interval": _interval(decision.interval),
        "waived_by": waiver.to_plain() if waiver else None,
        "blocks": decision.blocks and waiver is None,
    }


def _interval(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _doubts(database: Database) -> Iterable[str]:
    """Why the evidence is not whole: nothing is signed off on a part of it."""
    for run in database.runs:
        decided = run.status == "decided" and run.document.get("stopped_early")
        if run.status != "complete" and not decided:
            yield f"run {run.run_id} is {run.status}: finish it with: bench resume {run.run_id}"
        if run.doubt:
            yield f"run {run.run_id}: {run.doubt}"


def _builds(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Which program it was: each that was measured, once."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        binary = record.spec["service"]["binary"]
        info = str(binary.get("build_info") or "")
        commit, modified = _commit_of(binary, info)
        found[str(binary["sha256"])] = {
            "os": record.os,
            "sha256": binary["sha256"],
            "size_bytes": binary["size_bytes"],
            "go_version": binary.get("go_version"),
            "build_info": info,
            "commit": commit,
            "commit_modified": modified,
            "build_flags": binary.get("build_flags"),
        }
    return [found[sha256] for sha256 in sorted(found)]


def _commit_of(binary: Mapping[str, Any], build_info: str) -> tuple[str | None, bool]:
    """The commit of a build, and whether its source had changes beside it.

    What Heapgate builds has none stamped in (two builds of one source are then the same bytes); its
    commit was noted beside it, with `-dirty` as of git. A finished program may tell its own.
    """
    noted = binary.get("commit")
    if noted:
        return str(noted).removesuffix(_DIRTY), str(noted).endswith(_DIRTY)
    return (
        _setting_in(build_info, "vcs.revision"),
        _setting_in(build_info, "vcs.modified") == "true",
    )


def _setting_in(build_info: str, name: str) -> str | None:
    """A build setting, as `go version -m` shows it."""
    for line in build_info.splitlines():
        words = line.split("\t")
        if "build" in words and words[-1].startswith(f"{name}="):
            return words[-1].partition("=")[2]
    return None


def _settings(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """How it was run, and the limits as they were read back; each that differs once."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        service = record.spec["service"]
        environment = dict(service["environment"])
        own = {
            "os": record.os,
            "arguments": list(service["arguments"]),
            "environment": {k: v for k, v in environment.items() if k in GO_VARIABLES},
            "other_variables": sorted(environment.keys() - set(GO_VARIABLES)),
            "limits": [
                {"name": x.name, "asked": x.asked, "read_back": x.read_back, "enforced": x.enforced}
                for x in record.limits
            ],
        }
        found[json.dumps(own, sort_keys=True)] = own
    return [found[key] for key in sorted(found)]


def _nodes(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    facts = ("distribution", "kernel", "cpu_model", "cores_online", "memory_bytes", "cgroup")
    found = {
        (r.node_class, r.node_id): {
            "node_class": r.node_class,
            "node_id": r.node_id,
            "os": r.os,
            "wine": r.wine,
            **{name: r.node.get(name) for name in facts},
        }
        for r in records
    }
    return [found[key] for key in sorted(found)]


def _figures(comparison: Comparison, configuration: str) -> list[dict[str, Any]]:
    rows = comparison_rows(comparison).to_pylist()
    return [row for row in rows if row["configuration"] == configuration]


def _validity(comparison: Comparison, records: Sequence[TrialRecord]) -> dict[str, Any]:
    return {
        "trials": len(records),
        "valid": sum(record.valid for record in records),
        "blocks_planned": comparison.planned_blocks,
        "invalid": [{"trial_id": t, "reason": reason} for t, reason in comparison.invalid],
        "warnings": list(comparison.warnings),
    }


def _evidence_of(run: RunEntry) -> dict[str, Any]:
    document = run.document
    return {
        "run_id": run.run_id,
        "sha256": digest_of_run(run.path),
        "heapgate_version": document.get("heapgate_version"),
        "seed": document.get("seed"),
        "blocks": document.get("blocks"),
        "stopped_early": document.get("stopped_early"),
        "started_ns": document.get("started_ns"),
        "finished_ns": document.get("finished_ns"),
    }
