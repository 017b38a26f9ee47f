"""What receiving bytes can mean: one frozen dataclass each, named in the past tense. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from caa.errors import Code
from caa.wire.status import RpcError


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer calls a method: fires when the frame is whole and its envelope could be read.

    `timeout_nano` is relative, 0 means without bound. Of several values of one metadata key the first is kept.
    """

    stream: int
    service: str
    method: str
    payload: bytes
    timeout_nano: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request that was answered with an error by the protocol itself; nothing is left to do."""

    stream: int
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """An answer to a call of ours that still waits. `error` is None for status OK."""

    stream: int
    payload: bytes
    error: RpcError | None


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """A frame that means nothing now: the late answer to a call that was given up, or data of a closed stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke the protocol: this connection is over, nothing that follows is read."""

    reason: str


Event = RequestReceived | RequestRefused | ResponseReceived | FrameDropped | ConnectionFailed
