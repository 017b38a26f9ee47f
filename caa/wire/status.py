"""Errors of ours as `google.rpc.Status` and back; codes, sentences and details pass unchanged. Pure."""

from collections.abc import Iterable
from typing import Protocol

from caa.errors import CaaError, Code
from caa.wire.proto.ttrpc import Any, Status

_RETRYABLE = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


class Detail(Protocol):
    """A `google.protobuf.Any`, of our pool or of any other."""

    type_url: str
    value: bytes


class RpcError(CaaError):
    """What a peer answered, or what a handler wants the peer to read word for word."""

    def __init__(self, code: Code, message: str, *, details: Iterable[Detail] = ()) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the peer's code, per instance
        self.retryable = code in _RETRYABLE  # type: ignore[misc]
        self.message = message
        self.details = tuple(Any(type_url=detail.type_url, value=detail.value) for detail in details)


def status_of(error: Exception) -> Status:
    """The status that tells a peer of `error`: its own code if it is one of ours, INTERNAL otherwise."""
    code = error.code if isinstance(error, CaaError) else Code.INTERNAL
    code = code or Code.UNKNOWN  # OK would tell the peer that the call succeeded
    details = error.details if isinstance(error, RpcError) else ()
    return Status(code=code, message=_sendable(_sentence(error)), details=details)


def error_of(status: Status) -> RpcError | None:
    """The error that a status tells of, None for OK. A code that gRPC does not know becomes UNKNOWN."""
    if status.code == Code.OK:
        return None
    known = status.code in Code.__members__.values()
    return RpcError(Code(status.code) if known else Code.UNKNOWN, status.message, details=status.details)


def _sentence(error: Exception) -> str:
    if isinstance(error, CaaError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _sendable(text: str) -> str:
    """protobuf takes no lone surrogates, and file names of the world hold some (`os.fsdecode`)."""
    return text.encode("utf-8", "replace").decode()
