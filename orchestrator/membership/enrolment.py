"""The head's gRPC service: nodes join, beat, leave; commands list, drain, mark.

Nobody gets as far as a method without a certificate of the cluster's authority; each method then
asks for the role that it is for. What is refused is logged once a minute for each peer and reason.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import NoReturn

import grpc

from orchestrator.membership.headstate import HeadState, own_versions
from orchestrator.membership.members import Member, Members
from orchestrator.membership.pki import expires_ns, requested_key
from results.collecting.secure import RareLog, caller, peer_host
from results.errors import UserError
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc
from workers.leases import Driver

MESSAGE_BYTES_MAX = 2**20


class Enrolment(wire_grpc.ClusterServicer):
    """The service. `where` tells the session and address of Ray's head as they are now."""

    def __init__(
        self, state: HeadState, members: Members, where: Callable[[], tuple[str, str]]
    ) -> None:
        self._state = state
        self._members = members
        self._where = where
        self._log = RareLog()
        self._joining = threading.Lock()

    def Join(  # noqa: D102 - the names are the wire's
        self, request: wire.JoinRequest, context: grpc.ServicerContext
    ) -> wire.JoinReply:
        self._require(context, "join", "node")
        if not self._state.is_join_token(request.join_token):
            self._refuse(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                "the secret is not this cluster's any more; copy the new one from the head",
            )
        problem = mismatch(request.versions)
        if problem:
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, problem)
        with self._joining:
            return self._joined(request, context)

    def _joined(self, request: wire.JoinRequest, context: grpc.ServicerContext) -> wire.JoinReply:
        address = peer_host(context.peer())
        try:
            key = requested_key(request.certificate_request)
            json.loads(request.facts_json)
            member = self._members.add(request, address)
        except ValueError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"no valid request: {error}")
        except UserError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        certificate = self._certificate(key, member)
        return wire.JoinReply(
            node_id=member.node_id,
            certificate=certificate,
            authority=self._state.authority().pem,
            address=address,
            ray_token=self._state.ray_token_path.read_text(encoding="ascii"),
        )

    def _certificate(self, key: object, member: Member) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec

        assert isinstance(key, ec.EllipticCurvePublicKey)
        certificate = self._state.authority().issue(
            key, "node", member.node_id, addresses=[member.address]
        )
        self._members.certified(member.node_id, expires_ns(certificate))
        return certificate

    def Renew(  # noqa: D102
        self, request: wire.RenewRequest, context: grpc.ServicerContext
    ) -> wire.RenewReply:
        member = self._member(context)
        try:
            key = requested_key(request.certificate_request)
        except ValueError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"no valid request: {error}")
        return wire.RenewReply(certificate=self._certificate(key, member))

    def Beat(  # noqa: D102
        self, request: wire.BeatRequest, context: grpc.ServicerContext
    ) -> wire.HeadWord:
        member = self._member(context)
        wanted = self._members.beat(member.node_id, request)
        session, ray_address = self._where()
        return wire.HeadWord(
            session=session,
            ray_address=ray_address,
            facts_wanted=wanted,
            draining=member.draining,
            measuring_run=self._members.run_on(member.node_id),
        )

    def Leave(  # noqa: D102
        self, request: wire.LeaveRequest, context: grpc.ServicerContext
    ) -> wire.LeaveReply:
        self._members.remove(self._member(context).node_id)
        return wire.LeaveReply()

    def List(  # noqa: D102
        self, request: wire.ListRequest, context: grpc.ServicerContext
    ) -> wire.NodeList:
        self._require(context, "head")
        return wire.NodeList(
            nodes=self._members.listed(),
            session=self._where()[0],
            expires_ns=self._state.expires_ns(),
        )

    def Drain(  # noqa: D102
        self, request: wire.DrainRequest, context: grpc.ServicerContext
    ) -> wire.DrainReply:
        self._require(context, "head")
        member = self._members.find(request.node)
        if member is None:
            names = ", ".join(self._members.names()) or "none yet"
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no node {request.node!r}; there are: {names}"
            )
        self._members.drain(member.node_id, draining=not request.undo)
        return wire.DrainReply(measuring_run=self._members.run_on(member.node_id))

    def Mark(  # noqa: D102
        self, request: wire.MarkRequest, context: grpc.ServicerContext
    ) -> wire.MarkReply:
        self._require(context, "head")
        if self._members.get(request.node_id) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no node {request.node_id!r}")
        holder = Driver(**json.loads(request.holder_json)) if request.holder_json else None
        self._members.mark(request.node_id, request.run_id, holder)
        return wire.MarkReply()

    def _member(self, context: grpc.ServicerContext) -> Member:
        """The node that calls, as its certificate says, if it still belongs to the cluster."""
        self._require(context, "node")
        member = self._members.get(caller(context)[1])
        if member is None:
            self._refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "this node does not belong to the cluster any more; let it join again",
            )
        return member

    def _require(self, context: grpc.ServicerContext, *roles: str) -> None:
        role, name = caller(context)
        if role not in roles:
            self._refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"a certificate for {role or 'nothing'} does not allow this ({name})",
            )

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, why: str) -> NoReturn:
        self._log.say(peer_host(context.peer()), "refused", why)
        context.abort(code, why)
        raise AssertionError("abort raises")


def mismatch(theirs: wire.Versions) -> str:
    """Why a node of these versions can't join, with the line that mends it; empty when it can."""
    own = own_versions()
    pip = f"pip install heapgate=={own['heapgate']}"
    if theirs.python != own["python"]:
        return (
            f"the head runs Python {own['python']}, this machine {theirs.python}; "
            f"here, with Python {own['python']}: python -m {pip}"
        )
    if theirs.heapgate != own["heapgate"]:
        return (
            f"the head has heapgate {own['heapgate']}, this machine {theirs.heapgate or 'none'}; "
            f"here: {pip}"
        )
    if theirs.ray != own["ray"]:
        return (
            f"the head has ray {own['ray']}, this machine {theirs.ray or 'none'}; "
            f"here: pip install ray=={own['ray']}"
        )
    return ""
