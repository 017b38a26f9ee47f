"""Whom relay and forwarder talk to: an agent that echoes, the node, a forwarder's client, a successor."""

import contextlib
import os
import random
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from caa.datapath import edits, frames, greeting
from tests.fakes.datapath.authority import SERVER_NAME
from tests.fakes.datapath.calls import HEADER, read_frame, receive
from tests.fakes.datapath.processes import Relay, wait_until


@dataclass
class EchoAgent:
    """Answers a call with its payload. `ReadStdout` answers with as many bytes as the payload's number says.

    `Never` is not answered, `Pause` reads nothing for 1.5 s. `seen` has (connection, stream, service, method, payload)
    of all but `Echo`. Refuses ids
    that do not grow by closing, as a Go server would refuse the call.
    """

    path: Path
    seed: int = 0
    fragments: bool = False
    mute: bool = False  # nothing but `Echo` is answered
    seen: list[tuple[int, int, str, str, bytes]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()
        for sock in self.connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            threading.Thread(target=self._serve, args=(len(self.connections), sock), daemon=True).start()

    def _serve(self, number: int, sock: socket.socket) -> None:
        chance = random.Random(self.seed)
        data = bytearray()
        last = 0
        try:
            while piece := sock.recv(1 << 18):
                data += piece
                answers = []
                at = 0
                while len(data) - at >= 10:
                    size, stream, kind, _ = HEADER.unpack_from(data, at)
                    if len(data) - at < 10 + size:
                        break
                    if kind != 1 or stream <= last or not stream & 1:
                        return
                    last = stream
                    answer = self._answer(number, stream, bytes(data[at + 10 : at + 10 + size]))
                    if answer is not None:
                        answers.append(answer)
                    at += 10 + size
                del data[:at]
                chance.shuffle(answers)
                self._say(sock, b"".join(answers), chance)
        except OSError:
            pass
        finally:
            sock.close()

    def _answer(self, number: int, stream: int, envelope: bytes) -> bytes | None:
        request = frames.Request(envelope)
        if request.method == "Echo":
            return frames.answer(stream, request.payload)
        self.seen.append((number, stream, request.service, request.method, request.payload))
        if request.method == "Never" or self.mute:
            return None
        if request.method == "Pause":
            time.sleep(1.5)
        if request.method == "ReadStdout":
            return frames.answer(stream, bytes(edits.last_varint(request.payload, 3)))
        return frames.answer(stream, request.payload)

    def _say(self, sock: socket.socket, data: bytes, chance: random.Random) -> None:
        view = memoryview(data)
        while view:
            size = chance.choice((1, 7, 10, 200, 4000, 40_000)) if self.fragments else len(view)
            sock.sendall(view[:size])
            view = view[size:]


@dataclass
class SessionClient:
    """A client of its own that says HELLO to a forwarder."""

    port: int
    ca: Path
    client: tuple[Path, Path]
    identity: bytes
    secret: bytes

    def __post_init__(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(*map(str, self.client))
        context.set_alpn_protocols([greeting.PROTOCOL])
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.sock = context.wrap_socket(raw, server_hostname=SERVER_NAME)
        assert self.sock.selected_alpn_protocol() == greeting.PROTOCOL

    def hello(self, *, new: bool = False, attempt: int = 1, count: int = 0) -> tuple[str, bytes]:
        """What the forwarder says to it."""
        self.sock.sendall(greeting.hello(self.identity, self.secret, new=new, attempt=attempt, count=count))
        data = self.sock.recv(greeting.GREETING)
        if not data:
            return "nothing", b""
        kinds = {greeting.WELCOME: "welcome", greeting.LATE: "late", greeting.GONE: "gone"}
        return kinds[greeting.Greeting(data).kind], data


class StandInNode:
    """Listens as the node does, and lets the test answer."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(10)
        self._connections: list[socket.socket] = []

    def next_call(self) -> tuple[socket.socket, int]:
        """The next connection, and the stream id of the first call on it."""
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        self._connections.append(connection)
        stream, kind, _ = read_frame(connection)
        assert kind == 1
        return connection, stream

    def close(self) -> None:
        for sock in (self._listener, *self._connections):
            sock.close()


class Heir:
    """A successor that is written anew here, and ends after any of its steps."""

    def __init__(self, relay: Relay) -> None:
        path = relay.state / "handover.sock"
        wait_until(path.exists, "the relay's socket for a successor")  # it serves shims first
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(path))

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.sock.sendall(struct.pack(">IHH", len(payload), kind, 0) + payload)

    def hear(self) -> tuple[int, bytes]:
        """The next parcel's kind and payload; its descriptors are closed."""
        data, fds, _, _ = socket.recv_fds(self.sock, 8, 64)
        for fd in fds:
            os.close(fd)
        if not data:
            return 0, b""
        size, kind, _ = struct.unpack(">IHH", data)
        return kind, receive(self.sock, size)

    def hello(self, oldest: int, newest: int) -> str | int:
        """The format that is spoken, or why there is none."""
        self.say(1, edits.varint_field(1, oldest) + edits.varint_field(2, newest))
        kind, payload = self.hear()
        return edits.last_varint(payload, 1) if kind == 2 else edits.last_bytes(payload, 1).decode()

    def go(self, steps: int) -> set[str]:
        """Do so many steps, then vanish; returns the pods that were confirmed."""
        confirmed: set[str] = set()
        name = edits.bytes_field(1, b"one")
        script = [(1, b"\x08\x01\x10\x01", 1), (4, name, 1), (6, b"", 1), (8, name, 1)]
        script += [(8, edits.bytes_field(1, b"two"), 1), (10, name, 0), (11, b"", 1), (0, b"", 0)]
        for kind, payload, answers in script[:steps]:
            if kind:
                self.say(kind, payload)
            if kind == 10:
                confirmed.add("one")
            for _ in range(answers):
                assert self.hear()[0]
        self.sock.close()
        return confirmed
