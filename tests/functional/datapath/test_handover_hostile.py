"""Parcels that are cut short, changed or made up: nothing is taken but whole links, and no descriptor is left open."""

import base64
import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caa.datapath import edits, handover
from caa.datapath.frames import Malformed
from caa.datapath.handover import Parcels
from caa.datapath.loop import Loop
from caa.datapath.sockets import Sock
from caa.relay.agent_front import AgentFront
from caa.relay.moving import Arrived, take_up

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "handover" / "format-1.json").read_text())
GIVEN = [
    (count, edits.last_bytes(base64.b64decode(payload), 1))
    for kind, count, payload in RECORDED
    if kind == handover.GIVEN
]
IN_A_TEST = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes changed, then cut short; or neither."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        if raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    return bytes(raw[:end])


def open_now() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def descriptors(folder: Path, kinds: list[str]) -> list[int]:
    """Descriptors as another process might send them."""
    fds = []
    for number, kind in enumerate(kinds):
        if kind == "file":
            fds.append(os.open("/dev/null", os.O_RDONLY))
            continue
        if kind == "listener":
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(folder / f"{number}.sock"))
            sock.listen(1)
            (folder / f"{number}.sock").unlink()
        else:
            sock, other = socket.socketpair()
            other.close()
        fds.append(sock.detach())
    return fds


def bury(loop: Loop) -> None:
    """Run the loop once, so that what it closes is closed."""
    loop.later(0, loop.stop)
    loop.run()


@IN_A_TEST
@given(data=st.data())
def test_a_link_is_taken_whole_or_not_at_all(folder: Path, data: st.DataObject) -> None:
    count, state = data.draw(st.sampled_from(GIVEN))
    right = ["listener", *["pair"] * (count - 1)] if count else []
    kinds = data.draw(st.one_of(st.just(right), st.lists(st.sampled_from(["listener", "pair", "file"]), max_size=4)))
    state = data.draw(damaged(state))
    loop = Loop()
    before = open_now()
    front = AgentFront(loop, str(folder), grace=300.0)
    fds = descriptors(folder, kinds)
    try:
        arrived = Arrived(state, front)
    except (Malformed, edits.EditError):
        handover.close_all(fds)
    else:
        with contextlib.suppress(Malformed):
            take_up(front, arrived, fds=fds)
            assert [link.sandbox for link in front.links()] == [arrived.sandbox]
            assert not arrived.mux.branches or len(fds) == 1 + len(arrived.mux.branches)
    front.stop()
    bury(loop)
    assert open_now() == before


class Owner:
    """Takes parcels as the two relays do."""

    def __init__(self) -> None:
        self.why = ""
        self.heard: list[tuple[int, bytes]] = []

    def parcel(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        """A parcel of an odd kind is refused with its descriptors still open."""
        if kind % 2:
            raise Malformed("odd")
        handover.close_all(fds)
        self.heard.append((kind, payload))

    def ended(self, why: str) -> None:
        self.why = why


@IN_A_TEST
@given(
    data=st.binary(max_size=64),
    kinds=st.lists(st.sampled_from(["pair", "file"]), max_size=5),
    cut=st.booleans(),
    whole=st.booleans(),
)
def test_bytes_that_are_no_parcels_leave_no_descriptor(
    folder: Path, data: bytes, kinds: list[str], *, cut: bool, whole: bool
) -> None:
    loop, owner = Loop(), Owner()
    before = open_now()
    near, far = socket.socketpair()
    far.setblocking(False)
    parcels = Parcels(loop, Sock(fileno=far.detach()), owner=owner)
    fds = descriptors(folder, kinds)
    with contextlib.suppress(BrokenPipeError):
        head = struct.pack(">IHH", len(data) + cut, 2, len(fds))  # cut: a byte is missing
        socket.send_fds(near, [head if whole else b"\x00"], fds)
        near.sendall(data)
    handover.close_all(fds)
    near.close()
    for _ in range(4):
        bury(loop)
    assert owner.why
    parcels.close()
    bury(loop)
    assert open_now() == before


@pytest.mark.parametrize("kind", [0, handover.WELCOME, handover.TAKE, handover.OK, handover.COMMIT, handover.LAST, 99])
def test_an_old_relay_that_hears_what_is_not_due_goes_on(kind: int, start_relay: Any, heir: Any) -> None:
    old = start_relay()
    one = heir(old)
    one.say(handover.HELLO, b"\x08\x01\x10\x01")
    assert one.hear()[0] == handover.WELCOME
    one.say(kind, b"\x08")
    assert one.hear()[0] == 0
    assert old.links() == []
