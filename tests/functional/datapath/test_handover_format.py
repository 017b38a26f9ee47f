"""Format 1 of a hand-over, as a real relay once sent it: every later relay must take it up."""

import base64
import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caa.datapath import edits, frames

OK = (0, "")
RECORDED = Path(__file__).parents[2] / "data" / "handover" / "format-1.json"
HELLO, WELCOME, SHOW, SHOWN, FREEZE, FROZEN, TAKE, GIVEN, OKAY, REST, SHIM, CALLER, LAST, COMMIT = (
    1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
)  # fmt: skip
HEAD = struct.Struct(">IHH")
PODS = ["live", "dark", "plain", "lost"]
Parcel = tuple[int, int, bytes]  # kind, number of descriptors, payload


def send(sock: socket.socket, kind: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
    data = HEAD.pack(len(payload), kind, len(fds)) + payload
    if fds:
        socket.send_fds(sock, [data], fds)
    else:
        sock.sendall(data)


def receive(sock: socket.socket) -> Parcel:
    """The next parcel; its descriptors are closed."""
    head, fds, _, _ = socket.recv_fds(sock, HEAD.size, 64)
    for fd in fds:
        os.close(fd)
    if not head:
        raise EOFError
    size, kind, count = HEAD.unpack(head)
    assert count == len(fds)
    payload = b""
    while len(payload) < size:
        payload += sock.recv(size - len(payload))
    return kind, count, payload


def name(sandbox: str) -> bytes:
    return edits.bytes_field(1, sandbox.encode())


def record(path: Path) -> list[Parcel]:
    """All that the relay at `path` says when it is asked for everything; nothing is confirmed."""
    said = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))

        def ask(kind: int, payload: bytes = b"") -> bytes:
            send(sock, kind, payload)
            said.append(receive(sock))
            return said[-1][2]

        names = edits.all_bytes(ask(HELLO, b"\x08\x01\x10\x01"), 2)
        for one in names:
            ask(SHOW, edits.bytes_field(1, one))
        for one in edits.all_bytes(ask(FREEZE), 1):
            ask(TAKE, edits.bytes_field(1, one))
        send(sock, REST)
        while said[-1][0] != LAST:
            said.append(receive(sock))
    return said


@pytest.fixture
def full_relay(request: pytest.FixtureRequest) -> Any:
    """A relay with all that a hand-over can hold."""
    names = ("start_relay", "guest", "agent", "shim", "start_proxy", "start_guest", "make_agent", "until")
    start_relay, guest, agent, shim, start_proxy, start_guest, make_agent, until = map(request.getfixturevalue, names)
    launch_node = request.getfixturevalue("launch_node")
    relay, proxy = start_relay("--link-silence-seconds", "0.8"), start_proxy(guest.port)
    other, bare = make_agent("other.sock"), start_guest(agent.path, "-disable-tls")
    second = start_guest(other.path)
    launch_node(relay)

    def open_pod(sandbox: str, opening: Any) -> Any:
        assert relay.ask("Open", replace(opening, sandbox=sandbox).payload()) == (OK, b"")
        one = shim(relay.agent_socket(sandbox))
        assert one.call("Echo", b"x") == (OK, b"x")
        return one

    live, dark = open_pod("live", guest.opening), open_pod("dark", replace(guest.opening, port=proxy.port))
    plain, lost = open_pod("plain", replace(bare.opening, disable_tls=True)), open_pod("lost", second.opening)
    two = shim(relay.agent_socket("live"))
    assert two.call("Echo", b"y") == (OK, b"y")
    agent.mute = True
    live.send("ReadStdout", edits.varint_field(3, 9))
    two.send("StartContainer", b"once")
    plain.send("WaitProcess", b"polled")
    until(lambda: len(agent.seen) == 3, "the calls to arrive")
    request = frames.call(frames.AGENT, "Echo", stream=5, payload=b"half")
    live.sock.sendall(request[:-2])
    other.stop()
    assert lost.ended()
    proxy.dark = True
    proxy.cut("rst")
    until(lambda: ("dark", False, 1) in relay.links(), "a link to be down")
    dark.send("Echo", b"stored")
    starter = shim(relay.hypervisor)
    starter.send("CreateVM", b"\x0a\x01x", service="hypervisor.Hypervisor")
    node = shim(relay.run / "relay.sock")
    opening = replace(guest.opening, sandbox="waiting", port=proxy.port).payload()
    node.send("Open", opening, service="caa.relay.v1.AgentLinks", timeout=60 * 10**9)
    until(lambda: len(relay.links()) == 5, "a pod to be dialled")
    return relay


def shape(payload: bytes, depth: int) -> set[tuple[int, ...]]:
    """The numbers of all fields, down to a depth."""
    found: set[tuple[int, ...]] = set()
    for number, _, value, _, _ in edits.fields(payload):
        found.add((number,))
        if depth and isinstance(value, bytes):
            with contextlib.suppress(edits.EditError):  # text
                found |= {(number, *inner) for inner in shape(value, depth - 1)}
    return found


def recorded() -> list[Parcel]:
    return [(kind, count, base64.b64decode(payload)) for kind, count, payload in json.loads(RECORDED.read_text())]


def test_what_was_recorded_is_still_written(full_relay: Any, tmp_path: Path) -> None:
    """Kinds, descriptors and fields: none is missing that an older relay looks for."""
    now = record(full_relay.state / "handover.sock")
    fresh = tmp_path / RECORDED.name  # to be committed when a new format begins
    fresh.write_text(json.dumps([(kind, count, base64.b64encode(data).decode()) for kind, count, data in now]))
    then = recorded()
    assert [parcel[:2] for parcel in sorted(now)] == [parcel[:2] for parcel in sorted(then)]
    for kind in (WELCOME, FROZEN, SHOWN, GIVEN, SHIM, CALLER):
        missing = set().union(*(shape(data, 1) for at, _, data in then if at == kind)) - set().union(
            *(shape(data, 1) for at, _, data in now if at == kind)
        )
        assert not missing, f"parcel {kind}"


def changed(payload: bytes, fields: dict[int, Callable[[bytes], bytes]]) -> bytes:
    """The message with some of its bytes fields changed."""
    parts = []
    for number, _, value, start, end in edits.fields(payload):
        act = fields.get(number)
        parts.append(payload[start:end] if act is None else edits.bytes_field(number, act(bytes(value))))
    return b"".join(parts)


class OldRelay:
    """Says again what was recorded, about pod VMs that are elsewhere now; gives fresh sockets."""

    def __init__(self, folder: Path, targets: dict[str, bytes], *, opening: bytes, parcels: list[Parcel]) -> None:
        for part in ("h", "p", "r", "s"):
            (folder / part).mkdir(mode=0o700)
        self.lock = os.open(folder / "r" / "relay.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.listeners = [self._listen(folder / part) for part in ("h/hypervisor.sock", "r/relay.sock")]
        self.ends: dict[str, list[socket.socket]] = {}
        self.confirmed: list[str] = []
        self.committed = False
        self._targets, self._opening = targets, opening
        self._answers = {kind: data for kind, _, data in parcels}
        self._links: dict[str, tuple[bytes, int]] = {}
        self._rest = [parcel for parcel in parcels if parcel[0] in (SHIM, CALLER, LAST)]
        for kind, count, data in parcels:
            if kind == GIVEN:
                state = edits.last_bytes(data, 1)
                self._links[edits.last_bytes(state, 1).decode()] = data, count
        door = self._listen(folder / "s" / "handover.sock")
        self._thread = threading.Thread(target=self._serve, args=(door,), daemon=True)
        self._thread.start()

    def _listen(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen(8)
        return sock

    def _moved(self, data: bytes, pod: str) -> bytes:
        return changed(data, {1: lambda state: changed(state, {2: lambda _: self._targets[pod]})})

    def _sockets(self, kind: str, count: int, *, listener: bool) -> tuple[int, ...]:
        near = [self._listen(Path(f"/proc/self/cwd/{os.urandom(8).hex()}"))] if listener and count else []
        pairs = [socket.socketpair() for _ in range(count - len(near))]
        self.ends[kind] = [mine for mine, _ in pairs]
        self._gone = [*near, *(theirs for _, theirs in pairs)]
        return tuple(sock.fileno() for sock in self._gone)

    def _serve(self, door: socket.socket) -> None:
        sock, _ = door.accept()
        try:
            while not self.committed:
                kind, _, payload = receive(sock)
                self._hear(sock, kind, edits.last_bytes(payload, 1).decode() if payload and kind != HELLO else "")
        except (EOFError, ConnectionError):
            pass
        for one in (*self.listeners, sock, door):
            one.close()
        os.close(self.lock)

    def _hear(self, sock: socket.socket, kind: int, pod: str) -> None:
        if kind == HELLO:
            send(sock, WELCOME, self._answers[WELCOME])
        elif kind == SHOW:
            send(sock, SHOWN, self._moved(self._links[pod][0], pod))
        elif kind == FREEZE:
            send(sock, FROZEN, self._answers[FROZEN])
        elif kind == TAKE:
            data, count = self._links[pod]
            self._give(sock, GIVEN, self._moved(data, pod), self._sockets(pod, count, listener=True))
        elif kind == OKAY:
            self.confirmed.append(pod)
        elif kind == REST:
            self._give_rest(sock)
        elif kind == COMMIT:
            self.committed = True

    def _give(self, sock: socket.socket, kind: int, payload: bytes, fds: tuple[int, ...]) -> None:
        send(sock, kind, payload, fds)
        for one in self._gone:
            one.close()

    def _give_rest(self, sock: socket.socket) -> None:
        for kind, count, payload in self._rest:
            if kind == LAST:
                send(sock, kind, payload, (self.lock, *(one.fileno() for one in self.listeners)))
                continue
            fds = self._sockets("starter" if kind == SHIM else "node", count, listener=False)
            self._give(sock, kind, self._waiting(payload) if kind == CALLER else payload, fds)

    def _waiting(self, payload: bytes) -> bytes:
        return changed(payload, {2: lambda call: changed(call, {2: lambda _: self._opening})})

    def ended(self) -> None:
        self._thread.join(10)

    def stop(self) -> None:
        self.ended()
        for ends in self.ends.values():
            for end in ends:
                end.close()


class Speaker:
    """The shim's end of a connection that was given away."""

    def __init__(self, sock: socket.socket, last: int = -1) -> None:
        self.sock = sock
        self.sock.settimeout(20)
        self.last = last

    def answer(self) -> tuple[int, int, bytes]:
        """Stream, status code and payload of the next answer."""
        size, stream, kind, _ = frames.HEADER.unpack(self._exactly(frames.HEADER_SIZE))
        assert kind == frames.RESPONSE
        body = self._exactly(size)
        return stream, edits.last_varint(edits.last_bytes(body, 1), 1), edits.last_bytes(body, 2)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            assert more, "the connection has ended"
            data += more
        return data

    def echoes(self, data: bytes) -> bool:
        self.last += 2
        self.sock.sendall(frames.call(frames.AGENT, "Echo", stream=self.last, payload=data))
        return self.answer() == (self.last, 0, data)


def target(opening: Any) -> bytes:
    """Where a pod VM is now."""
    texts = [opening.name, str(opening.ca), *map(str, opening.client)]
    where = edits.bytes_field(1, b"127.0.0.1") + edits.varint_field(2, opening.port)
    return where + b"".join(edits.bytes_field(3 + at, text.encode()) for at, text in enumerate(texts))


@pytest.fixture
def agents(make_agent: Any) -> dict[str, Any]:
    return {pod: make_agent(f"{pod}.sock") for pod in PODS}


@pytest.fixture
def replay(
    folder: Path, agents: dict[str, Any], start_guest: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., OldRelay]]:
    """An old relay that plays what was recorded, or that in other words; each pod has a pod VM that knows nothing."""
    monkeypatch.chdir(folder)
    openings = {pod: start_guest(agents[pod].path).opening for pod in PODS}
    played: list[OldRelay] = []

    def play(change: Callable[[Parcel], Parcel] = lambda parcel: parcel) -> OldRelay:
        waiting = replace(openings["live"], sandbox="waiting").payload()
        targets = {pod: target(opening) for pod, opening in openings.items()}
        played.append(OldRelay(folder, targets, opening=waiting, parcels=[change(parcel) for parcel in recorded()]))
        return played[-1]

    yield play
    for old in played:
        old.stop()


def with_unknown_fields(parcel: Parcel) -> Parcel:
    """As a newer relay might say it: fields that nobody knows yet, outside and inside."""
    kind, count, payload = parcel
    more = edits.varint_field(1000, 7) + edits.bytes_field(1001, b"later")
    if kind == GIVEN:
        payload = changed(payload, {1: lambda state: changed(state, {4: lambda mux: mux + more}) + more})
    return kind, count, payload + more


@pytest.mark.parametrize("change", [lambda parcel: parcel, with_unknown_fields], ids=["as recorded", "newer"])
def test_the_recorded_hand_over_is_taken_up_and_served(replay: Any, start_relay: Any, agents: Any, change: Any) -> None:
    old = replay(change)
    new = start_relay()
    old.ended()
    assert old.committed, new.process.text()
    assert sorted(old.confirmed) == sorted(PODS)
    live, two, dark, plain = (
        Speaker(old.ends[pod][at]) for pod, at in (("live", 0), ("live", 1), ("dark", 0), ("plain", 0))
    )
    live.last, two.last, dark.last, plain.last = 5, 3, 3, 3
    assert live.answer() == (3, 0, bytes(9))  # the long poll is asked again: this pod VM has never heard of it
    live.sock.sendall(frames.call(frames.AGENT, "Echo", stream=5, payload=b"half")[-2:])
    assert live.answer() == (5, 0, b"half")
    assert two.answer()[:2] == (3, frames.UNAVAILABLE)
    assert dark.answer() == (3, 0, b"stored")
    assert plain.answer() == (3, 0, b"polled")
    assert all(one.echoes(b"on") for one in (live, two, dark, plain))
    assert Speaker(old.ends["node"][0]).answer()[:2] == (1, 0)
    starter, node = old.ends["starter"]
    node.sendall(frames.answer(1, b"made"))
    assert Speaker(starter).answer() == (1, 0, b"made")
    assert sorted(new.links()) == [
        ("dark", True, 1), ("live", True, 2), ("lost", False, 0), ("plain", True, 1), ("waiting", True, 0)
    ]  # fmt: skip
    asked = {pod: [call[3] for call in agent.seen] for pod, agent in agents.items()}
    assert asked == {"live": ["ReadStdout"], "dark": [], "plain": ["WaitProcess"], "lost": []}, "a call was repeated"
