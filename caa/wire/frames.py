"""ttrpc frames: header in, header out, and the walk over a byte stream that was cut anywhere. Pure.

A frame is a header of 10 bytes, big endian (uint32 length of the body, uint32 stream id, uint8 type, uint8 flags), and
a body of at most 4 MiB (PROTOCOL.md and `channel.go` of containerd/ttrpc).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct(">IIBB")
MAX_BODY = 4 << 20
# A length above this is a negative int32: no peer means it, the stream has lost its frame boundaries.
_MAX_LENGTH = (1 << 31) - 1

REMOTE_CLOSED = 0x01
REMOTE_OPEN = 0x02
NO_DATA = 0x04  # in Go's source only, not in PROTOCOL.md


class FrameType(IntEnum):
    """What a frame carries."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class MalformedFrame(Exception):
    """Bytes that cannot be a frame: nothing after them can be understood."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame."""

    stream: int
    type: FrameType
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Oversized:
    """The header of a frame whose body is above `MAX_BODY`; the body is skipped, never kept."""

    stream: int
    type: FrameType
    length: int


def encode(stream: int, kind: FrameType, *, body: bytes, flags: int = 0) -> bytes:
    """One frame as bytes; `ValueError` when the body is above `MAX_BODY`."""
    if len(body) > MAX_BODY:
        raise ValueError(f"a ttrpc frame holds {MAX_BODY} bytes, not {len(body)}")
    return HEADER.pack(len(body), stream, kind, flags) + body


class FrameReader:
    """Cuts a byte stream into frames. Each byte is copied twice at most, however the stream is fragmented."""

    def __init__(self) -> None:
        self._kept = bytearray()  # the begun header, later the begun body
        self._header: tuple[int, FrameType, int, int] | None = None  # stream, type, flags, length
        self._skip = 0  # bytes of an oversized body still to come

    def feed(self, data: bytes | memoryview) -> Iterator[Frame | Oversized]:
        """Yield what `data` completes. The caller must drain the iterator before it reuses the memory of `data`.

        An oversized frame is announced as soon as its header is complete. Raises `MalformedFrame`.
        """
        view = memoryview(data)
        while True:
            view = self._skipped(view)
            if self._header is None:
                after_header = self._read_header(view)
                if after_header is None:
                    return
                view = after_header
                if self._skip:
                    yield self._oversized()
                    continue
            if (frame_and_rest := self._read_body(view)) is None:
                return
            frame, view = frame_and_rest
            yield frame

    def _skipped(self, view: memoryview) -> memoryview:
        skipped = min(self._skip, len(view))
        self._skip -= skipped
        return view[skipped:]

    def _read_header(self, view: memoryview) -> memoryview | None:
        rest = self._keep(view, HEADER.size)
        if rest is None:
            return None
        length, stream, kind, flags = HEADER.unpack(self._kept)
        self._kept = bytearray()
        self._header = (stream, _type(kind), flags, _size(length))
        self._skip = length if length > MAX_BODY else 0
        return rest

    def _oversized(self) -> Oversized:
        assert self._header is not None
        stream, kind, _, length = self._header
        self._header = None
        return Oversized(stream, kind, length)

    def _read_body(self, view: memoryview) -> tuple[Frame, memoryview] | None:
        assert self._header is not None
        stream, kind, flags, length = self._header
        if not self._kept and len(view) >= length:
            body, rest = bytes(view[:length]), view[length:]
        else:
            kept = self._keep(view, length)
            if kept is None:
                return None
            body, rest = bytes(self._kept), kept
            self._kept = bytearray()
        self._header = None
        return Frame(stream, kind, flags, body), rest

    def _keep(self, view: memoryview, size: int) -> memoryview | None:
        """Fill `_kept` to `size` bytes; the rest of `view`, or None while bytes are missing."""
        missing = size - len(self._kept)
        self._kept += view[:missing]
        return view[missing:] if len(self._kept) == size else None


def _size(length: int) -> int:
    if length > _MAX_LENGTH:
        raise MalformedFrame(f"a frame of negative size ({length - (1 << 32)})")
    return length


def _type(kind: int) -> FrameType:
    try:
        return FrameType(kind)
    except ValueError:
        raise MalformedFrame(f"a frame of the unknown type {kind}") from None
