"""One ttrpc connection as a pure state machine: bytes in, events out; actions in, bytes out.

Neither clocks nor sockets: the shells (`client`, `server`) own those. Unary calls only, as every service of Kata's is;
a peer that opens a stream is told so. After containerd/ttrpc 1.2: ids of requests are odd; an oversized or unreadable
request is answered on its own stream and the connection lives on.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from google.protobuf.message import DecodeError

from caa.errors import Code
from caa.wire import frames
from caa.wire.events import (
    ConnectionFailed,
    Event,
    FrameDropped,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
)
from caa.wire.frames import Frame, FrameType, Oversized
from caa.wire.proto.ttrpc import KeyValue, Request, Response, Status
from caa.wire.status import RpcError, error_of, status_of


class Role(Enum):
    """Who calls: the client."""

    CLIENT = auto()
    SERVER = auto()


class Stream(Enum):
    """One call: not begun or over, or waiting for its answer."""

    IDLE = auto()
    WAITING = auto()


class Input(Enum):
    """What can happen to a call."""

    SEND_REQUEST = auto()
    SEND_RESPONSE = auto()
    ABANDON = auto()
    RECEIVE_REQUEST = auto()
    RECEIVE_RESPONSE = auto()
    RECEIVE_DATA = auto()


# Whatever is not in this table is a violation: ours raises `IllegalAct`, the peer's ends the connection.
TRANSITIONS: Mapping[tuple[Role, Stream, Input], Stream] = MappingProxyType(
    {
        (Role.CLIENT, Stream.IDLE, Input.SEND_REQUEST): Stream.WAITING,
        (Role.CLIENT, Stream.WAITING, Input.RECEIVE_RESPONSE): Stream.IDLE,
        (Role.CLIENT, Stream.WAITING, Input.ABANDON): Stream.IDLE,
        (Role.CLIENT, Stream.IDLE, Input.ABANDON): Stream.IDLE,
        (Role.CLIENT, Stream.IDLE, Input.RECEIVE_RESPONSE): Stream.IDLE,  # late answer to an abandoned call
        (Role.CLIENT, Stream.IDLE, Input.RECEIVE_DATA): Stream.IDLE,
        (Role.CLIENT, Stream.WAITING, Input.RECEIVE_DATA): Stream.WAITING,
        (Role.SERVER, Stream.IDLE, Input.RECEIVE_REQUEST): Stream.WAITING,
        (Role.SERVER, Stream.WAITING, Input.SEND_RESPONSE): Stream.IDLE,
        (Role.SERVER, Stream.IDLE, Input.RECEIVE_DATA): Stream.IDLE,
        (Role.SERVER, Stream.WAITING, Input.RECEIVE_DATA): Stream.WAITING,
    }
)


class IllegalAct(RuntimeError):
    """We asked for something that the table does not allow, or that comes after the end: a bug of the caller."""


class Connection:
    """What both roles share: frames, the table, the bytes to send."""

    role: Role

    def __init__(self) -> None:
        self.closed = False
        self._reader = frames.FrameReader()
        self._waiting: set[int] = set()
        self._outgoing: list[bytes] = []

    @property
    def waiting(self) -> frozenset[int]:
        """The streams whose answer is still to come."""
        return frozenset(self._waiting)

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """What these bytes mean, in order. After `ConnectionFailed` and after `close` nothing is read any more."""
        events: list[Event] = []
        try:
            for frame in () if self.closed else self._reader.feed(data):
                events.append(self._received(frame))
        except (frames.MalformedFrame, _Violation) as error:
            self.close()
            events.append(ConnectionFailed(str(error)))
        return events

    def take_outgoing(self) -> bytes:
        """The bytes that the acts since the last call made; the caller must send them."""
        out = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
        self._outgoing.clear()
        return out

    def close(self) -> frozenset[int]:
        """End: returns the streams that waited. Twice is once."""
        waiting, self.closed = self.waiting, True
        self._waiting.clear()
        return waiting

    def _received(self, frame: Frame | Oversized) -> Event:
        raise NotImplementedError

    def _receive(self, stream: int, act: Input) -> bool:
        """Move the stream by what the peer sent; True when it was waiting before."""
        before = self._state(stream)
        if not self._moved(stream, act):
            raise _Violation(f"{act.name.lower().replace('_', ' ')} on stream {stream}, which is {before.name.lower()}")
        return before is Stream.WAITING

    def _act(self, stream: int, act: Input) -> None:
        before = self._state(stream)
        if self.closed or not self._moved(stream, act):
            where = "a closed connection" if self.closed else f"stream {stream}, which is {before.name}"
            raise IllegalAct(f"{act.name} on {where}")

    def _state(self, stream: int) -> Stream:
        return Stream.WAITING if stream in self._waiting else Stream.IDLE

    def _moved(self, stream: int, act: Input) -> bool:
        after = TRANSITIONS.get((self.role, self._state(stream), act))
        if after is Stream.WAITING:
            self._waiting.add(stream)
        elif after is Stream.IDLE:
            self._waiting.discard(stream)
        return after is not None


class ServerConnection(Connection):
    """The side that answers."""

    role = Role.SERVER

    def respond(self, stream: int, payload: bytes) -> None:
        """Answer with success; an answer above the frame's limit becomes RESOURCE_EXHAUSTED."""
        # An explicit empty status: old Go clients insist on one.
        self._respond(stream, Response(status=Status(), payload=payload))

    def fail(self, stream: int, error: Exception) -> None:
        """Answer with an error."""
        self._respond(stream, Response(status=status_of(error)))

    def _respond(self, stream: int, response: Response) -> None:
        self._act(stream, Input.SEND_RESPONSE)
        self._queue(stream, response)

    def _queue(self, stream: int, response: Response) -> None:
        body = response.SerializeToString()
        if len(body) > frames.MAX_BODY:
            text = f"the answer takes {len(body)} bytes, a ttrpc frame holds {frames.MAX_BODY}"
            body = Response(status=Status(code=Code.RESOURCE_EXHAUSTED, message=text)).SerializeToString()
        self._outgoing.append(frames.encode(stream, FrameType.RESPONSE, body=body))

    def _received(self, frame: Frame | Oversized) -> Event:
        if frame.type is FrameType.RESPONSE:
            self._receive(frame.stream, Input.RECEIVE_RESPONSE)
        if frame.type is FrameType.DATA:
            self._receive(frame.stream, Input.RECEIVE_DATA)
            return FrameDropped(frame.stream)
        self._receive(frame.stream, Input.RECEIVE_REQUEST)
        try:
            return _request(frame)
        except RpcError as error:
            self.fail(frame.stream, error)
            return RequestRefused(frame.stream, error.code, error.message)


class ClientConnection(Connection):
    """The side that calls. Stream ids are 1, 3, 5 …: a Go server insists on odd and increasing ones."""

    role = Role.CLIENT

    def __init__(self) -> None:
        super().__init__()
        self._next = 1

    def request(
        self, service: str, method: str, *, payload: bytes, timeout_nano: int = 0, metadata: Mapping[str, str]
    ) -> int:
        """Call; returns the stream that the answer will come on.

        Raises `RpcError` RESOURCE_EXHAUSTED, and sends nothing, when the request is above the frame's limit.
        """
        pairs = [KeyValue(key=key, value=value) for key, value in metadata.items()]
        envelope = Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano, metadata=pairs)
        body = envelope.SerializeToString()
        if len(body) > frames.MAX_BODY:
            text = f"{service}/{method}: the request takes {len(body)} bytes, a ttrpc frame holds {frames.MAX_BODY}"
            raise RpcError(Code.RESOURCE_EXHAUSTED, text)
        stream = self._next
        self._act(stream, Input.SEND_REQUEST)
        self._next += 2
        self._outgoing.append(frames.encode(stream, FrameType.REQUEST, body=body))
        return stream

    def abandon(self, stream: int) -> None:
        """Forget a call: its answer will be dropped. ttrpc has no message that would tell the peer."""
        if not self.closed:
            self._act(stream, Input.ABANDON)

    def _received(self, frame: Frame | Oversized) -> Event:
        if frame.type is FrameType.REQUEST:
            self._receive(frame.stream, Input.RECEIVE_REQUEST)
        if frame.type is FrameType.DATA:
            self._receive(frame.stream, Input.RECEIVE_DATA)
            return FrameDropped(frame.stream)
        if not self._receive(frame.stream, Input.RECEIVE_RESPONSE):
            return FrameDropped(frame.stream)
        payload, error = _response(frame)
        return ResponseReceived(frame.stream, payload, error)


class _Violation(Exception):
    """The peer sent what the table does not allow."""


def _request(frame: Frame | Oversized) -> RequestReceived:
    if isinstance(frame, Oversized):
        raise RpcError(Code.RESOURCE_EXHAUSTED, _too_large(frame))
    if frame.stream % 2 == 0:
        raise RpcError(Code.INVALID_ARGUMENT, f"stream id {frame.stream} of a request must be odd")
    if frame.flags & frames.REMOTE_OPEN:
        raise RpcError(Code.UNIMPLEMENTED, "streaming calls are not served, only unary ones")
    try:
        envelope = Request.FromString(frame.body)
    except DecodeError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"the ttrpc request cannot be read: {error}") from None
    metadata = {pair.key: pair.value for pair in reversed(envelope.metadata)}
    return RequestReceived(
        frame.stream, envelope.service, envelope.method, envelope.payload, envelope.timeout_nano, metadata
    )


def _response(frame: Frame | Oversized) -> tuple[bytes, RpcError | None]:
    if isinstance(frame, Oversized):
        return b"", RpcError(Code.RESOURCE_EXHAUSTED, _too_large(frame))
    try:
        envelope = Response.FromString(frame.body)
    except DecodeError as error:
        return b"", RpcError(Code.INTERNAL, f"the ttrpc response cannot be read: {error}")
    return envelope.payload, error_of(envelope.status)


def _too_large(frame: Oversized) -> str:
    return f"message length {frame.length} exceeds the maximum message size of {frames.MAX_BODY}"
