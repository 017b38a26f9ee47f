"""A multiplexer's surroundings without a kernel: sockets that take and give what they are told, an agent, shims."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from caa.datapath import edits, frames
from caa.datapath.branch import Branch
from caa.datapath.mux import Mux

IN, OUT = 1, 4


class PretendSock:
    """A socket with an inbox of pieces and room for so many bytes; `None` is room without end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inbox: deque[bytes] = deque()
        self.out = bytearray()
        self.room: int | None = None
        self.closed = False

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        self.closed = True

    def recv_into(self, buffer: memoryview) -> int:
        if not self.inbox:
            raise BlockingIOError
        piece = self.inbox.popleft()
        take = piece[: len(buffer)]
        if len(piece) > len(take):
            self.inbox.appendleft(piece[len(take) :])
        buffer[: len(take)] = take
        return len(take)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.closed:
            raise BrokenPipeError
        size = len(data) if self.room is None else min(self.room, len(data))
        if size == 0:
            raise BlockingIOError
        self.out += data[:size]
        if self.room is not None:
            self.room -= size
        return size


class PretendLoop:
    """Handlers and masks as in the real loop; `step` plays one event."""

    def __init__(self) -> None:
        self.raw = bytearray((1 << 17) + frames.SLACK)
        self.buffer = memoryview(self.raw)[: 1 << 17]
        self.masks: dict[int, int] = {}
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.socks: dict[int, PretendSock] = {}
        self.counts: dict[str, int] = {}

    def sock(self) -> PretendSock:
        sock = PretendSock(len(self.socks) + 3)
        self.socks[sock.fd] = sock
        return sock

    def add(self, fd: int, mask: int, *, owner: Any) -> None:
        self.masks[fd] = mask
        self.handlers[fd] = owner.ready

    def ask(self, fd: int, events: int) -> None:
        self.masks[fd] = self.masks.get(fd, 0) | events

    def mute(self, fd: int, events: int) -> None:
        self.masks[fd] = self.masks.get(fd, 0) & ~events

    def wants(self, fd: int) -> int:
        return self.masks.get(fd, 0)

    def close(self, thing: PretendSock, fd: int) -> None:
        self.masks[fd] = 0
        thing.close()

    def count(self, what: str, text: str = "") -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def ready(self) -> list[tuple[int, int]]:
        found = []
        for fd, mask in self.masks.items():
            sock = self.socks[fd]
            event = (IN if mask & IN and sock.inbox else 0) | (OUT if mask & OUT and sock.room != 0 else 0)
            if event:
                found.append((fd, event))
        return found

    def step(self, chance: random.Random) -> bool:
        ready = self.ready()
        if ready:
            fd, event = chance.choice(ready)
            self.handlers[fd](event)
        return bool(ready)

    def settle(self) -> None:
        chance = random.Random(0)
        while self.step(chance):
            pass


class World:
    """A mux, its pretended loop and what it said when the upstream was lost."""

    def __init__(self, rewrites: dict[str, Any] | None = None) -> None:
        self.loop: Any = PretendLoop()
        self.up: Any = self.loop.sock()
        self.ends: list[str] = []
        watch = frames.Watch(rewrites) if rewrites else None
        self.mux = Mux(self.loop, self.up, tls=None, watch=watch, keeper=self)

    def lost(self, why: str) -> None:
        self.ends.append(why)

    def shim(self) -> tuple[Any, Branch]:
        sock = self.loop.sock()
        branch = self.mux.attach(sock, None)
        assert branch is not None
        return sock, branch

    def say(self, sock: Any, *pieces: bytes) -> None:
        sock.inbox.extend(pieces)
        self.loop.settle()


def request(stream: int, payload: bytes = b"", method: str = "ReadStdout") -> bytes:
    return frames.call(frames.AGENT, method, stream=stream, payload=payload, timeout=9)


def split(data: bytes) -> list[tuple[int, int, bytes]]:
    """Whole frames only: (stream, type, payload)."""
    found = []
    at = 0
    while at < len(data):
        size, stream, kind, _ = frames.HEADER.unpack_from(data, at)
        assert at + 10 + size <= len(data), "half a frame"
        found.append((stream, kind, bytes(data[at + 10 : at + 10 + size])))
        at += 10 + size
    return found


def status(payload: bytes) -> tuple[int, str]:
    body = edits.last_bytes(payload, 1)
    return edits.last_varint(body, 1), edits.last_bytes(body, 2).decode()


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    found = []
    while data:
        size = chance.choice((1, 3, 9, 10, 11, 40, 200, 5000))
        found.append(data[:size])
        data = data[size:]
    return found


def deny(_payload: bytes) -> bytes:
    raise frames.Refused(7, "not here")


class Agent:
    """Checks what comes up as Go's server does, and answers in any order with the payload it saw."""

    def __init__(self, sock: Any, chance: random.Random) -> None:
        self.sock, self.chance = sock, chance
        self.seen = bytearray()
        self.last = 0
        self.open: list[tuple[int, bytes]] = []
        self.out = bytearray()

    def work(self) -> None:
        self.seen += self.sock.out
        self.sock.out.clear()
        while len(self.seen) >= 10:
            size, stream, kind, _ = frames.HEADER.unpack_from(self.seen)
            if len(self.seen) < 10 + size:
                break
            assert kind == frames.REQUEST
            assert stream & 1
            assert stream > self.last, "ids must grow"
            self.last = stream
            self.open.append((stream, edits.last_bytes(bytes(self.seen[10 : 10 + size]), 3)))
            del self.seen[: 10 + size]
        self.chance.shuffle(self.open)
        for _ in range(self.chance.randint(0, len(self.open))):
            self.out += frames.answer(*self.open.pop())

    def speak(self) -> None:
        if self.out:
            parts = pieces(self.chance, bytes(self.out))
            keep = self.chance.randint(0, len(parts))
            self.sock.inbox.extend(parts[:keep])
            self.out = bytearray(b"".join(parts[keep:]))


class Shim:
    """Sends its calls in fragments, may stop in the middle, and checks every answer."""

    def __init__(self, world: World, sizes: list[int], chance: random.Random, dies: bool) -> None:
        self.sock, self.branch = world.shim()
        self.expected: dict[int, bytes | None] = {}
        self.chance = chance
        self.got = bytearray()
        self.dies = dies
        self.gone = False
        stream = bytearray()
        for place, size in enumerate(sizes):
            method = chance.choice(("ReadStdout", "ReadStdout", "Edit", "Deny"))
            payload = chance.randbytes(size)
            number = 2 * place + 1
            answer = {"Edit": payload[::-1], "Deny": None}.get(method, payload)
            self.expected[number] = answer
            stream += request(number, payload, method)
        self.unsent = deque(pieces(chance, bytes(stream)))

    def work(self) -> None:
        for _ in range(self.chance.randint(0, 3)):
            if self.unsent:
                self.sock.inbox.append(self.unsent.popleft())
        self.got += self.sock.out
        self.sock.out.clear()
        while len(self.got) >= 10:
            size, stream, kind, _ = frames.HEADER.unpack_from(self.got)
            if len(self.got) < 10 + size:
                break
            assert kind == frames.RESPONSE
            self.check(stream, bytes(self.got[10 : 10 + size]))
            del self.got[: 10 + size]
        if self.dies and self.chance.random() < 0.05:
            self.sock.inbox.append(b"")
            self.unsent.clear()
            self.expected.clear()
            self.gone = True

    def check(self, stream: int, payload: bytes) -> None:
        expected = self.expected.pop(stream)
        if expected is None:
            assert status(payload) == (7, "not here")
        else:
            assert status(payload) == (0, "")
            assert edits.last_bytes(payload, 2) == expected

    def dead(self) -> bool:
        return self.gone
