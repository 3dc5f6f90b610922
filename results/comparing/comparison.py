"""From archived runs to a `Comparison`: its tables, and everything to know beside them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from results.comparing.compare import Comparison, Measurement, Settings, Table, compare
from results.comparing.trimming import trimmings
from results.errors import UserError
from results.judging.leaks import leaks_of
from results.judging.traffic import other_traffic, traffic_of_run
from results.metrics import counted, format_bytes
from results.record import TrialRecord, group_of, planned_id

RESIDUE: Final[dict[str, Callable[[TrialRecord], Any]]] = {
    "CPU model": lambda record: record.node.get("cpu_model"),
    "kernel": lambda record: record.node.get("kernel"),
    "CPU governor": lambda record: record.node.get("governor"),
    "huge pages": lambda record: record.node.get("huge_pages"),
    "Wine": lambda record: record.wine or "none",
    "Heapgate's version": lambda record: record.versions.get("heapgate"),
    "Locust's version": lambda record: record.versions.get("locust"),
    "sampling interval": lambda record: record.spec.get("sampling_interval_ns"),
}
"""What may move a figure and is in no column: trials of one table should agree in it."""

DECIDING: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "confidence": lambda document: f"{document['comparison']['confidence']:g}",
    "primary metrics": lambda document: ", ".join(sorted(document["comparison"]["primary"])),
    "margins": lambda document: _margins(document["comparison"]["margins"]),
}
"""How a run's matrix wants it decided: runs that are compared as one must agree in it."""

Place = tuple[str, str, str, str]
"""System, node class, workload, configuration."""


def comparison_of(
    run_ids: Sequence[str],
    documents: Sequence[dict[str, Any]],
    records: Sequence[TrialRecord],
    measurements: Sequence[Measurement],
    damage: Sequence[str] = (),
) -> Comparison:
    """Everything that is told about some runs of one service.

    `damage` is what can't be believed any more and is no reason of an invalid trial.
    Raises UserError for runs that can't be compared: of other services, with other baselines, or
    to be decided in another way.
    """
    _refuse_other_traffic(documents, records)
    service = _only_one("services", documents, lambda d: str(d["service"]))
    baseline = _only_one("baselines", documents, _baseline_of)
    for what, told in DECIDING.items():
        _only_one(what, documents, told)
    asked = documents[0]["comparison"]
    settings = Settings(
        baseline=baseline,
        confidence=asked["confidence"],
        primary=tuple(asked["primary"]),
        margins=dict(asked["margins"]),
    )
    limited = working_set_limits(records)
    tables = compare(measurements, settings, limited)
    leaks = tuple(leak for leak in leaks_of(records) if leak.long_enough)
    return Comparison(
        run_ids=tuple(run_ids),
        service=service,
        settings=settings,
        planned_blocks=sum(d["blocks"] for d in documents),
        tables=tables,
        descriptions={r.workload: traffic_of(r) for r in records},
        builds=_builds(documents),
        invalid=tuple(_invalid(records)),
        warnings=(
            *damage,
            *_ended_early(documents),
            *_asked_to_trim(limited),
            *trimmings(tables),
            *_under_wine(records),
            *_more_gc_than_cpu(measurements),
            *(leak.text for leak in leaks if leak.leaks),
            *_warnings(records),
        ),
        planned=_planned(documents, records),
        wine={r.node_class: r.wine for r in records if r.wine},
        leaks=leaks,
        missing=tuple(_missing(documents, records, tables)),
    )


def planned_places(document: Mapping[str, Any], records: Iterable[TrialRecord]) -> set[Place]:
    """Where a run was to measure: on the node classes on which its groups of nodes tried to.

    A group without any record is named instead of its class.
    """
    planned = {str(trial["trial_id"]): trial for trial in document["planned"]}
    tried: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for record in records:
        if trial := planned.get(planned_id(record.trial_id)):
            tried[_group(trial), record.workload].add(record.node_class)
            tried[_group(trial),].add(record.node_class)
    places: set[Place] = set()
    for trial in planned.values():
        group, workload = _group(trial), str(trial["workload"])
        classes = tried.get((group, workload)) or tried.get((group,)) or {group or trial["os"]}
        places |= {(trial["os"], c, workload, trial["configuration"]) for c in classes}
    return places


def _group(trial: Mapping[str, Any]) -> str:
    """A planned trial's group of nodes; the first format knew only one."""
    return str(trial.get("group", ""))


def _missing(
    documents: Sequence[dict[str, Any]], records: Sequence[TrialRecord], tables: Sequence[Table]
) -> Iterable[str]:
    """What was planned beside the baseline and has no table: no trial of it counts."""
    places: set[Place] = set()
    for document in documents:
        own = [record for record in records if record.run_id == document.get("run_id")]
        places |= {p for p in planned_places(document, own) if p[3] != _baseline_of(document)}
    found = {(table.os, table.node_class, table.workload, table.candidate) for table in tables}
    return map(without_trial, sorted(places - found))


def without_trial(place: Place) -> str:
    """A place of which no trial counts, in words."""
    _, node_class, workload, configuration = place
    return f"{configuration} under {workload} on {node_class} has no valid trial"


def _planned(documents: Sequence[dict[str, Any]], records: Sequence[TrialRecord]) -> dict[str, int]:
    """Node class → blocks planned for it: those of every group of nodes that belongs to it."""
    blocks = {str(document.get("run_id")): int(document["blocks"]) for document in documents}
    groups = {(r.node_class, r.run_id, group_of(r.trial_id)) for r in records}
    planned: dict[str, int] = defaultdict(int)
    for node_class, run_id, _ in groups:
        planned[node_class] += blocks.get(run_id, 0)
    return dict(planned)


def working_set_limits(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Configuration → the most working set that it asked for, on Windows."""
    return {
        r.configuration: limit
        for r in records
        if r.os == "windows" and (limit := r.spec["limits"].get("working_set_max_bytes"))
    }


def _ended_early(documents: Sequence[dict[str, Any]]) -> Iterable[str]:
    for document in documents:
        if early := document.get("stopped_early"):
            yield (
                f"run {document['run_id']} was ended after {early['blocks']} of "
                f"{counted(early['blocks_planned'], 'block')}, when its objectives were decided "
                f"({early['why']}): all other figures rest on those blocks, and that it ended "
                "there was not chance"
            )


def _asked_to_trim(limited: dict[str, int]) -> Iterable[str]:
    for configuration, limit in sorted(limited.items()):
        yield (
            f"{configuration} asks Windows for a working set of at most {format_bytes(limit)}: "
            "that trims what is resident; commit says what is saved"
        )


def _under_wine(records: Sequence[TrialRecord]) -> Iterable[str]:
    found = {(r.node_class, r.wine) for r in records if r.valid and r.wine}
    for node_class, wine in sorted(found):
        name = wine if "wine" in str(wine).lower() else f"Wine {wine}"
        yield (
            f"the trials on {node_class} ran under {name}: memory is counted by Wine there, not by "
            "Windows itself"
        )


def _more_gc_than_cpu(measurements: Sequence[Measurement]) -> Iterable[str]:
    """Trials whose GC CPU is left out, because the service did not have that much CPU time."""
    known: dict[Any, dict[str, float | None]] = defaultdict(dict)
    for m in measurements:
        known[m.pair, m.workload, m.configuration][m.metric] = m.value
    share = [values for values in known.values() if values.get("gc_cpu_share", 0) is None]
    impossible = [v for v in share if v.get("gc_cycles") and v.get("cpu_cores")]
    if impossible:
        yield (
            f"GC CPU of {counted(len(impossible), 'trial')} is not told: the Go runtime counted "
            "more than the service's whole CPU time, as it does where others take its cores"
        )


def _only_one(
    what: str, documents: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], str]
) -> str:
    """What all runs have in common; it is an error when they differ in it."""
    found = sorted({of(document) for document in documents})
    if len(found) > 1:
        raise UserError(f"these runs can't be compared: they have {what} {' and '.join(found)}")
    return found[0]


def _refuse_other_traffic(
    documents: Sequence[dict[str, Any]], records: Sequence[TrialRecord]
) -> None:
    """Trials of one workload's name are in one table: in all runs it must be the same traffic."""
    known: dict[str, Any] = {}
    for document in documents if len(documents) > 1 else ():
        own = [record for record in records if record.run_id == document.get("run_id")]
        traffic = traffic_of_run(document, own)
        for workload, differing in other_traffic(known, traffic).items():
            raise UserError(
                f"these runs can't be compared as one: workload {workload} is not the same traffic "
                f"in all of them: {', '.join(differing)}"
            )
        known = traffic | known


def _margins(margins: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in sorted(margins.items())) or "(none)"


def _baseline_of(document: dict[str, Any]) -> str:
    return next(str(t["configuration"]) for t in document["planned"] if t["baseline"])


def _builds(documents: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Configuration → what it was built with, the same on every system."""
    return {
        str(build.get("configuration") or name): str(build.get("go_version") or "")
        for document in documents
        for name, build in document["builds"].items()
    }


def traffic_of(record: TrialRecord) -> str:
    """What traffic a workload is, from what the node was told."""
    load = record.spec["load"]
    scenario = str(load["scenario"]).rpartition("/")[2].removesuffix(".py")
    if load["arrivals"]:
        traffic = _arrivals(load["arrivals"])
    else:
        traffic = f"{load['users']} users, closed loop"
    seconds = record.spec["phases"]["measure_ns"] / 1e9
    return f"{scenario}, {traffic}, measured for {seconds:g} s"


def _arrivals(arrivals: dict[str, Any]) -> str:
    """`poisson 300/s`, or a shape with its mean and its peak."""
    rates = arrivals.get("rates")
    if not rates:
        return f"{arrivals['kind']} {arrivals['rate_rps']:g}/s"
    peak_rps = max(rate for piece in rates for rate in (piece["from_rps"], piece["to_rps"]))
    kind, spacing = arrivals["kind"], arrivals["spacing"]
    return f"{kind} ({spacing}), mean {arrivals['rate_rps']:.4g}/s, peak {peak_rps:.4g}/s"


def _invalid(records: Sequence[TrialRecord]) -> Iterable[tuple[str, str]]:
    repeated = {(r.run_id, planned_id(r.trial_id)) for r in records if r.valid}
    for record in records:
        if not record.valid:
            reasons = "; ".join(f.text for f in record.findings if f.level == "invalid")
            counts = (record.run_id, planned_id(record.trial_id)) in repeated
            yield record.trial_id, f"{reasons} (its repetition counts)" if counts else reasons


def _warnings(records: Sequence[TrialRecord]) -> Iterable[str]:
    """What the tables hide, then each kind of warning once, with how many valid trials have it."""
    yield from _residue([record for record in records if record.valid])
    by_code: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for finding in record.findings if record.valid else []:
            if finding.level == "warning":
                by_code[finding.code].append(finding.text)
    for texts in by_code.values():
        more = "" if len(texts) == 1 else f" (in {len(texts)} trials)"
        yield f"{texts[0]}{more}"


def _residue(records: Sequence[TrialRecord]) -> Iterable[str]:
    """Trials that stand in one table and yet differ in something that it does not show."""
    by_class: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        by_class[record.node_class].append(record)
    for node_class, own in sorted(by_class.items()):
        for what, of in RESIDUE.items():
            found = sorted({str(of(record)) for record in own})
            if len(found) > 1:
                yield f"the trials on {node_class} differ in {what}: {', '.join(found)}"
    yield from _other_set_up(records)


def _other_set_up(records: Iterable[TrialRecord]) -> Iterable[str]:
    """Trials of one configuration on one system that were built or run in other ways."""
    found: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        for what, value in set_up_of(record).items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            found[record.configuration, record.os][what].add(text or "none")
    for (configuration, system), facts in sorted(found.items()):
        for what, texts in facts.items():
            if len(texts) > 1:
                differing = "; ".join(sorted(texts))
                yield f"the trials of {configuration} on {system} differ in {what}: {differing}"


def set_up_of(record: TrialRecord) -> dict[str, Any]:
    """What a trial's configuration was built and run with."""
    service = record.spec["service"]
    own = {k: v for k, v in service["environment"] if not k.startswith("HEAPGATE_")}
    return {
        "Go": service["binary"]["go_version"] or "–",
        "build": service["binary"]["sha256"][:12],
        "build flags": " ".join(service["binary"].get("build_flags") or ()),
        "environment": " ".join(f"{k}={v}" for k, v in sorted(own.items())),
        "arguments": " ".join(service["arguments"]),
        "limits": {k: v for k, v in record.spec["limits"].items() if v is not None},
    }
