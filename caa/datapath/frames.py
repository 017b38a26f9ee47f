"""ttrpc frames: the header, the envelope of a call, which requests must be seen, answers of our own. Pure.

Header, 10 bytes, big endian: uint32 length of the payload, uint32 stream id, uint8 type, uint8 flags (containerd/ttrpc
PROTOCOL.md). Payload limit 4 MiB, as both ttrpc libraries have it. Type 0x7F on stream 0 is left for our own sessions.
"""

from __future__ import annotations

from struct import Struct

from caa.datapath import edits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Rewrite = Callable[[bytes], bytes]
    Buffer = bytes | bytearray | memoryview
    # Calls that wait for an answer, by upstream id: the request's frame as it was sent, empty for one of over `NOTED`.
    Flight = dict[int, bytes | bytearray]

HEADER = Struct(">IIBB")
HEADER_SIZE = 10
REQUEST = 1
RESPONSE = 2
MAX_PAYLOAD = 4 << 20
TOO_LONG = 1 << 31

CANCELLED = 1
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

AGENT = "grpc.AgentService"
# What a usual envelope begins with: field 1 (service), then the tag of field 2 (method).
_AGENT_PREFIX = b"\x0a\x11grpc.AgentService\x12"
_HEALTH_PREFIX = b"\x0a\x0bgrpc.Health\x12"
_METHOD_AT = HEADER_SIZE + len(_AGENT_PREFIX)
_SERVICE_LENGTH_AT = HEADER_SIZE + 1
_HEALTH_LENGTH = len("grpc.Health")
CHECK = _HEALTH_PREFIX + b"\x05Check"
SLACK = 32
# Requests of up to this payload are kept whole while they are in flight: reads and long polls have 300 bytes at most.
NOTED = 1 << 10
_head = Struct(">IIB").unpack_from


class Malformed(Exception):
    """The peer does not speak ttrpc, or not its own half of it: its connection ends."""


class Refused(Exception):
    """A call that we answer ourselves: its status code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Later(Exception):
    """A rewrite that takes time: `start(done)` begins it, and the loop calls `done` once, with payload or `Refused`."""

    def __init__(self, start: Callable[[Callable[[bytes | Refused], object]], object]) -> None:
        super().__init__("later")
        self.start = start


class Request:
    """The envelope of a call. `timeout` is in nanoseconds, 0 means none."""

    __slots__ = ("method", "payload", "service", "timeout")

    def __init__(self, envelope: bytes) -> None:
        """Raises `edits.EditError`."""
        self.service = edits.last_bytes(envelope, 1).decode("utf-8", "replace")
        self.method = edits.last_bytes(envelope, 2).decode("utf-8", "replace")
        self.payload = edits.last_bytes(envelope, 3)
        timeout = edits.last_varint(envelope, 4)
        self.timeout = timeout if timeout < 1 << 63 else 0


class Watch:
    """The requests of `grpc.AgentService` that a hop has to see whole, with what to do about them."""

    __slots__ = ("_keys", "_rewrites", "lengths")

    def __init__(self, rewrites: Mapping[str, Rewrite]) -> None:
        names = [name.encode() for name in rewrites]
        self._rewrites = dict(rewrites)
        self._keys = frozenset(bytes((len(name),)) + name for name in names)
        # A length of several bytes is legal, nobody sends it: to be looked at.
        self.lengths = frozenset([*map(len, names), *range(128, 256)])

    def __bool__(self) -> bool:
        return bool(self._keys)

    def wants(self, data: bytes | bytearray, at: int) -> bool:
        """Whether the frame at `at`, all of it there, has to be seen.

        A usual frame is decided by comparing bytes. One whose envelope begins with anything else is seen, so that an
        unusual order of fields is no way around a rewrite.
        """
        start = at + HEADER_SIZE
        size, _, _ = _head(data, at)
        end = start + size
        if not data.startswith(_AGENT_PREFIX, start, end):
            return not data.startswith(_HEALTH_PREFIX, start, end)
        if size == len(_AGENT_PREFIX):
            return True
        length = data[at + _METHOD_AT]
        if length not in self.lengths:
            return False
        return length > 127 or bytes(data[at + _METHOD_AT : at + _METHOD_AT + 1 + length]) in self._keys

    def rewrite(self, frame: bytes) -> bytearray | None:
        """The frame that has to go on in place of `frame`, or None when it goes on as it is.

        Raises `Refused`, or `Later`.
        """
        envelope = frame[HEADER_SIZE:]
        try:
            request = Request(envelope)
            change = self._rewrites.get(request.method) if request.service == AGENT else None
            if change is None:
                return None
            payload = change(request.payload)
        except edits.EditError as error:
            raise Refused(INVALID_ARGUMENT, f"the request is not a protobuf message: {error}") from error
        return None if payload == request.payload else with_payload(frame, payload)


def scan_requests(data: bytearray, end: int, *, watch: Watch | None, flight: Flight | None = None) -> tuple[int, int]:
    """How far `data[:end]` is a row of whole requests that may go on as they are, and the highest of their ids.

    They are entered in `flight`.

    This and `scan_answers` are met by every frame, so they repeat in one loop what `check` and `Watch.wants` say.
    A look at a short frame may reach beyond `end`: `data` must be `SLACK` bytes longer, whatever they hold.
    """
    at = highest = 0
    last_header = end - HEADER_SIZE
    while at <= last_header:
        size, stream, kind = _head(data, at)
        after = at + HEADER_SIZE + size
        if after > end or kind != REQUEST or not stream & 1:
            break
        if watch is not None:
            if data[at + _SERVICE_LENGTH_AT] == _HEALTH_LENGTH:
                usual = data.startswith(_HEALTH_PREFIX, at + HEADER_SIZE)
            else:
                usual = data.startswith(_AGENT_PREFIX, at + HEADER_SIZE) and data[at + _METHOD_AT] not in watch.lengths
            if not usual and watch.wants(data, at):
                break
        if stream > highest:  # noqa: PLR1730  # max() is a call
            highest = stream
        if flight is not None:
            flight[stream] = data[at:after] if size <= NOTED else b""
        at = after
    return at, highest


def scan_answers(data: bytearray, end: int, *, identity: int, flight: Flight | None = None) -> tuple[int, int]:
    """How far `data[:end]` is a row of answers to streams up to `identity`, and the stream of the last one.

    That one may reach beyond `end`; those that are whole are taken out of `flight`.
    """
    at = stream = 0
    last_header = end - HEADER_SIZE
    while at <= last_header:
        size, stream, kind = _head(data, at)
        if kind != RESPONSE or not stream & 1 or stream > identity or size > MAX_PAYLOAD:
            break
        at += HEADER_SIZE + size
        if flight and at <= end:
            flight.pop(stream, None)
    return at, stream


def is_check(data: bytes | bytearray, at: int) -> bool:
    """Whether the request at `at` is a health check with a usual envelope."""
    return data.startswith(CHECK, at + HEADER_SIZE)


def check(header: tuple[int, int, int, int], expected: int) -> None:
    """Raise `Malformed` unless a header can come from a peer that sends frames of type `expected`."""
    size, stream, kind, _ = header
    if kind != expected:
        raise Malformed(f"a frame of type {kind}, only type {expected} may come from this side")
    if not stream & 1:
        raise Malformed(f"stream id {stream} is even, clients use odd ones")
    if size >= TOO_LONG:
        raise Malformed(f"a frame of {size} bytes (negative as an int32)")


def too_large(size: int) -> Refused:
    """The refusal of a payload beyond the limit; worded as the ttrpc libraries do."""
    return Refused(RESOURCE_EXHAUSTED, f"message length {size} exceed maximum message size of {MAX_PAYLOAD}")


def frame(stream: int, payload: bytes, *, kind: int, flags: int = 0) -> bytes:
    """A whole frame."""
    return HEADER.pack(len(payload), stream, kind, flags) + payload


def answer(stream: int, payload: bytes = b"") -> bytes:
    """The frame of a successful answer: an explicit empty status, then the message."""
    body = edits.bytes_field(1, b"") + (edits.bytes_field(2, payload) if payload else b"")
    return frame(stream, body, kind=RESPONSE)


def refusal(stream: int, refused: Refused) -> bytes:
    """The frame that answers a call with a status; the text is cut at 4 KiB."""
    text = refused.text.encode("utf-8", "replace")[:4096]
    status = edits.varint_field(1, refused.code) + edits.bytes_field(2, text)
    return frame(stream, edits.bytes_field(1, status), kind=RESPONSE)


def call(service: str, method: str, *, stream: int, payload: bytes, timeout: int = 0) -> bytes:
    """The frame of a request; `timeout` in nanoseconds, 0 means none."""
    fields: Iterable[bytes] = (
        edits.bytes_field(1, service.encode()),
        edits.bytes_field(2, method.encode()),
        edits.bytes_field(3, payload) if payload else b"",
        edits.varint_field(4, timeout) if timeout else b"",
    )
    return frame(stream, b"".join(fields), kind=REQUEST)


def with_payload(data: bytes, payload: bytes) -> bytearray:
    """The same request with another payload. Raises `Refused` when it grows beyond the limit."""
    envelope = edits.replace(data[HEADER_SIZE:], 3, field=edits.bytes_field(3, payload) if payload else b"")
    if len(envelope) > MAX_PAYLOAD:
        raise too_large(len(envelope))
    _, stream, kind, flags = HEADER.unpack_from(data)
    return bytearray(HEADER.pack(len(envelope), stream, kind, flags) + envelope)


def with_timeout(data: bytes, timeout: int) -> bytes:
    """The same request with another `timeout_nano`, everything else byte for byte."""
    _, stream, kind, flags = HEADER.unpack_from(data)
    envelope = edits.replace(data[HEADER_SIZE:], 4, field=edits.varint_field(4, timeout))
    return frame(stream, envelope, kind=kind, flags=flags)


def stream_of(data: Buffer) -> int:
    """The stream id of a frame."""
    _, stream, _ = _head(data)
    return int(stream)


class Splitter:
    """Bytes in, whole frames out, for connections off the fast path; at most one frame is stored."""

    __slots__ = ("_expected", "_limit", "_part", "_skip")

    def __init__(self, expected: int, limit: int = MAX_PAYLOAD) -> None:
        self._expected = expected
        self._limit = limit
        self._part = bytearray()
        self._skip = 0

    def state(self) -> tuple[bytes, int]:
        """The beginning of a frame that is not whole, and the bytes still to come of one that is dropped."""
        return bytes(self._part), self._skip

    def resume(self, part: bytes, skip: int) -> None:
        """Go on where another one was."""
        self._part[:] = part
        self._skip = skip

    def feed(self, data: Buffer) -> list[tuple[int, bytes | int]]:
        """(stream, whole frame) for each frame; (stream, size) for one beyond the limit, whose body is dropped.

        Raises `Malformed`; what came before it in the same bytes is lost with the connection.
        """
        found: list[tuple[int, bytes | int]] = []
        part = self._part
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        part += data[skipped:] if skipped else data
        while len(part) >= HEADER_SIZE:
            header = HEADER.unpack_from(part)
            check(header, self._expected)
            size, stream, _, _ = header
            end = HEADER_SIZE + size
            if size > self._limit:
                found.append((stream, size))
                self._skip = max(end - len(part), 0)
            elif end > len(part):
                break
            else:
                found.append((stream, bytes(part[:end])))
            del part[:end]
        return found
