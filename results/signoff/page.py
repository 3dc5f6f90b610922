"""A record as one HTML page: the decision, what it rests on, and how to check it.

The page is made from the record alone, has no script and forbids itself everything but its own
style: no name in it can come alive, and nothing is asked of anybody. What comes from outside
(names, reasons, log lines) is escaped by the template.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from results.metrics import METRICS, counted, format_bytes, format_change, format_value
from results.report.facts import limit_name, limit_text
from results.report.forest import minus
from results.report.grid import Grid
from results.signoff.check import SIGNATURE_SUFFIX
from results.signoff.forms import decided_by, measured, subject, where, word
from results.signoff.objectives import CANT_TELL, FAIL, PASS
from results.signoff.pagelimits import HEIGHT, WIDTH, DrawnLimit, drawn_limit
from results.signoff.record import GO
from results.signoff.signing import NAMESPACE, signer_of
from results.signoff.waivers import under

Record = Mapping[str, Any]
MARKS: Final = {PASS: "better", FAIL: "worse", CANT_TELL: "open"}
"""The shape and colour of a decision: those of the verdicts."""

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, slots=True)
class Shown:
    """One objective as the page shows it."""

    objective: str
    verdict: str
    mark: str
    measured: str
    where: str
    blocks: bool
    drawn: DrawnLimit | None


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the few facts on top."""

    label: str
    big: str
    small: str
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """A file that the page carries with it."""

    name: str
    address: str


def record_page(text: str, name: str, signature: str = "") -> str:
    """The page of a record's text, whose file is called `name`; empty signature: not signed.

    Raises BadSignature when the signature is of something else.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    from results.report.glue import glue

    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("results.signoff", "."), PackageLoader("results.report", ".")]
        ),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["glue"] = glue
    style = _resource("results.report", "style.css") + _resource("results.signoff", "page.css")
    return environment.get_template("page.html.jinja").render(
        **_context(json.loads(text)),
        **_proof(text, name, signature),
        policy=POLICY,
        style=Markup(style),  # noqa: S704 — our own files
        width=WIDTH,
        height=HEIGHT,
    )


def _context(record: Record) -> dict[str, Any]:
    """What the template names, from the record."""
    return {
        "record": record,
        "sentence": sentence(record),
        "subject": subject(record),
        "go": record["decision"] == GO,
        "rule": decided_by(record),
        "tiles": list(_tiles(record)),
        "objectives": [_shown(decision) for decision in record["objectives"]],
        "places": sorted({where(decision) for decision in record["objectives"]}),
        "absent": record["policy"].get("absent", ()),
        "waivers": _waivers(record),
        "invalid": _invalid(record),
        "figures": list(_figures(record)),
        "settings": [_setting(setting) for setting in record["settings"]],
        "builds": [(_build(build), build["build_info"]) for build in record["build"]],
        "nodes": _nodes(record),
        "noise": _noise(record),
        "evidence": _evidence(record),
        "searches": [_search(search) for search in record.get("capacity") or ()],
    }


def sentence(record: Record) -> str:
    """The decision in one sentence."""
    build = f"{record['service']} as {record['configuration']}"
    blocking = [d["objective"] for d in record["objectives"] if d["blocks"]]
    if record["doubts"]:
        return f"{build} can't be signed off: the evidence is not whole"
    if blocking:
        others = len(blocking) - 1
        more = f" and {counted(others, 'more objective')}" if others else ""
        failed = any(d["blocks"] and d["decision"] == FAIL for d in record["objectives"])
        does = "does not hold" if failed else "is not shown to hold"
        return f"{build} {does} “{blocking[0]}”{more}"
    total = len(record["objectives"])
    passed = sum(d["decision"] == PASS for d in record["objectives"])
    if passed == total:
        return f"{build} holds {'its objective' if total == 1 else f'all {total} objectives'}"
    waived = sum(d["waived_by"] is not None for d in record["objectives"])
    rest = [f"{waived} waived"] if waived else []
    rest += [f"{total - passed - waived} only told"] if total > passed + waived else []
    return f"{build} holds {passed} of {total} objectives; {', '.join(rest)}"


def _tiles(record: Record) -> Iterator[Tile]:
    decisions, validity = record["objectives"], record["validity"]
    words = [d["decision"] for d in decisions]
    rest = [f"{words.count(w)} {w}" for w in (FAIL, CANT_TELL) if w in words]
    yield Tile(
        "objectives kept", f"{words.count(PASS)} of {len(words)}",
        ", ".join(rest) or "each of them", wrong=any(d["blocks"] for d in decisions),
    )  # fmt: skip
    yield Tile(
        "valid trials", f"{validity['valid']} of {validity['trials']}",
        f"{counted(validity['blocks_planned'], 'block')} planned",
    )  # fmt: skip
    for build in record["build"][:2]:
        commit = build["commit"]
        small = f"commit {commit[:12]}{'+' if build['commit_modified'] else ''}" if commit else ""
        version = build["go_version"] or ""
        yield Tile("build", build["sha256"][:12], ", ".join(p for p in (version, small) if p))
    yield Tile("decided", str(record["decided_at"])[:10], f"{str(record['decided_at'])[11:16]} UTC")


def _shown(decision: Mapping[str, Any]) -> Shown:
    return Shown(
        objective=decision["objective"],
        verdict=word(decision),
        mark=MARKS.get(decision["decision"], "open"),
        measured=minus(measured(decision)),
        where=where(decision),
        blocks=decision["blocks"],
        drawn=drawn_limit(decision),
    )


def _waivers(record: Record) -> Grid:
    """Every waiver of the policy, whether it was needed or not."""
    used = [d["waived_by"] for d in record["objectives"]]
    rows = tuple(
        (
            f"{waiver['objective']}{under(waiver)}",
            waiver["owner"],
            waiver["reason"],
            waiver["expires"],
            "yes" if waiver in used else "no",
        )
        for waiver in record["policy"]["waivers"]
    )
    heads = ("objective", "who answers for it", "why", "until the end of (UTC)", "lets it pass")
    return Grid("Who answers for what", heads, rows)


def _invalid(record: Record) -> Grid:
    rows = tuple((t["trial_id"], t["reason"] or "–") for t in record["validity"]["invalid"])
    return Grid("Trials that do not count", ("trial", "why"), rows)


def _figures(record: Record) -> Iterator[Grid]:
    """All figures, a table for each workload on each node class."""
    cells: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in record["figures"]:
        metric = METRICS.get(row["metric"])
        if metric is None or row["candidate_value"] is None:
            continue
        baseline, own = (
            format_value(metric, row[f"{side}_value"]) for side in ("baseline", "candidate")
        )
        change = "–"
        if row["change"] is not None:
            change = minus(format_change(metric, row["change"], relative=row["relative"]))
        at = cells.setdefault((row["workload"], row["node_class"]), [])
        at.append((metric.label, baseline, own, change, row["verdict"] or "–"))
    heads = ("metric", str(record["baseline"]), str(record["configuration"]), "change", "verdict")
    for (workload, node_class), rows in cells.items():
        caption = f"{workload} on {node_class}"
        yield Grid(caption, heads, tuple(rows), frozenset({1, 2, 3}))


def _build(build: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What identifies a build."""
    modified = " (with changes that are not committed)" if build["commit_modified"] else ""
    return [
        ("SHA-256", build["sha256"]),
        ("commit", f"{build['commit']}{modified}" if build["commit"] else "not recorded"),
        ("Go", build["go_version"] or "–"),
        ("build flags", " ".join(build["build_flags"] or ()) or "–"),
        ("size", f"{format_bytes(build['size_bytes'])} ({build['size_bytes']:,} bytes)"),
        ("system", build["os"]),
    ]


def _setting(setting: Mapping[str, Any]) -> tuple[list[tuple[str, str]], Grid]:
    """How it was run: facts, and the limits as they were read back."""
    environment = " ".join(f"{k}={v}" for k, v in sorted(setting["environment"].items()))
    facts = [
        ("Go's variables", environment or "none"),
        ("other variables (names)", ", ".join(setting["other_variables"]) or "none"),
        ("arguments", shlex.join(setting["arguments"]) or "none"),
        ("system", setting["os"]),
    ]
    rows = tuple(
        (
            limit_name(limit["name"]),
            limit_text(limit["name"], limit["asked"]),
            limit_text(limit["name"], limit["read_back"]),
            "in force" if limit["enforced"] else "not in force",
        )
        for limit in setting["limits"]
    )
    return facts, Grid("Limits", ("limit", "asked", "read back", "state"), rows, frozenset({1, 2}))


def _nodes(record: Record) -> Grid:
    rows = tuple(
        (
            node["node_id"],
            node["node_class"],
            node["distribution"] or node["os"],
            node["kernel"] or "–",
            node["cpu_model"] or "–",
            str(node["cores_online"] or "–"),
            format_bytes(node["memory_bytes"]) if node["memory_bytes"] else "–",
            str(node["cgroup"] or "–"),
        )
        for node in record["nodes"]
    )
    heads = ("node", "class", "system", "kernel", "processor", "cores", "memory", "cgroup")
    return Grid("Nodes", heads, rows, frozenset({5, 6}))


def _noise(record: Record) -> Grid | None:
    """The noise floors, where the machine was calibrated."""
    noise = record["noise"]
    if not noise:
        return None
    rows = tuple(
        (METRICS[name].label if name in METRICS else name, f"±{floor * 100:.1f} %")
        for name, floor in noise["floors"].items()
        if floor is not None
    )
    caption = f"Differences of two equal configurations in {counted(noise['blocks'], 'block')}"
    return Grid(caption, ("metric", "noise"), rows, frozenset({1}))


def _evidence(record: Record) -> Grid:
    rows = tuple(
        (
            run["run_id"],
            run["sha256"],
            str(run["heapgate_version"] or "–"),
            str(run["seed"]),
            str(run["blocks"]),
        )
        for run in record["evidence"]
    )
    heads = ("run", "SHA-256 over the digests of its files", "Heapgate", "seed", "blocks")
    return Grid("Evidence", heads, rows, frozenset({3, 4}))


def _search(search: Mapping[str, Any]) -> Grid:
    """The runs that a capacity was searched with."""
    rows = tuple(
        (
            run["run_id"],
            run["sha256"],
            f"{run['rate_rps']:,.0f}/s",
            {True: "held", False: "did not hold"}.get(run["holds"], "said nothing"),
        )
        for run in search["runs"]
    )
    caption = f"Capacity: {search['configuration']} under {search['workload']}"
    heads = ("run", "SHA-256 over the digests of its files", "rate", "its limits")
    return Grid(caption, heads, rows, frozenset({2}))


def _proof(text: str, name: str, signature: str) -> dict[str, Any]:
    """The record and its signature as files, and how they are checked."""
    data = text.encode()
    beside = f"{name}{SIGNATURE_SUFFIX}"
    files = [Download(name, _address(data, "application/json"))]
    commands: Sequence[str] = ()
    if signature:
        files.append(Download(beside, _address(signature.encode(), "text/plain")))
        own, its_signature = shlex.quote(name), shlex.quote(beside)
        commands = (
            "bench keys trust release-manager.pub",
            f"bench verify {own} --archive archive",
            f"ssh-keygen -Y verify -f signers -I jane -n {NAMESPACE.decode()} "
            f"-s {its_signature} < {own}",
        )
    return {
        "record_sha256": hashlib.sha256(data).hexdigest(),
        "signer": signer_of(data, signature).fingerprint if signature else "",
        "files": files,
        "commands": commands,
    }


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _resource(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text(encoding="utf-8")
