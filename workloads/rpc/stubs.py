"""A service's methods by their names, made from descriptors instead of generated code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import ParseDict

from workloads.rpc.calls import RecordedChannel, Serialize
from workloads.rpc.descriptors import message_class, path_of


class Stub:
    """The methods of a service. A message may be given as a mapping, as in JSON."""

    def __init__(self, channel: RecordedChannel, service: ServiceDescriptor) -> None:
        self._name = service.full_name
        self._methods = {method.name: _made(channel, method) for method in service.methods}

    def __getattr__(self, name: str) -> Any:
        try:
            return self._methods[name]
        except KeyError:
            told = ", ".join(self._methods)
            raise AttributeError(f"{self._name} has no method {name}, it has: {told}") from None

    def __dir__(self) -> Iterable[str]:
        return self._methods


def _made(channel: RecordedChannel, method: MethodDescriptor) -> Any:
    there = "stream" if method.client_streaming else "unary"
    back = "stream" if method.server_streaming else "unary"
    answer = message_class(method.output_type)
    make = getattr(channel, f"{there}_{back}")
    return make(path_of(method), _serializer(message_class(method.input_type)), answer.FromString)


def _serializer(kind: Any) -> Serialize:
    def serialize(message: Any) -> bytes:
        """Raises ParseError for a mapping that does not fit the message."""
        if isinstance(message, dict):
            message = ParseDict(message, kind())
        raw: bytes = message.SerializeToString()
        return raw

    return serialize
