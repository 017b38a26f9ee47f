"""The multiplexer on pretended sockets: any fragmentation, any number of connections, any order of answers."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caa.datapath import frames
from caa.datapath.mux import MAX_BRANCHES
from tests.fakes.datapath.pretended import (
    IN,
    Agent,
    Shim,
    World,
    deny,
    request,
    split,
    status,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.sampled_from((0, 1, 5, 60, 700, 9000)), max_size=12), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.booleans(),
    st.booleans(),
)
def test_every_answer_reaches_its_caller(calls: list[list[int]], seed: int, narrow: bool, deaths: bool) -> None:
    chance = random.Random(seed)
    world = World({"Edit": lambda payload: payload[::-1], "Deny": deny})
    agent = Agent(world.up, chance)
    shims = [Shim(world, sizes, chance, deaths and place > 0) for place, sizes in enumerate(calls)]
    for _ in range(20_000):
        if narrow:
            for sock in (world.up, *(shim.sock for shim in shims)):
                sock.room = chance.choice((0, 0, 1, 50, 3000))
        for shim in shims:
            if not shim.dead():
                shim.work()
        agent.work()
        agent.speak()
        busy = [world.loop.step(chance) for _ in range(chance.randint(0, 6))]
        done = all(shim.dead() or not (shim.expected or shim.unsent) for shim in shims)
        if done and not any(busy):
            break
    assert not world.ends
    assert "malformed" not in world.loop.counts
    for shim in shims:
        assert shim.dead() or not shim.expected
        assert shim.dead() or not shim.got


def test_one_connection_is_cut_through_unchanged() -> None:
    world = World()
    shim, _ = world.shim()
    idle, _ = world.shim()
    sent = b"".join(request(number, b"x" * number) for number in (1, 3, 5, 9))
    world.say(shim, sent)
    assert bytes(world.up.out) == sent
    answers = b"".join(frames.answer(number, b"y") for number in (9, 1, 5, 3))
    world.say(world.up, answers)
    assert bytes(shim.out) == answers
    assert not idle.out
    assert not world.mux.calls


def test_the_second_that_asks_gets_ids_that_grow() -> None:
    world = World()
    first, _ = world.shim()
    second, _ = world.shim()
    world.say(first, request(1) + request(3))
    world.say(second, request(1, b"second"))
    world.say(first, request(5, b"first"))
    assert [stream for stream, _, _ in split(world.up.out)] == [1, 3, 5, 7]
    world.say(world.up, b"".join(frames.answer(number, b"%d" % number) for number in (7, 5, 3, 1)))
    assert split(first.out) == [
        (number, 2, frames.answer(1, b"%d" % up)[10:]) for number, up in ((5, 7), (3, 3), (1, 1))
    ]
    assert split(second.out) == [(1, 2, frames.answer(1, b"5")[10:])]


def test_a_late_connection_does_not_get_answers_of_an_earlier_one() -> None:
    world = World()
    first, _ = world.shim()
    world.say(first, request(1))
    world.say(first, b"")
    assert first.closed
    late, _ = world.shim()
    world.say(world.up, frames.answer(1, b"for the first"))
    world.say(late, request(1))
    assert [stream for stream, _, _ in split(world.up.out)] == [1, 3]
    world.say(world.up, frames.answer(3, b"late"))
    assert split(late.out) == [(1, 2, frames.answer(1, b"late")[10:])]


def test_an_answer_in_the_middle_when_its_caller_dies_is_dropped_to_its_end() -> None:
    world = World()
    first, _ = world.shim()
    second, _ = world.shim()
    world.say(first, request(1))
    world.say(second, request(1))
    answer = frames.answer(1, b"x" * 1000)
    world.say(world.up, answer[:400])
    assert bytes(first.out) == answer[:400]
    world.say(first, b"")
    world.say(world.up, answer[400:] + frames.answer(3, b"mine"))
    assert split(second.out) == [(1, 2, frames.answer(1, b"mine")[10:])]


@pytest.mark.parametrize(
    "body", [b"", b"\x0a", b"\x0a\x0b", b"\x0a\x11grpc.AgentService\x12", b"\x0a\x11grpc.AgentService"]
)
def test_a_short_request_at_the_very_end_of_the_buffer(body: bytes) -> None:
    world = World({"Deny": deny})
    shim, _ = world.shim()
    world.say(shim, request(1))
    last = frames.frame(5, body, kind=1)
    fill = frames.call(frames.AGENT, "WriteStdin", stream=3, payload=b"x" * 131_000)
    fill = frames.call(
        frames.AGENT, "WriteStdin", stream=3, payload=b"x" * (131_000 + (1 << 17) - len(fill) - len(last))
    )
    assert len(fill) + len(last) == 1 << 17
    world.say(shim, fill + last)
    refused = body in (b"\x0a", b"\x0a\x0b")  # no message at all
    assert [stream for stream, _, _ in split(world.up.out)] == ([1, 3] if refused else [1, 3, 5])
    assert [(stream, status(answer)[0]) for stream, _, answer in split(shim.out)] == ([(5, 3)] if refused else [])


def test_half_a_request_never_goes_up() -> None:
    world = World()
    first, branch = world.shim()
    second, _ = world.shim()
    world.say(first, request(1) + request(3, b"x" * 5000)[:4000])
    world.say(first, b"")
    assert branch.fd < 0
    world.say(second, request(1))
    assert [stream for stream, _, _ in split(world.up.out)] == [1, 3]


def test_an_answer_of_ours_waits_for_the_end_of_a_frame() -> None:
    world = World({"Deny": deny})
    shim, _ = world.shim()
    answer = frames.answer(1, b"x" * 1000)
    world.say(shim, request(1))
    world.say(world.up, answer[:500])
    world.say(shim, request(3, method="Deny"))
    assert bytes(shim.out) == answer[:500]
    world.say(world.up, answer[500:900])
    assert bytes(shim.out) == answer[:900]
    world.say(world.up, answer[900:])
    assert [stream for stream, _, _ in split(shim.out)] == [1, 3]


def test_an_answer_of_ours_gets_its_turn_although_frames_follow_without_a_gap() -> None:
    world = World({"Deny": deny})
    shim, _ = world.shim()
    stream = b"".join(frames.answer(number, b"x" * 100) for number in range(1, 21, 2))
    world.say(shim, b"".join(request(number) for number in range(1, 21, 2)))
    world.say(world.up, stream[:50])
    world.say(shim, request(21, method="Deny"))
    world.say(world.up, stream[50:350])
    world.say(world.up, stream[350:])
    order = [number for number, _, _ in split(shim.out)]
    assert order == [1, 21, *range(3, 21, 2)]


@pytest.mark.parametrize("step", [10, 7, 100_000])
def test_a_request_too_large_is_answered_and_dropped(step: int) -> None:
    world = World()
    shim, _ = world.shim()
    size = 5 << 20
    body = frames.HEADER.pack(size, 3, 1, 0) + bytes(size)
    data = request(1) + body + request(5, b"after")
    head = len(request(1)) + 30
    world.say(shim, *(data[at : at + step] for at in range(0, head, step)), data[-(-head // step) * step :])
    assert [stream for stream, _, _ in split(world.up.out)] == [1, 5]
    assert [(stream, status(payload)[0]) for stream, _, payload in split(shim.out)] == [(3, 8)]
    assert world.loop.counts["too large"] == 1


def test_an_answer_too_large_becomes_an_error_for_its_caller() -> None:
    world = World()
    shim, _ = world.shim()
    world.say(shim, request(1) + request(3))
    size = 5 << 20
    data = frames.answer(1, b"one") + frames.HEADER.pack(size, 3, 2, 0) + bytes(size) + frames.answer(1, b"again")
    world.say(world.up, data)
    assert [(stream, status(payload)[0]) for stream, _, payload in split(shim.out)] == [(1, 0), (3, 8), (1, 0)]


@pytest.mark.parametrize(
    "header",
    [
        frames.HEADER.pack(0, 2, 1, 0),
        frames.HEADER.pack(0, 1, 2, 0),
        frames.HEADER.pack(0, 1, 3, 0),
        frames.HEADER.pack(0xFFFFFFFF, 1, 1, 0),
        frames.HEADER.pack(1 << 31, 1, 1, 0),
    ],
)
def test_a_malformed_request_ends_its_connection_only(header: bytes) -> None:
    world = World()
    bad, _ = world.shim()
    good, _ = world.shim()
    world.say(good, request(1))
    world.say(bad, header[:4], header[4:])
    assert bad.closed
    assert not good.closed
    assert world.loop.counts["malformed"] == 1
    world.say(world.up, frames.answer(1, b"ok"))
    assert split(good.out) == [(1, 2, frames.answer(1, b"ok")[10:])]
    assert not world.ends


def test_a_malformed_answer_ends_the_link() -> None:
    world = World()
    shim, _ = world.shim()
    world.say(shim, request(1))
    world.say(world.up, frames.frame(1, b"", kind=frames.REQUEST))
    assert shim.closed
    assert world.up.closed
    assert len(world.ends) == 1


def test_the_end_of_the_link_ends_all_once() -> None:
    world = World()
    socks = [world.shim()[0] for _ in range(3)]
    world.say(world.up, b"")
    assert all(sock.closed for sock in socks)
    assert world.ends == ["closed by the peer"]
    world.mux.close()
    assert world.mux.attach(world.loop.sock(), None) is None


def test_too_many_connections_are_refused() -> None:
    world = World()
    for _ in range(MAX_BRANCHES):
        world.shim()
    extra = world.loop.sock()
    assert world.mux.attach(extra, None) is None
    assert extra.closed


def test_a_slow_reader_stops_its_source_and_memory_stays_bounded() -> None:
    world = World()
    slow, _ = world.shim()
    world.say(slow, request(1))
    slow.room = 100
    answer = frames.answer(1, b"x" * (3 << 20))
    world.say(world.up, *(answer[at : at + 100_000] for at in range(0, len(answer), 100_000)))
    assert len(slow.out) == 100
    assert len(world.up.inbox) >= 30, "the link is read no more"
    assert world.loop.masks[world.up.fd] & IN == 0
    assert not world.loop.ready()
    slow.room = None
    world.loop.settle()
    assert bytes(slow.out) == answer


def test_a_reader_that_dies_frees_the_link() -> None:
    world = World()
    slow, branch = world.shim()
    other, _ = world.shim()
    world.say(slow, request(1))
    world.say(other, request(1))
    slow.room = 10
    world.say(world.up, frames.answer(1, b"x" * 1000))
    world.say(world.up, frames.answer(3, b"for the other"))
    assert not other.out
    branch.close()
    world.loop.settle()
    assert split(other.out) == [(1, 2, frames.answer(1, b"for the other")[10:])]


def test_branches_take_turns_when_the_link_is_full() -> None:
    world = World()
    shims = [world.shim()[0] for _ in range(3)]
    for shim in shims:
        shim.inbox.extend(request(number, b"x" * 90_000) for number in range(1, 21, 2))
    order = []
    for _ in range(60):
        world.up.room = 50_000
        world.loop.step(random.Random(0))
        order.append(tuple(branch.fd for branch in world.mux.branches))
    world.up.room = None
    world.loop.settle()
    assert len({sequence[-1] for sequence in order}) == 3, "each has been the last one"
    assert len(split(world.up.out)) == 30


def test_a_full_link_stores_no_more_than_a_read_of_each() -> None:
    world = World()
    shim, _ = world.shim()
    world.up.room = 0
    shim.inbox.extend(request(number, b"x" * 60_000) for number in range(1, 201, 2))
    world.loop.settle()
    assert world.mux.outlet.waiting() <= 1 << 17
    assert len(shim.inbox) >= 98


def test_refusals_that_nobody_reads_stop_the_asking() -> None:
    world = World({"Deny": deny})
    shim, _ = world.shim()
    shim.room = 0
    data = b"".join(request(2 * number + 1, method="Deny") for number in range(2000))
    for _ in range(20):
        shim.inbox.append(data)
    world.loop.settle()
    assert len(shim.inbox) > 10
    shim.room = None
    world.loop.settle()
    assert len(split(shim.out)) == 40_000


def test_too_many_calls_are_refused_when_ids_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caa.datapath.mux.MAX_CALLS", 2)
    world = World()
    first, _ = world.shim()
    second, _ = world.shim()
    world.say(first, request(1))
    world.say(second, b"".join(request(number) for number in (1, 3, 5, 7)))
    assert [stream for stream, _, _ in split(world.up.out)] == [1, 3, 5]
    assert [(stream, status(payload)[0]) for stream, _, payload in split(second.out)] == [(5, 8), (7, 8)]
