"""Make this machine a node of a cluster, and be one: enrol once, then a daemon keeps it a node."""

from __future__ import annotations

import json
import platform
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from orchestrator.leftovers import sweep
from orchestrator.membership.attendance import Attendance
from orchestrator.membership.headstate import Secret, own_versions
from orchestrator.membership.members import check_labels, check_name
from orchestrator.membership.nodestate import NodeState
from orchestrator.membership.pki import certificate_request, key_pem, make_key
from orchestrator.membership.raywatch import RayWatch
from results.collecting.secure import say, tls_channel
from results.errors import EnvironmentLacks, HeapgateError, UserError
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc
from workers.facts import node_class, node_facts, node_id

JOIN_TIMEOUT_S = 15.0
READY_TIMEOUT_S = 120.0
SWEEP_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Joined:
    """A node that is one now."""

    node_id: str
    name: str
    head: str


def join_cluster(
    head: str, secret_path: Path, name: str | None, labels: Mapping[str, str]
) -> Joined:
    """Ask the head to take this machine in, and keep what it answers; starts nothing.

    `head` is `host:port` of its enrolment service. Raises UserError and EnvironmentLacks.
    """
    state = NodeState()
    if state.daemon.alive:
        known = state.identity()
        raise UserError(
            f"this machine is node {known.name!r} of the cluster at {known.head} already; "
            "to join anew: bench node leave"
        )
    host, _, port = head.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{head!r} is not the address of a head, as in 10.0.0.1:7420")
    name = name or platform.node().partition(".")[0]
    check_name(name)
    check_labels(labels)
    secret = Secret.read(secret_path)
    key = make_key()
    facts = node_facts()
    own = own_versions()
    request = wire.JoinRequest(
        join_token=secret.token,
        certificate_request=certificate_request(key),
        versions=wire.Versions(**own),
        installation=state.installation(),
        machine=node_id(),
        name=name,
        labels=dict(labels),
        facts_json=json.dumps(facts).encode(),
        node_class=node_class(facts),
    )
    reply = _asked(head, secret, request)
    state.save(
        node_id=reply.node_id,
        name=name,
        address=reply.address,
        head=head,
        labels=dict(labels),
        authority=reply.authority,
        certificate=reply.certificate,
        key=key_pem(key),
        ray_token=reply.ray_token,
    )
    return Joined(reply.node_id, name, head)


def rejoin_cluster() -> Joined:
    """Be the node again that this machine joined as, after a restart of it; starts nothing.

    Raises EnvironmentLacks when it never joined, or was away for longer than its certificate lasts.
    """
    from orchestrator.membership.nodes import refuse_expired

    state = NodeState()
    known = state.identity()
    if state.daemon.alive:
        raise UserError(f"this machine is node {known.name!r} of {known.head} already, and it runs")
    remedy = f"bench node join {known.head} --secret FILE"
    refuse_expired(state.tls_folder, "this node's certificate", remedy)
    return Joined(known.node_id, known.name, known.head)


def _asked(head: str, secret: Secret, request: wire.JoinRequest) -> wire.JoinReply:
    from orchestrator.membership.nodes import in_our_words

    authority, certificate, key = (
        text.encode() for text in (secret.authority, secret.certificate, secret.key)
    )
    try:
        with tls_channel(head, authority, certificate, key) as channel:
            return wire_grpc.ClusterStub(channel).Join(request, timeout=JOIN_TIMEOUT_S)
    except grpc.RpcError as error:
        raise in_our_words(error, f"the head at {head}") from error


def start_node() -> None:
    """Start the daemon of the node that this machine joined as; return when it works."""
    state = NodeState()
    process = state.daemon.start("orchestrator.membership.join")
    state.daemon.wait_ready(process, READY_TIMEOUT_S)


def run_node(state: NodeState) -> None:
    """Be the node until told to stop."""
    state.daemon.hold()
    stop = state.daemon.stop_event()
    ray = RayWatch(state, stop)
    attendance = Attendance(state, ray, stop)
    try:
        threads = [threading.Thread(target=part.run) for part in (ray, attendance)]
        for thread in threads:
            thread.start()
        ray.wait_started()
        if not stop.is_set():
            state.daemon.tell_ready()
        while not stop.wait(SWEEP_EVERY_S):
            _clean_up_after_dead_runs()
        for thread in threads:
            thread.join()
        _clean_up_after_dead_runs()
    finally:
        stop.set()
        ray.end()
        state.daemon.release()


def _clean_up_after_dead_runs() -> None:
    try:
        for swept in sweep():
            say(swept.line)
    except OSError as error:
        say(f"could not look for leftovers: {error}")


def leave_cluster() -> Joined | None:
    """End this machine's membership: its daemon, then its place at the head; None: it had none.

    The head may be gone; then it finds out by itself that the node is lost.
    """
    from results.collecting.secure import open_channel

    state = NodeState()
    try:
        known = state.identity()
    except EnvironmentLacks:
        state.daemon.stop()
        return None
    state.daemon.stop()
    try:
        with open_channel(known.head, state.tls_folder) as channel:
            wire_grpc.ClusterStub(channel).Leave(wire.LeaveRequest(), timeout=3.0)
    except (grpc.RpcError, EnvironmentLacks):
        pass
    state.forget()
    return Joined(known.node_id, known.name, known.head)


def main() -> None:
    """The daemon's process: everything it needs is in the state folder."""
    try:
        run_node(NodeState())
    except HeapgateError as error:
        say(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
