"""Connections to a gRPC server, few for each process and shared by its users."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import gevent
import grpc

OPTIONS: Final[dict[str, Any]] = {
    "grpc.enable_retries": 0,  # a failure is a failure: none is hidden by a second attempt
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,  # else all channels to a server share one connection
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    # A service that was gone is found again within a second, not within two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how it is spoken to."""

    target: str
    secure: bool = False
    authority: str | None = None
    certificate: tuple[str, ...] = ()
    server_name: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


_channels: dict[Address, list[grpc.Channel]] = {}
_turns = count()


def channel_to(address: Address, connections: int) -> grpc.Channel:
    """One of so many channels, in turn. Raises OSError for a certificate that can't be read."""
    channels = _channels.setdefault(address, [])
    if len(channels) < connections:
        # Each one keeps a thread of gevent's pool busy while it has calls under way.
        gevent.get_hub().threadpool.maxsize += 1
        channels.append(_connect(address))
        return channels[-1]
    return channels[next(_turns) % len(channels)]


def _connect(address: Address) -> grpc.Channel:
    options = OPTIONS | dict(address.options)
    if not address.secure:
        return grpc.insecure_channel(address.target, list(options.items()))
    if address.server_name:
        options["grpc.ssl_target_name_override"] = address.server_name
    own = [Path(path).read_bytes() for path in address.certificate]
    certificate, key = own or (None, None)
    authority = Path(address.authority).read_bytes() if address.authority else None
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.secure_channel(address.target, credentials, list(options.items()))
