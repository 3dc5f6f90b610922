"""What the commands print that decide on a release: sign-off, keys, and the check of a record."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from orchestrator import keyring
from orchestrator.answers.common import plain_table, print_json, tell
from orchestrator.matrix.policy import Policy, load_policy
from orchestrator.output import OutputConsole
from results.errors import EnvironmentLacks, ObjectiveFailed, RunIncomplete, UserError
from results.metrics import counted

if TYPE_CHECKING:
    from results.signoff.check import SignedRecord
    from results.sql.database import Database

SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable with the file that GitHub shows as a step's summary."""

ENDINGS = {".json": "json", ".html": "html", ".md": "md", ".xml": "junit"}
"""A file's ending → the form of what is in it."""

_ENDINGS_TOLD = {".json": "the record", ".html": "a page", ".md": "Markdown", ".xml": "JUnit"}


@dataclass(frozen=True, slots=True)
class Signed:
    """A record as it was written; without a key `signature` and `signer` are empty."""

    record: dict[str, Any]
    text: str
    path: Path
    signature: str = ""
    signer: str = ""


def sign_off(
    archive_path: Path,
    run_name: str,
    console: Console,
    *,
    configuration: str | None,
    policy_path: Path | None,
    key_path: Path | None,
    outputs: Sequence[Path],
    form: str,
) -> None:
    """Decide, write the record, sign it, print. Raises ObjectiveFailed for a NO-GO.

    The ending of each of `outputs` says what it is; what goes into one is not printed too.
    """
    from results.archive.archive import Archive
    from results.signoff.record import GO, Question, make_record
    from results.sql.database import open_database

    files = _forms_of(outputs)
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
    kept = run.path / f"signoff-{chosen}.json"
    path = next((p for p in files if files[p] == "json"), kept)
    signed = _written(record, path, key)
    if path != kept:
        _keep(record, kept, key)
    for own, kind in files.items():
        if kind != "json":
            _write(own, _text(signed, kind))
    if form not in files.values():
        print_form(signed, console, form)
    _tell_signature(signed, _console_for(form, console))
    if record["decision"] != GO:
        blocking = [d["objective"] for d in record["objectives"] if d["blocks"]]
        raise ObjectiveFailed(f"NO-GO: {'; '.join([*blocking, *record['doubts']])}")


def _forms_of(outputs: Sequence[Path]) -> dict[Path, str]:
    """Each file to write → its form, by its ending. Raises UserError for one that says nothing."""
    files: dict[Path, str] = {}
    for path in outputs:
        kind = ENDINGS.get(path.suffix.lower())
        if kind is None:
            known = ", ".join(f"{ending} {what}" for ending, what in _ENDINGS_TOLD.items())
            raise UserError(f"{path}: a file's ending says what it is: {known}")
        if kind in files.values():
            raise UserError(f"{path}: there is one {path.suffix.lower()} file already")
        files[path] = kind
    return files


def print_form(signed: Signed, console: Console, form: str) -> None:
    """Print a record as a table, HTML, Markdown, JUnit XML, JSON, or for GitHub."""
    from results.signoff import forms

    if form == "table":
        forms.print_record(signed.record, console)
        return
    sys.stdout.write(_text(signed, form))
    if form == "github" and (summary := os.environ.get(SUMMARY)):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(forms.markdown_record(signed.record))
        except OSError as error:
            raise EnvironmentLacks(f"{summary}: {error.strerror}") from error


def _text(signed: Signed, form: str) -> str:
    """A record in one of the forms that are text."""
    from results.signoff import forms

    if form == "json":
        return signed.text
    if form == "html":
        from results.signoff.page import record_page

        return record_page(signed.text, signed.path.name, signed.signature)
    texts = {
        "md": forms.markdown_record,
        "junit": forms.junit_record,
        "github": forms.github_record,
    }
    return texts[form](signed.record)


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
    from orchestrator.calibrate.calibration import hardware_of, kept_for

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


def _written(record: dict[str, Any], path: Path, key_path: Path | None) -> Signed:
    """The record, and its signature where there is a key. An older signature never stays."""
    from results.signoff.check import SIGNATURE_SUFFIX
    from results.signoff.record import text_of
    from results.signoff.signing import public_key_of, read_key, sign

    text = text_of(record)
    beside = path.with_name(path.name + SIGNATURE_SUFFIX)
    key = read_key(key_path) if key_path else None
    try:
        beside.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentLacks(f"{beside}: {error.strerror}") from error
    _write(path, text)
    if key is None:
        return Signed(record, text, path)
    signature = sign(text.encode(), key)
    _write(beside, signature)
    return Signed(record, text, path, signature, public_key_of(key).fingerprint)


def _keep(record: dict[str, Any], kept: Path, key_path: Path | None) -> None:
    """A copy in the run's folder: by it `bench gc` knows that the run was signed off.

    A signed one is not lost to one without a signature.
    """
    from results.signoff.check import SIGNATURE_SUFFIX

    if key_path is None and kept.with_name(kept.name + SIGNATURE_SUFFIX).exists():
        return
    try:
        _written(record, kept, key_path)
    except EnvironmentLacks as error:
        tell([f"no copy of the record is kept, so bench gc may remove the run: {error}"])


def _write(path: Path, text: str) -> None:
    from results.files import write_whole

    try:
        write_whole(path, text)
    except OSError as error:
        raise EnvironmentLacks(f"{path}: {error.strerror}") from error


def _tell_signature(signed: Signed, console: Console) -> None:
    path = escape(str(signed.path))
    if signed.signature:
        said = f"{path} signed by {signed.signer}; check it with: bench verify {path}"
    else:
        said = (
            f"[yellow]![/] {path} is not signed: there is no key; make one with: "
            "bench keys new NAME"
        )
    console.print(said, highlight=False, soft_wrap=True)


def verify_records(
    archive_path: Path,
    paths: Sequence[Path],
    console: Console,
    *,
    binary: Path | None,
    public_key: Path | None,
    require_go: bool,
    as_json: bool,
) -> None:
    """Check signed records.

    Raises ObjectiveFailed when one of them can't be relied on, or says NO-GO where GO is required.
    """
    from results.files import file_digest
    from results.signoff.check import check_record, read_record
    from results.signoff.record import GO

    trusted = (
        [keyring.public_key(public_key)]
        if public_key
        else [k.public for k in keyring.trusted_keys()]
    )
    try:
        sha256 = file_digest(binary) if binary else None
    except OSError as error:
        raise UserError(f"{binary}: {error.strerror}") from error
    checked = [
        (signed, check_record(signed, archive_path, trusted, binary_sha256=sha256))
        for signed in map(read_record, paths)
    ]
    if as_json:
        compared = {"build_compared": sha256 is not None}
        print_json([_plain_check(signed, wrong) | compared for signed, wrong in checked])
    else:
        for signed, wrong in checked:
            _print_check(signed, wrong, console)
        if sha256 is None:
            said = "no build was compared with what was signed off: name yours with --binary"
            console.print(f"[yellow]![/] {said}", highlight=False, soft_wrap=True)
    bad = sum(bool(wrong) for _, wrong in checked)
    if bad:
        raise ObjectiveFailed(f"{counted(bad, 'record')} can't be relied on")
    refused = [str(signed.path) for signed, _ in checked if signed.decision != GO]
    if require_go and refused:
        raise ObjectiveFailed(f"NO-GO: {', '.join(refused)}")


def _plain_check(signed: SignedRecord, wrong: Sequence[str]) -> dict[str, Any]:
    return {
        "path": str(signed.path),
        "decision": signed.decision,
        "builds": signed.builds,
        "wrong": list(wrong),
    }


def _print_check(signed: SignedRecord, wrong: Sequence[str], console: Console) -> None:
    """A tick says that the record can be relied on, whatever it says."""
    mark = "[red]✗[/]" if wrong else "[green]✓[/]"
    about = f"{escape(signed.decision)}, build {escape(', '.join(signed.builds) or 'unknown')}"
    console.print(f"{mark} {escape(str(signed.path))}: {about}", highlight=False, soft_wrap=True)
    for text in wrong:
        console.print(f"    {escape(text)}", highlight=False, soft_wrap=True)


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
