"""The cluster whose head is this machine, for the commands and for a run that uses its nodes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from orchestrator.membership.headstate import HeadState
from orchestrator.membership.members import LOST_AFTER_S
from results.collecting.secure import CERTIFICATE, joined_address, open_channel
from results.errors import EnvironmentLacks, HeapgateError, UserError
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc
from workers.leases import Driver

CALL_TIMEOUT_S = 10.0

_CONNECTING = re.compile(r"^failed to connect to all addresses; last error: \w+: (ipv[46]:\S+ )?")
"""What gRPC says before the reason."""

_LOOK_AT = "does it run, is the address right, does a firewall let its port through?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A head that is alive on this machine.

    `address` is where it listens (and where the run's collector shall), `port` that of the
    enrolment service; `tls_folder` holds ca.pem, cert.pem, key.pem for servers and clients on the
    head's machine.
    """

    address: str
    port: int
    ray_address: str
    tls_folder: Path
    ray_token_path: Path

    def ray_environment(self) -> dict[str, str]:
        """All that must be in `os.environ` before `import ray` in a driver."""
        return HeadState().ray_environment()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """One node of the cluster as the head knows it.

    `state` is ready, measuring, draining, starting (Ray is not up yet) or lost. `machine` is the
    machine's own id: two nodes with the same one share its cores. `clock_offset_ns` is the head's
    clock minus the node's, within `clock_error_ns`; None before the first measurement.
    `last_seen_s` is the age of the last sign of life, None when there was none since the head
    started. `busy_share` is the share of all cores that other programs use, None when not known.
    """

    node_id: str
    name: str
    os: str
    address: str
    labels: dict[str, str]
    facts: dict[str, Any]
    node_class: str
    machine: str
    state: str
    draining: bool
    measuring_run: str
    clock_offset_ns: int | None
    clock_error_ns: int | None
    clock_measured_ns: int | None
    versions: dict[str, str]
    last_seen_s: float | None
    busy_share: float | None
    busy_with: str
    problem: str
    expires_ns: int

    @property
    def quiet(self) -> bool | None:
        """Whether it is quiet enough to measure on; None when not known."""
        return None if self.busy_share is None else not self.busy_with


def current_cluster() -> Cluster | None:
    """The cluster whose head is in this user's state folder and alive; None when there is none."""
    state = HeadState()
    if not state.daemon.alive:
        return None
    try:
        settings = state.settings()
    except EnvironmentLacks:
        return None
    return Cluster(
        address=settings.address,
        port=settings.port,
        ray_address=joined_address(settings.address, settings.ray_port),
        tls_folder=state.tls_folder,
        ray_token_path=state.ray_token_path,
    )


def require_cluster() -> Cluster:
    """The same, or EnvironmentLacks with what to do."""
    cluster = current_cluster()
    if cluster is None:
        raise EnvironmentLacks(
            "no head runs on this machine; start one with: bench node head "
            "(nodes are listed and drained from the head)"
        )
    return cluster


def list_nodes(cluster: Cluster) -> list[NodeEntry]:
    """Every node that joined, in order of names. Raises EnvironmentLacks."""
    with _head(cluster) as head:
        answer = head.List(wire.ListRequest(), timeout=CALL_TIMEOUT_S)
    return [_entry(node, answer.session) for node in answer.nodes]


def head_session(cluster: Cluster) -> str | None:
    """Another one each time that Ray's head starts, empty while it is not there.

    None when the head does not answer.
    """
    try:
        with _head(cluster) as head:
            return str(head.List(wire.ListRequest(), timeout=CALL_TIMEOUT_S).session)
    except HeapgateError:
        return None


def mark_measuring(cluster: Cluster, node_id: str, run_id: str | None) -> None:
    """Note that a run of this process measures on a node; None: not any more.

    The mark ends by itself when this process dies.
    """
    holder = json.dumps(dataclasses.asdict(Driver.this_process())).encode() if run_id else b""
    request = wire.MarkRequest(node_id=node_id, run_id=run_id or "", holder_json=holder)
    with _head(cluster) as head:
        head.Mark(request, timeout=CALL_TIMEOUT_S)


def drain(cluster: Cluster, name: str, *, undo: bool = False) -> str:
    """Allow no new trials on a node, or allow them again; the run that measures there still."""
    with _head(cluster) as head:
        answer = head.Drain(wire.DrainRequest(node=name, undo=undo), timeout=CALL_TIMEOUT_S)
    return str(answer.measuring_run)


def _entry(node: wire.Node, session: str) -> NodeEntry:
    facts = json.loads(node.facts_json or b"{}")
    measured = node.clock_measured_ns != 0
    return NodeEntry(
        node_id=node.node_id,
        name=node.name,
        os=facts.get("os", ""),
        address=node.address,
        labels=dict(node.labels),
        facts=facts,
        node_class=node.node_class,
        machine=facts.get("machine") or node.node_id,
        state=_state(node, session),
        draining=node.draining,
        measuring_run=node.measuring_run,
        clock_offset_ns=node.clock_offset_ns if measured else None,
        clock_error_ns=node.clock_error_ns if measured else None,
        clock_measured_ns=node.clock_measured_ns if measured else None,
        versions={
            "heapgate": node.versions.heapgate,
            "python": node.versions.python,
            "ray": node.versions.ray,
        },
        last_seen_s=None if node.last_seen_s < 0 else node.last_seen_s,
        busy_share=None if node.busy_share < 0 else node.busy_share,
        busy_with=node.busy_with,
        problem=node.problem,
        expires_ns=node.expires_ns,
    )


def _state(node: wire.Node, session: str) -> str:
    if not 0 <= node.last_seen_s <= LOST_AFTER_S:
        return "lost"
    if not session or node.ray_session != session:
        return "starting"
    if node.measuring_run:
        return "measuring"
    return "draining" if node.draining else "ready"


@contextmanager
def _head(cluster: Cluster) -> Iterator[wire_grpc.ClusterStub]:
    """The head's service; its errors in our words."""
    refuse_expired(
        cluster.tls_folder, "the head's certificate", "bench node leave; bench node head"
    )
    where = joined_address(cluster.address, cluster.port)
    try:
        with open_channel(where, cluster.tls_folder) as channel:
            yield wire_grpc.ClusterStub(channel)
    except grpc.RpcError as error:
        raise in_our_words(error, f"the head at {where}") from error


def refuse_expired(tls_folder: Path, whose: str, remedy: str) -> None:
    """Raises EnvironmentLacks for a certificate that has expired, before gRPC says less."""
    from orchestrator.membership.pki import days_left

    try:
        left = days_left((tls_folder / CERTIFICATE).read_bytes())
    except (OSError, ValueError) as error:
        raise EnvironmentLacks(f"{whose} can't be read: {error}; {remedy}") from error
    if left <= 0:
        raise EnvironmentLacks(f"{whose} has expired {-left:.0f} days ago; mend it: {remedy}")


def in_our_words(error: grpc.RpcError, who: str) -> HeapgateError:
    """What a failed call means for the user."""
    assert isinstance(error, grpc.Call)
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        details = _CONNECTING.sub("", details)
        if "certificate" in details.lower() or "handshake" in details.lower():
            return EnvironmentLacks(
                f"{who} and this machine do not trust each other: the secret that was used here "
                "is another cluster's, or from before a `bench node rotate`; copy the head's "
                f"secret anew and join with it ({_tls_reason(details)})"
            )
        return EnvironmentLacks(f"{who} does not answer ({details}); {_LOOK_AT}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return EnvironmentLacks(f"{who} did not answer in time; {_LOOK_AT}")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return EnvironmentLacks(details)
    return UserError(details or f"{who} refused: {code.name}")


def _tls_reason(details: str) -> str:
    """The end of `… SSL_ERROR_SSL: error:…:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: why: OK`."""
    return details.rpartition("OPENSSL_internal:")[2].removesuffix(": OK")


def ago(age_s: float) -> str:
    """An age in words."""
    stamp = time.strftime("%H:%M:%S", time.localtime(time.time() - age_s))
    return f"{stamp} ({age_s:.0f} s ago)"
