"""Mutual TLS for gRPC from a folder of three files, and a log that a stranger can't flood.

    ca.pem     the authority: who is trusted
    cert.pem   this side's certificate
    key.pem    its key, readable by the owner only

`bench node head` and `bench node join` make such folders (`orchestrator/membership/pki.py`).
Without a folder everything stays on loopback and is told apart by token alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from results.errors import EnvironmentLacks

AUTHORITY = "ca.pem"
CERTIFICATE = "cert.pem"
KEY = "key.pem"
HEAD_NAME = "head.heapgate"
"""The name in the head's certificate alone. Clients ask for it whatever address they dialled, so a
node can't pass for the head, and the head may be reached by any name or through any translation."""

SAME_WORDS_EVERY_S = 60.0
_LOG_KEYS_MAX = 1000


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    """A server that talks only to holders of a certificate of the folder's authority."""
    authority, certificate, key = _read(folder)
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=True
    )


def open_channel(
    address: str, folder: Path | None, options: Sequence[tuple[str, Any]] = ()
) -> grpc.Channel:
    """A channel to the head or its collector; without a folder, an open one for loopback."""
    if folder is None:
        return grpc.insecure_channel(address, options=list(options))
    authority, certificate, key = _read(folder)
    return tls_channel(address, authority, certificate, key, options)


def tls_channel(
    address: str,
    authority: bytes,
    certificate: bytes,
    key: bytes,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.Channel:
    """A channel to the head, which must prove to be it; all three in PEM."""
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    named = [("grpc.ssl_target_name_override", HEAD_NAME), ("grpc.default_authority", HEAD_NAME)]
    return grpc.secure_channel(address, credentials, options=[*named, *options])


def joined_address(address: str, port: int) -> str:
    """`address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def add_port(server: grpc.Server, address: str, port: int, folder: Path | None) -> int:
    """Listen, with TLS when there is a folder; the port that was taken. Raises EnvironmentLacks."""
    where = joined_address(address, port)
    try:
        if folder is None:
            return server.add_insecure_port(where)
        return server.add_secure_port(where, server_credentials(folder))
    except RuntimeError as error:
        raise EnvironmentLacks(
            f"can't listen on {where}: the port is taken, or the address is not this machine's"
        ) from error


def caller(context: grpc.ServicerContext) -> tuple[str, str]:
    """Role and name of the caller, as its certificate says; empty without one."""
    subject: Any = context.auth_context().get("x509_subject", [b""])
    found = bytes(next(iter(subject), b"")).decode(errors="replace")
    fields = dict(part.split("=", 1) for part in found.split(",") if "=" in part)
    return fields.get("OU", ""), fields.get("CN", "")


def _read(folder: Path) -> tuple[bytes, bytes, bytes]:
    try:
        authority, certificate, key = (
            (folder / name).read_bytes() for name in (AUTHORITY, CERTIFICATE, KEY)
        )
    except OSError as error:
        raise EnvironmentLacks(
            f"the certificates in {folder} can't be read ({error.strerror}); "
            "on the head: bench node head; on a node: bench node join"
        ) from error
    return authority, certificate, key


def say(text: str) -> None:
    """One line to the log, which may lie on the very disk that is full."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class RareLog:
    """Says the same thing about the same one once a minute, however often it happens."""

    def __init__(self, write: Callable[[str], None] = say) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def say(self, who: str, what: str, detail: str = "") -> None:
        """Tell that `who` did `what`; `detail` may differ each time and does not count."""
        now_s = time.monotonic()
        with self._lock:
            last_s, untold = self._told.get((who, what), (-SAME_WORDS_EVERY_S, 0))
            if now_s - last_s < SAME_WORDS_EVERY_S:
                self._told[who, what] = last_s, untold + 1
                return
            if len(self._told) >= _LOG_KEYS_MAX:
                self._told.clear()
            self._told[who, what] = now_s, 0
        again = f" ({untold} more like it before)" if untold else ""
        self._write(f"{what}: {who}{': ' + detail if detail else ''}{again}")


def peer_host(peer: str) -> str:
    """The host of what gRPC calls a peer: `ipv4:10.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else rest
    host = host.replace("%5B", "").replace("%5D", "").strip("[]")
    return host.removeprefix("::ffff:").removeprefix("::FFFF:")


VERBOSITY = "INFO"
"""What GRPC_VERBOSITY must be when a process starts that calls `log_failed_handshakes`."""

_HANDSHAKE = re.compile(r"Handshake failed with error (.*)")
_OF_GRPC = re.compile(r"[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ ")


def log_failed_handshakes() -> None:
    """Tell who is turned away by TLS: gRPC says it on file descriptor 2 alone, each time anew.

    The descriptor becomes a pipe, of which a thread keeps one line a minute for each reason and
    leaves out what else gRPC says; Python's own `sys.stderr` goes where it went before.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding="utf-8", errors="replace")
    threading.Thread(target=_sift, args=(reading,), daemon=True).start()


def _sift(reading: int) -> None:
    rare = RareLog()
    with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _HANDSHAKE.search(line)
            if found:
                rare.say(_reason(found[1]), "refused a stranger's connection")
            elif not _OF_GRPC.match(line):
                say(line.rstrip("\n"))


def _reason(text: str) -> str:
    """The end of `SSL_ERROR_SSL: error:…:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: why`."""
    code, _, words = text.rpartition("OPENSSL_internal:")[2].partition(":")
    if code == "CERTIFICATE_VERIFY_FAILED":
        return words.strip()
    return code.strip().replace("_", " ").lower()
