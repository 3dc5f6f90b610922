"""The nodes of a run with their collector: this machine alone, or teams of the cluster's nodes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import choice
from orchestrator.builds.binaries import Binaries
from orchestrator.bundles import Bundle
from orchestrator.cluster import (
    EmbeddedCluster,
    JoinedCluster,
    Node,
    NodeLost,
    quiet_standard_error,
)
from orchestrator.headwatch import HeadWatch
from orchestrator.matrix.matrix import Matrix
from orchestrator.membership import nodes
from orchestrator.ongoing import Run
from orchestrator.progress import Progress
from results.collecting.process import CollectorProcess
from results.errors import EnvironmentLacks, HeapgateError, RunIncomplete
from workers.affinity import allowed_cores, pin_process, split_cores
from workers.leases import RUN_MARKER
from workers.spec import NodeOrder, NodeSettings


@dataclass(slots=True)
class Crew:
    """The started nodes of one team: the service's own, and those that make its load."""

    group: str
    service: Node
    load: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them."""
        return self.service, *self.load

    @property
    def machines(self) -> set[str]:
        """The machines that a block of theirs keeps busy."""
        return {node.machine for node in self.nodes}


class Fleet:
    """Crews for every group of a run. Where `replaceable`, another may come for a lost one."""

    replaceable = False

    def __init__(self, crews: list[Crew]) -> None:
        self.crews = crews

    def replacement(self, lost: Crew, progress: Progress) -> Crew | None:
        """A crew instead of a lost one: other nodes of its class, or its own that came back."""
        return None

    def watched(self, report: Callable[[HeapgateError], None]) -> AbstractContextManager[object]:
        """Report meanwhile what ends all of it."""
        return nullcontext()


@contextmanager
def gather_fleet(
    run: Run, folder: Path, binaries: Binaries, bundles: list[Bundle], progress: Progress
) -> Iterator[Fleet]:
    """Collector, cluster and nodes, stopped in the reverse order."""
    cluster = _cluster_for(run.matrix)
    logs = run.folder / "logs"
    logs.mkdir(exist_ok=True)
    if cluster is None:
        with _this_machine(run, folder, logs, binaries) as fleet:
            yield fleet
    else:
        with _joined(run, folder, logs, cluster, binaries, bundles, progress) as fleet:
            yield fleet


def teams_for(matrix: Matrix) -> list[choice.Team]:
    """The nodes that a matrix would get now; none when this machine measures.

    Raises EnvironmentLacks when no nodes can satisfy it.
    """
    cluster = _cluster_for(matrix)
    return choice.choose(matrix, nodes.list_nodes(cluster)) if cluster else []


def _cluster_for(matrix: Matrix) -> nodes.Cluster | None:
    """The cluster of a matrix with `nodes:`; None for this machine alone."""
    cluster = nodes.current_cluster() if matrix.document.nodes else None
    if cluster is None and not matrix.this_machine_suffices:
        place = matrix.error(("nodes",), "nodes of a cluster are wanted")
        raise EnvironmentLacks(
            f"{place}, and this machine is the head of none: start one with `bench node head`, "
            "then join nodes to it"
        )
    return cluster


@contextmanager
def _this_machine(run: Run, folder: Path, logs: Path, binaries: Binaries) -> Iterator[Fleet]:
    cores = split_cores(allowed_cores(), run.matrix.largest_cpus)
    token_file = _token_file(folder)
    for name in ("spool", "work"):
        (folder / name).mkdir()
    (folder / "work").chmod(0o711)
    with ExitStack() as stack:
        stack.enter_context(_run_marker(run.run_id))
        # All that is started from here on inherits these cores and leaves the others to the
        # service.
        stack.enter_context(pin_process(cores.other))
        stack.enter_context(quiet_standard_error(logs / "ray.stderr"))
        run.collector = CollectorProcess.start(
            archive=run.folder.parent,
            run_id=run.run_id,
            token_file=token_file,
            log=logs / "collector.log",
        )
        stack.callback(run.collector.stop)
        cluster = EmbeddedCluster(folder, logs)
        stack.callback(cluster.stop)
        cluster.start()
        node = cluster.start_node(
            NodeSettings(
                run_id=run.run_id,
                claim=run.run_id,
                work_root=str(folder / "work"),
                spool_root=str(folder / "spool"),
                log_folder=str(logs),
                launcher=str(binaries.launcher),
                collector=run.collector.address,
                token_file=str(token_file),
                service_cores=cores.service,
                other_cores=cores.other,
            )
        )
        yield Fleet([Crew(group, node) for group in run.matrix.groups])


def _token_file(folder: Path) -> Path:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="ascii")
    return path


@contextmanager
def _run_marker(run_id: str) -> Iterator[None]:
    """Mark every process of this run in its environment, so that leftovers can be told apart."""
    os.environ[RUN_MARKER] = run_id
    try:
        yield
    finally:
        del os.environ[RUN_MARKER]


@contextmanager
def _joined(
    run: Run,
    folder: Path,
    logs: Path,
    cluster: nodes.Cluster,
    binaries: Binaries,
    bundles: list[Bundle],
    progress: Progress,
) -> Iterator[Fleet]:
    teams = choice.choose(run.matrix, nodes.list_nodes(cluster))
    token_file = _token_file(folder)
    with ExitStack() as stack:
        stack.enter_context(_run_marker(run.run_id))
        stack.enter_context(quiet_standard_error(logs / "ray.stderr"))
        run.collector = CollectorProcess.start(
            archive=run.folder.parent,
            run_id=run.run_id,
            token_file=token_file,
            log=logs / "collector.log",
            listen=cluster.address,
            tls=cluster.tls_folder,
        )
        stack.callback(run.collector.stop)
        ray = JoinedCluster(cluster.ray_address, cluster.ray_environment(), logs)
        stack.callback(ray.stop)
        ray.start()
        fleet = _JoinedFleet(run, cluster, ray, binaries, bundles, token_file.read_text())
        stack.callback(fleet.release)
        try:
            for team in teams:
                fleet.crews.append(fleet.start(team, progress))
        except NodeLost as lost:
            text = f"a node was lost before it could begin: {lost}; go on with: bench resume"
            raise RunIncomplete(f"{text} {run.run_id}") from lost
        yield fleet


class _JoinedFleet(Fleet):
    replaceable = True

    def __init__(
        self,
        run: Run,
        cluster: nodes.Cluster,
        ray: JoinedCluster,
        binaries: Binaries,
        bundles: list[Bundle],
        token: str,
    ) -> None:
        super().__init__([])
        self._run = run
        self._cluster = cluster
        self._ray = ray
        self._binaries = binaries
        self._bundles = bundles
        self._token = token
        self._taken: dict[str, Node] = {}

    def start(self, team: choice.Team, progress: Progress) -> Crew:
        """Start a team's actors and send them what they need. Raises NodeLost."""
        started: list[Node] = []
        try:
            for entry in (team.service, *team.load):
                started.append(self._start_node(entry))
        except (NodeLost, HeapgateError):
            self._end(started)
            raise
        for node, entry in zip(started, (team.service, *team.load), strict=True):
            progress.done(f"{team.group}: {entry.name} ({node.node_id}), {node.node_class}")
            if entry.quiet is False:
                busy = f"{entry.busy_share:.0%} of its cores: {entry.busy_with}"
                progress.warn(f"{entry.name} is not quiet, others use {busy}")
        return Crew(team.group, started[0], tuple(started[1:]))

    def _start_node(self, entry: nodes.NodeEntry) -> Node:
        parcels = self._binaries.parcels(entry.os)
        parcels |= {bundle.sha256: bundle.path for bundle in self._bundles}
        assert self._run.collector
        order = NodeOrder(
            run_id=self._run.run_id,
            collector=self._run.collector.address,
            token=self._token,
            launcher_sha256=self._binaries.launcher_sha256 if entry.os == "linux" else None,
            cpus_max=self._run.matrix.largest_cpus,
        )
        node = self._ray.start_node(entry.node_id, order, parcels)
        nodes.mark_measuring(self._cluster, entry.node_id, self._run.run_id)
        self._taken[entry.node_id] = node
        return node

    def replacement(self, lost: Crew, progress: Progress) -> Crew | None:
        """A crew of free nodes of the same class; None when there is none (now)."""
        self._end(lost.nodes)
        wanted = self._run.matrix.with_one_node(lost.group, lost.service.node_class)
        try:
            entries = nodes.list_nodes(self._cluster)
            return self.start(choice.choose(wanted, entries)[0], progress)
        except (EnvironmentLacks, NodeLost):
            return None

    @contextmanager
    def watched(self, report: Callable[[HeapgateError], None]) -> Iterator[None]:
        """Report when the head is gone."""
        watch = HeadWatch(self._cluster, self._run.run_id, report)
        try:
            yield
        finally:
            watch.stop()

    def _end(self, ended: Sequence[Node]) -> None:
        """End those that are not ended yet, and let others have them."""
        for node in ended:
            if self._taken.get(node.node_id) is node:
                self._ray.end_node(node)
                self._free(node.node_id)

    def _free(self, node_id: str) -> None:
        """Without a head there is nothing to tell; its mark ends with this process anyway."""
        del self._taken[node_id]
        with suppress(EnvironmentLacks):
            nodes.mark_measuring(self._cluster, node_id, None)

    def release(self) -> None:
        """Tell the head that the nodes are free again."""
        for node_id in list(self._taken):
            self._free(node_id)
