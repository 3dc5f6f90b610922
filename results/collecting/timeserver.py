"""The clock of the head and of the collector, for nodes that measure how far theirs is off."""

from __future__ import annotations

import grpc

from results.clock import wall_ns
from results.wire import cluster_pb2 as wire
from results.wire import cluster_pb2_grpc as wire_grpc


class TimeServer(wire_grpc.TimeServicer):
    """Answers with its clock when the question came and when the answer goes."""

    def Read(  # noqa: D102 - the name is the wire's
        self, request: wire.ReadRequest, context: grpc.ServicerContext
    ) -> wire.ReadReply:
        received_ns = wall_ns()
        return wire.ReadReply(received_ns=received_ns, sent_ns=wall_ns())
