"""Where a run works: its temporary folder, and the collector, Ray and node that it starts.

Each is a context that is left clean, whatever happens inside.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.cluster import EmbeddedCluster, Node, quiet_standard_error
from orchestrator.leftovers import abandon_run
from results.collector_process import CollectorProcess
from results.errors import EnvironmentLacks
from workers.affinity import pin_process, split_cores
from workers.leases import RUN_MARKER, TEMP_PREFIX, Lease
from workers.spec import NodeSettings

TEMP_ROOT_CHARACTERS_MAX = 16
"""The longest of Ray's sockets, 91 characters and a long pid below it, must fit into 107:
`/heapgate-1a2b-abcdefgh/ray/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store`."""


@contextmanager
def workplace(run_id: str, run_folder: Path) -> Iterator[Path]:
    """The run's temporary folder and its lease; both are gone afterwards."""
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


@contextmanager
def measuring_node(
    run_id: str, run_folder: Path, folder: Path, launcher: Path, cpus_limit: float | None
) -> Iterator[tuple[Node, CollectorProcess]]:
    """Collector, cluster and this machine's node, stopped in the reverse order."""
    cores = split_cores(os.sched_getaffinity(0), cpus_limit)
    logs = run_folder / "logs"
    logs.mkdir(exist_ok=True)
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32), encoding="ascii")
    for name in ("spool", "work"):
        (folder / name).mkdir()
    (folder / "work").chmod(0o711)
    with ExitStack() as stack:
        stack.enter_context(_run_marker(run_id))
        # All that is started from here on inherits these cores and leaves the others to the
        # service.
        stack.enter_context(pin_process(cores.other))
        stack.enter_context(quiet_standard_error(logs / "ray.stderr"))
        collector = CollectorProcess.start(
            archive=run_folder.parent,
            run_id=run_id,
            token_file=token_file,
            log=logs / "collector.log",
        )
        stack.callback(collector.stop)
        cluster = EmbeddedCluster(folder, logs)
        stack.callback(cluster.stop)
        cluster.start()
        node = cluster.start_node(
            NodeSettings(
                run_id=run_id,
                work_root=str(folder / "work"),
                spool_root=str(folder / "spool"),
                log_folder=str(logs),
                launcher=str(launcher),
                collector=collector.address,
                token_file=str(token_file),
                service_cores=cores.service,
                other_cores=cores.other,
            )
        )
        yield node, collector


@contextmanager
def _run_marker(run_id: str) -> Iterator[None]:
    """Mark every process of this run in its environment, so that leftovers can be told apart."""
    os.environ[RUN_MARKER] = run_id
    try:
        yield
    finally:
        del os.environ[RUN_MARKER]
