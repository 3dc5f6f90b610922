"""Signatures of records: Ed25519 in OpenSSH's own formats, so that ssh-keygen can check them too.

    ssh-keygen -Y verify -f signers -I NAME -n heapgate-signoff -s FILE.sig < FILE

A key is an OpenSSH key file, made here or by ssh-keygen. Formats: PROTOCOL.sshsig and RFC 8709 of
what is signed and how, RFC 4251 section 5 of the encoding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from results.errors import EnvironmentLacks, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE: Final = b"heapgate-signoff"
"""What the signature is for: one made for something else is none."""

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_KIND: Final = b"ssh-ed25519"
_HASH: Final = b"sha512"
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"
_LINE: Final = 70
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class BadSignature(UserError):
    """A record's signature is not what it should be; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may have signed. `raw` are the key's 32 bytes."""

    raw: bytes
    name: str = ""

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Read the line of an OpenSSH `.pub` file. Raises UserError for another kind of key."""
        parts = text.split(maxsplit=2)
        if len(parts) < 2 or parts[0].encode() != _KIND:
            raise UserError("not an Ed25519 public key of OpenSSH: `ssh-ed25519 AAAA… name`")
        try:
            fields = list(_strings(base64.b64decode(parts[1], validate=True)))
        except (binascii.Error, ValueError) as error:
            raise UserError(f"not a public key of OpenSSH: {error}") from error
        if len(fields) != 2 or fields[0] != _KIND or len(fields[1]) != 32:
            raise UserError("not an Ed25519 public key of OpenSSH")
        return cls(fields[1], parts[2].strip() if len(parts) > 2 else "")

    @property
    def blob(self) -> bytes:
        """As it stands in files and signatures."""
        return _string(_KIND) + _string(self.raw)

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    @property
    def text(self) -> str:
        """The line of a `.pub` file."""
        encoded = base64.b64encode(self.blob).decode()
        return f"{_KIND.decode()} {encoded} {self.name}".rstrip()


def make_key(path: Path, name: str) -> PublicKey:
    """Make a key pair: `path`, readable by its owner only, and `path.pub` for everybody.

    Raises UserError when one of the files exists, EnvironmentLacks when they can't be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = PublicKey(_raw(key), name)
    beside = path.with_name(f"{path.name}.pub")
    if beside.exists():
        raise UserError(f"{beside} exists: a key is never written over")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        beside.write_text(f"{public.text}\n", encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{path} exists: a key is never written over") from error
    except OSError as error:
        raise EnvironmentLacks(f"{error.filename or path}: {error.strerror}") from error
    return public


def read_key(path: Path) -> Ed25519PrivateKey:
    """A private key. Raises UserError when it is none, or when others may read it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        if sys.platform != "win32" and path.stat().st_mode & _OTHERS:
            raise UserError(f"{path} can be read by others: chmod 600 {path}")
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        protected = "password" in str(error).lower()
        why = "it is protected by a passphrase" if protected else "it is no private key of OpenSSH"
        raise UserError(f"{path} can't be used: {why}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} can't be used: it is no Ed25519 key")
    return key


def public_key_of(key: Ed25519PrivateKey, name: str = "") -> PublicKey:
    """The public half."""
    return PublicKey(_raw(key), name)


def sign(message: bytes, key: Ed25519PrivateKey) -> str:
    """The text of a `.sig` file."""
    signature = _string(_KIND) + _string(key.sign(_signed(message, _HASH)))
    blob = (
        _MAGIC
        + _VERSION.to_bytes(4, "big")
        + _string(PublicKey(_raw(key)).blob)
        + _string(NAMESPACE)
        + _string(b"")
        + _string(_HASH)
        + _string(signature)
    )
    encoded = base64.b64encode(blob).decode()
    lines = [encoded[n : n + _LINE] for n in range(0, len(encoded), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def signer_of(message: bytes, armoured: str) -> PublicKey:
    """Whose signature of the message it is; whether that one may sign is for the caller to say.

    Raises BadSignature when it is of another message, for another purpose, or none at all.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        blob = _unarmoured(armoured)
        if blob[:6] != _MAGIC or int.from_bytes(blob[6:10], "big") != _VERSION:
            raise ValueError("not a signature of OpenSSH")
        public, namespace, _reserved, hashed, signature = _strings(blob[10:])
        kind, raw = _strings(public)
        signed_kind, value = _strings(signature)
    except (binascii.Error, ValueError) as error:
        raise BadSignature(f"the signature can't be read: {error}") from error
    if kind != _KIND or signed_kind != _KIND:
        raise BadSignature("the signature is by another kind of key than Ed25519")
    if namespace != NAMESPACE:
        raise BadSignature("the signature was made for another purpose than a sign-off")
    if hashed not in (b"sha256", b"sha512"):
        raise BadSignature("the signature is over an unknown digest")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(value, _signed(message, hashed))
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("the record is not the one that was signed: it was changed") from error
    return PublicKey(raw)


def _signed(message: bytes, hashed: bytes) -> bytes:
    digest = hashlib.new(hashed.decode(), message).digest()
    return _MAGIC + b"".join(map(_string, (NAMESPACE, b"", hashed, digest)))


def _unarmoured(text: str) -> bytes:
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError("it has no beginning or no end")
    encoded = "".join(lines[1:-1])
    blob = base64.b64decode(encoded, validate=True)
    if base64.b64encode(blob).decode() != encoded:
        raise ValueError("it was changed")
    return blob


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _strings(data: bytes) -> Iterator[bytes]:
    """The strings that bytes consist of. Raises ValueError where one is cut off."""
    while data:
        length = int.from_bytes(data[:4], "big")
        if len(data) < 4 + length:
            raise ValueError("it is cut off")
        yield data[4 : 4 + length]
        data = data[4 + length :]


def _raw(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
