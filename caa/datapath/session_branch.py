"""The forwarder's end of a session: a branch of the agent's mux that outlives its links.

Requests come from the session, answers go into it. What is said while no link is there waits in the session; when that
is full the agent is read no further than to the end of the frame under way.
"""

from __future__ import annotations

from caa.datapath.branch import Branch
from caa.datapath.frames import Malformed, scan_requests
from caa.datapath.loop import IN
from caa.datapath.replay import LARGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from caa.datapath.clock import Clock
    from caa.datapath.frames import Buffer
    from caa.datapath.loop import Timer
    from caa.datapath.mux import Mux
    from caa.datapath.session import Session
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

# How long a session waits for its relay.
KEEP_SECONDS = 600.0
# Requests that may wait for a slow agent while acknowledgements are needed: without them both directions could stand.
_STUCK_LIMIT = 4 << 20


class SessionBranch(Branch):
    """`ended(session)` is called once, when the session has ended, by either side or because nobody came back."""

    __slots__ = ("_clock", "_ended", "_expiry", "_keep", "_stirred", "_trunk", "session")

    def __init__(self, mux: Mux, session: Session, *, clock: Clock, ended: Callable[[Session], object]) -> None:
        super().__init__(mux)
        self._trunk = mux
        self._clock = clock
        self._ended = ended
        self._expiry: Timer | None = None
        self._keep = KEEP_SECONDS
        self._stirred = False
        self.session = session

    def keep_for(self, seconds: float) -> None:
        """Wait so long for the relay after a cut."""
        self._keep = seconds

    def resume_on(self, sock: Sock, tls: TlsObject, *, answer: bytes) -> None:
        """Go on over a new link, which gets the answer first. The old one is closed unread: the counts stand."""
        self._hang_up()
        self._forget_expiry()
        self._choked = False
        self.connect(sock, tls)
        self._clock.add(self)
        if self._say_control(answer):
            self._drain()
            self._let_go()
        if self.fd >= 0:
            self.ready(IN)

    def close(self) -> None:
        """End the session; the relay hears it if the stream is between two frames, else when it dials again."""
        if not self.alive:
            return
        self.session.end()
        self._say_control(self.session.attend())
        self._forget_expiry()
        super().close()
        self._ended(self.session)

    def _forget_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _hang_up(self) -> None:
        self._clock.remove(self)
        super()._hang_up()

    def _broken(self) -> None:
        """The link is gone, the session waits."""
        if self.fd < 0:
            return
        self._hang_up()
        self.session.cut()
        self.outlet.rest = None
        self._expiry = self._mux.loop.later(self._keep, self._expire)
        self._let_go()

    def _expire(self) -> None:
        self._mux.loop.count("session expired", f"no relay came back within {self._keep:g} s")
        self.close()

    # Answers

    def deliver(self, data: memoryview) -> None:
        """Take a part of the stream of answers."""
        if not self.alive:
            return
        loop = self._mux.loop
        keep = len(data) >= LARGE and data.obj is loop.raw
        out = self.session.send(data, self._trunk.skip, keep=keep)
        if keep:
            loop.lend()
        if out is not None:
            self._emit(out)
        if self.late and not self._mux.within(self):
            self._say(b"".join(self.late))
            self.late = ()
            self._relax()
        if self.session.full and self.alive:
            self._let_go()

    def _emit(self, out: Buffer) -> None:
        try:
            if not self.outlet.send(out):
                self._mux.hold(self)
        except OSError:
            self._broken()

    def _say(self, data: bytes) -> None:
        out = self.session.send(memoryview(data), 0)
        if out is not None:
            self._emit(out)
        if self.session.full:
            self._let_go()

    def _say_control(self, data: Buffer) -> bool:
        """Write a control frame, which holds up nobody; whether the link still stands."""
        if data and self.fd >= 0:
            try:
                self.outlet.send(data)
            except OSError:
                self._broken()
        return self.fd >= 0

    def _drain(self) -> None:
        """Send again what the peer lacks, as far as the link takes it."""
        while self.fd >= 0 and self.outlet.rest is None:
            block = self.session.next()
            if block is None:
                break
            self._say_control(block)

    def _flush(self) -> None:
        try:
            done = self.outlet.flush()
        except OSError:
            self._broken()
            return
        if done:
            self._drain()
            self._let_go()

    def _let_go(self) -> None:
        """Read the agent again, as far as there is room: when full, to the end of the frame under way."""
        if self.fd >= 0 and self.outlet.rest is not None:
            return
        if self.session.full:
            self._trunk.brake(self)
            if self.fd >= 0 and not self._obeys():
                self._mux.loop.ask(self.fd, IN)
            return
        self._mux.release(self)
        self._relax()
        if self._mux.stopped:
            self.pause()

    # Requests

    def pause(self) -> None:
        """There is no room upstream."""
        if self._obeys():
            super().pause()

    def _obeys(self) -> bool:
        return not self.session.full or self._mux.outlet.waiting() > _STUCK_LIMIT

    def _pass(self, buffer: memoryview, got: int) -> None:
        mux, session, raw = self._mux, self.session, self._mux.loop.raw
        if not self._stirred:
            self._stirred = True
            self._clock.stir(self)
        at = 0
        if mux.direct is self and self.part is None and not self.drop and not session.part:
            at, highest = scan_requests(raw, got, watch=mux.watch)
        if at == got:
            if highest > mux.last:  # noqa: PLR1730  # max() is a call
                mux.last = highest
            session.passed(got, 0)
            mux.send(buffer[:got], self)
        else:
            self._sort(buffer, raw, got=got)
        if session.urgent and self.alive:
            self._attend()

    def _sort(self, buffer: memoryview, raw: bytearray, *, got: int) -> None:
        try:
            for run in self.session.received(buffer[:got]):
                if run.obj is raw and len(run) == got:
                    self._walk(raw, at=0, end=got)
                else:
                    self._walk(bytearray(run), at=0, end=len(run))
        except Malformed as error:
            self._mux.loop.count("malformed", f"from the relay: {error}")
            self.close()

    def _attend(self) -> None:
        self._say_control(self.session.attend())
        if self.session.ended:
            self.close()
        else:
            self._let_go()

    def tick(self, now: float) -> None:
        """Say what is due."""
        self._stirred = False
        if self.fd >= 0:
            reading = bool(self._mux.loop.wants(self.fd) & IN)
            self._say_control(self.session.due(now, reading=reading))
