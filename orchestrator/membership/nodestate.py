"""What a joined node keeps on disk.

<state>/cluster/node/          readable by the owner only
    installation               a random word: who comes back is known
    node.json                  who this node is in its cluster; `HEAPGATE_NODE` names this file
    tls/                       its certificate and key, as `results.collecting.secure` reads them
    ray.token                  Ray's token
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from orchestrator.membership.daemon import Daemon
from orchestrator.membership.headstate import cluster_folder
from orchestrator.membership.pki import (
    private_folder,
    write_private,
    write_tls_folder,
)
from orchestrator.membership.raynode import ray_environment
from results.collecting.secure import AUTHORITY
from results.errors import EnvironmentLacks
from workers.leases import state_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """`node.json`. `address` is the node's own, `head` the enrolment service's `host:port`."""

    node_id: str
    name: str
    address: str
    head: str
    labels: dict[str, str]
    tls_folder: str
    state_folder: str


class NodeState:
    """The folder of a joined node."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cluster_folder() / "node"
        self.daemon = Daemon(self.folder, "the node")

    @property
    def document(self) -> Path:
        """The file that `HEAPGATE_NODE` names."""
        return self.folder / "node.json"

    @property
    def tls_folder(self) -> Path:
        """The node's certificate and key."""
        return self.folder / "tls"

    @property
    def ray_token_path(self) -> Path:
        """Ray's token."""
        return self.folder / "ray.token"

    def installation(self) -> str:
        """The random word of this state folder, made at first use."""
        private_folder(self.folder.parent)
        private_folder(self.folder)
        path = self.folder / "installation"
        if not path.exists():
            write_private(path, secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")

    def identity(self) -> NodeIdentity:
        """Who this node is. Raises EnvironmentLacks when it did not join."""
        try:
            return NodeIdentity(**json.loads(self.document.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise EnvironmentLacks(
                "this machine is not a node of a cluster; on the head, `bench node head` tells "
                "the line that makes it one"
            ) from error

    def save(
        self,
        *,
        node_id: str,
        name: str,
        address: str,
        head: str,
        labels: dict[str, str],
        authority: bytes,
        certificate: bytes,
        key: bytes,
        ray_token: str,
    ) -> None:
        """Keep what the head answered."""
        identity = NodeIdentity(
            node_id=node_id,
            name=name,
            address=address,
            head=head,
            labels=labels,
            tls_folder=str(self.tls_folder),
            state_folder=str(state_folder()),
        )
        write_tls_folder(self.tls_folder, authority=authority, certificate=certificate, key=key)
        write_private(self.ray_token_path, ray_token.encode())
        text = json.dumps(dataclasses.asdict(identity), indent=1) + "\n"
        write_private(self.document, text.encode())

    def recertify(self, certificate: bytes, key: bytes) -> None:
        """Take a certificate that replaces the one before."""
        authority = (self.tls_folder / AUTHORITY).read_bytes()
        write_tls_folder(self.tls_folder, authority=authority, certificate=certificate, key=key)

    def forget(self) -> None:
        """Remove everything that lets this machine act as a node."""
        for path in (self.document, self.ray_token_path, *self.tls_folder.glob("*.pem")):
            path.unlink(missing_ok=True)

    def ray_environment(self) -> dict[str, str]:
        """What Ray and everything that it starts here needs in the environment."""
        own = ray_environment(self.identity().address, self.tls_folder, self.ray_token_path)
        return own | {"HEAPGATE_NODE": str(self.document)}
