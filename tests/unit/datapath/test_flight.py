"""The calls in flight of a mux: always exactly those without an answer, and their fate on another connection."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caa.datapath import edits, frames
from caa.datapath.branch import MAX_CALLS
from caa.datapath.flight import LONG_POLL, OTHER, SAFE, kind_of, reask
from caa.datapath.mux import Mux


class Ear:
    """A socket that gives what is put into it and keeps what is written."""

    def __init__(self, fd: int) -> None:
        self.fd, self.inbox, self.out, self.closed = fd, bytearray(), bytearray(), False

    def fileno(self) -> int:
        return self.fd

    def recv_into(self, buffer: memoryview) -> int:
        taken = self.inbox[: len(buffer)]
        if not taken:
            raise BlockingIOError
        del self.inbox[: len(taken)]
        buffer[: len(taken)] = taken
        return len(taken)

    def send(self, data: Any) -> int:
        self.out += data
        return len(data)


class Field:
    """A loop that does what it is told, a remembering mux, and the upstream socket."""

    def __init__(self) -> None:
        self.raw = bytearray((1 << 17) + frames.SLACK)
        self.buffer = memoryview(self.raw)[: 1 << 17]
        self.handlers: dict[int, Any] = {}
        self.counts: dict[str, int] = {}
        loop: Any = self
        self.up = Ear(1)
        up: Any = self.up
        self.ends: list[str] = []
        self.mux = Mux(loop, up, tls=None, watch=None, keeper=self)
        self.mux.remember()

    def add(self, fd: int, _mask: int, *, owner: Any) -> None:
        self.handlers[fd] = owner.ready

    def ask(self, _fd: int, _events: int) -> None: ...
    def mute(self, _fd: int, _events: int) -> None: ...

    def close(self, thing: Ear, _fd: int) -> None:
        thing.closed = True

    def count(self, what: str, _text: str = "") -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def lost(self, why: str) -> None:
        self.ends.append(why)

    def shim(self) -> Any:
        ear: Any = Ear(10 + len(self.handlers))
        self.mux.attach(ear, None)
        return ear

    def say(self, ear: Any, data: bytes) -> None:
        """`data` arrives there in one piece."""
        ear.inbox += data
        self.handlers[ear.fd](1)

    def flight(self) -> list[int]:
        return sorted(self.mux.flight or {})


def ask(stream: int, method: str = "ReadStdout", *, service: str = frames.AGENT, size: int = 20) -> bytes:
    return frames.call(service, method, stream=stream, payload=b"\x0a" + bytes([size % 128]) + bytes(size % 128))


@pytest.mark.parametrize(
    ("service", "method", "kind"),
    [
        (frames.AGENT, "ReadStdout", LONG_POLL),
        (frames.AGENT, "WaitProcess", LONG_POLL),
        (frames.AGENT, "GetOOMEvent", LONG_POLL),
        (frames.AGENT, "StatsContainer", SAFE),
        ("grpc.Health", "Check", SAFE),
        ("grpc.Health", "Version", SAFE),
        ("grpc.Health", "WaitProcess", OTHER),
        ("grpc.Other", "ReadStdout", OTHER),
        (frames.AGENT, "Check", OTHER),
        (frames.AGENT, "StartContainer", OTHER),
        (frames.AGENT, "WriteStdin", OTHER),
        (frames.AGENT, "SomethingNew", OTHER),
    ],
)
def test_only_long_polls_and_reads_may_be_asked_twice(service: str, method: str, kind: int) -> None:
    assert kind_of(ask(1, method, service=service)) == kind


def test_what_was_not_kept_and_what_is_no_protobuf_is_not_repeated() -> None:
    assert kind_of(b"") == OTHER
    assert kind_of(frames.frame(1, b"\x0a\xff\xff", kind=frames.REQUEST)) == OTHER


def test_the_last_of_two_methods_counts_as_the_agent_reads_it() -> None:
    doubled = edits.bytes_field(1, frames.AGENT.encode()) + b"".join(
        edits.bytes_field(2, name) for name in (b"ReadStdout", b"StartContainer")
    )
    assert kind_of(frames.frame(1, doubled, kind=frames.REQUEST)) == OTHER


@given(seed=st.integers(0, 1 << 32), shims=st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_flight_is_exactly_what_waits_for_an_answer(seed: int, shims: int) -> None:
    chance = random.Random(seed)
    field = Field()
    ears = [field.shim() for _ in range(shims)]
    ids = dict.fromkeys(range(shims), 1)
    seen, waiting = 0, []
    for _ in range(40):
        if chance.random() < 0.6:
            which = chance.randrange(shims)
            many = chance.randint(1, 3)
            data = b"".join(ask(ids[which] + 2 * n, size=chance.choice([5, 90])) for n in range(many))
            ids[which] += 2 * many
            cut = chance.randint(1, len(data))
            field.say(ears[which], data[:cut])
            if cut < len(data):
                field.say(ears[which], data[cut:])
        asked = split(bytes(field.up.out[seen:]))
        seen = len(field.up.out)
        waiting += [frames.stream_of(frame) for frame in asked]
        for frame in asked:
            assert (field.mux.flight or {})[frames.stream_of(frame)] == frame
        if waiting and chance.random() < 0.5:
            answered = [waiting.pop(chance.randrange(len(waiting))) for _ in range(chance.randint(1, len(waiting)))]
            data = b"".join(frames.answer(stream, bytes(chance.randint(0, 50))) for stream in answered)
            cut = chance.randint(1, len(data))
            field.say(field.up, data[:cut])
            if cut < len(data):
                field.say(field.up, data[cut:])
        assert field.flight() == sorted(waiting)
    assert not field.ends


def split(data: bytes) -> list[bytes]:
    """Whole frames of a stream that ends with one."""
    return [frame for _, frame in frames.Splitter(frames.REQUEST).feed(data) if isinstance(frame, bytes)]


def test_another_connection_is_asked_again_in_order_and_told_nothing_twice() -> None:
    field = Field()
    one, two = field.shim(), field.shim()
    field.say(one, ask(1, "ReadStdout") + ask(3, "StartContainer") + ask(5, "StatsContainer"))
    field.say(two, ask(1, "WaitProcess") + ask(3, "ExecProcess"))
    field.say(one, frames.call(frames.AGENT, "ReadStderr", stream=7, payload=bytes(2000)))
    field.up.out.clear()
    reask(field.mux)
    assert [frames.stream_of(frame) for frame in split(bytes(field.up.out))] == [1, 5, 7]
    refused = frames.HEADER.unpack_from(one.out)
    assert refused[1] == 3
    assert b"not repeated" in one.out
    assert frames.HEADER.unpack_from(two.out)[1] == 3
    field.say(field.up, frames.answer(7, b"code"))
    assert two.out.endswith(frames.answer(1, b"code"))
    assert field.flight() == [1, 5]


def test_calls_that_were_never_sent_are_left_to_who_sends_them() -> None:
    field = Field()
    one = field.shim()
    field.say(one, ask(1) + ask(3, "StartContainer") + ask(5, "ExecProcess") + ask(7))
    field.up.out.clear()
    reask(field.mux, 3)
    assert split(bytes(field.up.out)) == [ask(1)]
    assert field.flight() == [1, 5, 7]


def test_who_has_got_half_an_answer_is_closed_and_nobody_else() -> None:
    field = Field()
    one, two = field.shim(), field.shim()
    field.say(one, ask(1) + ask(3))
    field.say(two, ask(1))
    field.say(field.up, frames.answer(1, bytes(100))[:50])
    field.up.out.clear()
    reask(field.mux)
    assert one.closed
    assert not two.closed
    assert [frames.stream_of(frame) for frame in split(bytes(field.up.out))] == [5]


def test_calls_of_a_connection_that_is_gone_are_forgotten() -> None:
    field = Field()
    one = field.shim()
    field.say(one, ask(1))
    field.mux.branches[0].close()
    assert field.flight() == []
    two = field.shim()
    field.say(two, ask(1))
    assert field.flight() == [3]
    field.mux.branches[0].close()
    assert field.flight() == []


def test_an_agent_that_answers_nothing_fills_no_memory() -> None:
    field = Field()
    one = field.shim()
    for stream in range(1, 2 * MAX_CALLS + 1, 2):
        field.say(one, ask(stream))
    assert not one.out
    field.say(one, ask(2 * MAX_CALLS + 1))
    assert b"too many calls" in one.out
    assert len(field.flight()) == MAX_CALLS
