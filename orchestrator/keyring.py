"""Keys for sign-offs: one's own, and those whose signature is believed here.

<state folder>/keys/NAME       a private key of OpenSSH, readable by its owner only
<state folder>/keys/NAME.pub   its public half; or that of somebody who is trusted
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from results.errors import EnvironmentLacks, UserError
from results.signoff.signing import PublicKey, make_key
from workers.leases import state_folder

SIGNING_KEY = "HEAPGATE_SIGNING_KEY"
"""The variable with the path of the key to sign with, for pipelines."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the ring; `private` is None for somebody else's."""

    name: str
    public: PublicKey
    private: Path | None


def keys_folder() -> Path:
    """Where the keys are."""
    return state_folder() / "keys"


def trusted_keys() -> list[Key]:
    """All keys that are trusted here, by name."""
    return sorted(_keys(), key=lambda key: key.name)


def _keys() -> Iterator[Key]:
    for path in keys_folder().glob("*.pub"):
        private = path.with_suffix("")
        yield Key(path.stem, public_key(path), private if private.exists() else None)


def public_key(path: Path) -> PublicKey:
    """The key in a `.pub` file. Raises UserError when it is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return PublicKey.from_text(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path} is no public key: {error}") from error


def new_key(name: str) -> Key:
    """Make a key of one's own. Raises UserError when the name is taken."""
    path = _path(name)
    return Key(name, make_key(path, name), path)


def trust(path: Path, name: str | None) -> Key:
    """Believe somebody's signatures from now on. Raises UserError when the name is taken."""
    public = public_key(path)
    target = _path(name or path.name.removesuffix(".pub"))
    beside = target.with_name(f"{target.name}.pub")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with beside.open("x", encoding="utf-8") as file:
            file.write(f"{public.text}\n")
    except FileExistsError as error:
        raise UserError(f"there is a key {target.name!r} already: choose a --name") from error
    except OSError as error:
        raise EnvironmentLacks(f"{beside}: {error.strerror}") from error
    return Key(target.name, public, None)


def signing_key(asked: Path | None) -> Path | None:
    """The private key to sign with: the one asked for, that of the variable, or the only one."""
    if asked is not None:
        return asked
    if named := os.environ.get(SIGNING_KEY):
        return Path(named)
    own = [key.private for key in trusted_keys() if key.private]
    if len(own) > 1:
        names = ", ".join(path.name for path in own)
        raise UserError(f"there are several keys ({names}): choose one with --key {own[0]}")
    return own[0] if own else None


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name) or name.endswith(".pub"):
        raise UserError(f"{name!r} can't be a key's name: use letters, digits, . _ @ and -")
    return keys_folder() / name
