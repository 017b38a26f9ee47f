"""The relay's end of a session: the mux of a pod whose link may break. The shim's connections stay.

While the link is down requests wait in the session, and the shim's health checks are answered here: Kata's Go shim ends
the pod at the first one that stays unanswered for 30 s. That goes for one that was under way at the cut too; an answer
that comes after ours is dropped.

An answer is passed on when it is whole: ours could not be put into the middle of it. A very large one is cut through.
"""

from __future__ import annotations

from caa.datapath import edits
from caa.datapath.branch import Branch
from caa.datapath.flight import reask
from caa.datapath.frames import HEADER, HEADER_SIZE, Malformed, answer, is_check, scan_answers, stream_of
from caa.datapath.loop import BUFFER_SIZE, IN
from caa.datapath.mux import Mux
from caa.datapath.pipe import RECORD, gather
from caa.datapath.replay import LARGE
from caa.datapath.tls import WANT, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.clock import Clock
    from caa.datapath.frames import Buffer, Watch
    from caa.datapath.loop import Loop
    from caa.datapath.mux import Keeper as Lasting
    from caa.datapath.session import Session
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

    class Ground(Protocol):
        loop: Loop
        clock: Clock
        watch: Watch | None

    class Keeper(Lasting, Protocol):
        def cut(self, why: str, /) -> object: ...


SERVING = edits.varint_field(1, 1)  # HealthCheckResponse{status: SERVING}
# Answers of up to this size are passed on whole; an agent answers with 32 KiB at most but for metrics.
WHOLE = 64 << 10
_head = HEADER.unpack_from


class ShimBranch(Branch):
    """A connection of the shim."""

    __slots__ = ("_trunk",)

    def __init__(self, mux: SessionMux) -> None:
        super().__init__(mux)
        self._trunk = mux

    def _plain(self, data: bytearray, at: int) -> bool:
        return not (self._trunk.dark and is_check(data, at)) and super()._plain(data, at)

    def _apart(self, data: bytearray, header: tuple[int, int, int, int]) -> None:
        if self._trunk.dark and is_check(data, 0):
            self.own(answer(stream_of(data), SERVING))
        else:
            super()._apart(data, header)


class SessionMux(Mux):
    """Calls `keeper.cut(reason)` when the link breaks, and `keeper.lost(reason)` once when the session has ended.

    After a cut `go_on` takes the next link, `give_up` ends the waiting. `begin_anew` comes before `go_on` when the
    forwarder was restarted.
    """

    _keeper: Keeper
    _tls: TlsObject
    __slots__ = ("_clock", "_stirred", "_wait", "answered", "session", "unsent")

    def __init__(
        self,
        ground: Ground,
        sock: Sock | None,
        *,
        tls: TlsObject | None,
        session: Session,
        keeper: Keeper,
    ) -> None:
        """Without a `sock` it waits for `go_on`, as between two links."""
        self.session = session
        self._clock = ground.clock
        self._stirred = False
        self._wait = b""  # the beginning of a frame that is not whole, not counted as received
        # Since the cut: bytes of the session before it, and the highest id among them. None while nothing tells.
        self.unsent: tuple[int, int] | None = None
        self.answered: tuple[int, ...] = ()  # calls answered here, whose answers are dropped
        super().__init__(ground.loop, sock, tls=tls, watch=ground.watch, keeper=keeper)
        self.remember()
        if sock is not None:
            self._start()

    def go_on(self, sock: Sock, tls: TlsObject) -> None:
        """Use another link, over which the session has been resumed."""
        self.dark = False
        self.unsent = None
        self.connect(sock, tls)
        self._start()

    def begin_anew(self, session: Session) -> tuple[int, int]:
        """The forwarder has lost the session, not the agent: go on with this one, which has been greeted.

        Long polls and reads are asked again, what has never left here is sent, all else is refused. How many calls
        were asked again and refused.
        """
        count, highest = self.unsent or (self.session.sent, self.last)
        waiting = self.session.since(count)
        self.session = session
        self.answered = ()
        numbers = reask(self, highest)
        if waiting and not self.closed:
            self.send(memoryview(waiting), None)
        return numbers

    def give_up(self, why: str) -> None:
        """Nobody dials any more."""
        self._end(why)

    def _choose_reader(self) -> None:
        """There is TLS always, which is read without more objects."""

    def _start(self) -> None:
        self._clock.add(self)
        self._drain()
        self._go_on()
        if self.fd >= 0:
            self.ready(IN)

    def new_branch(self) -> Branch:
        return ShimBranch(self)

    # To the link

    def send(self, data: memoryview, branch: Branch | None) -> None:
        """Take whole requests; they go out now, or with the next link."""
        session = self.session
        keep = len(data) >= LARGE
        lend = keep and data.obj is self.loop.raw
        out = session.send(data, 0, keep=keep)
        if lend:
            self.loop.lend()
        if out is not None:
            try:
                sent = self.write(out) if self.outlet.rest is None else 0
            except WANT:
                sent = 0
            except OSError as error:
                self._broken(reason(error))
                sent = len(out)
            if sent != len(out):
                self.outlet.keep(out[sent:])
                self.full(branch)
        if session.full:
            self.full(branch)

    def _say(self, data: Buffer) -> None:
        if data and self.fd >= 0:
            try:
                self.outlet.send(data)
            except OSError as error:
                self._broken(reason(error))

    def _drain(self) -> None:
        """Send again what the peer lacks, as far as the link takes it."""
        while self.fd >= 0 and self.outlet.rest is None:
            block = self.session.next()
            if block is None:
                break
            self._say(block)

    def _flush(self) -> bool:
        if super()._flush():
            self._drain()
        return self.outlet.rest is None

    def _go_on(self) -> None:
        if self.stopped and not self.session.full and self.outlet.rest is None:
            super()._go_on()

    # From the link

    def ready(self, event: int) -> None:
        """The link brings answers, or has room for requests."""
        if event != IN:
            self._unusual(event)
            return
        buffer, tls = self.loop.buffer, self._tls
        held = len(self._wait)
        try:
            if held:
                buffer[:held] = self._wait
                got = tls.read(BUFFER_SIZE, buffer[held:])
            else:
                got = tls.read(BUFFER_SIZE, buffer)
        except WANT:
            return
        except OSError as error:
            self._broken(reason(error))
            return
        if got == RECORD:
            got = gather(tls.read, buffer, got=held + got)
        elif got:
            got += held
        else:
            self._broken("closed by the peer")
            return
        self._wait = b""
        self._pass(buffer, got)

    def _pass(self, buffer: memoryview, got: int) -> None:
        session, skip = self.session, self.skip
        if not self._stirred:
            self._stirred = True
            self._clock.stir(self)
        if not skip and not self.answered:
            at, _ = scan_answers(self.loop.raw, got, identity=self.identity, flight=self.flight)
            if at == got:
                session.passed(got, 0)
                if self.owner is not None:
                    self.owner.deliver(buffer[:got])
                if session.urgent:
                    self._attend()
                return
        self._sort(buffer, got)
        if session.urgent and not self.closed:
            self._attend()

    def _sort(self, buffer: memoryview, got: int) -> None:
        """Pass on runs of whole frames; the beginning of another one waits."""
        end = self._whole(got)
        try:
            for run in self.session.received(buffer[:end]) if end else ():
                self._cut_through(run)
        except Malformed as error:
            self.loop.count("malformed", f"from the agent's side: {error}")
            self._end(str(error))
            return
        self._wait = buffer[end:got].tobytes()

    def _cut_through(self, run: memoryview) -> None:
        if len(run) > self.skip:
            self._walk(run)
            return
        self.skip -= len(run)
        self._give(self.to, run)

    def _whole(self, got: int) -> int:
        """Where in the buffer the frame begins that has to wait for the rest of it."""
        at, raw = self.skip, self.loop.raw
        while got - at >= HEADER_SIZE:
            size = _head(raw, at)[0]
            after = at + HEADER_SIZE + size
            if after > got:
                return at if size <= WHOLE else got
            at = after
        return min(at, got)

    def _asker(self, data: memoryview, at: int, *, stream: int) -> Branch | None:
        if stream in self.answered:
            self.answered = tuple(one for one in self.answered if one != stream)
            return None
        return super()._asker(data, at, stream=stream)

    def _attend(self) -> None:
        self._say(self.session.attend())
        if self.session.ended:
            self._end("the forwarder has ended the session: its agent is gone")
        else:
            self._go_on()

    def tick(self, now: float) -> None:
        """Say what is due, and notice a link on which nothing comes."""
        self._stirred = False
        if self.fd < 0:
            return
        self._say(self.session.due(now, reading=not self._held))
        if self.session.dead(now):
            self._broken("nothing has been heard over it for too long")

    # The ends

    def _broken(self, why: str) -> None:
        if self.fd >= 0:
            self.darken(why)

    def freeze(self) -> None:
        """Let go of the link and of the shim's connections, as they are, for a successor; `thaw` takes them back."""
        self._let_go()
        for branch in self.branches:
            branch.freeze()

    def thaw(self) -> None:
        """There is no successor after all."""
        for branch in self.branches:
            branch.thaw()
        self.darken("the hand-over to another relay was broken off")

    def darken(self, why: str) -> None:
        """There is no link for the moment: dial."""
        self._let_go()
        self.dim()
        self._keeper.cut(why)

    def dim(self) -> None:
        """Answer in place of the agent what a shim must not wait for."""
        self.dark = True
        self._answer_checks()
        self._go_on()

    def _let_go(self) -> None:
        if self.fd < 0:
            return
        self._clock.remove(self)
        self.session.cut()
        self.unsent = self.session.sent, self.last
        self.loop.close(self._sock, self.fd)
        self.fd = -1
        self.outlet.rest = None
        self._wait = b""

    def _answer_checks(self) -> None:
        for stream in [stream for stream, frame in (self.flight or {}).items() if is_check(frame, 0)]:
            branch, own = self.take_back(stream)
            if stream <= self.identity:
                self.answered += (stream,)
            if branch is not None:
                branch.own(answer(own, SERVING))

    def _hang_up(self) -> None:
        """An end of ours is told to the forwarder, where the link is free; else it hears nothing of us any more."""
        if self.fd >= 0:
            self._clock.remove(self)
            self.session.end()
            frames = self.session.attend()
            try:
                if frames and self.outlet.flush():
                    self.outlet.send(frames)
            except OSError:
                pass
        super()._hang_up()
