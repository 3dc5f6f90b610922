"""Scenarios on their way to other nodes: a locustfile with what lies beside it, as one ZIP file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from results.errors import UserError
from results.files import file_digest

BUNDLE_BYTES_MAX = 16 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same for every file, so that equal folders make equal bundles."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The packed folder of a scenario."""

    scenario: Path
    path: Path
    sha256: str


def pack_scenarios(scenarios: Iterable[str], folder: Path) -> list[Bundle]:
    """Pack each scenario's folder, without what lies deeper. Raises UserError for a large one."""
    return [_pack(Path(scenario), folder) for scenario in scenarios]


def _pack(scenario: Path, folder: Path) -> Bundle:
    beside = [
        path
        for path in sorted(scenario.parent.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    size_bytes = sum(path.stat().st_size for path in beside)
    if size_bytes > BUNDLE_BYTES_MAX:
        raise UserError(
            f"{scenario.parent} holds {size_bytes / 2**20:.0f} MiB beside {scenario.name}, and all "
            f"of it is sent to the nodes: keep the locustfile in a folder of its own, with at most "
            f"{BUNDLE_BYTES_MAX / 2**20:.0f} MiB"
        )
    target = folder / f"{scenario.stem}-{abs(hash(scenario)):x}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in beside:
            archive.writestr(zipfile.ZipInfo(path.name, _EPOCH), path.read_bytes())
    return Bundle(scenario, target, file_digest(target))
