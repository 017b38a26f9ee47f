"""Both ends of a session without a kernel: shims, relay, forwarder and agent, between which links break."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from caa.datapath import frames
from caa.datapath.clock import Clock
from caa.datapath.door import Door
from caa.datapath.greeting import BEGIN_ANEW, GREETING, Forgotten
from caa.datapath.loop import BUFFER_SIZE
from caa.datapath.mux import Mux
from caa.datapath.replay import Pool
from caa.datapath.session import Session
from caa.datapath.session_branch import SessionBranch
from caa.relay.session_mux import SERVING, SessionMux

IN, OUT, HUP = 1, 4, 16


class Pipe:
    """One direction: bytes under way, room for so many, or broken."""

    def __init__(self, room: int = 1 << 16) -> None:
        self.data = bytearray()
        self.room = room
        self.broken = False


class End:
    """A socket, and a TLS object too, over two pipes. Reads at most a record of 16 KiB when it is one."""

    def __init__(self, fd: int, reads: Pipe, writes: Pipe) -> None:
        self.fd, self.reads, self.writes = fd, reads, writes

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        self.reads.broken = self.writes.broken = True

    def shutdown(self) -> None:
        pass

    def recv_into(self, buffer: memoryview) -> int:
        if not self.reads.data:
            if self.reads.broken:
                raise ConnectionResetError
            raise BlockingIOError
        taken = self.reads.data[: len(buffer)]
        del self.reads.data[: len(taken)]
        buffer[: len(taken)] = taken
        return len(taken)

    def send(self, data: Any) -> int:
        if self.writes.broken:
            raise BrokenPipeError
        size = min(len(data), self.writes.room - len(self.writes.data))
        if size <= 0:
            raise BlockingIOError
        self.writes.data += data[:size]
        return size

    def read(self, size: int, buffer: memoryview) -> int:
        return self.recv_into(buffer[: min(size, 16384)])

    write = send

    def ready(self) -> int:
        found = IN if self.reads.data or self.reads.broken else 0
        return found | (OUT if len(self.writes.data) < self.writes.room or self.writes.broken else 0)


class PretendLoop:
    """The loop's face, with time that the test moves."""

    def __init__(self) -> None:
        self.pool = Pool(BUFFER_SIZE + frames.SLACK)
        self.lend()
        self.masks: dict[int, int] = {}
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.ends: dict[int, End] = {}
        self.timers: list[tuple[float, Any]] = []
        self.time = 0.0
        self.counts: list[str] = []

    def lend(self) -> None:
        self.raw = self.pool.take()
        self.buffer = memoryview(self.raw)[:BUFFER_SIZE]

    def end(self, reads: Pipe, writes: Pipe) -> End:
        end = End(len(self.ends) + 3, reads, writes)
        self.ends[end.fd] = end
        return end

    def now(self) -> float:
        return self.time

    def later(self, delay: float, call: Any) -> Any:
        self.timers.append((self.time + delay, call))
        return self

    def cancel(self) -> None:
        """A timer that is cancelled fires in vain here: what it calls is harmless then."""

    def add(self, fd: int, mask: int, *, owner: Any) -> None:
        self.masks[fd], self.handlers[fd] = mask, owner.ready

    def ask(self, fd: int, events: int) -> None:
        assert fd >= 0
        self.masks[fd] |= events

    def mute(self, fd: int, events: int) -> None:
        assert fd >= 0
        self.masks[fd] &= ~events

    def wants(self, fd: int) -> int:
        return self.masks[fd]

    def close(self, thing: End, fd: int) -> None:
        self.masks[fd] = 0
        thing.close()

    def count(self, what: str, text: str = "") -> None:
        self.counts.append(f"{what}: {text}")

    def step(self, chance: random.Random) -> bool:
        events = [(fd, mask & self.ends[fd].ready()) for fd, mask in self.masks.items() if mask]
        events = [(fd, event) for fd, event in events if event]
        if events:
            fd, event = chance.choice(events)
            self.handlers[fd](event)
        return bool(events)

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        due = [call for when, call in self.timers if when <= self.time]
        self.timers = [timer for timer in self.timers if timer[0] > self.time]
        for call in due:
            call()


class World:
    """Everything between the shims and the agent."""

    def __init__(self, seed: int, limit: int) -> None:
        self.chance = random.Random(seed)
        self.loop: Any = PretendLoop()
        self.clock = Clock(self.loop)
        self.watch = None
        self.limit = limit
        self.restarts = self.refused = 0
        self.session = self.new_session()
        self.said: list[str] = []
        self.link: tuple[Pipe, Pipe] = (Pipe(), Pipe())
        self.mux: Any = None
        self.written: set[int] = set()  # calls that must never be carried out twice
        self.start_forwarder()
        self.shims: list[tuple[Pipe, Pipe]] = []
        self.waiting: list[dict[int, bytes]] = []
        self.heard: list[bytearray] = []
        self.last: list[int] = []
        self.answered = 0
        self.ground: Any = self
        self.dial()

    def new_session(self) -> Session:
        identity = bytes((self.restarts,)) * 16
        return Session(identity, b"s" * 32, limit=self.limit, pool=self.loop.pool)

    def start_forwarder(self) -> None:
        """The agent forgets who waited on the connection before."""
        self.door = Door(limit=self.limit, pool=self.loop.pool)
        self.agent_in, self.agent_out = Pipe(), Pipe()
        agent = self.loop.end(self.agent_out, self.agent_in)
        self.agent_mux = Mux(self.loop, agent, tls=None, watch=None, keeper=self)
        self.branch: SessionBranch | None = None
        self.held: list[bytes] = []  # answers that the agent has not given yet
        self.taken = bytearray()
        self.unsaid = bytearray()

    def restart(self) -> None:
        """The forwarder is killed, with all that it has not passed on."""
        self.agent()  # the agent reads what it was sent, and answers in vain
        self.break_link()
        self.loop.masks[self.agent_mux.fd] = 0
        if self.branch is not None and self.branch.fd >= 0:
            self.loop.masks[self.branch.fd] = 0
        self.start_forwarder()

    def lost(self, why: str) -> None:
        self.said.append(why)

    def cut(self, why: str) -> None:
        pass

    def break_link(self) -> None:
        """What was under way is lost, or some of it."""
        for pipe in self.link:
            del pipe.data[self.chance.randrange(len(pipe.data) + 1) :]
            pipe.broken = True

    def dial(self) -> None:
        room = self.chance.choice((300, 5000, 40_000, 1 << 20))
        self.link = (Pipe(room), Pipe(room))
        near: Any = self.loop.end(self.link[0], self.link[1])
        far: Any = self.loop.end(self.link[1], self.link[0])
        word = 0 if self.agent_mux.last else BEGIN_ANEW
        session, answer = self.door.admit(self.session.hello(), b"owner", word=word)
        if session is None:
            with pytest.raises(Forgotten):
                self.session.welcome(answer)
            self.restarts += 1
            self.session = self.new_session()
            self.dial()
            return
        if self.branch is None:
            self.branch = SessionBranch(self.agent_mux, session, clock=self.clock, ended=self.door.forget)
            assert self.agent_mux.adopt(self.branch)
        self.branch.resume_on(far, far, answer=answer)
        welcome = bytes(self.link[0].data[:GREETING])
        del self.link[0].data[:GREETING]
        if self.chance.random() < 0.1:  # cut while the answer is under way
            self.break_link()
            self.dial()
            return
        self.session.welcome(welcome)
        if self.mux is None:
            self.mux = SessionMux(self.ground, near, tls=near, session=self.session, keeper=self)
        else:
            if self.mux.session is not self.session:
                self.mux.begin_anew(self.session)
            self.mux.go_on(near, near)

    def shim(self) -> None:
        pipes = Pipe(), Pipe()
        self.shims.append(pipes)
        self.waiting.append({})
        self.heard.append(bytearray())
        self.last.append(-1)
        assert self.mux.attach(self.loop.end(pipes[0], pipes[1]), None) is not None

    def payload(self) -> bytes:
        kind = self.chance.random()
        return self.chance.randbytes(self.chance.randrange(100 if kind < 0.7 else 9000 if kind < 0.97 else 250_000))

    def ask(self, number: int) -> None:
        self.last[number] += 2
        stream = self.last[number]
        payload = self.payload()
        kind = self.chance.random()
        service, method = ("grpc.Health", "Check") if kind < 0.2 else (frames.AGENT, "ReadStdout")
        method = "WriteStdin" if kind > 0.8 else method
        data = frames.call(service, method, stream=stream, payload=payload)
        self.waiting[number][stream] = payload if method != "Check" else payload + b"check"
        self.shims[number][0].data += data

    def hear(self, number: int) -> None:
        """Take what is there, and compare whole answers."""
        data, arrived = self.heard[number], self.shims[number][1].data
        data += arrived
        arrived.clear()
        while len(data) >= 10 and len(data) >= 10 + frames.HEADER.unpack_from(data)[0]:
            size, stream, kind, _ = frames.HEADER.unpack_from(data)
            expected = self.waiting[number].pop(stream)  # KeyError: answered twice
            own = expected.endswith(b"check") and data[: 10 + size] == frames.answer(stream, SERVING)
            assert kind == 2
            if b"is not repeated" in data[: 10 + size]:
                assert self.restarts
                self.refused += 1
                own = True
            assert own or data[: 10 + size] == frames.answer(stream, expected.removesuffix(b"check"))
            del data[: 10 + size]
            self.answered += 1

    def agent(self) -> None:
        data = self.taken
        data += self.agent_in.data
        self.agent_in.data.clear()
        while len(data) >= 10 and len(data) >= 10 + frames.HEADER.unpack_from(data)[0]:
            size, stream, kind, _ = frames.HEADER.unpack_from(data)
            assert kind == 1
            request = frames.Request(bytes(data[10 : 10 + size]))
            if request.method == "WriteStdin":
                assert stream not in self.written, "carried out twice"
                self.written.add(stream)
            self.held.append(frames.answer(stream, request.payload))
            del data[: 10 + size]
        self.chance.shuffle(self.held)
        for _ in range(self.chance.randrange(len(self.held) + 1)):
            self.unsaid += self.held.pop()
        size = min(len(self.unsaid), self.agent_out.room - len(self.agent_out.data))
        self.agent_out.data += self.unsaid[:size]
        del self.unsaid[:size]

    def act(self, restarts: float = 0.0) -> None:
        kind = self.chance.random()
        number = self.chance.randrange(len(self.shims))
        if self.chance.random() < restarts:
            self.restart()
        if self.shims[number][1].broken:  # it had got a part of a long answer when the forwarder was killed
            self.waiting[number].clear()
            self.shims[number] = Pipe(), Pipe()
            self.heard[number].clear()
            self.last[number] = -1
            self.mux.attach(self.loop.end(*self.shims[number]), None)
        if kind < 0.1 and len(self.waiting[number]) < 12:
            self.ask(number)
        elif kind < 0.2:
            self.agent()
        elif kind < 0.3:
            self.hear(number)
            self.shims[number][1].room = self.chance.choice((500, 1 << 16))
        elif kind < 0.32:
            self.loop.pass_time(0.1)
        elif kind < 0.325:
            self.break_link()
        elif kind < 0.34 and self.mux.dark:
            self.dial()
        else:
            self.loop.step(self.chance)

    def settle(self) -> None:
        """Nothing breaks any more: everything that was asked must be answered."""
        for pipes in self.shims:
            pipes[1].room = 1 << 20
        idle = 0
        while idle < 30:
            moved = self.loop.step(self.chance)
            if self.mux.dark:
                self.dial()
            if not moved or self.chance.random() < 0.1:
                before = self.answered
                self.agent()
                for number in range(len(self.shims)):
                    self.hear(number)
                idle = 0 if moved or self.answered > before else idle + 1
                self.loop.pass_time(0.1)
            if self.answered and not any(self.waiting) and not self.held:
                break
