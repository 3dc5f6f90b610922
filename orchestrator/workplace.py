"""Where a run works: its temporary folder, which is left clean whatever happens inside."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.leftovers import abandon_run
from results.errors import EnvironmentLacks
from workers.leases import TEMP_PREFIX, Lease

TEMP_ROOT_CHARACTERS_MAX = 16
"""The longest of Ray's sockets, 91 characters and a long pid below it, must fit into 107:
`/heapgate-1a2b-abcdefgh/ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store`."""


@contextmanager
def workplace(run_id: str, run_folder: Path | None) -> Iterator[Path]:
    """The run's temporary folder and its lease; both are gone afterwards.

    `run_folder` is where it is archived; None: nothing of it is kept.
    """
    if sys.platform == "win32":
        raise EnvironmentLacks(
            "a run is driven from Linux; here, join this machine to a Linux head: bench node join"
        )
    prefix = f"{TEMP_PREFIX}{run_id.rpartition('-')[2]}-"
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=temp_root()))
    except OSError as error:
        raise EnvironmentLacks(
            f"no temporary folder can be made in {temp_root()}: {error.strerror}; make room, or "
            "set TMPDIR to a folder elsewhere"
        ) from error
    try:
        # The unprivileged service must be able to reach its own folder below this one.
        folder.chmod(0o711)
        Lease.take(run_id=run_id, run_dir=run_folder, temp_dir=folder)
        yield folder
    finally:
        # What a part that was killed has left, its control groups above all, goes as well.
        abandon_run(run_id, folder)


def temp_root() -> Path:
    """Where temporary folders lie, if short enough: a socket's path has 107 characters at most."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= TEMP_ROOT_CHARACTERS_MAX else Path("/tmp")  # noqa: S108
