"""The private descriptor pool: `kata.binpb` in, message classes, enums and services out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

DESCRIPTOR_SET = Path(__file__).with_name("kata.binpb")


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service: the classes of its request and its response."""

    request: type[Message]
    response: type[Message]


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file:
        pool.Add(file)
    return pool


def symbols(*files: str) -> dict[str, Any]:
    """Everything the proto files define at top level, by name: message classes, enums and their values.

    `files` are names below `src/` without `.proto`, as in the descriptor set (`agent`, `google/rpc/status`).
    """
    return {name: value for file in files for name, value in _symbols_of(_file(file))}


@cache
def methods(service: str) -> Mapping[str, Method]:
    """The methods of a service by bare name; `service` is `<proto package>.<service>`. `KeyError` if unknown."""
    descriptor = _pool().FindServiceByName(service)
    return {
        method.name: Method(
            message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)
        )
        for method in descriptor.methods
    }


def _file(name: str) -> FileDescriptor:
    prefix = "" if name.startswith("google/") else "caa/wire/proto/"
    return _pool().FindFileByName(f"{prefix}{name}.proto")


def _symbols_of(file: FileDescriptor) -> Iterator[tuple[str, Any]]:
    yield "DESCRIPTOR", file
    for name, message in file.message_types_by_name.items():
        yield name, message_factory.GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        yield name, EnumTypeWrapper(enum)
        yield from ((value.name, value.number) for value in enum.values)
