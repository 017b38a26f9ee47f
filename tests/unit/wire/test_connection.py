"""The machine: every state with every input, any split of bytes, a client plugged into a server in memory."""

from collections.abc import Callable
from itertools import pairwise, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caa.errors import Code, NotFound
from caa.wire import frames
from caa.wire.connection import TRANSITIONS, ClientConnection, Connection, IllegalAct, Input, Role, ServerConnection
from caa.wire.connection import Stream as StreamState
from caa.wire.events import ConnectionFailed, Event, FrameDropped, RequestReceived, RequestRefused, ResponseReceived
from caa.wire.frames import FrameType
from caa.wire.proto.ttrpc import KeyValue, Request, Response, Status
from caa.wire.status import RpcError

LIMIT = frames.MAX_BODY


def request_frame(stream: int = 1, flags: int = 0, **fields: object) -> bytes:
    body = Request(**{"service": "s", "method": "m", **fields}).SerializeToString()  # type: ignore[arg-type]
    return frames.encode(stream, FrameType.REQUEST, body=body, flags=flags)


def response_frame(stream: int, response: Response | None = None) -> bytes:
    return frames.encode(stream, FrameType.RESPONSE, body=(response or Response()).SerializeToString())


DATA_FRAME = frames.encode(1, FrameType.DATA, body=b"x", flags=frames.NO_DATA)
CLOSING = frames.NO_DATA | frames.REMOTE_CLOSED


def answers(machine: Connection) -> list[tuple[int, Response]]:
    got = frames.FrameReader().feed(machine.take_outgoing())
    return [(frame.stream, Response.FromString(frame.body)) for frame in got if isinstance(frame, frames.Frame)]


def calling(machine: ClientConnection, payload: bytes = b"") -> int:
    return machine.request("s", "m", payload=payload, metadata={})


# every state x input pair


def server_in(state: StreamState) -> ServerConnection:
    machine = ServerConnection()
    if state is StreamState.WAITING:
        machine.receive(request_frame(1))
    return machine


def client_in(state: StreamState) -> ClientConnection:
    machine = ClientConnection()
    if state is StreamState.WAITING:
        calling(machine)
    return machine


INPUTS: dict[tuple[Role, Input], Callable[..., object]] = {
    (Role.CLIENT, Input.ABANDON): lambda machine: machine.abandon(1),
    (Role.SERVER, Input.SEND_RESPONSE): lambda machine: machine.respond(1, b""),
    **{(role, Input.RECEIVE_REQUEST): lambda machine: machine.receive(request_frame(1)) for role in Role},
    **{(role, Input.RECEIVE_RESPONSE): lambda machine: machine.receive(response_frame(1)) for role in Role},
    **{(role, Input.RECEIVE_DATA): lambda machine: machine.receive(DATA_FRAME) for role in Role},
}


@pytest.mark.parametrize(("state", "pair"), list(product(StreamState, INPUTS)))
def test_every_state_with_every_input(state: StreamState, pair: tuple[Role, Input]) -> None:
    role, act = pair
    machine = server_in(state) if role is Role.SERVER else client_in(state)
    after = TRANSITIONS.get((role, state, act))
    if after is None and not act.name.startswith("RECEIVE"):
        with pytest.raises(IllegalAct, match=act.name):
            INPUTS[pair](machine)
        return
    events = INPUTS[pair](machine)
    failed = isinstance(events, list) and any(isinstance(event, ConnectionFailed) for event in events)
    assert failed == machine.closed == (after is None)
    assert (1 in machine.waiting) == (after is StreamState.WAITING)


@pytest.mark.parametrize("machine", [server_in(StreamState.WAITING), client_in(StreamState.WAITING)])
def test_after_the_end_nothing_is_read_and_nothing_may_be_said(machine: Connection) -> None:
    machine.take_outgoing()
    assert machine.close() == {1}
    assert machine.close() == frozenset()
    assert machine.receive(request_frame(3) + response_frame(1)) == []
    with pytest.raises(IllegalAct, match="closed"):
        machine.respond(1, b"") if isinstance(machine, ServerConnection) else calling(machine)  # type: ignore[arg-type]
    assert machine.take_outgoing() == b""


def test_abandoning_after_the_end_is_allowed() -> None:
    machine = client_in(StreamState.WAITING)
    machine.close()
    machine.abandon(1)
    assert machine.waiting == frozenset()


# the server


def test_a_request_with_everything() -> None:
    pairs = [KeyValue(key="a", value="1"), KeyValue(key="a", value="2"), KeyValue(key="b", value="3")]
    raw = request_frame(5, payload=b"p", timeout_nano=7, metadata=pairs)
    assert ServerConnection().receive(raw) == [RequestReceived(5, "s", "m", b"p", 7, {"a": "1", "b": "3"})]


def test_success_carries_an_explicit_empty_status() -> None:
    machine = server_in(StreamState.WAITING)
    machine.respond(1, b"yes")
    assert machine.take_outgoing() == b"\0\0\0\7\0\0\0\1\2\0" + b"\x0a\x00\x12\x03yes"


def test_failure() -> None:
    machine = server_in(StreamState.WAITING)
    machine.fail(1, NotFound("no"))
    [(stream, response)] = answers(machine)
    assert (stream, response.status.code, response.status.message) == (1, Code.NOT_FOUND, "no")


def test_an_answer_above_the_limit() -> None:
    machine = server_in(StreamState.WAITING)
    machine.respond(1, bytes(LIMIT))
    [(_, response)] = answers(machine)
    assert response.status.code == Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("raw", "stream", "code"),
    [
        (request_frame(2), 2, Code.INVALID_ARGUMENT),
        (request_frame(0), 0, Code.INVALID_ARGUMENT),
        (frames.encode(3, FrameType.REQUEST, body=b"\xff\xff\xff"), 3, Code.INVALID_ARGUMENT),
        (frames.encode(3, FrameType.REQUEST, body=b"\x0a\x02\xff\xfe"), 3, Code.INVALID_ARGUMENT),  # not UTF-8
        (frames.HEADER.pack(LIMIT + 1, 3, FrameType.REQUEST, 0) + bytes(LIMIT + 1), 3, Code.RESOURCE_EXHAUSTED),
        (request_frame(3, frames.REMOTE_OPEN), 3, Code.UNIMPLEMENTED),
    ],
)
def test_refused_on_its_own_stream_and_the_connection_lives(raw: bytes, stream: int, code: Code) -> None:
    machine = ServerConnection()
    first, second = machine.receive(raw + request_frame(7))
    assert isinstance(first, RequestRefused)
    assert (first.stream, first.code) == (stream, code)
    assert isinstance(second, RequestReceived)
    [(answered, response)] = answers(machine)
    assert (answered, response.status.code, response.status.message) == (stream, code, first.message)
    assert machine.waiting == {7}


def test_no_data_flag() -> None:
    machine = ServerConnection()
    [event] = machine.receive(frames.encode(1, FrameType.REQUEST, body=b"", flags=CLOSING))
    assert event == RequestReceived(1, "", "", b"", 0, {})
    closing = frames.encode(1, FrameType.DATA, body=b"", flags=CLOSING)
    assert machine.receive(closing) == [FrameDropped(1)]
    assert machine.waiting == {1}


def test_a_stream_id_may_come_again_after_its_answer() -> None:
    machine = server_in(StreamState.WAITING)
    machine.respond(1, b"")
    assert isinstance(machine.receive(request_frame(1))[0], RequestReceived)


def test_a_violation_ends_the_connection_after_what_came_before() -> None:
    machine = ServerConnection()
    events = machine.receive(request_frame(1) + request_frame(1) + request_frame(3))
    assert [type(event) for event in events] == [RequestReceived, ConnectionFailed]
    assert events[1] == ConnectionFailed("receive request on stream 1, which is waiting")
    assert machine.receive(request_frame(5)) == []


# the client


def test_ids_are_odd_and_grow() -> None:
    machine = ClientConnection()
    assert [calling(machine) for _ in range(4)] == [1, 3, 5, 7]


def test_a_request_above_the_limit_sends_nothing_and_uses_no_id() -> None:
    machine = ClientConnection()
    with pytest.raises(RpcError) as refused:
        calling(machine, bytes(LIMIT))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert machine.take_outgoing() == b""
    assert calling(machine) == 1


def test_late_and_unknown_answers_are_dropped() -> None:
    machine = client_in(StreamState.WAITING)
    machine.abandon(1)
    assert machine.receive(response_frame(1) + response_frame(9)) == [FrameDropped(1), FrameDropped(9)]


def test_a_go_server_leaves_the_status_out() -> None:
    machine = client_in(StreamState.WAITING)
    assert machine.receive(response_frame(1, Response(payload=b"p"))) == [ResponseReceived(1, b"p", None)]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frames.encode(1, FrameType.RESPONSE, body=b"\xff"), Code.INTERNAL),
        (frames.HEADER.pack(LIMIT + 1, 1, FrameType.RESPONSE, 0) + bytes(LIMIT + 1), Code.RESOURCE_EXHAUSTED),
        (response_frame(1, Response(status=Status(code=5, message="gone"))), Code.NOT_FOUND),
    ],
)
def test_answers_that_fail_one_call(raw: bytes, code: Code) -> None:
    machine = client_in(StreamState.WAITING)
    later = calling(machine)
    first, second = machine.receive(raw + response_frame(later))
    assert isinstance(first, ResponseReceived)
    assert first.error is not None
    assert first.error.code is code
    assert second == ResponseReceived(later, b"", None)


# both


CALL = st.tuples(st.text(max_size=5), st.binary(max_size=300), st.integers(0, 2**63 - 1), st.booleans())


def pumped(source: Connection, target: Connection, cuts: list[int]) -> list[Event]:
    raw = source.take_outgoing()
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [event for at, end in pairwise(edges) for event in target.receive(raw[at:end])]


@settings(max_examples=60)
@given(st.lists(CALL, max_size=8), st.lists(st.integers(0, 3000), max_size=20), st.randoms())
def test_a_client_plugged_into_a_server(
    calls: list[tuple[str, bytes, int, bool]], cuts: list[int], order: Random
) -> None:
    client, server = ClientConnection(), ServerConnection()
    sent = {
        client.request("s", method, payload=payload, timeout_nano=timeout, metadata={"k": method}): (payload, good)
        for method, payload, timeout, good in calls
    }
    received = pumped(client, server, cuts)
    assert received == [
        RequestReceived(stream, "s", method, payload, timeout, {"k": method})
        for stream, (method, payload, timeout, _) in zip(sent, calls, strict=True)
    ]
    shuffled = list(sent)
    order.shuffle(shuffled)
    for stream in shuffled:
        payload, good = sent[stream]
        server.respond(stream, payload) if good else server.fail(stream, NotFound("gone"))
    answered = pumped(server, client, cuts)
    assert [event.stream for event in answered if isinstance(event, ResponseReceived)] == shuffled
    for event in answered:
        assert isinstance(event, ResponseReceived)
        payload, good = sent[event.stream]
        assert (event.error is None, event.payload) == ((True, payload) if good else (False, b""))
    assert client.waiting == server.waiting == frozenset()


PIECE = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda kind, body, flags: frames.encode(1, kind, body=body, flags=flags),
        st.sampled_from(FrameType),
        st.binary(),
        st.integers(0, 7),
    ),
    st.builds(request_frame, st.integers(0, 9), st.integers(0, 7)),
    st.builds(response_frame, st.integers(0, 9)),
)


@given(st.lists(PIECE, max_size=8), st.lists(st.integers(0, 600), max_size=10), st.sampled_from(Role))
def test_noise_gives_the_same_events_however_it_is_split(noises: list[bytes], cuts: list[int], role: Role) -> None:
    noise = b"".join(noises)
    whole, split = (ClientConnection() if role is Role.CLIENT else ServerConnection() for _ in range(2))
    edges = [0, *sorted(cut % (len(noise) + 1) for cut in cuts), len(noise)]
    pieces = [noise[at:end] for at, end in pairwise(edges)]
    if isinstance(whole, ClientConnection) and isinstance(split, ClientConnection):
        assert calling(whole) == calling(split) == 1
    events = whole.receive(noise)
    assert str([event for piece in pieces for event in split.receive(piece)]) == str(events)
    assert whole.take_outgoing() == split.take_outgoing()
