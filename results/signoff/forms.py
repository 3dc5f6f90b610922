"""A record as people and pipelines read it: terminal, Markdown, JUnit XML, GitHub's annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from results.comparing.tables import PIPE_COLUMNS
from results.markdown import markdown_table, markdown_text
from results.metrics import METRICS, counted, format_value
from results.signoff.objectives import CANT_TELL, FAIL, PASS
from results.signoff.waivers import under

Record = Mapping[str, Any]
STYLES: Final = {PASS: "green", FAIL: "red", CANT_TELL: "yellow"}
_IN_ANNOTATION: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY: Final = _IN_ANNOTATION | {":": "%3A", ",": "%2C"}


def print_record(record: Record, console: Console) -> None:
    """Print the decision first, then why. A pipe has no width: nothing is cut off there."""
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    style = "bold green" if record["decision"] == "GO" else "bold red"
    console.print(f"[{style}]{record['decision']}[/]  {escape(subject(record))}", highlight=False)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in ("objective", "decision", "measured", "where"):
        grid.add_column(name, no_wrap=name == "decision", overflow="fold")
    for decision in record["objectives"]:
        styled = f"[{STYLES[decision['decision']]}]{escape(word(decision))}[/]"
        cells = (decision["objective"], measured(decision), where(decision))
        objective, figures, place = map(escape, cells)
        grid.add_row(objective, styled, figures, place)
    console.print(grid)
    for text in _notes(record):
        console.print(f"[dim]{escape(text)}[/]", highlight=False)
    for text in _warnings(record):
        console.print(f"[yellow]![/] {escape(text)}", highlight=False)


def markdown_record(record: Record) -> str:
    """For a pull request, or the summary of a pipeline's step."""
    mark = "✅" if record["decision"] == "GO" else "❌"
    lines = [f"### {mark} {record['decision']}: {markdown_text(subject(record))}", ""]
    lines += ["| objective | decision | measured | where |", "|---|---|---|---|"]
    for d in record["objectives"]:
        cells = (d["objective"], word(d), measured(d), where(d))
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    lines += ["", *(f"{markdown_text(text)}  " for text in _notes(record))]
    lines += ["", *(f"- {markdown_text(text)}" for text in _warnings(record))]
    figures = list(_figures(record))
    if figures:
        lines += ["", "<details><summary>All figures</summary>", ""]
        lines += markdown_table(["", "baseline", "this", "change", "verdict"], figures)
        lines += ["", "</details>"]
    return "\n".join(lines).rstrip() + "\n"


def junit_record(record: Record) -> str:
    """JUnit XML: an objective is a case; one that is waived is skipped, one that blocks fails."""
    decisions = record["objectives"]
    failures = [d for d in decisions if d["blocks"]]
    skipped = [d for d in decisions if d["waived_by"]]
    suite = ET.Element(
        "testsuite",
        name=_plain(f"sign-off {record['service']} {record['configuration']}"),
        tests=str(len(decisions) + bool(record["doubts"])),
        failures=str(len(failures) + bool(record["doubts"])),
        skipped=str(len(skipped)),
        errors="0",
        timestamp=record["decided_at"],
    )
    for decision in decisions:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_plain(f"{record['service']}.{decision['workload'] or 'all'}"),
            name=_plain(decision["objective"]),
        )
        text = _plain(f"{word(decision)}: {measured(decision)}\n{where(decision)}")
        if decision["blocks"]:
            ET.SubElement(case, "failure", message=text.partition("\n")[0]).text = text
        elif decision["waived_by"]:
            ET.SubElement(case, "skipped", message=text.partition("\n")[0])
        else:
            ET.SubElement(case, "system-out").text = text
    if record["doubts"]:
        case = ET.SubElement(suite, "testcase", classname="evidence", name="the evidence is whole")
        text = _plain("\n".join(record["doubts"]))
        ET.SubElement(case, "failure", message=text.partition("\n")[0]).text = text
    ET.indent(suite)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


def github_record(record: Record) -> str:
    """Workflow commands of GitHub Actions: an annotation for every objective that does not hold."""
    lines = [
        _annotation("error" if d["blocks"] else "warning", d["objective"], _said(d))
        for d in record["objectives"]
        if d["decision"] != PASS
    ]
    lines += [_annotation("error", "evidence", text) for text in record["doubts"]]
    if record["decision"] == "GO":
        holds = counted(len(record["objectives"]), "objective")
        lines.append(_annotation("notice", "GO", f"{subject(record)}: {holds} decided"))
    return "\n".join([*lines, ""])


def _annotation(kind: str, title: str, text: str) -> str:
    """As GitHub's toolkit escapes it (packages/core/src/command.ts)."""
    escaped = "".join(_IN_PROPERTY.get(c, c) for c in title)
    return f"::{kind} title={escaped}::{''.join(_IN_ANNOTATION.get(c, c) for c in text)}"


def subject(record: Record) -> str:
    """What was decided about."""
    build = record["build"][0] if record["build"] else {}
    commit = build.get("commit")
    words = [f"{record['service']} as {record['configuration']!r}"]
    words += (
        [f"commit {commit[:12]}{'+' if build.get('commit_modified') else ''}"] if commit else []
    )
    words += [f"build {build['sha256'][:12]}"] if build else []
    words += [str(build["go_version"])] if build.get("go_version") else []
    return ", ".join(words)


def word(decision: Mapping[str, Any]) -> str:
    """The decision, and what takes its edge off."""
    said = str(decision["decision"])
    if decision["waived_by"]:
        return f"{said}, waived"
    return said if decision["severity"] == "block" or said == PASS else f"{said} (only told)"


def measured(decision: Mapping[str, Any]) -> str:
    """The figures that decided, and on how many trials they rest."""
    text = str(decision["reason"])
    if decision["trials"]:
        text += f", {counted(decision['trials'], 'trial')}"
    if decision["trials_needed"]:
        text += f"; about {counted(decision['trials_needed'], 'trial')} would tell"
    return text


def where(decision: Mapping[str, Any]) -> str:
    """Under which workload on which node class."""
    return " on ".join(part for part in (decision["workload"], decision["node_class"]) if part)


def _said(decision: Mapping[str, Any]) -> str:
    place = where(decision)
    return f"{word(decision)}: {measured(decision)}" + (f" ({place})" if place else "")


def decided_by(record: Record) -> str:
    """How the words are to be read."""
    share = f"{record['confidence'] * 100:g} %"
    return (
        f"PASS: the whole {share} interval keeps the objective. FAIL: the whole of it breaks it. "
        "CAN'T TELL blocks like FAIL."
    )


def _notes(record: Record) -> Iterator[str]:
    yield decided_by(record)
    validity = record["validity"]
    yield (
        f"{validity['valid']} of {counted(validity['trials'], 'trial')} valid; baseline "
        f"{record['baseline']!r}; decided {record['decided_at']}"
    )
    for decision in record["objectives"]:
        if waiver := decision["waived_by"]:
            yield (
                f"waived until {waiver['expires']} by {waiver['owner']}: {decision['objective']}"
                f"{under(waiver)}: {waiver['reason']}"
            )


def _warnings(record: Record) -> Iterator[str]:
    yield from record["doubts"]
    yield from record["policy"].get("absent", ())
    yield from record["policy"]["remarks"]
    yield from record["validity"]["warnings"]
    for trial in record["validity"]["invalid"]:
        yield f"not counted: {trial['trial_id']}: {trial['reason']}"


def _figures(record: Record) -> Iterator[tuple[str, ...]]:
    for row in record["figures"]:
        metric = METRICS.get(row["metric"])
        if metric is None or row["candidate_value"] is None:
            continue
        told = row["relative"] and row["change"] is not None
        change = f"{row['change'] * 100:+.1f} %" if told else "–"
        values = (format_value(metric, row[f"{side}_value"]) for side in ("baseline", "candidate"))
        yield (metric.label, *values, change, markdown_text(str(row["verdict"])))


def _plain(text: str) -> str:
    """XML has no place for most control characters."""
    return "".join(c if c >= " " or c in "\n\t" else "�" for c in text)
