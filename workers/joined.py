"""A joined node's own place in a run: what it knows of itself, its temporary folder, its lease.

The node's daemon (`bench node join`) writes down what the node is in a file and names it in
`HEAPGATE_NODE`, which everything inherits that it starts.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from results.errors import EnvironmentLacks
from results.files import remove_folder
from workers.affinity import allowed_cores, split_cores
from workers.leases import RUN_MARKER, TEMP_PREFIX, Lease, claim_of
from workers.parcels import own_parcels
from workers.spec import NodeOrder, NodeSettings

NODE_DOCUMENT = "HEAPGATE_NODE"
"""Environment variable with the path of the document that the daemon wrote."""


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """What the daemon wrote down: id, the address where others reach it, folder of its keys."""

    node_id: str
    address: str
    tls_folder: Path

    @classmethod
    def read(cls) -> NodeDocument:
        """Read it. Raises EnvironmentLacks where no daemon started this process."""
        try:
            path = Path(os.environ[NODE_DOCUMENT])
            facts = json.loads(path.read_text(encoding="utf-8"))
            return cls(facts["node_id"], facts["address"], Path(facts["tls_folder"]))
        except (KeyError, OSError, ValueError) as error:
            raise EnvironmentLacks(f"this is not a joined node: {error}") from error


class JoinedPlace:
    """The node's folders for one run; `release` removes them."""

    def __init__(self, order: NodeOrder) -> None:
        """Make them, and take the lease. Raises EnvironmentLacks when the node can't."""
        document = NodeDocument.read()
        # One node may have a second place in a run, when the worker of the first one died: each
        # has its own claim, or the lease of the second would hide what the first left behind.
        holder = f"{document.node_id}~{secrets.token_hex(2)}"
        claim = claim_of(order.run_id, holder)
        suffix = order.run_id.rpartition("-")[2]
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{suffix}-"))
        except OSError as error:
            raise EnvironmentLacks(f"no temporary folder can be made: {error}") from error
        # The unprivileged service must be able to reach its own folder below this one.
        self.folder.chmod(0o711)
        self._lease = Lease.take(
            run_id=order.run_id, run_dir=None, temp_dir=self.folder, node_id=holder
        )
        # All that is started from here on is marked.
        os.environ[RUN_MARKER] = claim
        self.parcels = own_parcels()
        self.parcels.prune()
        self.settings = self._settings(order, document, claim)

    def _settings(self, order: NodeOrder, document: NodeDocument, claim: str) -> NodeSettings:
        cores = split_cores(allowed_cores(), order.cpus_max)
        for name in ("spool", "work", "logs"):
            (self.folder / name).mkdir()
        (self.folder / "work").chmod(0o711)
        token_file = self.folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(order.token, encoding="ascii")
        launcher = ""
        if order.launcher_sha256:
            launcher = str(self.parcels.path(order.launcher_sha256))
        return NodeSettings(
            run_id=order.run_id,
            claim=claim,
            work_root=str(self.folder / "work"),
            spool_root=str(self.folder / "spool"),
            log_folder=str(self.folder / "logs"),
            launcher=launcher,
            collector=order.collector,
            token_file=str(token_file),
            service_cores=cores.service,
            other_cores=cores.other,
            node_id=document.node_id,
            address=document.address,
            tls_folder=str(document.tls_folder),
            parcel_root=str(self.parcels.root),
        )

    def logs(self) -> dict[str, str]:
        """The texts of this node's logs by name, for the run's folder."""
        found = (self.folder / "logs").glob("*.log")
        return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in found}

    def release(self) -> None:
        """Remove the folder and give up the lease."""
        remove_folder(self.folder)
        self._lease.release()
