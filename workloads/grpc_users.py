"""The gRPC user of a scenario: calls by stubs of the user's .proto files or the server's own.

    from locust import task
    from workloads.grpc_users import GrpcUser

    class Reader(GrpcUser):
        protos = "shop.proto"               # beside the locustfile; without it the server is asked

        @task
        def read(self):
            self.stub("Shop").Get({"id": 7}, timeout=2)

Every call is a row, with method `gRPC` and the name `package.Service/Method`. It works in plain
Locust too. What is recorded how: docs/scenarios.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from grpc.experimental import gevent as grpc_gevent  # type: ignore[attr-defined]
from locust import User

from workloads.rpc.calls import RecordedChannel, Terms
from workloads.rpc.channels import Address, channel_to
from workloads.rpc.descriptors import Descriptors, read_descriptors, reflected
from workloads.rpc.stubs import Stub
from workloads.underway import Requests

# Locust has patched threads and sockets by now, and without this gRPC would hang.
grpc_gevent.init_gevent()

Metadata = Iterable[tuple[str, str | bytes]]
SECURE: Final = frozenset({"https", "grpcs"})


class GrpcUser(User):
    """A user with gRPC stubs. Times are in seconds."""

    abstract = True

    protos: ClassVar[str | Sequence[str]] = ()
    """Files beside the locustfile: .proto, or descriptor sets. None: the server is asked."""

    target: ClassVar[str | None] = None
    """`host:port`, where gRPC is not served at the service's own address."""

    timeout: ClassVar[float] = 60.0
    """The deadline of a call that has none of its own."""

    metadata: ClassVar[Metadata] = ()
    """Sent with every call."""

    accepted: ClassVar[Iterable[str]] = ("OK",)
    """Names of the status codes that are no failures, `("OK", "NOT_FOUND")` say."""

    first_messages: ClassVar[bool] = False
    """Whether the time to a stream's first message is a row of its own."""

    connections: ClassVar[int] = 1
    """Connections of a process, shared by all users of this kind."""

    tls: ClassVar[bool] = False
    verify: ClassVar[str | None] = None
    """The path of the authority's certificate; None: those that this machine trusts."""

    certificate: ClassVar[tuple[str, str] | None] = None
    """The paths of the user's own certificate and key, for mutual TLS."""

    server_name: ClassVar[str | None] = None
    """The name in the server's certificate, where it is not the host's."""

    options: ClassVar[dict[str, Any]] = {}
    """Further options of grpcio's channels, by name."""

    _compiled: ClassVar[Descriptors | None] = None
    _asked: ClassVar[dict[Address, Descriptors]] = {}

    def __init_subclass__(cls, **rest: Any) -> None:
        """Compile what the class names, so that a mistake is told before any trial."""
        super().__init_subclass__(**rest)
        if "protos" in vars(cls):
            names = [cls.protos] if isinstance(cls.protos, str) else cls.protos
            paths = [cls._beside(name) for name in names]
            cls._compiled = read_descriptors(paths) if paths else None

    def __init__(self, environment: Any) -> None:
        """Raises ValueError when there is no address."""
        super().__init__(environment)
        self._address = self._address_of(self.host)
        self._raw = channel_to(self._address, self.connections)
        terms = Terms(
            self.timeout, tuple(self.metadata), frozenset(self.accepted), self.first_messages
        )
        self.channel = RecordedChannel(self._raw, Requests(self), terms)
        self._stubs: dict[str, Stub] = {}

    def stub(self, service: str) -> Stub:
        """The stub of a service, by its full name or, where that is enough, its last part.

        Raises LookupError when it is not there, or the server can't be asked.
        """
        if service not in self._stubs:
            self._stubs[service] = Stub(self.channel, self._descriptors().service(service))
        return self._stubs[service]

    def message(self, name: str) -> Any:
        """A message's class by its full name. Raises LookupError."""
        return self._descriptors().message(name)

    def _descriptors(self) -> Descriptors:
        """Those of the .proto files; else the server's, asked for once in a process."""
        if self._compiled:
            return self._compiled
        if self._address not in self._asked:
            self._asked[self._address] = reflected(self._raw)
        return self._asked[self._address]

    def _address_of(self, host: str | None) -> Address:
        parts = urlsplit(host or "")
        target = self.target or parts.netloc
        if not target:
            raise ValueError("this user needs a host, or a target such as 127.0.0.1:50051")
        certificate = tuple(str(self._beside(path)) for path in self.certificate or ())
        return Address(
            target=target,
            secure=self.tls or (parts.scheme in SECURE and not self.target),
            authority=str(self._beside(self.verify)) if self.verify else None,
            certificate=certificate,
            server_name=self.server_name,
            options=tuple(sorted(self.options.items())),
        )

    @classmethod
    def _beside(cls, path: str) -> Path:
        """A path that begins at the locustfile's folder."""
        own = getattr(sys.modules.get(cls.__module__), "__file__", None)
        return Path(own or "").parent / path
