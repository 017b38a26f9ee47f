"""The nouns as JSON and back: a record of the store is the JSON of its dataclass. Pure.

Driven by the dataclasses' own annotations, so a new field needs no line here; its default serves old records.
"""

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from types import MappingProxyType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from caa.errors import StateError
from caa.model.sandbox import Sandbox

VERSION = 1  # of the record's meaning; raise it with a migration in `caa.sandbox.store`

_ADDRESSES: Mapping[Any, Callable[[str], Any]] = MappingProxyType(
    {
        frozenset((IPv4Address, IPv6Address)): ip_address,
        frozenset((IPv4Interface, IPv6Interface)): ip_interface,
        frozenset((IPv4Network, IPv6Network)): ip_network,
    }
)


class NewerRecord(StateError):
    """The record is not damaged: it is for a later version of this program."""


def encode(record: Sandbox) -> str:
    """A record as JSON text."""
    return json.dumps(_plain(record), separators=(",", ":"), ensure_ascii=False)


def decode(text: str, *, version: int = VERSION) -> Sandbox:
    """The record of a JSON text; raises `StateError` when it is none, `NewerRecord` when a newer program wrote it."""
    if version > VERSION:
        raise NewerRecord(f"a record of the store has version {version}, this program knows {VERSION}: update caa")
    try:
        record = _typed(Sandbox, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"a record of the store cannot be read: {type(error).__name__}: {error}") from error
    assert isinstance(record, Sandbox)
    return record


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)  # the address types


def _typed(kind: Any, value: Any) -> Any:
    if isinstance(kind, NewType):
        kind = kind.__supertype__
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value)
    if get_origin(kind) is tuple:
        return tuple(_typed(get_args(kind)[0], item) for item in value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _scalar(kind, value)


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    present = tuple(kind for kind in kinds if kind is not type(None))
    if value is None and len(present) < len(kinds):
        return None
    parse = _ADDRESSES.get(frozenset(present))
    return parse(value) if parse else _typed(present[0], value)


def _scalar(kind: Any, value: Any) -> Any:
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
