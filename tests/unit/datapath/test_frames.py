"""Headers, envelopes, which requests are seen, and the two splitters against random fragmentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.datapath import edits, frames

NAMES = ["CreateContainer", "CreateSandbox", "DestroySandbox", "ReadStdout", "Check", "StartContainer", "X" * 150]
WATCH = frames.Watch(dict.fromkeys(NAMES[:3], lambda payload: payload[::-1]))
SERVICES = [frames.AGENT, "grpc.Health", "grpc.AgentServicf", "", "hypervisor.Hypervisor"]


def envelope(service: str, method: str, order: list[int]) -> bytes:
    parts = [
        edits.bytes_field(1, service.encode()) if service else b"",
        edits.bytes_field(2, method.encode()) if method else b"",
        edits.bytes_field(3, b"pay"),
        edits.varint_field(4, 60_000_000_000),
        edits.bytes_field(5, b"\x0a\x01k\x12\x01v"),
        edits.bytes_field(77, b"unknown"),
    ]
    return b"".join(parts[place] for place in order)


@given(st.sampled_from(SERVICES), st.sampled_from([*NAMES, ""]), st.permutations(range(6)))
def test_a_watched_request_is_rewritten_in_any_order(service: str, method: str, order: list[int]) -> None:
    body = envelope(service, method, order)
    frame = bytearray(frames.frame(7, body, kind=frames.REQUEST) + b"\xff" * frames.SLACK)
    watched = service == frames.AGENT and method in NAMES[:3]
    seen = WATCH.wants(frame, 0)
    assert seen or not watched
    at, highest = frames.scan_requests(frame, 10 + len(body), watch=WATCH)
    assert (at == 0) == seen
    assert highest == (0 if seen else 7)
    changed = WATCH.rewrite(bytes(frame[: 10 + len(body)]))
    if not watched:
        assert changed is None
        return
    assert changed is not None
    size, stream, kind, flags = frames.HEADER.unpack_from(changed)
    assert (size, stream, kind, flags) == (len(body), 7, frames.REQUEST, 0)
    assert bytes(changed[10:]) == body.replace(b"\x1a\x03pay", b"\x1a\x03yap")


def test_a_usual_request_is_decided_by_its_bytes() -> None:
    for method, expected in (("ReadStdout", False), ("StartContainer", False), ("CreateSandbox", True)):
        frame = bytearray(frames.call(frames.AGENT, method, stream=1, payload=b"x"))
        assert WATCH.wants(frame, 0) is expected
    frame = bytearray(frames.call("grpc.Health", "Check", stream=1, payload=b""))
    assert WATCH.wants(frame, 0) is False


def test_a_method_length_of_two_bytes_is_looked_at() -> None:
    body = b"\x0a\x11grpc.AgentService\x12\x8f\x00CreateContainer\x1a\x03pay"
    frame = bytearray(frames.frame(1, body, kind=frames.REQUEST))
    assert WATCH.wants(frame, 0)
    changed = WATCH.rewrite(bytes(frame))
    assert changed is not None
    assert changed.endswith(b"\x1a\x03yap")


def test_rewrite_refuses_what_is_no_message_and_what_grows_too_large() -> None:
    with pytest.raises(frames.Refused) as caught:
        WATCH.rewrite(frames.frame(1, b"\x0a\x11grpc.AgentService\x12\x0dCreateSandbox\x1a\x7f", kind=frames.REQUEST))
    assert caught.value.code == frames.INVALID_ARGUMENT
    big = frames.Watch({"CreateSandbox": lambda _: b"x" * frames.MAX_PAYLOAD})
    with pytest.raises(frames.Refused) as caught:
        big.rewrite(frames.call(frames.AGENT, "CreateSandbox", stream=1, payload=b"x"))
    assert caught.value.code == frames.RESOURCE_EXHAUSTED


def test_rewrite_to_nothing_leaves_the_field_out() -> None:
    empty = frames.Watch({"CreateSandbox": lambda _: b""})
    changed = empty.rewrite(frames.call(frames.AGENT, "CreateSandbox", stream=3, payload=b"x", timeout=5))
    assert changed == frames.call(frames.AGENT, "CreateSandbox", stream=3, payload=b"", timeout=5)


@given(st.lists(st.binary(max_size=60), max_size=12), st.data())
def test_splitter_gives_whole_frames_for_any_fragmentation(bodies: list[bytes], data: st.DataObject) -> None:
    sent = [frames.frame(2 * place + 1, body, kind=frames.REQUEST) for place, body in enumerate(bodies)]
    stream = b"".join(sent)
    splitter = frames.Splitter(frames.REQUEST, limit=40)
    found: list[tuple[int, bytes | int]] = []
    at = 0
    while at < len(stream):
        step = data.draw(st.integers(1, 80))
        found += splitter.feed(stream[at : at + step])
        at += step
    assert found == [
        (2 * place + 1, sent[place] if len(body) <= 40 else len(body)) for place, body in enumerate(bodies)
    ]


@pytest.mark.parametrize(
    ("size", "stream", "kind"),
    [(0, 1, 2), (0, 1, 3), (0, 1, 0x7F), (0, 2, 1), (0, 0, 1), (1 << 31, 1, 1), (0xFFFFFFFF, 1, 1)],
)
def test_malformed_headers(size: int, stream: int, kind: int) -> None:
    header = frames.HEADER.pack(size, stream, kind, 0)
    with pytest.raises(frames.Malformed):
        frames.Splitter(frames.REQUEST).feed(header)
    assert frames.scan_requests(bytearray(header), 10, watch=None) == (0, 0)
    assert frames.scan_requests(bytearray(header) + bytes(frames.SLACK), 10, watch=WATCH) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=10), st.integers(0, 9))
def test_scan_answers_ends_at_the_first_that_is_not_plain(shapes: list[tuple[int, bool]], cut: int) -> None:
    parts = [
        frames.frame(2 * place + 1, b"x" * size, kind=frames.RESPONSE if good else frames.REQUEST)
        for place, (size, good) in enumerate(shapes)
    ]
    good = next((place for place, (_, fine) in enumerate(shapes) if not fine), len(shapes))
    stream = bytearray(b"".join(parts))
    whole = sum(map(len, parts[:good]))
    assert frames.scan_answers(stream, len(stream), identity=0xFFFFFFFF)[0] == whole
    limit = 2 * cut - 1
    until = min(good, cut)
    assert frames.scan_answers(stream, len(stream), identity=limit)[0] == sum(map(len, parts[:until]))


def test_an_answer_under_way_reaches_beyond_the_end() -> None:
    stream = bytearray(frames.frame(1, b"x" * 100, kind=frames.RESPONSE))
    assert frames.scan_answers(stream, 30, identity=0xFFFFFFFF)[0] == 110
    assert frames.scan_answers(stream, 9, identity=0xFFFFFFFF) == (0, 0)


def test_answers_of_our_own() -> None:
    assert frames.answer(5) == b"\0\0\0\x02\0\0\0\x05\x02\0\x0a\x00"
    data = frames.refusal(7, frames.Refused(frames.UNAVAILABLE, "é" * 4096))
    status = edits.last_bytes(data[10:], 1)
    assert edits.last_varint(status, 1) == 14
    assert len(edits.last_bytes(status, 2)) == 4096


def test_with_timeout_changes_nothing_else() -> None:
    before, after = (frames.call("s.S", "StartVM", stream=9, payload=b"p", timeout=nano) for nano in (600, 5))
    assert frames.with_timeout(before, 5) == after


def test_request_reads_the_envelope() -> None:
    request = frames.Request(frames.call("s", "m", stream=1, payload=b"p", timeout=12)[10:])
    assert (request.service, request.method, request.payload, request.timeout) == ("s", "m", b"p", 12)
    assert frames.Request(edits.varint_field(4, -5)).timeout == 0
