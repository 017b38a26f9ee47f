"""Frames: any fragmentation, the limits, and what is malformed."""

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.wire import frames
from caa.wire.frames import Frame, FrameReader, FrameType, MalformedFrame, Oversized

FRAME = st.builds(
    Frame,
    stream=st.integers(0, 2**32 - 1),
    type=st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    body=st.binary(max_size=200),
)


def encoded(frame: Frame) -> bytes:
    return frames.encode(frame.stream, frame.type, body=frame.body, flags=frame.flags)


def fed(reader: FrameReader, raw: bytes, cuts: list[int]) -> list[Frame | Oversized]:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in itertools.pairwise(edges)]
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(st.lists(FRAME, max_size=6), st.lists(st.integers(0, 2000), max_size=30))
def test_any_split_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    raw = b"".join(map(encoded, sent))
    assert fed(FrameReader(), raw, cuts) == sent


def test_one_byte_at_a_time() -> None:
    sent = [Frame(1, FrameType.REQUEST, 0, b"ab"), Frame(3, FrameType.DATA, 4, b"")]
    raw = b"".join(map(encoded, sent))
    assert fed(FrameReader(), raw, list(range(len(raw)))) == sent


def test_the_header_is_big_endian() -> None:
    assert frames.encode(0x01020304, FrameType.REQUEST, body=b"x", flags=4) == b"\0\0\0\1\1\2\3\4\1\4x"


def test_the_buffer_may_be_reused_after_feeding() -> None:
    buffer = bytearray(encoded(Frame(1, FrameType.REQUEST, 0, b"body")))
    reader = FrameReader()
    got = list(reader.feed(memoryview(buffer)[:12])) + list(reader.feed(memoryview(buffer)[12:]))
    buffer[:] = bytes(len(buffer))
    assert got == [Frame(1, FrameType.REQUEST, 0, b"body")]


@given(st.lists(st.integers(0, 5 << 20), max_size=10))
def test_an_oversized_body_is_announced_once_and_skipped(cuts: list[int]) -> None:
    length = frames.MAX_BODY + 1
    after = Frame(3, FrameType.REQUEST, 0, b"next")
    raw = frames.HEADER.pack(length, 1, FrameType.REQUEST, 0) + bytes(length) + encoded(after)
    assert fed(FrameReader(), raw, cuts) == [Oversized(1, FrameType.REQUEST, length), after]


def test_an_oversized_body_is_announced_before_it_arrives() -> None:
    header = frames.HEADER.pack(2**31 - 1, 5, FrameType.REQUEST, 0)
    assert list(FrameReader().feed(header)) == [Oversized(5, FrameType.REQUEST, 2**31 - 1)]


def test_a_body_at_the_limit_passes() -> None:
    frame = Frame(1, FrameType.REQUEST, 0, bytes(frames.MAX_BODY))
    assert list(FrameReader().feed(encoded(frame))) == [frame]
    with pytest.raises(ValueError, match="4194305"):
        frames.encode(1, FrameType.REQUEST, body=bytes(frames.MAX_BODY + 1))


def test_nothing_is_allocated_for_a_length_alone() -> None:
    reader = FrameReader()
    assert list(reader.feed(frames.HEADER.pack(frames.MAX_BODY, 1, FrameType.REQUEST, 0) + b"x")) == []
    assert len(reader._kept) == 1


@pytest.mark.parametrize(
    ("length", "kind", "reason"),
    [
        (2**31, 1, "negative size \\(-2147483648\\)"),
        (2**32 - 1, 1, "negative size \\(-1\\)"),
        (0, 0, "unknown type 0"),
        (0, 4, "unknown type 4"),
        (0, 255, "unknown type 255"),
    ],
)
def test_malformed_headers(length: int, kind: int, reason: str) -> None:
    good = Frame(1, FrameType.REQUEST, 0, b"")
    feeding = FrameReader().feed(encoded(good) + frames.HEADER.pack(length, 1, kind, 0))
    assert next(feeding) == good
    with pytest.raises(MalformedFrame, match=reason):
        next(feeding)


@given(st.binary(max_size=400))
def test_noise_never_does_anything_else(noise: bytes) -> None:
    got: list[object] = []
    with suppress(MalformedFrame):
        got.extend(FrameReader().feed(noise))
    assert all(isinstance(frame, Frame | Oversized) for frame in got)
