"""What the commands print: each function reads, lays out, prints; none decides."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.answers.bounds import of_runs
from orchestrator.progress import format_bytes, trial_figures
from results.errors import EnvironmentLacks, ObjectiveFailed, RunIncomplete, UserError
from results.record import planned_id

if TYPE_CHECKING:
    from orchestrator.run import RunResult
    from results.archive.archive import Archive, RunEntry
    from results.comparing.compare import Comparison

STATUS_STYLES = {
    "complete": "green",
    "decided": "green",
    "interrupted": "yellow",
    "incomplete": "red",
}
FINDING_STYLES = {"invalid": "red", "warning": "yellow", "note": "dim"}
CHECK_STYLES = {"ok": "green", "limited": "yellow", "missing": "red"}


def print_json(document: Any) -> None:
    """One JSON document on standard output, for programs."""
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def plain_table(*columns: str) -> Table:
    """A table with these columns, its cells folded and never cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_run(result: RunResult, console: Console, *, as_json: bool) -> None:
    """How a run ended: its comparison, where its data lies, and what is missing."""
    from results.comparing import tables

    comparison = _comparison_of(result.archive, [result.run_id])
    if as_json:
        outcome = {
            "run_id": result.run_id,
            "archive": str(result.archive),
            "status": result.status,
            "exit_code": result.exit_code,
            "error": str(result.error) if result.error else None,
        }
        print_json(outcome | {"comparison": tables.plain_comparison(comparison)})
    elif comparison.measured:
        tables.print_comparison(comparison, console)
        console.print(
            f"[dim]run {result.run_id} in {escape(near(result.archive))}; "
            f"every trial: bench show {result.run_id}[/]",
            highlight=False,
            soft_wrap=True,
        )
    if result.error:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"{result.error}\n")


def near(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def print_comparison(
    archive_path: Path,
    run_names: list[str],
    console: Console,
    *,
    style: str,
    fail_on_worse: bool = False,
) -> None:
    """Every configuration against the baseline, from the archive alone.

    `style` is table, markdown or json. Raises ObjectiveFailed for what is worse, if that is wanted.
    """
    from results.comparing import tables

    with of_runs(len(run_names)):
        comparison = _comparison_of(archive_path, run_names)
    if style == "json":
        print_json(tables.plain_comparison(comparison))
    elif style == "markdown":
        sys.stdout.write(tables.markdown_comparison(comparison))
    else:
        tables.print_comparison(comparison, console)
    if not comparison.tables:
        raise RunIncomplete("there are no valid trials to compare; every trial: bench show")
    if fail_on_worse:
        fail_on(comparison.worse, comparison.undecided, comparison.settings.baseline)


def fail_on(worse: list[str], undecided: list[str], against: str) -> None:
    """Raise ObjectiveFailed for what is worse, RunIncomplete for what nothing can be said of."""
    if worse:
        raise ObjectiveFailed(f"worse than {against}: {', '.join(worse)}")
    if undecided:
        raise RunIncomplete(f"can't tell whether it is worse: {', '.join(undecided)}")


def _comparison_of(archive_path: Path, run_names: list[str]) -> Comparison:
    from results.sql.database import open_database

    with open_database(archive_path, run_names) as database:
        return database.comparison()


def write_report(
    archive_path: Path, run_name: str, output: Path | None, *, form: str, figure: str | None = None
) -> None:
    """A run's report: a page or a picture into a file, what is short to standard output, if not
    told where. `figure` is one figure of a picture.
    """
    from results.archive.archive import Archive

    run_id = Archive(archive_path).run(run_name).run_id
    content = _report(archive_path, run_id, form, figure)
    if output is None and form in ("html", "png", "svg"):
        output = Path(f"{run_id}{f'-{figure}' if figure else ''}.{form}")
    if output is None or str(output) == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UserError(f"{output} can't be written to: {error.strerror}") from error
    sys.stdout.write(f"wrote {output} ({format_bytes(len(content))})\n")


def _report(archive_path: Path, run_id: str, form: str, figure: str | None) -> bytes:
    from results.report.page import render_report

    if form not in ("png", "svg"):
        return render_report(archive_path, run_id, form).encode()
    from results.report.images import render_image

    return render_image(archive_path, run_id, form, figure)


def tell(notes: Iterable[str]) -> None:
    """What a reader of answers should know, beside them."""
    for note in notes:
        sys.stderr.write(f"{note}\n")


def print_runs(archive_path: Path, console: Console, *, as_json: bool) -> None:
    """All runs of an archive, the oldest first."""
    from results.archive.archive import Archive

    archive = Archive(archive_path)
    rows = [_run_row(archive, entry) for entry in archive.runs()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print(f"no runs in {archive_path} yet; try: bench demo", highlight=False)
        return
    table = plain_table("run", "service", "began (UTC)", "status", "trials", "valid")
    for row in rows:
        style = STATUS_STYLES.get(row["status"], "default")
        table.add_row(
            row["run_id"],
            row["service"],
            _when(row["started_ns"]),
            f"[{style}]{row['status']}[/]",
            str(row["planned"]),
            str(row["valid"]),
        )
    console.print(table)


def _run_row(archive: Archive, entry: RunEntry) -> dict[str, Any]:
    document = {"planned": (), "finished_ns": None, "service": "–"} | entry.document
    valid = {planned_id(r.trial_id) for r in archive.records(entry.run_id) if r.valid}
    return {
        "run_id": entry.run_id,
        "service": document["service"],
        "status": entry.status,
        "started_ns": document["started_ns"],
        "finished_ns": document["finished_ns"],
        "planned": len(document["planned"]),
        "valid": len(valid),
        "path": str(entry.path),
    }


def _when(time_ns: int | None) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M}" if time_ns else "–"


def print_run_details(archive_path: Path, name: str, console: Console, *, as_json: bool) -> None:
    """One run: what was built, every trial with its figures and every reason for doubt."""
    from results.archive.archive import Archive

    archive = Archive(archive_path)
    entry = archive.run(name)
    records = archive.records(entry.run_id)
    if as_json:
        more = {
            "builds": entry.document["builds"],
            "trials": [json.loads(record.to_json()) for record in records],
        }
        print_json(_run_row(archive, entry) | more)
        return
    document = entry.document
    console.print(
        f"[bold]{entry.run_id}[/] {escape(document['service'])}, {entry.status}, "
        f"began {_when(document['started_ns'])} UTC, seed {document['seed']}, {entry.path}",
        highlight=False,
    )
    _print_builds(document["builds"], console)
    _print_trials(records, console)
    _print_limits(records, console)
    sealed = {record.trial_id for record in records}
    for trial_id in archive.trial_names(entry.run_id):
        if trial_id not in sealed:
            console.print(f"[yellow]![/] {trial_id} was cut off before it was sealed")


def _print_builds(builds: dict[str, Any], console: Console) -> None:
    table = plain_table("configuration", "system", "Go", "size", "SHA-256", "flags")
    for name, build in builds.items():
        table.add_row(
            escape(str(build.get("configuration") or name)),
            str(build.get("os") or "–"),
            build["go_version"] or "–",
            format_bytes(build["size_bytes"]),
            build["sha256"][:16],
            escape(" ".join(build["build_flags"])) or "–",
        )
    console.print(table)


def _print_trials(records: list[Any], console: Console) -> None:
    table = plain_table("trial", "", "figures and reasons for doubt")
    several = len({record.node_id for record in records}) > 1
    for record in records:
        mark = "[green]valid[/]" if record.valid else "[red]invalid[/]"
        doubts = "".join(
            f"\n[{FINDING_STYLES[f.level]}]{escape(f.text)}[/]" for f in record.findings
        )
        figures = trial_figures(record) + (f", on {record.node_id}" if several else "")
        table.add_row(record.trial_id, mark, escape(figures) + doubts)
    console.print(table)


def _print_limits(records: list[Any], console: Console) -> None:
    """Each limit once for each configuration and system: asked, read back, in force."""
    seen = {(r.configuration, r.os, limit.name): limit for r in records for limit in r.limits}
    if not seen:
        return
    table = plain_table("configuration", "system", "limit", "asked", "read back", "by", "")
    for (configuration, system, name), limit in seen.items():
        table.add_row(
            configuration,
            system,
            name,
            f"{limit.asked:,.10g}",
            "–" if limit.read_back is None else f"{limit.read_back:,.10g}",
            limit.mechanism,
            "in force" if limit.enforced else f"[yellow]{escape(limit.reason)}[/]",
        )
    console.print(table)


def print_doctor(console: Console, *, as_json: bool) -> None:
    """What this machine can and can't do. Raises EnvironmentLacks when no run would work."""
    import dataclasses

    from orchestrator.doctor import examine

    checks = examine()
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        table = plain_table("", "found")
        for check in checks:
            style = CHECK_STYLES[check.status]
            text = escape(check.found)
            if check.consequence:
                text += f"\n[{style}]{escape(check.consequence)}[/]"
            if check.remedy:
                text += f"\n[dim]→ {escape(check.remedy)}[/]"
            table.add_row(f"[{style}]{check.name}[/]", text)
        console.print(table)
    missing = [check.name for check in checks if check.status == "missing"]
    if missing:
        raise EnvironmentLacks(f"no run is possible here, for lack of: {', '.join(missing)}")


def print_clean(console: Console, *, cache: bool) -> None:
    """Say what was removed; the sweep itself happened when the command started."""
    from orchestrator import cache as cache_folder
    from workers.leases import leases_folder

    held = sorted(path.stem for path in leases_folder().glob("*.json"))
    console.print("nothing of a killed run is left" if not held else f"in use: {', '.join(held)}")
    if cache and held:
        raise UserError("a run is going on: the cache can be removed when it has ended")
    if cache:
        freed = cache_folder.clear()
        console.print(f"removed {format_bytes(freed)} of cached toolchains and builds")
