"""Does a record say the truth? Its signature, its waivers, and every figure made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from results.errors import UserError
from results.signoff.language import objective_from_plain
from results.signoff.record import KIND, RECORD_VERSION, Question, make_record, text_of
from results.signoff.signing import BadSignature, PublicKey, signer_of
from results.signoff.waivers import Waiver
from results.sql.database import open_database

RECORD_BYTES_MAX: Final = 64 * 2**20
DIFFERENCES_MAX: Final = 20
SIGNATURE_SUFFIX: Final = ".sig"
NEWER: Final = frozenset({"headroom"})
"""Metrics that came after the first records were signed."""


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record as it lies there, with its signature."""

    path: Path
    data: bytes
    record: dict[str, Any]
    signature: str

    @property
    def decision(self) -> str:
        """What it says: GO or NO-GO."""
        return str(self.record.get("decision"))

    @property
    def builds(self) -> list[str]:
        """The SHA-256 of each build that it is about."""
        return [str(build.get("sha256")) for build in _list(self.record, "build")]


def read_record(path: Path) -> SignedRecord:
    """Read a record and the `.sig` file beside it. Raises UserError when one is none."""
    beside = path.with_name(path.name + SIGNATURE_SUFFIX)
    try:
        with path.open("rb") as file:
            data = file.read(RECORD_BYTES_MAX + 1)
        record = json.loads(data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no record of a sign-off: it is cut off or not JSON") from error
    if len(data) > RECORD_BYTES_MAX or not isinstance(record, dict) or record.get("kind") != KIND:
        raise UserError(f"{path} is no record of a sign-off")
    version = record.get("record_version")
    if version != RECORD_VERSION:
        raise UserError(
            f"{path} is of version {version}; this Heapgate knows version {RECORD_VERSION}"
        )
    try:
        signature = beside.read_text(encoding="latin-1")
    except OSError as error:
        raise UserError(f"{path} is not signed: {beside}: {error.strerror}") from error
    return SignedRecord(path, data, record, signature)


def check_record(
    signed: SignedRecord,
    archive: Path,
    trusted: Sequence[PublicKey],
    *,
    binary_sha256: str | None = None,
    today: date | None = None,
) -> list[str]:
    """Everything that is wrong with a record, a sentence each; nothing when it can be relied on.

    `binary_sha256` is that of the build at hand: a record of another build says nothing of it.
    """
    found = [*_wrong_signature(signed, trusted)]
    found += _wrong_build(signed, binary_sha256)
    found += _run_out(signed.record, today or datetime.now(UTC).date())
    return found + list(_made_again(signed, archive))


def _wrong_signature(signed: SignedRecord, trusted: Sequence[PublicKey]) -> Iterator[str]:
    try:
        signer = signer_of(signed.data, signed.signature)
    except BadSignature as error:
        yield str(error)
        return
    if signer.raw not in {key.raw for key in trusted}:
        yield f"it is signed by a key that is not trusted here: {signer.fingerprint}"


def _wrong_build(signed: SignedRecord, binary_sha256: str | None) -> Iterator[str]:
    if binary_sha256 is not None and binary_sha256 not in signed.builds:
        known = ", ".join(signed.builds) or "none"
        yield f"it is about another build: {known}, not {binary_sha256}"


def _run_out(record: Mapping[str, Any], today: date) -> Iterator[str]:
    for waiver in {json.dumps(d.get("waived_by")) for d in _list(record, "objectives")}:
        data = json.loads(waiver)
        try:
            if data and not Waiver.from_plain(data).holds(today):
                yield f"the waiver of {data['objective']!r} ended on {data['expires']}"
        except (TypeError, ValueError, KeyError, AttributeError):
            yield "a waiver in it can't be read"


def _made_again(signed: SignedRecord, archive: Path) -> Iterator[str]:
    """What is not the same when the record is made again from the archive."""
    record = signed.record
    try:
        question = _question(record)
        run_ids = [str(evidence["run_id"]) for evidence in record["evidence"]]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        yield f"it can't be made again: {error!r} is missing or wrong"
        return
    try:
        with open_database(archive, run_ids) as database:
            again = make_record(database, question)
    except (UserError, OSError) as error:
        yield f"it can't be made again: {error}"
        return
    true = json.loads(text_of(again))
    true["figures"] = [row for row in true["figures"] if _was_told(record, row)]
    _without_new_commits(record, true)
    if "absent" not in record["policy"]:
        del true["policy"]["absent"]  # It was not told at first.
    differences = list(_differences(record, true))
    yield from differences[:DIFFERENCES_MAX]
    if len(differences) > DIFFERENCES_MAX:
        yield f"… and {len(differences) - DIFFERENCES_MAX} more"


def _was_told(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a record has such a figure: one from before there was headroom lacks it alone."""
    metric = row["metric"]
    return metric not in NEWER or any(
        told.get("metric") == metric for told in _list(record, "figures")
    )


def _without_new_commits(record: Mapping[str, Any], true: dict[str, Any]) -> None:
    """A record from before the commit of a build was told says of none what it was."""
    silent = {b.get("sha256") for b in _list(record, "build") if b.get("commit") is None}
    for build in true["build"]:
        if build["sha256"] in silent:
            build |= {"commit": None, "commit_modified": False}


def _question(record: Mapping[str, Any]) -> Question:
    policy = record["policy"]
    return Question(
        configuration=str(record["configuration"]),
        objectives=tuple(map(objective_from_plain, policy["objectives"])),
        waivers=tuple(Waiver.from_plain(w) for w in policy["waivers"]),
        decided_at=datetime.fromisoformat(record["decided_at"]),
        command=str(record["command"]),
        noise=record["noise"],
    )


def _differences(told: Any, true: Any, at: str = "") -> Iterator[str]:
    """Every place where the record says something else than the archive."""
    if isinstance(told, dict) and isinstance(true, dict):
        for key in sorted(told.keys() | true.keys()):
            place = f"{at}.{key}" if at else key
            yield from _differences(told.get(key), true.get(key), place)
    elif isinstance(told, list) and isinstance(true, list) and len(told) == len(true):
        for number, (ours, theirs) in enumerate(zip(told, true, strict=True)):
            yield from _differences(ours, theirs, f"{at}[{number}]")
    elif told != true or type(told) is not type(true):
        yield f"{at}: the record says {_short(told)}, the archive {_short(true)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _list(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = record.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
