"""What a machine on the network tries; run in a namespace of its own: stranger.py KIND JSON.

Prints a word for how it went. Only what the arguments give is known to it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any


def ray_store(environment: dict[str, str], address: str) -> str:
    """Ask Ray's control store for the keys that it keeps."""
    # It waits long for a store that does not speak to it.
    os.environ |= environment | {
        "RAY_gcs_rpc_server_connect_timeout_s": "3",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
        "RAY_gcs_server_request_timeout_seconds": "5",
    }
    from ray._raylet import GcsClient

    try:
        keys = GcsClient(address=address).internal_kv_keys(b"", None, timeout=4)
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"
    return f"answered {len(keys) > 0}"


def collector(
    method: str, address: str, token: str, run_id: str, trial_id: str, tls: str | None
) -> str:
    """Open a trial, send a batch of another's making again, or have the trial given up."""
    import grpc

    from results.collecting.secure import open_channel
    from results.wire import telemetry_pb2 as wire
    from results.wire import telemetry_pb2_grpc as wire_grpc

    metadata = (("authorization", f"Bearer {token}"),)
    try:
        with open_channel(address, Path(tls) if tls else None) as channel:
            stub = wire_grpc.TelemetryStub(channel)
            if method == "Abandon":
                request = wire.AbandonTrial(run_id=run_id, trial_id=trial_id, trial_json=b"{}")
                stub.Abandon(request, metadata=metadata, timeout=8)
                return "answered"
            messages = iter(_messages(run_id, trial_id, method == "replay"))
            answers = stub.Publish(messages, metadata=metadata, timeout=8)
            return " ".join(_told(answer) for answer in answers)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return f"refused: {error.code().name}"


def _messages(run_id: str, trial_id: str, replay: bool) -> list[Any]:
    from results.schema import REQUESTS, SCHEMA_VERSION
    from results.wire import telemetry_pb2 as wire

    opening = wire.OpenTrial(run_id=run_id, trial_id=trial_id, schema_version=SCHEMA_VERSION)
    messages = [wire.FromAgent(open=opening)]
    if replay:
        import pyarrow as pa

        row = {field.name: None for field in REQUESTS.arrow}
        row |= {"start_ns": 1, "service_ns": 1, "phase": "measure"}
        row |= {"method": "GET", "name": "forged"}
        batch = pa.RecordBatch.from_pylist([row] * 1000, REQUESTS.arrow)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, REQUESTS.arrow) as writer:
            writer.write_batch(batch)
        data = sink.getvalue().to_pybytes()
        again = wire.Batch(trial_id=trial_id, stream="requests", sequence=1, arrow_ipc=data)
        messages.append(wire.FromAgent(batch=again))
    return messages


def _told(answer: Any) -> str:
    kind = str(answer.WhichOneof("kind"))
    return f"{kind}({answer.refused.reason})" if kind == "refused" else kind


def read(host: str, ports: list[int], names: list[str]) -> str:
    """Ask whatever listens for files of the archive, as a browser would."""
    found = b""
    for port in ports:
        for name in names:
            with socket.create_connection((host, port), timeout=4) as connection:
                connection.settimeout(2)
                try:
                    connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    while data := connection.recv(65536):
                        found += data
                except OSError:
                    continue
    return "read" if b"200 OK" in found or b"ARROW1" in found else f"refused: {len(found)} bytes"


if __name__ == "__main__":
    kinds = {"ray_store": ray_store, "collector": collector, "read": read}
    sys.stdout.write(str(kinds[sys.argv[1]](**json.loads(sys.argv[2]))) + "\n")
    sys.stdout.flush()
    os._exit(0)
