"""What a head keeps on disk: its authority, its certificates, its tokens, the secret file.

    <state>/cluster/head/          readable by the owner only
        ca.pem, ca.key             the authority; the key never leaves this folder
        tls/                       the head's own, as `results.collecting.secure` reads it
        ray.token, join.token      random words
        head.json                  where it listens
        nodes.json                 who joined
        cluster.secret             what a joining machine needs: copy it there

The secret file holds the authority's certificate, a certificate that is good for joining and for
nothing else, its key, and the join token. It never holds the authority's key.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import platform
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.membership.daemon import Daemon
from orchestrator.membership.pki import (
    AUTHORITY_DAYS,
    RENEW_DAYS,
    Authority,
    days_left,
    expires_ns,
    key_pem,
    make_key,
    private_folder,
    write_private,
    write_tls_folder,
)
from orchestrator.membership.raynode import LOOPBACK, ray_environment
from results.collecting.secure import AUTHORITY, CERTIFICATE, VERBOSITY
from results.errors import EnvironmentLacks, UserError
from workers.leases import state_folder

SECRET_DAYS = 30
SECRET_NAME = "cluster.secret"  # noqa: S105 - the name of a file
DEFAULT_PORT = 7420


def cluster_folder() -> Path:
    """Where this user's head and node keep their state."""
    return state_folder() / "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """Where a head listens: nodes join at `port`; `ray_port` is Ray's control store."""

    address: str
    port: int
    ray_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """The content of the secret file."""

    authority: str
    certificate: str
    key: str
    token: str
    expires_ns: int

    @classmethod
    def read(cls, path: Path) -> Secret:
        """Read a secret file. Raises UserError when it is none, or has expired."""
        try:
            plain = json.loads(path.read_bytes())
            found = cls(**plain)
        except OSError as error:
            raise UserError(
                f"the secret {path} can't be read ({error.strerror}); "
                f"copy it from the head, where `bench node head` tells its place"
            ) from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not a secret that `bench node head` wrote") from error
        if found.expires_ns < time.time_ns():
            raise UserError(
                f"the secret {path} has expired; on the head: bench node head, "
                "then copy the new one here"
            )
        return found


class HeadState:
    """The folder of a head."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cluster_folder() / "head"
        self.daemon = Daemon(self.folder, "the head", VERBOSITY)

    @property
    def tls_folder(self) -> Path:
        """The head's own certificate and key."""
        return self.folder / "tls"

    @property
    def ray_token_path(self) -> Path:
        """Ray's token."""
        return self.folder / "ray.token"

    @property
    def secret_path(self) -> Path:
        """The file to copy to a machine that shall join."""
        return self.folder / SECRET_NAME

    @property
    def nodes_path(self) -> Path:
        """Who joined."""
        return self.folder / "nodes.json"

    def settings(self) -> HeadSettings:
        """Where it listens. Raises EnvironmentLacks when there is no head."""
        try:
            return HeadSettings(**json.loads((self.folder / "head.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise EnvironmentLacks(
                "this machine is not the head of a cluster; make it one with: bench node head"
            ) from error

    def prepare(self, settings: HeadSettings, *, days: float = AUTHORITY_DAYS) -> None:
        """Make what is missing: authority, tokens, certificates, the secret."""
        private_folder(self.folder.parent)
        private_folder(self.folder)
        for name in ("ray.token", "join.token"):
            if not (self.folder / name).exists():
                write_private(self.folder / name, secrets.token_hex(32).encode())
        if not (self.folder / "ca.key").exists():
            Authority.make(days).save(self.folder)
        authority = self.authority()
        self._certify(authority, settings)
        self._write_secret(authority)
        text = json.dumps(dataclasses.asdict(settings), indent=1)
        write_private(self.folder / "head.json", text.encode())

    def authority(self) -> Authority:
        """The authority. Raises UserError with the remedy when it can't be used any more."""
        authority = Authority.open(self.folder)
        if days_left(authority.pem) <= 0:
            raise UserError(
                "the cluster's authority has expired; make a new one with: bench node rotate"
            )
        return authority

    def _certify(self, authority: Authority, settings: HeadSettings) -> None:
        """A new certificate with each start: it is always the right one, and lasts longest."""
        key = make_key()
        addresses = [settings.address, LOOPBACK, "localhost"]
        certificate = authority.issue(key.public_key(), "head", "head", addresses=addresses)
        write_tls_folder(
            self.tls_folder,
            authority=authority.pem,
            certificate=certificate,
            key=key_pem(key),
        )

    def _write_secret(self, authority: Authority) -> None:
        """Replace the secret when it is of another authority or near its end."""
        try:
            left = Secret.read(self.secret_path)
            usable = authority.signed(left.certificate.encode())
            if usable and days_left(left.certificate.encode()) > min(RENEW_DAYS, SECRET_DAYS) / 2:
                return
        except UserError:
            pass
        key = make_key()
        certificate = authority.issue(key.public_key(), "join", "join", days=SECRET_DAYS)
        secret = Secret(
            authority=authority.pem.decode(),
            certificate=certificate.decode(),
            key=key_pem(key).decode(),
            token=self._join_token(),
            expires_ns=expires_ns(certificate),
        )
        text = json.dumps(dataclasses.asdict(secret), indent=1) + "\n"
        write_private(self.secret_path, text.encode())

    def _join_token(self) -> str:
        return (self.folder / "join.token").read_text(encoding="ascii")

    def is_join_token(self, given: str) -> bool:
        """Whether a token is the right one, in a time that does not tell how much of it is."""
        return hmac.compare_digest(given.encode(), self._join_token().encode())

    def forget_secrets(self) -> None:
        """Remove authority, tokens, certificates, and with them who joined."""
        names = ["ca.key", AUTHORITY, "ray.token", "join.token", SECRET_NAME, "nodes.json"]
        for name in [*names, f"tls/{CERTIFICATE}"]:
            (self.folder / name).unlink(missing_ok=True)

    def ray_environment(self) -> dict[str, str]:
        """What Ray needs in the environment on the head's machine."""
        return ray_environment(self.settings().address, self.tls_folder, self.ray_token_path)

    def expires_ns(self) -> int:
        """When the head's own certificate ends."""
        return expires_ns((self.tls_folder / CERTIFICATE).read_bytes())


def own_versions() -> dict[str, str]:
    """What must be the same on all machines of a cluster: heapgate, python (minor), ray."""
    from workers.facts import versions

    found = versions()
    minor = ".".join(platform.python_version_tuple()[:2])
    return {
        "heapgate": found.get("heapgate", ""),
        "python": minor,
        "ray": found.get("ray", ""),
    }
