"""The authority's certificates as others see them: what each is good for, and when it ends."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestrator.membership.headstate import HeadSettings, HeadState, Secret
from orchestrator.membership.pki import (
    Authority,
    certificate_request,
    days_left,
    expires_ns,
    key_pem,
    make_key,
    requested_key,
    write_private,
)
from results.errors import UserError

SETTINGS = HeadSettings(address="10.9.8.7", port=7420, ray_port=1)


def openssl_verdict(tmp_path: Path, authority: bytes, certificate: bytes, purpose: str) -> bool:
    (tmp_path / "ca.pem").write_bytes(authority)
    (tmp_path / "leaf.pem").write_bytes(certificate)
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-purpose", purpose),
            *("-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")),
        ],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize(("role", "serves"), [("head", True), ("node", True), ("join", False)])
def test_another_implementation_agrees_on_what_a_certificate_is_for(
    tmp_path: Path, role: str, serves: bool
) -> None:
    authority = Authority.make()
    leaf = authority.issue(make_key().public_key(), role, "n1", addresses=["10.0.0.1"])  # type: ignore[arg-type]
    assert openssl_verdict(tmp_path, authority.pem, leaf, "sslclient")
    assert openssl_verdict(tmp_path, authority.pem, leaf, "sslserver") == serves
    assert not openssl_verdict(tmp_path, Authority.make().pem, leaf, "sslclient")


def test_a_leaf_can_not_sign_another() -> None:
    authority = Authority.make()
    leaf = x509.load_pem_x509_certificate(authority.issue(make_key().public_key(), "node", "n1"))
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def test_only_the_head_may_be_called_the_head() -> None:
    authority = Authority.make()
    for role in ("node", "join"):
        leaf = x509.load_pem_x509_certificate(
            authority.issue(make_key().public_key(), role, "head")  # type: ignore[arg-type]
        )
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert "head.heapgate" not in names.get_values_for_type(x509.DNSName), role
    for name in ("x,OU=head", "head.heapgate", "", "x\nOU=head", "a=b"):
        with pytest.raises(ValueError, match="name in a certificate"):
            authority.issue(make_key().public_key(), "node", name)


def test_nothing_outlives_the_authority() -> None:
    authority = Authority.make(days=2)
    leaf = authority.issue(make_key().public_key(), "node", "n1", days=90)
    assert expires_ns(leaf) <= expires_ns(authority.pem)
    assert 1 < days_left(leaf) <= 2


def test_an_expired_certificate_says_so() -> None:
    leaf = Authority.make().issue(make_key().public_key(), "node", "n1", days=-3)
    assert -4 < days_left(leaf) < -2


def test_a_request_for_another_kind_of_key_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    from cryptography.hazmat.primitives import hashes, serialization

    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(ValueError, match="P-256"):
        requested_key(pem)
    with pytest.raises(ValueError):
        requested_key(b"nonsense")
    own = make_key()
    taken = requested_key(certificate_request(own))
    assert isinstance(taken, ec.EllipticCurvePublicKey)
    assert taken.public_numbers() == own.public_key().public_numbers()


@pytest.fixture
def state(tmp_path: Path) -> HeadState:
    state = HeadState(tmp_path / "cluster" / "head")
    state.prepare(SETTINGS)
    return state


@pytest.mark.skipif(os.name == "nt", reason="file modes are those of POSIX")
def test_what_is_secret_is_readable_by_its_owner_alone(state: HeadState) -> None:
    assert stat.S_IMODE(state.folder.stat().st_mode) == 0o700
    for path in state.folder.rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_private_file_was_never_readable_by_others(tmp_path: Path) -> None:
    """Also when a file with another mode is there already."""
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_secret_holds_no_key_of_the_authority(state: HeadState) -> None:
    text = state.secret_path.read_text()
    authority = Authority.open(state.folder)
    assert key_pem(authority.key).decode().splitlines()[1] not in text.replace("\\n", "\n")
    secret = Secret.read(state.secret_path)
    leaf = x509.load_pem_x509_certificate(secret.certificate.encode())
    assert "OU=join" in leaf.subject.rfc4514_string()


def test_starting_again_keeps_authority_and_secret(state: HeadState) -> None:
    before = (state.folder / "ca.pem").read_bytes(), state.secret_path.read_bytes()
    state.prepare(SETTINGS)
    assert ((state.folder / "ca.pem").read_bytes(), state.secret_path.read_bytes()) == before


def test_an_expired_secret_tells_the_remedy_and_is_replaced(
    state: HeadState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.membership.headstate.SECRET_DAYS", -1)
    state.secret_path.unlink()
    state.prepare(SETTINGS)
    with pytest.raises(UserError, match=r"expired.*bench node head"):
        Secret.read(state.secret_path)
    monkeypatch.undo()
    state.prepare(SETTINGS)
    Secret.read(state.secret_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"token": "x"}', "\x00\xff"])
def test_a_file_that_is_no_secret_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").write_text(text)
    with pytest.raises(UserError, match="not a secret"):
        Secret.read(tmp_path / "s")


def test_an_expired_authority_tells_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = HeadState(tmp_path / "cluster" / "head")
    with pytest.raises(UserError, match="bench node rotate"):
        state.prepare(SETTINGS, days=-1)


def test_a_rotation_changes_everything_that_was_given_out(state: HeadState) -> None:
    names = ["ca.pem", "ca.key", "ray.token", "join.token", "cluster.secret", "tls/cert.pem"]
    before = {name: (state.folder / name).read_bytes() for name in names}
    old = Authority.open(state.folder)
    state.forget_secrets()
    state.prepare(SETTINGS)
    for name in names:
        assert (state.folder / name).read_bytes() != before[name], name
    assert not old.signed((state.tls_folder / "cert.pem").read_bytes())


def test_a_token_is_compared_whole(state: HeadState) -> None:
    token = Secret.read(state.secret_path).token
    assert state.is_join_token(token)
    for wrong in ("", token[:-1], token + "0", "é"):
        assert not state.is_join_token(wrong)


def test_the_heads_certificate_serves_at_its_address(state: HeadState) -> None:
    leaf = x509.load_pem_x509_certificate((state.tls_folder / "cert.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "10.9.8.7" in map(str, names.get_values_for_type(x509.IPAddress))
    lasts = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lasts <= datetime.timedelta(days=91)
