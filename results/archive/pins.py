"""Named baselines: runs that others are held against, by a name of the user's own.

`baselines.json` in the archive's folder, for people to read. A pin names a run and the digest of
all its digests (`intact.digest_of_run`), so that a run which is not what was pinned is noticed: it
was resumed, repaired or damaged meanwhile. Beside the names stands a digest over them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from filelock import FileLock, Timeout

from results.archive.archive import Archive, RunEntry
from results.archive.intact import digest_of_run
from results.errors import EnvironmentLacks, HeapgateError, RunIncomplete, UserError
from results.files import write_whole

FILE: Final = "baselines.json"
_PATIENCE_S: Final = 60.0
_NAME: Final = re.compile(r"\w[\w.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Pin:
    """What a name stands for: the run, what it was then (SHA-256), and when that was said (UTC)."""

    run_id: str
    sha256: str
    pinned_at: str


def pins_of(archive: Archive) -> dict[str, Pin]:
    """All names with their pins. Raises UserError for a file that is none."""
    path = archive.path / FILE
    try:
        document = json.loads(path.read_bytes())
        return {str(name): Pin(**pin) for name, pin in sorted(document["baselines"].items())}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvironmentLacks(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is not a list of baselines; mend it, or remove it and set them again"
        ) from error


def pin(archive: Archive, name: str, run: RunEntry) -> Pin:
    """Give a run a name, over an older one. Raises UserError, RunIncomplete for damage."""
    from results.archive.verify import verify_run

    if not _NAME.fullmatch(name) or name == "latest":
        raise UserError(
            f"{name[:80]!r} can't be a baseline's name: letters, digits, _ . + - are allowed, at "
            "most 64, and not `latest`"
        )
    if any(known.run_id == name for known in archive.runs()):
        raise UserError(f"{name} is the id of a run; choose another name")
    if run.status == "running":
        raise UserError(f"{run.run_id} is still running; set it when it has ended")
    damage = next(verify_run(run), None)
    if damage:
        raise RunIncomplete(f"{run.run_id} is damaged ({damage.path.name} {damage.text})")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = Pin(run.run_id, digest_of_run(run.path), now)
    with _locked(archive):
        _write(archive, pins_of(archive) | {name: made})
    return made


def unpin(archive: Archive, name: str) -> Pin:
    """Take a name away; the run stays. Raises UserError when there is no such name."""
    with _locked(archive):
        pins = pins_of(archive)
        if name not in pins:
            known = ", ".join(pins) or "none"
            raise UserError(f"there is no baseline {name!r}; there are: {known}")
        gone = pins.pop(name)
        _write(archive, pins)
    return gone


def pinned_run(archive: Archive, name: str) -> RunEntry:
    """The run of a name, or the run that has this id. Raises UserError when it is not as pinned."""
    pins = pins_of(archive)
    if name not in pins:
        try:
            return archive.run(name)
        except UserError as error:
            known = ", ".join(pins) or "none"
            raise UserError(f"there is no baseline {name!r}, only: {known}; and {error}") from error
    run = archive.run(pins[name].run_id)
    if why := changed_since(run, pins[name]):
        raise UserError(
            f"baseline {name} is {run.run_id} as it was at {pins[name].pinned_at}, and {why}; if "
            f"that is right: bench baseline set {name} {run.run_id}"
        )
    return run


def changed_since(run: RunEntry | None, pin: Pin) -> str:
    """Why a run is not what was pinned; empty when it is. Reads its digests, not its bytes."""
    if run is None:
        return "it is not in the archive any more"
    try:
        same = digest_of_run(run.path) == pin.sha256
    except OSError as error:
        return f"its digests can't be read: {error.strerror}"
    return "" if same else "it has changed since"


def doubts(archive: Archive) -> Iterator[str]:
    """What is wrong with the list of names, or with the runs that they stand for, in words."""
    try:
        pins = pins_of(archive)
    except HeapgateError as error:
        yield str(error).removeprefix(str(archive.path / FILE)).lstrip()
        return
    if pins and not _is_as_written(archive):
        yield "has changed since it was written; set the names again"
    runs = {run.run_id: run for run in archive.runs()}
    for name, found in pins.items():
        if why := changed_since(runs.get(found.run_id), found):
            yield f"says that {name} is {found.run_id}, and {why}"


def _is_as_written(archive: Archive) -> bool:
    """Whether the names have their digest; lists of earlier versions have none."""
    document = json.loads((archive.path / FILE).read_bytes())
    if document.keys() == {"baselines"}:
        return True
    return bool(document == _document(document["baselines"]))


def _document(names: dict[str, Any]) -> dict[str, Any]:
    told = json.dumps(names, sort_keys=True)
    return {"baselines": names, "sha256": hashlib.sha256(told.encode()).hexdigest()}


@contextmanager
def _locked(archive: Archive) -> Iterator[None]:
    """Only one process at a time changes the names."""
    lock = FileLock(archive.path / f".{FILE}.lock", timeout=_PATIENCE_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise EnvironmentLacks(f"{lock.lock_file} is held by another process") from error
    except OSError as error:
        raise EnvironmentLacks(f"{archive.path} can't be written to: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _write(archive: Archive, pins: dict[str, Pin]) -> None:
    document = _document({name: asdict(found) for name, found in sorted(pins.items())})
    path = archive.path / FILE
    try:
        write_whole(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise EnvironmentLacks(f"{path} can't be written to: {error.strerror}") from error
