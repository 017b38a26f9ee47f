"""A framed connection off the fast path: whole frames in, whole frames out, bounded both ways."""

from __future__ import annotations

from caa.datapath.frames import RESPONSE, Malformed, Splitter, refusal, too_large
from caa.datapath.handover import blob, number
from caa.datapath.loop import BROKEN, IN, OUT
from caa.datapath.pipe import Outlet
from caa.datapath.tls import WANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.handover import Fields
    from caa.datapath.loop import Loop
    from caa.datapath.sockets import Sock

    class Owner(Protocol):
        def framed(self, channel: Channel, frame: bytes, /) -> object: ...
        def ended(self, channel: Channel, /) -> object: ...


# What a peer may leave unread; beyond it the connection ends. Twice the largest frame.
_UNREAD = 8 << 20


class Channel:
    """Calls `owner.framed` for each frame and `owner.ended` once when the peer has gone, not after our own `close`.

    A frame beyond the limit is answered with RESOURCE_EXHAUSTED by itself when requests are expected.
    """

    __slots__ = ("_expected", "_loop", "_outlet", "_owner", "_sock", "_splitter", "fd")

    def __init__(self, loop: Loop, sock: Sock, *, expected: int, owner: Owner) -> None:
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self._expected = expected
        self._splitter = Splitter(expected)
        self._outlet = Outlet(loop, sock, tls=None)
        self.fd = sock.fileno()
        loop.add(self.fd, IN, owner=self)

    def send(self, frame: bytes) -> None:
        """Send a whole frame, now or when the peer reads; nothing happens when it has gone."""
        if self.fd < 0:
            return
        try:
            self._outlet.send(frame)
        except OSError:
            self._end()
            return
        if self._outlet.waiting() > _UNREAD:
            self._loop.count("unread", "a peer of the control path does not read its answers")
            self._end()

    def freeze(self) -> bytes:
        """Stop reading and writing; returns what a successor needs beside the descriptor."""
        self._loop.remove(self.fd)
        part, skip = self._splitter.state()
        return blob(1, part) + number(2, skip) + blob(3, self._outlet.rest or b"")

    def thaw(self) -> None:
        """Go on after `freeze`."""
        if self.fd >= 0:
            self._loop.add(self.fd, IN | OUT * (self._outlet.rest is not None), owner=self)

    def resume(self, state: Fields) -> None:
        """Go on where the predecessor's was frozen."""
        self._splitter.resume(state.blob(1), state.number(2))
        if state.blob(3):
            self.send(state.blob(3))

    def close(self) -> None:
        """End the connection without calling the owner; again is fine."""
        if self.fd >= 0:
            self._loop.close(self._sock, self.fd)
            self.fd = -1

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._end()

    def _end(self) -> None:
        if self.fd >= 0:
            self.close()
            self._owner.ended(self)

    def ready(self, event: int) -> None:
        """The peer speaks, or there is room to write."""
        if event & OUT:
            try:
                self._outlet.flush()
            except OSError:
                self._end()
        if event & (IN | BROKEN) and self.fd >= 0:
            self._read()

    def _read(self) -> None:
        try:
            got = self._sock.recv_into(self._loop.buffer)
        except WANT:
            return
        except OSError:
            got = 0
        if not got:
            self._end()
            return
        try:
            frames = self._splitter.feed(self._loop.buffer[:got])
        except Malformed as error:
            self._loop.count("malformed", str(error))
            self._end()
            return
        for stream, frame in frames:
            self._take(stream, frame)

    def _take(self, stream: int, frame: bytes | int) -> None:
        if self.fd < 0:
            return
        if not isinstance(frame, int):
            self._owner.framed(self, frame)
            return
        self._loop.count("too large")
        if self._expected != RESPONSE:
            self.send(refusal(stream, too_large(frame)))
