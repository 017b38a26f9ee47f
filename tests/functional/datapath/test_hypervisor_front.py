"""Calls about VMs while the node is there, slow, away, and back."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import edits, frames

HYPERVISOR = "hypervisor.Hypervisor"
OK = (0, "")
IDS = "0123456789abcdef" * 4


@dataclass
class PretendNode:
    """Keeps every frame; answers when told, by method: a delay in seconds, or None for never."""

    path: Path
    delays: dict[str, float | None] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    open: int = 0
    answer: Callable[[int], bytes] = frames.answer

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._socks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def go(self) -> None:
        """Vanish as a process does."""
        self._listener.close()
        self.path.unlink(missing_ok=True)
        for sock in self._socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def methods(self) -> list[str]:
        return [self.method(frame) for frame in self.seen]

    def method(self, frame: bytes) -> str:
        try:
            return frames.Request(frame[10:]).method
        except edits.EditError:
            return ""

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self.open += 1
        splitter = frames.Splitter(frames.REQUEST)
        try:
            while data := sock.recv(1 << 16):
                for stream, frame in splitter.feed(data):
                    assert isinstance(frame, bytes)
                    self.seen.append(frame)
                    delay = self.delays.get(self.method(frame), 0)
                    if delay is not None:
                        time.sleep(delay)
                        sock.sendall(self.answer(stream))
        except OSError:
            pass
        finally:
            self.open -= 1
            sock.close()


@pytest.fixture
def start_node(relay: Any) -> Iterator[Callable[..., PretendNode]]:
    nodes: list[PretendNode] = []

    def start(**delays: float | None) -> PretendNode:
        nodes.append(PretendNode(relay.run / "node.sock", dict(delays)))
        return nodes[-1]

    yield start
    for node in nodes:
        node.go()


def vm(sandbox: str = IDS) -> bytes:
    return edits.bytes_field(1, sandbox.encode())


def call(shim: Any, method: str, payload: bytes | None = None, timeout: float = 0) -> tuple[int, str]:
    status, _ = shim.call(method, vm() if payload is None else payload, service=HYPERVISOR, timeout=int(timeout * 1e9))
    return status


def test_frames_travel_unchanged_and_the_node_sees_the_shim_go(
    relay: Any, start_node: Any, shim: Any, until: Any
) -> None:
    node = start_node()
    one = shim(relay.hypervisor)
    sent = frames.call(HYPERVISOR, "CreateVM", stream=1, payload=vm() + b"\xaa\x06\x01x", timeout=10**10)
    one.sock.sendall(sent)
    assert one.answer()[:2] == (1, OK)
    assert node.seen == [sent]
    one.last = 1
    assert call(one, "StartVM") == OK
    other = shim(relay.hypervisor)
    assert call(other, "Version") == OK
    assert node.open == 2
    one.close()
    until(lambda: node.open == 1, "the node to see it")
    other.close()
    until(lambda: node.open == 0, "the node to see it")


def test_a_call_waits_for_a_node_that_is_away(relay: Any, start_node: Any, shim: Any) -> None:
    one = shim(relay.hypervisor)
    one.send("CreateVM", vm(), service=HYPERVISOR)
    one.send("StartVM", vm(), service=HYPERVISOR, timeout=30 * 10**9)
    time.sleep(0.4)
    node = start_node()
    assert sorted(one.answer()[:2] for _ in range(2)) == [(1, OK), (3, OK)]
    assert node.methods() == ["CreateVM", "StartVM"]
    left = frames.Request(node.seen[1][10:]).timeout
    assert 28 * 10**9 < left < 29.7 * 10**9, "what is left of its time"
    assert node.seen[0] == frames.call(HYPERVISOR, "CreateVM", stream=1, payload=vm())


def test_a_node_that_restarts_gets_the_call_again(relay: Any, start_node: Any, shim: Any, until: Any) -> None:
    first = start_node(StartVM=None)
    one = shim(relay.hypervisor)
    one.send("StartVM", vm(), service=HYPERVISOR, timeout=20 * 10**9)
    until(lambda: len(first.seen) == 1, "the call")
    first.go()
    time.sleep(0.2)
    second = start_node()
    assert one.answer()[:2] == (1, OK)
    assert second.methods() == ["StartVM"]
    assert call(one, "Version") == OK, "the shim's connection has outlived the node"


@pytest.mark.parametrize(("own", "told"), [(0.6, "its own deadline"), (0, "CONTROL_PLANE_GRACE (1 s)")])
def test_a_call_that_waited_too_long_fails_with_a_reason(start_relay: Any, shim: Any, own: float, told: str) -> None:
    relay = start_relay("--grace-seconds", "1")
    started = time.monotonic()
    code, text = call(shim(relay.hypervisor), "CreateVM", timeout=own)
    assert (own or 1) - 0.1 < time.monotonic() - started < (own or 1) + 2
    assert code == 14
    assert told in text
    assert "caa node" in text
    assert str(relay.run / "node.sock") in text


def test_a_stop_is_recorded_before_the_node_hears_of_it(relay: Any, start_node: Any, shim: Any) -> None:
    recorded = relay.state / "stops" / IDS
    node = start_node()
    seen: list[bool] = []
    node.answer = lambda stream: (seen.append(recorded.exists()), frames.answer(stream))[1]
    assert call(shim(relay.hypervisor), "StopVM", timeout=1) == OK
    assert seen == [True]
    assert recorded.stat().st_mode & 0o777 == 0o600
    assert recorded.parent.stat().st_mode & 0o777 == 0o700


def test_a_stop_never_waits_and_a_late_answer_is_dropped(relay: Any, start_node: Any, shim: Any) -> None:
    start_node(StopVM=1.0)
    one = shim(relay.hypervisor)
    started = time.monotonic()
    assert call(one, "StopVM", timeout=1) == OK
    assert 0.4 < time.monotonic() - started < 0.9
    assert call(one, "Version") == OK, "the next answer is the next call's"


def test_a_stop_is_answered_at_once_while_the_node_is_away_and_brought_when_it_is_back(
    relay: Any, start_node: Any, shim: Any, until: Any
) -> None:
    started = time.monotonic()
    one = shim(relay.hypervisor)
    for _ in range(3):
        assert call(one, "StopVM", timeout=1) == OK
    assert time.monotonic() - started < 0.5
    one.close()
    node = start_node()
    until(lambda: node.methods() == ["StopVM"], "the stop to be brought")
    assert frames.Request(node.seen[0][10:]).payload == vm()
    time.sleep(0.3)
    assert len(node.seen) == 1, "once"


def test_a_stop_that_a_dying_shim_did_not_wait_for_is_brought(
    relay: Any, start_node: Any, shim: Any, until: Any
) -> None:
    node = start_node(StopVM=0.3)
    one = shim(relay.hypervisor)
    one.send("StopVM", vm(), service=HYPERVISOR)
    until(lambda: len(node.seen) == 1, "the call")
    one.close()
    until(lambda: len(node.seen) == 2, "the stop to be brought again")


def test_a_stop_whose_file_is_gone_is_not_brought_again(relay: Any, start_node: Any, shim: Any) -> None:
    node = start_node()
    node.answer = lambda stream: ((relay.state / "stops" / IDS).unlink(), frames.answer(stream))[1]
    one = shim(relay.hypervisor)
    assert call(one, "StopVM") == OK
    one.close()
    time.sleep(0.8)
    assert node.methods() == ["StopVM"]


@pytest.mark.parametrize("sandbox", ["../../etc/passwd", "a/b", "", ".", "x" * 300])
def test_an_unsafe_id_becomes_no_file_and_is_the_nodes_to_refuse(
    relay: Any, start_node: Any, shim: Any, sandbox: str
) -> None:
    node = start_node()
    node.answer = lambda stream: frames.refusal(stream, frames.Refused(3, "no such id"))
    assert call(shim(relay.hypervisor), "StopVM", vm(sandbox)) == (3, "no such id")
    assert list((relay.state / "stops").iterdir()) == []
    assert node.seen[0] == frames.call(HYPERVISOR, "StopVM", stream=1, payload=vm(sandbox))


def test_a_stop_overtakes_a_start_that_is_pending(relay: Any, start_node: Any, shim: Any) -> None:
    start_node(StartVM=None)
    one = shim(relay.hypervisor)
    one.send("StartVM", vm(), service=HYPERVISOR, timeout=10**10)
    one.send("StopVM", vm(), service=HYPERVISOR, timeout=10**9)
    assert one.answer()[:2] == (3, OK)


def test_bad_frames_end_or_are_refused(relay: Any, start_node: Any, shim: Any) -> None:
    start_node()
    bad = shim(relay.hypervisor)
    bad.sock.sendall(frames.HEADER.pack(1 << 31, 1, 1, 0))
    assert bad.ended()
    big = shim(relay.hypervisor)
    big.sock.sendall(frames.HEADER.pack(5 << 20, 1, 1, 0) + bytes(5 << 20))
    assert big.answer()[1][0] == 8
    big.last = 1
    assert call(big, "Version") == OK
    half = shim(relay.hypervisor)
    half.sock.sendall(frames.call(HYPERVISOR, "CreateVM", stream=1, payload=vm())[:20])
    half.close()
    assert call(big, "Version") == OK


def test_a_request_that_is_no_message_is_the_nodes_to_refuse(
    relay: Any, start_node: Any, shim: Any, until: Any
) -> None:
    """It passes unchanged; the relay has no opinion."""
    node = start_node()
    one = shim(relay.hypervisor)
    one.sock.sendall(frames.frame(1, b"\x00\x00\x00", kind=1))
    until(lambda: len(node.seen) == 1, "the frame")
    assert node.seen[0] == frames.frame(1, b"\x00\x00\x00", kind=1)
    assert call(shim(relay.hypervisor), "Version") == OK


def test_too_many_waiting_calls_are_refused(relay: Any, shim: Any) -> None:
    one = shim(relay.hypervisor)
    for _ in range(129):
        one.send("StartVM", vm(), service=HYPERVISOR)
    stream, (code, text), _ = one.answer()
    assert (stream, code) == (257, 8)
    assert "wait for the node" in text
    full = shim(relay.hypervisor)
    for _ in range(3):
        full.send("CreateVM", bytes(3 << 20), service=HYPERVISOR)
    assert full.answer()[1][0] == 8
