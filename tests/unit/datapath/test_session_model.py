"""Two sessions and a network that cuts, delays and reorders, against a model: every byte once and in order."""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from caa.datapath import door, replay, session
from caa.datapath.door import Door
from caa.datapath.frames import HEADER
from caa.datapath.greeting import ACK, END, GREETING, LATE, Greeting, Late, control
from caa.datapath.session import Session

IDENTITY, SECRET, OWNER = b"i" * 16, b"s" * 32, b"certificate"
LIMIT, BLOCK, LARGEST = 6000, 4096, 5000


class ScribblingPool(replay.Pool):
    """Writes over what comes back, so that a block in use shows."""

    def give(self, block: bytearray) -> None:
        block[:] = b"\xee" * len(block)
        super().give(block)


def frame(rng: random.Random, stream: int) -> bytes:
    size = rng.choice((0, 1, rng.randrange(60), rng.randrange(600), rng.randrange(LARGEST)))
    payload = rng.randbytes(size)
    if rng.random() < 0.3:
        payload = control(rng.choice((ACK, END)), bytes(8)) + payload
    return HEADER.pack(len(payload), stream, rng.choice((1, 2)), 0) + payload


class Wire:
    """One connection: what is under way to the relay [0] and to the forwarder [1]."""

    def __init__(self, hello: bytes) -> None:
        self.under_way = [bytearray(), bytearray(hello)]
        self.greeted = False


class Side:
    """An application with its session, doing what the session's module says that a process does."""

    def __init__(self, rng: random.Random, which: int) -> None:
        self.which = which
        self.rng = rng
        frames = [frame(rng, 2 * number + 1) for number in range(rng.randrange(1, 60))]
        self.source = b"".join(frames)
        self.ends = [0]
        for one in frames:
            self.ends.append(self.ends[-1] + len(one))
        self.position = 0
        self.inbox = bytearray()
        self.pool = ScribblingPool(BLOCK, most=4)
        self.buffer = self.pool.take()
        self.wire: Wire | None = None
        self.blocked = False  # the outlet holds something
        self.session: Session

    def write(self, out: object) -> None:
        if out and self.wire is not None:
            assert self.session.up
            self.wire.under_way[1 - self.which] += out  # type: ignore[arg-type]

    def flow(self) -> None:
        """Write what comes next until the outlet is full."""
        while self.wire is not None and not self.blocked:
            block = self.session.next()
            if block is None:
                break
            self.write(block)
            self.blocked = self.rng.random() < 0.5

    def _ends_after(self, end: int) -> tuple[int, int]:
        """Where a run may end, not within a header, and how much of its frame is missing then."""
        for begin, after in zip(self.ends, self.ends[1:], strict=False):
            if begin < end < begin + 10:
                return (begin, 0) if begin > self.position else (begin + 10, after - begin - 10)
            if begin < end <= after:
                return end, after - end
        raise AssertionError(end)

    def say(self, size: int, by_mux: bool) -> None:
        size = min(self.session.room(size), len(self.source) - self.position)
        if not size or (self.blocked and self.rng.random() < 0.5):  # else it was read in the same batch of events
            return
        end, ahead = self._ends_after(self.position + size)
        run = self.source[self.position : end]
        self.position = end
        self.buffer[: len(run)] = run
        view = memoryview(self.buffer)[: len(run)]
        keep = len(run) >= replay.LARGE
        self.write(self.session.send(view, ahead if by_mux else -1, keep=keep))
        if keep:
            self.buffer = self.pool.take()

    def hear(self, size: int) -> None:
        """Take so many bytes from the wire."""
        assert self.wire is not None
        data = self.wire.under_way[self.which][:size]
        del self.wire.under_way[self.which][:size]
        for run in self.session.received(memoryview(data)) if data else ():
            self.inbox += run
        if self.session.urgent:
            self.write(self.session.attend())

    def drop(self) -> None:
        self.session.cut()
        self.wire = None
        self.blocked = False

    def move(self) -> None:
        """Another process goes on."""
        self.drop()
        state = self.session.dump()
        self.session.cut()
        self.session = Session.load(state, limit=LIMIT, pool=self.pool)
        assert self.session.dump() == state


class Links(RuleBasedStateMachine):
    """Side 0 is the relay, side 1 the forwarder."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        rng = random.Random(seed)
        self.now = 0.0
        self.relay, self.forwarder = self.sides = Side(rng, 0), Side(rng, 1)
        self.relay.session = Session(IDENTITY, SECRET, limit=LIMIT, pool=self.relay.pool)
        self.door = Door(limit=LIMIT, pool=self.forwarder.pool)
        self.hellos: list[Wire] = []  # that have not arrived, in any order

    @rule(
        acts=st.lists(
            st.tuples(
                st.integers(0, 1),
                st.sampled_from(("say", "say as the mux", "carry", "carry")),
                st.one_of(st.integers(1, 30), st.integers(1, 20000)),
            ),
            min_size=5,
            max_size=30,
        )
    )
    def traffic(self, acts: list[tuple[int, str, int]]) -> None:
        for which, act, size in acts:
            side = self.sides[which]
            if which == 1 and not self.door.sessions:
                continue
            if act == "carry":
                self._carry(side, size)
            else:
                side.say(min(size, BLOCK), act != "say")

    @rule()
    def connect(self) -> None:
        """A dial that nothing disturbs, which is the usual case; the numbers may have to be evened out first."""
        for _ in range(2):
            self.dial()
            self._arrive(self.hellos.pop())
            self._carry(self.relay, 1)

    def _carry(self, side: Side, size: int) -> None:
        side.blocked = False
        if side is self.relay and side.wire is not None and not side.wire.greeted:
            self._greet()
        elif side.wire is not None:
            side.hear(size)
        if side.wire is not None:
            side.flow()

    def _greet(self) -> None:
        wire = self.relay.wire
        assert wire is not None
        if len(wire.under_way[0]) >= GREETING:
            answer = bytes(wire.under_way[0][:GREETING])
            del wire.under_way[0][:GREETING]
            wire.greeted = True
            try:
                self.relay.session.welcome(answer)
            except Late:
                self.relay.drop()

    @rule()
    def dial(self) -> None:
        self.relay.drop()
        self.relay.wire = Wire(self.relay.session.hello())
        self.hellos.append(self.relay.wire)

    @rule(which=st.integers(0, 1000))
    def arrive(self, which: int) -> None:
        """A connection reaches the forwarder, perhaps one that nobody waits for any more."""
        if self.hellos:
            wire = self.hellos.pop(which % len(self.hellos))
            if which < 900:  # else it never arrives
                self._arrive(wire)

    def _arrive(self, wire: Wire) -> None:
        hello = bytes(wire.under_way[1][:GREETING])
        del wire.under_way[1][:GREETING]
        before = max((one.attempt for one in self.door.sessions.values()), default=0)
        found, answer = self.door.admit(hello, OWNER)
        late = Greeting(hello).attempt <= before
        assert (found is None) == late
        if found is None:
            assert Greeting(answer).kind == LATE
        else:
            self.forwarder.wire = wire
            self.forwarder.blocked = False
            self.forwarder.session = found
        wire.under_way[0] += answer
        self.forwarder.flow()

    @rule(relay=st.booleans(), forwarder=st.booleans())
    def cut(self, relay: bool, forwarder: bool) -> None:
        """All that is under way is lost; either end may notice now, or later."""
        if relay:
            self.relay.drop()
        if forwarder and self.door.sessions:
            self.forwarder.drop()

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0)), reading=st.booleans())
    def tick(self, seconds: float, reading: bool) -> None:
        self.now += seconds
        for side in self.sides:
            if side.wire is not None and side.session.up:
                side.write(side.session.due(self.now, reading=reading))

    @rule(side=st.integers(0, 1))
    def hand_over(self, side: int) -> None:
        if side == 0:
            self.relay.move()
        elif self.door.sessions:
            self.forwarder.move()
            self.door.sessions[IDENTITY] = self.forwarder.session

    @rule()
    def failed_hand_over(self) -> None:
        """The successor reached the forwarder, then died: the old one goes on."""
        self.relay.drop()
        successor = Session.load(self.relay.session.dump())
        for _ in range(2):
            self._arrive(Wire(successor.hello()))

    @rule(secret=st.booleans(), attempt=st.integers(1, 1 << 20))
    def stranger(self, secret: bool, attempt: int) -> None:
        if self.door.sessions:
            state, up = self.forwarder.session.dump(), self.forwarder.session.up
            thief = Session(IDENTITY, SECRET if secret else b"t" * 32)
            thief.attempt = attempt
            assert self.door.admit(thief.hello(), b"another" if secret else OWNER) == (None, b"")
            assert (self.forwarder.session.dump(), self.forwarder.session.up) == (state, up)

    @rule(side=st.integers(0, 1))
    def ask(self, side: int) -> None:
        if side == 0 or self.door.sessions:
            self.sides[side].write(self.sides[side].session.ask())

    @invariant()
    def every_byte_once_and_in_order(self) -> None:
        if hasattr(self, "sides"):
            for side, other in (self.sides, self.sides[::-1]):
                assert other.source.startswith(side.inbox)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for side in getattr(self, "sides", ()):
            if hasattr(side, "session"):
                unacknowledged = side.session.sent - side.session._peer
                assert unacknowledged < LIMIT + BLOCK + LARGEST + 40
                assert side.session.full == (unacknowledged >= LIMIT)

    def teardown(self) -> None:
        """With a link that holds, everything comes through."""
        if not hasattr(self, "sides"):
            return
        self.connect()
        for _ in range(2000):
            if all(len(one.inbox) == len(other.source) for one, other in (self.sides, self.sides[::-1])):
                return
            for side in self.sides:
                side.say(BLOCK, True)
                self._carry(side, 3000)
            self.tick(0.1, True)
        raise AssertionError("stuck")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    def shrink(ride: int, push: int) -> None:
        monkeypatch.setattr(session, "RIDE", ride)
        monkeypatch.setattr(session, "PUSH", push)
        monkeypatch.setattr(replay, "LARGE", 900)
        monkeypatch.setattr(replay, "BLOCK", 1500)
        monkeypatch.setattr(door, "LIMIT", LIMIT)

    return shrink


@pytest.mark.parametrize(("ride", "push"), [(600, 1800), (128 << 10, 512 << 10)])
def test_every_byte_arrives_once_and_in_order(small: Callable[[int, int], None], ride: int, push: int) -> None:
    small(ride, push)
    run_state_machine_as_test(
        Links,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
