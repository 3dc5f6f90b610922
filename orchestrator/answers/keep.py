"""What the commands print that keep an archive: baselines, a run against one, gc, copies."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.bounds import of_runs
from orchestrator.answers.common import fail_on, plain_table, print_json, tell
from results.errors import RunIncomplete, UserError
from results.metrics import counted, format_bytes

if TYPE_CHECKING:
    from results.archive.archive import Archive
    from results.archive.retention import Fate
    from results.comparing.across import MeasuredRun


def print_against(
    archive_path: Path,
    run_names: list[str],
    against: str,
    console: Console,
    *,
    style: str,
    fail_on_worse: bool,
) -> None:
    """A run against a named baseline or another run. Raises ObjectiveFailed when that is asked."""
    from results.archive.archive import Archive
    from results.archive.pins import pinned_run
    from results.comparing.across import across
    from results.comparing.acrosstables import markdown_across, plain_across, print_across

    if len(run_names) != 1:
        raise UserError("one run is held against another: bench compare RUN --against NAME")
    archive = Archive(archive_path)
    run, then = archive.run(run_names[0]), pinned_run(archive, against)
    name = then.run_id if then.run_id.startswith(against) or against == "latest" else against
    found = across(_measured(archive, then.run_id), _measured(archive, run.run_id), name)
    if style == "json":
        print_json(plain_across(found))
    elif style == "markdown":
        sys.stdout.write(markdown_across(found))
    else:
        print_across(found, console)
    if fail_on_worse:
        fail_on(found.worse, found.undecided, name)


def _measured(archive: Archive, run_id: str) -> MeasuredRun:
    from results.comparing.across import MeasuredRun
    from results.sql.database import open_database

    with open_database(archive.path, [run_id]) as database:
        (run,) = database.runs
        return MeasuredRun(
            run.document,
            tuple(database.records),
            tuple(database.measurements(run_id)),
            tuple(database.damage),
        )


def set_baseline(archive_path: Path, name: str, run_name: str, console: Console) -> None:
    """Name a run, and say which."""
    from results.archive.archive import Archive
    from results.archive.pins import pin

    archive = Archive(archive_path)
    run = archive.run(run_name)
    pin(archive, name, run)
    console.print(f"baseline {name} is run {run.run_id}", highlight=False)
    if run.status != "complete":
        console.print(f"[yellow]![/] {run.run_id} is {escape(run.status)}", highlight=False)


def unset_baseline(archive_path: Path, name: str, console: Console) -> None:
    """Take a name away."""
    from results.archive.archive import Archive
    from results.archive.pins import unpin

    gone = unpin(Archive(archive_path), name)
    console.print(f"baseline {name} is gone; run {gone.run_id} stays", highlight=False)


def print_baselines(archive_path: Path, console: Console, *, as_json: bool) -> None:
    """All names, their runs, and whether those are still what was pinned."""
    from results.archive.archive import Archive
    from results.archive.pins import changed_since, pins_of

    archive = Archive(archive_path)
    runs = {run.run_id: run for run in archive.runs()}
    rows = []
    for name, pin in pins_of(archive).items():
        run = runs.get(pin.run_id)
        doubt = changed_since(run, pin)
        rows.append(
            {
                "name": name,
                "run_id": pin.run_id,
                "service": str(run.document.get("service")) if run else None,
                "pinned_at": pin.pinned_at,
                "sha256": pin.sha256,
                "doubt": doubt or None,
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("no baselines yet; try: bench baseline set NAME RUN", highlight=False)
        return
    table = plain_table("baseline", "run", "service", "set (UTC)", "")
    for row in rows:
        told = f"[red]{escape(row['doubt'])}[/]" if row["doubt"] else "[green]as it was[/]"
        when = str(row["pinned_at"])[:16].replace("T", " ")
        table.add_row(row["name"], row["run_id"], escape(row["service"] or "–"), when, told)
    console.print(table)


AGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([hdw])")
HOURS = {"h": 1, "d": 24, "w": 7 * 24}
ABANDONED_S = 24 * 3600.0


def age_ns(text: str) -> int:
    """`12h`, `90d` or `8w` in nanoseconds. Raises UserError."""
    found = AGE.fullmatch(text)
    if not found:
        raise UserError(f"{text[:40]!r} is not an age; write for example 12h, 90d or 8w")
    return round(float(found[1]) * HOURS[found[2]] * 3600 * 1e9)


def collect_garbage(
    archive_path: Path,
    console: Console,
    *,
    older_than: str | None,
    keep_last: int | None,
    max_size: str | None,
    last_too: bool,
    delete: bool,
    as_json: bool,
) -> None:
    """Say which runs may go and why, and remove them when that is wanted."""
    from orchestrator.matrix.values import size_bytes
    from results.archive.archive import Archive
    from results.archive.intake import abandoned_imports
    from results.archive.pins import pins_of
    from results.archive.retention import Policy, fates, finish_removals, remove_run
    from results.files import remove_folder

    if older_than is None and keep_last is None and max_size is None:
        raise UserError("say what may go: --older-than 90d, --keep-last 10 or --max-size 50GiB")
    try:
        size_max = size_bytes(max_size) if max_size else None
    except ValueError as error:
        raise UserError(f"--max-size: {error}") from error
    policy = Policy(
        older_than_ns=age_ns(older_than) if older_than else None,
        keep_last=keep_last,
        size_max_bytes=size_max,
        last_too=last_too,
    )
    archive = Archive(archive_path)
    pinned = {pin.run_id for pin in pins_of(archive).values()}
    found = fates(archive, policy, now_ns=time.time_ns(), pinned=pinned, held=_held())
    freed = finish_removals(archive) if delete else 0
    for folder in abandoned_imports(archive, older_than_s=ABANDONED_S) if delete else ():
        remove_folder(folder)
    if not as_json and not found and not freed:
        console.print(f"no runs in {archive_path} yet: nothing can go", highlight=False)
        return
    if not as_json:
        _print_fates(found, console, delete=delete)
    for fate in found:
        if fate.goes and delete:
            remove_run(archive, fate.run)
    if as_json:
        print_json(
            [
                {
                    "run_id": fate.run.run_id,
                    "size_bytes": fate.size_bytes,
                    "goes": fate.goes,
                    "removed": fate.goes and delete,
                    "why": fate.why or None,
                }
                for fate in found
            ]
        )
        return
    going = sum(fate.size_bytes for fate in found if fate.goes) + freed
    left = sum(fate.size_bytes for fate in found if not fate.goes)
    words = (
        "removed {}; {} of runs are left" if delete else "would remove {}; {} of runs would stay"
    )
    hint = "" if delete or not going else "; to do it, add --yes"
    text = words.format(format_bytes(going), format_bytes(left))
    console.print(f"{text}{hint}", highlight=False)
    if size_max is not None and left > size_max:
        console.print(
            f"[yellow]![/] that is more than {format_bytes(size_max)}: the others must stay",
            highlight=False,
        )


def _held() -> set[str]:
    """The runs that a process on this machine holds, whatever their documents say."""
    from workers.leases import leases_folder

    return {path.stem.partition("~")[0] for path in leases_folder().glob("*.json")}


def _print_fates(found: list[Fate], console: Console, *, delete: bool) -> None:
    told = [fate for fate in found if fate.why]
    if not told:
        return
    table = plain_table("run", "service", "size", "", "because")
    for fate in told:
        word = "goes" if delete else "would go"
        table.add_row(
            fate.run.run_id,
            escape(str(fate.run.document.get("service"))),
            format_bytes(fate.size_bytes),
            f"[yellow]{word}[/]" if fate.goes else "[green]stays[/]",
            escape(fate.why),
        )
    console.print(table)


def print_export(
    archive_path: Path, run_names: list[str], target: str, console: Console, *, profiles: bool
) -> None:
    """Export runs, or all, and say where to and how much. Raises UserError when there are none."""
    from results.archive.archive import Archive
    from results.archive.fragments import read_trials
    from results.archive.packing import is_pack
    from results.sql.export import export, export_packed, export_to_store, is_address

    archive = Archive(archive_path)
    runs = archive.chosen(run_names)
    if not runs:
        raise archive.no_runs()
    if profiles and (is_address(target) or is_pack(target)):
        raise UserError("profiles are exported into a folder: -o FOLDER")
    what = counted(len(runs), "run")
    if is_pack(target) and not is_address(target):
        size_bytes = export_packed(runs, Path(target))
    else:
        trials = read_trials(archive, runs)
        tell(trials.notes)
        what += f", {counted(len(trials.records), 'trial')}"
        with of_runs(len(runs)):
            if is_address(target):
                size_bytes = export_to_store(trials, target)
            else:
                size_bytes = export(trials, Path(target), profiles=profiles)
    console.print(f"wrote {escape(target)} ({format_bytes(size_bytes)}): {what}", highlight=False)


def print_import(archive_path: Path, source: Path, console: Console, *, as_json: bool) -> None:
    """Take runs in, and say what became of each. Raises RunIncomplete when one was refused."""
    import dataclasses

    from results.archive.archive import Archive
    from results.archive.intake import import_runs

    arrivals = import_runs(Archive.create(archive_path), source)
    if as_json:
        print_json([dataclasses.asdict(arrival) for arrival in arrivals])
    else:
        styles = {"imported": "green", "here already": "dim", "refused": "red"}
        for arrival in arrivals:
            why = f": {escape(arrival.why)}" if arrival.why else ""
            text = f"{escape(arrival.run_id)} [{styles[arrival.outcome]}]{arrival.outcome}[/]{why}"
            console.print(text, highlight=False, soft_wrap=True)
    refused = sum(arrival.outcome == "refused" for arrival in arrivals)
    if refused:
        raise RunIncomplete(f"{counted(refused, 'run')} of {source} refused")
