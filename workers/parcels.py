"""Parcels: programs and scenarios that a node was sent, by SHA-256, each sent once.

A parcel is a file `<root>/<sha256>/<name>`; a folder travels as a ZIP archive and is unpacked
beside it. What arrives is checked before it gets its name, and a program once more when it is
deployed, so nothing is ever run that is not what was planned.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

from results.errors import EnvironmentLacks
from results.files import remove_folder
from workers.leases import state_folder
from workers.spec import TrialSpec

KEEP_BYTES = 4 * 2**30
"""The oldest parcels beyond this are removed when a run begins."""

_UNPACKED = "unpacked"


def own_parcels() -> Parcels:
    """The parcels of this node, whichever run they were sent for."""
    return Parcels(state_folder() / "parcels")


class Parcels:
    """The parcels on this node's disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def missing(self, digests: list[str]) -> list[str]:
        """Those of the parcels that are not here; the others are used again."""
        found = []
        for digest in digests:
            try:
                os.utime(self.path(digest).parent)
            except (OSError, EnvironmentLacks):
                found.append(digest)
        return found

    def store(self, digest: str, name: str, data: bytes) -> None:
        """Keep a parcel that arrived. Raises EnvironmentLacks for a damaged one, or a full disk."""
        arrived = hashlib.sha256(data).hexdigest()
        if arrived != digest:
            raise EnvironmentLacks(f"{name} arrived with SHA-256 {arrived}, {digest} was sent")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
            kept = made / Path(name).name
            kept.write_bytes(data)
            kept.chmod(0o755)
            _into_place(made, self.root / digest)
        except OSError as error:
            raise EnvironmentLacks(f"can't keep {name} in {self.root}: {error}") from error

    def path(self, digest: str) -> Path:
        """Where a parcel lies. Raises EnvironmentLacks when it is not here."""
        files = [path for path in (self.root / digest).glob("*") if path.is_file()]
        if not files:
            raise EnvironmentLacks(f"parcel {digest[:12]} is not on this node")
        return files[0]

    def unpacked(self, digest: str) -> Path:
        """The folder that a ZIP parcel holds."""
        folder = self.root / digest / _UNPACKED
        if not folder.is_dir():
            made = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
            # ZipFile itself keeps names with `..` or a root inside the target.
            with zipfile.ZipFile(self.path(digest)) as archive:
                archive.extractall(made)
            _into_place(made, folder)
        return folder

    def resolve(self, spec: TrialSpec) -> TrialSpec:
        """The trial with this node's own paths of what was sent."""
        binary, load = spec.service.binary, spec.load
        if binary.copy:
            binary = replace(binary, argv0=str(self.path(binary.sha256)))
        if load.bundle_sha256:
            folder = self.unpacked(load.bundle_sha256)
            load = replace(load, scenario=str(folder / load.scenario))
        return replace(spec, service=replace(spec.service, binary=binary), load=load)

    def prune(self, keep_bytes: int = KEEP_BYTES) -> None:
        """Remove what was not used for longest, beyond so many bytes, and what a crash left."""
        total = 0
        for folder in sorted(self.root.glob("*"), key=_used_s, reverse=True):
            total += sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())
            abandoned = folder.name.startswith("new-") and time.time() - _used_s(folder) > 3600
            if total > keep_bytes or abandoned:
                remove_folder(folder)


def _used_s(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _into_place(made: Path, place: Path) -> None:
    """Rename a finished folder; where another was quicker, its is as good."""
    made.chmod(0o755)
    try:
        made.rename(place)
    except OSError:
        remove_folder(made)
        if not place.is_dir():
            raise
