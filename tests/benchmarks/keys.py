"""Keys and certificates as a head gives them out, for both sides of a connection."""

from __future__ import annotations

from pathlib import Path

from orchestrator.membership.pki import Authority, Role, key_pem, make_key, write_tls_folder


def tls_folder(folder: Path, authority: Authority, role: Role, name: str, *addresses: str) -> Path:
    """Make a folder with a new key, as `results.collecting.secure` reads it."""
    key = make_key()
    where = ["127.0.0.1", *addresses]
    certificate = authority.issue(key.public_key(), role, name, addresses=where)
    write_tls_folder(folder, authority=authority.pem, certificate=certificate, key=key_pem(key))
    return folder
