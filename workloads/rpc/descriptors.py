"""Services and messages by name: from .proto files, from a descriptor set, or from the server."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

PROTO: Final = ".proto"
_NOISE: Final = re.compile(r"[WI]\d{4} |WARNING: All log messages")


class Descriptors:
    """What a pool of descriptors holds, by full names."""

    def __init__(self, pool: DescriptorPool, source: str, services: Iterable[str]) -> None:
        self._pool = pool
        self._source = source
        self.services = tuple(services)

    def service(self, name: str) -> ServiceDescriptor:
        """A service, by its full name or the last part of it. Raises LookupError."""
        whole = [known for known in self.services if known.split(".")[-1] == name]
        try:
            return self._pool.FindServiceByName(whole[0] if len(whole) == 1 else name)
        except KeyError:
            told = ", ".join(self.services) or "none"
            raise LookupError(f"{self._source} has no service {name}, it has: {told}") from None

    def message(self, name: str) -> type[Message]:
        """A message's class, by its full name. Raises LookupError."""
        try:
            return message_class(self._pool.FindMessageTypeByName(name))
        except KeyError:
            raise LookupError(f"{self._source} has no message {name}") from None


def message_class(descriptor: Descriptor) -> type[Message]:
    """The class of a message."""
    return GetMessageClass(descriptor)


def path_of(method: MethodDescriptor) -> str:
    """A method as gRPC calls it: `/package.Service/Method`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def read_descriptors(paths: Sequence[Path]) -> Descriptors:
    """From .proto files, which are compiled, or from sets that were compiled with their imports.

    Raises ValueError with the compiler's words.
    """
    return _read(tuple(paths))


@cache
def _read(paths: tuple[Path, ...]) -> Descriptors:
    pool, services = DescriptorPool(), []
    for files in _sets(paths):
        for file in files.file:
            try:
                pool.Add(file)
            except TypeError as error:
                raise ValueError(f"{file.name} contradicts another .proto file: {error}") from error
            services += [f"{file.package}.{s.name}".lstrip(".") for s in file.service]
    return Descriptors(pool, ", ".join(path.name for path in paths), dict.fromkeys(services))


def _sets(paths: tuple[Path, ...]) -> Iterable[FileDescriptorSet]:
    sources = [path for path in paths if path.suffix == PROTO]
    if sources:
        yield _compiled(sources)
    for path in paths:
        if path.suffix != PROTO:
            try:
                yield FileDescriptorSet.FromString(path.read_bytes())
            except (OSError, DecodeError) as error:
                raise ValueError(f"{path.name} is no descriptor set: {error}") from error


def _compiled(sources: list[Path]) -> FileDescriptorSet:
    """Run the compiler that comes with grpcio-tools, each source's folder being a root."""
    missing = [path for path in sources if not path.is_file()]
    if missing:
        raise ValueError(f"there is no file {missing[0]}")
    roots = dict.fromkeys(str(path.resolve().parent) for path in sources)
    with tempfile.TemporaryDirectory(prefix="heapgate-proto-") as folder:
        target = Path(folder) / "set"
        command = [sys.executable, "-c", _COMPILE, *(f"--proto_path={root}" for root in roots)]
        command += ["--include_imports", f"--descriptor_set_out={target}"]
        command += [str(path.resolve()) for path in sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if not _NOISE.match(line)]
            raise ValueError(f"the .proto files can't be compiled: {' '.join(told)}")
        return FileDescriptorSet.FromString(target.read_bytes())


_COMPILE: Final = """
import importlib.resources, sys
from grpc_tools import protoc
known = importlib.resources.files("grpc_tools") / "_proto"
sys.exit(protoc.main(["protoc", f"--proto_path={known}", *sys.argv[1:]]))
"""
"""The well-known types come with the compiler."""


def reflected(channel: grpc.Channel) -> Descriptors:
    """What the server tells of itself. Raises LookupError when it tells nothing."""
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    for version in ("v1", "v1alpha"):
        database = ProtoReflectionDescriptorDatabase(_OfVersion(channel, version))
        try:
            services = database.get_services()
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                continue
            raise LookupError(
                f"the server can't be asked for its services: {error.code().name}: "
                f"{error.details()}"
            ) from error
        return Descriptors(DescriptorPool(database), "the server", services)
    raise LookupError(
        "the server has no reflection service: name the .proto files in `protos`, or register it"
    )


class _OfVersion:
    """The library asks for v1alpha; v1 has the same messages under another name."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self._channel = channel
        self._version = version

    def stream_stream(self, path: str, *how: Any, **named: Any) -> Any:
        return self._channel.stream_stream(path.replace("v1alpha", self._version), *how, **named)
