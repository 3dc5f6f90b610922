"""The cluster's own authority: who may speak with whom, proven by certificates (RFC 5280).

`bench node head` makes an authority once. Its key never leaves the head's state folder. Each
certificate says in its subject which role its holder has and what it is called:

    O=heapgate, OU=head|node|join, CN=<node id>

`head` and `node` may act as server and client, `join` (in the secret file) as client only.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from results.collecting.secure import AUTHORITY, CERTIFICATE, HEAD_NAME, KEY
from results.errors import EnvironmentLacks, UserError

Role = Literal["head", "node", "join"]

AUTHORITY_DAYS = 365
LEAF_DAYS = 90
RENEW_DAYS = 30
"""A certificate with less time left than this is replaced by whoever may."""

_NAME = re.compile(r"[a-zA-Z0-9-]{1,64}")
_BACKDATED = datetime.timedelta(hours=1)
"""The clock of a node may be behind that of the head."""


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can look into. Raises EnvironmentLacks when it can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as error:
        raise EnvironmentLacks(
            f"{path} can't be made private to you ({error.strerror}): "
            "set HEAPGATE_STATE to a folder of your own"
        ) from error
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PKCS #8, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate (PKCS #10, PEM): the authority takes the public key alone."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject("node", "asks"))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request that proves to hold the private one. Raises ValueError."""
    request = x509.load_pem_x509_csr(pem)
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("a key on the curve P-256 is wanted")
    if not request.is_signature_valid:
        raise ValueError("the request is not signed with its own key")
    return key


def expires_ns(pem: bytes) -> int:
    """When a certificate ends, in nanoseconds since the epoch (UTC)."""
    end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    return int(end.timestamp()) * 10**9


def days_left(pem: bytes) -> float:
    """How many days a certificate is still valid; negative when it has expired."""
    end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    return (end - _now()) / datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """A private certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, days: float = AUTHORITY_DAYS) -> Authority:
        """A new authority that signs leaves only."""
        key = make_key()
        name = _subject("authority", f"heapgate {x509.random_serial_number() % 16**8:08x}")
        builder = _builder(name, name, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(_key_usage(signs=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Read an authority that was saved. Raises UserError when it can't be used."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the cluster's authority in {folder} can't be read ({error}); "
                "make a new one with: bench node rotate"
            ) from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(certificate, key)

    def save(self, folder: Path) -> None:
        """Keep it; the key is readable by the owner only."""
        write_private(folder / "ca.key", key_pem(self.key))
        write_private(folder / AUTHORITY, self.pem)

    @property
    def pem(self) -> bytes:
        """The certificate, in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        *,
        addresses: Iterable[str] = (),
        days: float = LEAF_DAYS,
    ) -> bytes:
        """A certificate in PEM. `addresses` are IP addresses or host names it may serve at.

        Raises ValueError for a name of anything but letters, digits and `-`.
        """
        # The name becomes part of the subject, from which roles are read.
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name in a certificate")
        left = (self.certificate.not_valid_after_utc - _now()) / datetime.timedelta(days=1)
        builder = _builder(_subject(role, name), self.certificate.subject, key, min(days, left))
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role != "join":
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        own = [HEAD_NAME if role == "head" else f"{name}.{role}.heapgate"]
        names = [_general_name(text) for text in dict.fromkeys([*own, *addresses])]
        builder = (
            builder.add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def signed(self, pem: bytes) -> bool:
        """Whether a certificate is this authority's."""
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            x509.load_pem_x509_certificate(pem).verify_directly_issued_by(self.certificate)
            return True
        return False


def write_tls_folder(folder: Path, *, authority: bytes, certificate: bytes, key: bytes) -> None:
    """What server and client need, as `results.collecting.secure` reads it; the key goes first."""
    private_folder(folder)
    write_private(folder / KEY, key)
    write_private(folder / CERTIFICATE, certificate)
    write_private(folder / AUTHORITY, authority)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _subject(role: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "heapgate"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = _now()
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
