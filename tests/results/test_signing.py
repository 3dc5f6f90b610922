"""Signatures: ours are OpenSSH's, and nothing else passes for one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.errors import UserError
from results.signoff.signing import (
    NAMESPACE,
    BadSignature,
    PublicKey,
    make_key,
    public_key_of,
    read_key,
    sign,
    signer_of,
)

MESSAGE = b'{"decision": "GO"}\n'
needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)"
)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    make_key(tmp_path / "release", "release manager")
    return tmp_path / "release"


def test_a_signature_names_its_key(key_file: Path) -> None:
    key = read_key(key_file)
    public = PublicKey.from_text(key_file.with_name("release.pub").read_text())
    assert public == public_key_of(key, "release manager")
    signer = signer_of(MESSAGE, sign(MESSAGE, key))
    assert signer.raw == public.raw
    assert signer.fingerprint == public.fingerprint


@needs_ssh_keygen
def test_ssh_keygen_accepts_our_signature_and_key(key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "record.sig").write_text(sign(MESSAGE, read_key(key_file)))
    public = key_file.with_name("release.pub").read_text()
    (tmp_path / "signers").write_text(f"jane {public}")
    options = ["-f", tmp_path / "signers", "-I", "jane", "-n", NAMESPACE.decode()]
    command = ["ssh-keygen", "-Y", "verify", *options, "-s", tmp_path / "record.sig"]
    assert subprocess.run(command, input=MESSAGE, check=False).returncode == 0
    assert subprocess.run(command, input=MESSAGE + b" ", check=False).returncode != 0
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key_file], capture_output=True, check=True)
    assert PublicKey.from_text(public).fingerprint in shown.stdout.decode()


@needs_ssh_keygen
def test_a_signature_and_key_of_ssh_keygen_are_accepted(tmp_path: Path) -> None:
    key = tmp_path / "id"
    quiet = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "jane@example.org", "-f", key]
    subprocess.run(quiet, check=True)
    (tmp_path / "record").write_bytes(MESSAGE)
    command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE.decode()]
    subprocess.run([*command, tmp_path / "record"], check=True, capture_output=True)
    signer = signer_of(MESSAGE, (tmp_path / "record.sig").read_text())
    assert signer.raw == PublicKey.from_text((tmp_path / "id.pub").read_text()).raw
    assert signer_of(MESSAGE, sign(MESSAGE, read_key(key))).raw == signer.raw
    subprocess.run([*command[:-1], "git", tmp_path / "record"], check=True, input=b"y\n")
    with pytest.raises(BadSignature, match="another purpose"):
        signer_of(MESSAGE, (tmp_path / "record.sig").read_text())


@needs_ssh_keygen
@pytest.mark.parametrize(
    ("options", "said"),
    [(["-t", "rsa", "-N", ""], "no Ed25519"), (["-t", "ed25519", "-N", "secret"], "passphrase")],
)
def test_other_keys_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *options, "-f", tmp_path / "id"], check=True)
    with pytest.raises(UserError, match=said):
        read_key(tmp_path / "id")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_one_changed_bit_anywhere_is_noticed(key_file: Path, data: st.DataObject) -> None:
    armoured = sign(MESSAGE, read_key(key_file))
    both = bytearray(MESSAGE + armoured.encode())
    bit = data.draw(st.integers(0, 8 * len(both) - 1))
    both[bit // 8] ^= 1 << bit % 8
    message, signature = bytes(both[: len(MESSAGE)]), bytes(both[len(MESSAGE) :])
    try:
        signer = signer_of(message, signature.decode("latin-1"))
    except BadSignature:
        return
    # Only white space may change without a meaning.
    assert message == MESSAGE
    assert signer == public_key_of(read_key(key_file))
    assert "".join(signature.decode("latin-1").split()) == "".join(armoured.split())


@given(st.text(max_size=300))
def test_any_text_is_no_signature(text: str) -> None:
    with pytest.raises(BadSignature):
        signer_of(MESSAGE, text)
    with pytest.raises(UserError):
        PublicKey.from_text(text)


def test_a_key_that_others_may_read_is_refused(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o077 == 0
    key_file.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        read_key(key_file)


def test_a_key_is_never_written_over(key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(UserError, match="never written over"):
        make_key(key_file, "again")
    key_file.with_name("release.pub").unlink()
    with pytest.raises(UserError, match="never written over"):
        make_key(key_file, "again")
    assert key_file.read_bytes() == before


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_key(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    os.chmod(tmp_path / "text", 0o600)  # noqa: PTH101
    with pytest.raises(UserError, match="no private key"):
        read_key(tmp_path / "text")
