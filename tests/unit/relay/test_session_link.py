"""Both ends of a session on pretended sockets: shims, relay, a link that breaks, forwarder, agent; in any order.

The forwarder may be killed and started again too.
"""

import pytest

from caa.datapath import frames, greeter
from caa.datapath.greeting import Greeting
from caa.relay.session_mux import SERVING
from tests.fakes.datapath.pretended_link import World


@pytest.mark.parametrize("seed", range(25))
def test_every_call_is_answered_once_whatever_breaks(seed: int) -> None:
    world = World(seed, limit=(6000, 60_000, 2 << 20)[seed % 3])
    for _ in range(1 + seed % 3):
        world.shim()
    for _ in range(4000):
        world.act()
    world.settle()
    assert world.waiting == [{} for _ in world.shims], f"{world.loop.counts[-5:]} {world.said}"
    assert world.answered > 20
    assert world.said == []


@pytest.mark.parametrize("seed", range(25))
def test_a_forwarder_that_is_killed_loses_no_call_and_does_none_twice(seed: int) -> None:
    world = World(seed, limit=(6000, 60_000, 2 << 20)[seed % 3])
    for _ in range(1 + seed % 3):
        world.shim()
    for _ in range(4000):
        world.act(restarts=0.004)
    world.settle()
    for pipes, waiting in zip(world.shims, world.waiting, strict=True):
        assert not waiting or pipes[1].broken, f"{world.loop.counts[-5:]} {world.said}"
    assert world.restarts > 2
    assert world.answered - world.refused > 20
    assert world.said == []


def test_a_check_that_came_late_in_a_row_of_calls_is_found() -> None:
    world = World(1, limit=2 << 20)
    world.shim()
    calls = [frames.call(frames.AGENT, "ReadStdout", stream=2 * n + 1, payload=b"") for n in range(20)]
    check = frames.call("grpc.Health", "Check", stream=41, payload=b"")
    world.shims[0][0].data += b"".join(calls) + check
    while world.loop.step(world.chance):
        pass
    world.mux._broken("a test")
    assert bytes(world.shims[0][1].data) == frames.answer(41, SERVING)


@pytest.mark.parametrize("frame", [b"\0\0\0\x09\0\0\0\0\x7f\x05", b"\0\0\0\0\0\0\0\0\x7f\x63", b"\0\0\0\0\0\0\0\1\1\0"])
def test_a_link_that_speaks_nonsense_ends_the_session(frame: bytes) -> None:
    world = World(1, limit=2 << 20)
    world.shim()
    world.link[0].data += frame + bytes(20)
    while world.loop.step(world.chance):
        pass
    assert len(world.said) == 1
    assert world.shims[0][1].broken
    assert world.door.sessions == {}  # it heard the END


def test_an_expired_session_is_forgotten() -> None:
    world = World(1, limit=2 << 20)
    assert world.branch is not None
    world.break_link()
    while world.loop.step(world.chance):
        pass
    assert world.door.sessions
    world.loop.pass_time(601)
    assert world.door.sessions == {}
    assert not world.branch.alive
    _, answer = world.door.admit(world.session.hello(), b"owner")
    assert Greeting(answer).kind == 3  # GONE


def test_the_owner_is_issuer_and_subject() -> None:
    def element(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes((size,)) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes((tag,)) + length + content

    issuer, subject = element(0x30, b"i" * 300), element(0x30, b"s")
    body = element(2, b"\1") + element(0x30, b"a") + issuer + element(0x30, b"v") + subject + element(0x30, b"k" * 200)
    for version in (b"", element(0xA0, element(2, b"\2"))):
        assert greeter.owner_of(element(0x30, element(0x30, version + body) + b"rest")) == issuer + subject
