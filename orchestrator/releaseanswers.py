"""What the commands print that decide on a release: sign-off, keys, and the check of a record."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator import keyring
from orchestrator.answers import plain_table, print_json
from orchestrator.output import OutputConsole
from orchestrator.policy import Policy, load_policy
from results.errors import EnvironmentLacks, ObjectiveFailed, RunIncomplete, UserError
from results.metrics import counted

if TYPE_CHECKING:
    from results.database import Database

SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable with the file that GitHub shows as a step's summary."""


def sign_off(
    archive_path: Path,
    run_name: str,
    console: Console,
    *,
    configuration: str | None,
    policy_path: Path | None,
    key_path: Path | None,
    output: Path | None,
    form: str,
) -> None:
    """Decide, print, write the record and sign it. Raises ObjectiveFailed for a NO-GO."""
    from results.archive import Archive
    from results.database import open_database
    from results.signoff.record import GO, Question, make_record

    run = Archive(archive_path).run(run_name)
    key = keyring.signing_key(key_path)
    policy = load_policy(policy_path) if policy_path else _policy_of(run.document)
    with open_database(archive_path, [run.run_id]) as database:
        chosen = configuration or _only_candidate(database)
        question = Question(
            configuration=chosen,
            objectives=policy.objectives,
            waivers=policy.waivers,
            decided_at=datetime.now(UTC).replace(microsecond=0),
            command=shlex.join(["bench", *sys.argv[1:]]),
            noise=_noise(database, chosen),
        )
        record = make_record(database, question)
    print_form(record, console, form)
    path = output or run.path / f"signoff-{chosen}.json"
    _write(record, path, key, _console_for(form, console))
    if record["decision"] != GO:
        blocking = [d["objective"] for d in record["objectives"] if d["blocks"]]
        raise ObjectiveFailed(f"NO-GO: {'; '.join([*blocking, *record['doubts']])}")


def print_form(record: dict[str, Any], console: Console, form: str) -> None:
    """Print a record as a table, Markdown, JUnit XML, JSON, or for GitHub."""
    from results.signoff import forms
    from results.signoff.record import text_of

    if form == "table":
        forms.print_record(record, console)
        return
    texts = {
        "md": forms.markdown_record,
        "junit": forms.junit_record,
        "json": text_of,
        "github": forms.github_record,
    }
    sys.stdout.write(texts[form](record))
    if form == "github" and (summary := os.environ.get(SUMMARY)):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(forms.markdown_record(record))
        except OSError as error:
            raise EnvironmentLacks(f"{summary}: {error.strerror}") from error


def _console_for(form: str, console: Console) -> Console:
    """Where remarks go: not into what a program reads."""
    return console if form == "table" else OutputConsole(stderr=True)


def _policy_of(document: dict[str, Any]) -> Policy:
    try:
        return Policy.from_plain(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the run's own objectives can't be read: {error}") from error


def _only_candidate(database: Database) -> str:
    """The configuration that is meant when none is named."""
    names = sorted({r.configuration for r in database.records if not r.baseline})
    if not names:
        names = sorted({r.configuration for r in database.records})
    if len(names) == 1:
        return names[0]
    if not names:
        raise RunIncomplete("no trial of this run has ended: there is nothing to sign off")
    raise UserError(f"which one is to be shipped? --configuration {' | '.join(names)}")


def _noise(database: Database, configuration: str) -> dict[str, Any] | None:
    """The noise floors of the node's kind of machine, from its calibration here."""
    from orchestrator.calibration import hardware_of, kept_for

    own = [r for r in database.records if r.configuration == configuration and r.valid]
    if not own or "cores_allowed" not in own[0].node:
        return None
    calibration = kept_for(hardware_of(own[0].node))
    if calibration is None:
        return None
    confidence = float(database.runs[0].document["comparison"]["confidence"])
    blocks = len({r.block for r in own})
    floors = {n.metric: n.floor(blocks, confidence, 1.0) for n in calibration.noise if n.relative}
    return {"calibrated": str(calibration.made), "blocks": blocks, "floors": floors}


def _write(record: dict[str, Any], path: Path, key_path: Path | None, console: Console) -> None:
    """The record, and its signature where there is a key. An older signature never stays."""
    from results.files import write_whole
    from results.signoff.check import SIGNATURE_SUFFIX
    from results.signoff.record import text_of
    from results.signoff.signing import public_key_of, read_key, sign

    text = text_of(record)
    beside = path.with_name(path.name + SIGNATURE_SUFFIX)
    key = read_key(key_path) if key_path else None
    try:
        beside.unlink(missing_ok=True)
        write_whole(path, text)
        if key:
            write_whole(beside, sign(text.encode(), key))
    except OSError as error:
        raise EnvironmentLacks(f"{error.filename or path}: {error.strerror}") from error
    if key:
        said = f"signed by {public_key_of(key).fingerprint}; check it with: bench verify"
        console.print(
            f"{escape(str(path))} {said} {escape(str(path))}", highlight=False, soft_wrap=True
        )
    else:
        said = "is not signed: there is no key; make one with: bench keys new NAME"
        console.print(f"[yellow]![/] {escape(str(path))} {said}", highlight=False, soft_wrap=True)


def verify_records(
    archive_path: Path,
    paths: Sequence[Path],
    console: Console,
    *,
    binary: Path | None,
    public_key: Path | None,
    as_json: bool,
) -> None:
    """Check signed records. Raises ObjectiveFailed when one of them can't be relied on."""
    from results.files import file_digest
    from results.signoff.check import check_record, read_record

    trusted = (
        [keyring.public_key(public_key)]
        if public_key
        else [k.public for k in keyring.trusted_keys()]
    )
    try:
        sha256 = file_digest(binary) if binary else None
    except OSError as error:
        raise UserError(f"{binary}: {error.strerror}") from error
    wrong: dict[str, list[str]] = {}
    decisions: dict[str, str] = {}
    for path in paths:
        signed = read_record(path)
        decisions[str(path)] = str(signed.record.get("decision"))
        wrong[str(path)] = check_record(signed, archive_path, trusted, binary_sha256=sha256)
    if as_json:
        print_json(
            [{"path": p, "decision": decisions[p], "wrong": found} for p, found in wrong.items()]
        )
    else:
        for path_text, found in wrong.items():
            mark = "[red]✗[/]" if found else "[green]✓[/]"
            console.print(
                f"{mark} {escape(path_text)}: {escape(decisions[path_text])}", highlight=False
            )
            for text in found:
                console.print(f"    {escape(text)}", highlight=False, soft_wrap=True)
    bad = sum(bool(found) for found in wrong.values())
    if bad:
        raise ObjectiveFailed(f"{counted(bad, 'record')} can't be relied on")


def new_key(name: str, console: Console) -> None:
    """Make a key, and say where it is."""
    key = keyring.new_key(name)
    console.print(f"{escape(str(key.private))}  {key.public.fingerprint}", highlight=False)
    console.print(f"others trust it with: bench keys trust {escape(name)}.pub", highlight=False)


def print_keys(console: Console, *, as_json: bool) -> None:
    """All keys that are trusted here."""
    found = keyring.trusted_keys()
    if as_json:
        print_json(
            [
                {
                    "name": key.name,
                    "fingerprint": key.public.fingerprint,
                    "public_key": key.public.text,
                    "signs": key.private is not None,
                }
                for key in found
            ]
        )
        return
    if not found:
        console.print("no keys yet: bench keys new NAME", highlight=False)
        return
    table = plain_table("name", "fingerprint", "")
    for key in found:
        use = "signs here" if key.private else "is trusted"
        table.add_row(escape(key.name), key.public.fingerprint, use)
    console.print(table)


def trust_key(path: Path, name: str | None, console: Console) -> None:
    """Believe somebody's signatures, and say whose."""
    key = keyring.trust(path, name)
    console.print(f"{escape(key.name)} is trusted: {key.public.fingerprint}", highlight=False)
