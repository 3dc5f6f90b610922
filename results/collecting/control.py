"""The driver's word to its collector."""

from __future__ import annotations

import grpc

from results.collecting.process import CollectorProcess
from results.collecting.secure import open_channel
from results.errors import EnvironmentLacks
from results.record import TrialRecord
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc

CALL_TIMEOUT_S = 30.0


def abandon_trial(
    collector: CollectorProcess, record: TrialRecord, *, why: str = "", sent_at_least: int = 0
) -> TrialRecord:
    """Seal a trial whose node is lost with what the collector has acknowledged of it.

    Returns the record as it was sealed: with its rows, digests, and the finding `node_lost`, which
    `why` and `sent_at_least` are for. When the node had finished the trial after all, its own
    record stands and is returned. Raises EnvironmentLacks when the collector does not answer.
    """
    request = wire.AbandonTrial(
        run_id=record.run_id,
        trial_id=record.trial_id,
        trial_json=record.to_json().encode(),
        why=why,
        sent_at_least=sent_at_least,
    )
    token = collector.token_file.read_text(encoding="ascii").strip()
    metadata = (("authorization", f"Bearer {token}"),)
    collector.ensure_alive()
    try:
        with open_channel(collector.address, collector.tls) as channel:
            stub = wire_grpc.TelemetryStub(channel)
            answer = stub.Abandon(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        told = error.details() if isinstance(error, grpc.Call) else error
        raise EnvironmentLacks(f"the collector could not seal {record.trial_id}: {told}") from error
    return TrialRecord.from_json(answer.trial_json.decode())
