"""One downstream connection of a mux: requests are stored until whole and go up, answers go down.

A shim that dies in the middle of a request must not leave half a frame on the connection it shares.
"""

from __future__ import annotations

from caa.datapath.frames import (
    HEADER,
    HEADER_SIZE,
    MAX_PAYLOAD,
    NOTED,
    REQUEST,
    RESOURCE_EXHAUSTED,
    Later,
    Malformed,
    Refused,
    check,
    refusal,
    scan_requests,
    too_large,
    with_payload,
)
from caa.datapath.loop import BROKEN, IN, OUT
from caa.datapath.pipe import RECORD, Outlet, gather, reader
from caa.datapath.tls import WANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.frames import Flight, Watch
    from caa.datapath.loop import Loop
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

    class Trunk(Protocol):
        """What a branch needs of its mux."""

        loop: Loop
        outlet: Outlet
        watch: Watch | None
        last: int
        dark: bool
        flight: Flight | None
        stopped: bool

        @property
        def direct(self) -> object: ...
        def claim(self, branch: Branch) -> bool: ...
        def number_calls(self) -> None: ...
        def rename(self, branch: Branch, data: bytearray, *, at: int) -> bool: ...
        def send(self, data: memoryview, branch: Branch) -> None: ...
        def within(self, branch: Branch) -> bool: ...
        def hold(self, branch: Branch) -> None: ...
        def release(self, branch: Branch) -> None: ...
        def detach(self, branch: Branch) -> None: ...


# Answers of our own that a branch may leave unread before its requests are no longer read.
_OWN_ANSWERS = 256 << 10
_LATE_ANSWERS = 256
# Calls that wait for an answer while they are remembered or their ids are mapped. A shim has at most 7 (seen).
MAX_CALLS = 4096
_head = HEADER.unpack_from


class Branch:
    """The downstream half. Closing it, from either side, leaves the mux and the other branches alone."""

    __slots__ = (
        "_choked",
        "_mux",
        "_read",
        "_sock",
        "_tls",
        "alive",
        "drop",
        "fd",
        "late",
        "outlet",
        "part",
    )

    def __init__(self, mux: Trunk) -> None:
        self._mux = mux
        self.part: bytearray | None = None  # a request that is not whole yet
        self.drop = 0  # bytes still to come of a request that is too large
        self._choked = False
        self.alive = True
        self.late: tuple[bytes, ...] = ()  # answers of our own that wait for the end of a frame
        self.fd = -1

    def connect(self, sock: Sock, tls: TlsObject | None) -> None:
        """Use this connection."""
        loop = self._mux.loop
        self._sock = sock
        self._tls = tls
        self._read = reader(sock, tls)
        self.outlet = Outlet(loop, sock, tls=tls)
        self.fd = self.outlet.fd
        loop.add(self.fd, 0 if self._mux.stopped else IN, owner=self)

    def freeze(self) -> None:
        """Stop reading and writing; the connection stays open."""
        self._mux.loop.remove(self.fd)

    def thaw(self) -> None:
        """Go on after `freeze`, or after `connect` with a state that was loaded."""
        loop, waits = self._mux.loop, self.outlet.rest is not None
        loop.add(self.fd, IN * (not self._mux.stopped) | OUT * waits, owner=self)
        if waits:
            self._mux.hold(self)

    def leave(self) -> None:
        """Close our copy of a connection that somebody else holds."""
        self.alive = False
        self._hang_up()

    def close(self) -> None:
        """End this connection; again is fine."""
        if not self.alive:
            return
        self.alive = False
        self._hang_up()
        self.part = None
        self.late = ()
        self._mux.detach(self)

    def _hang_up(self) -> None:
        if self.fd >= 0:
            self._mux.loop.close(self._sock, self.fd)
            self.fd = -1

    def _broken(self) -> None:
        """The connection is gone."""
        self.close()

    def crashed(self) -> None:
        """A handler failed."""
        self.close()

    # Answers

    def deliver(self, data: memoryview) -> None:
        """Pass on a part of the stream of answers."""
        if not self.alive:
            return
        try:
            done = self.outlet.send(data)
            if self.late and not self._mux.within(self):
                done = self.outlet.send(b"".join(self.late))
                self.late = ()
                self._relax()
        except OSError:
            self._broken()
            return
        if not done:
            self._mux.hold(self)

    def refuse(self, stream: int, refused: Refused) -> None:
        """Refuse a call ourselves."""
        self.own(refusal(stream, refused))

    def own(self, data: bytes) -> None:
        """Put in an answer of our own, between two frames."""
        if not self.alive:
            return
        if self._mux.within(self):
            self.late += (data,)
        else:
            self._say(data)
        if self.fd >= 0 and (len(self.late) > _LATE_ANSWERS or self.outlet.waiting() > _OWN_ANSWERS):
            self._choked = True
            self._mux.loop.mute(self.fd, IN)

    def _say(self, data: bytes) -> None:
        try:
            if not self.outlet.send(data):
                self._mux.hold(self)
        except OSError:
            self._broken()

    def pause(self) -> None:
        """There is no room upstream."""
        if self.fd >= 0:
            self._mux.loop.mute(self.fd, IN)

    def resume(self) -> None:
        """There is room upstream again."""
        if not self._choked and self.fd >= 0:
            self._mux.loop.ask(self.fd, IN)

    def _relax(self) -> None:
        """What we had to say ourselves is on its way."""
        self._choked = False
        if not self._mux.stopped:
            self.resume()

    # Requests

    def ready(self, event: int) -> None:
        """A request, or room for answers."""
        if event != IN:
            self._unusual(event)
            return
        mux = self._mux
        if mux.stopped and self._obeys():
            return  # paused by another branch within this batch of events
        buffer = mux.loop.buffer
        try:
            got = self._read(buffer)
        except WANT:
            return
        except OSError:
            self._broken()
            return
        if got == RECORD and self._tls is not None:
            got = gather(self._tls.read, buffer, got=got)
        elif not got:
            self._broken()
            return
        self._pass(buffer, got)

    def _obeys(self) -> bool:
        """Whether nothing is read while nothing can be sent."""
        return True

    def _pass(self, buffer: memoryview, got: int) -> None:
        """Pass on what was read. Whole requests that need no look inside are nearly all there is."""
        mux = self._mux
        at = 0
        raw = mux.loop.raw
        flight = mux.flight
        few = flight is None or len(flight) < MAX_CALLS
        if mux.direct is self and self.part is None and not self.drop and few and not mux.dark:
            at, highest = scan_requests(raw, got, watch=mux.watch, flight=flight)
            if highest > mux.last:  # noqa: PLR1730  # max() is a call, and this is met by every request
                mux.last = highest
            if at:
                mux.send(buffer[:at], self)
            if at == got:
                return
        try:
            self._walk(raw, at=at, end=got)
        except Malformed as error:
            mux.loop.count("malformed", f"from the shim's side: {error}")
            self.close()

    def _unusual(self, event: int) -> None:
        if event & OUT:
            self._flush()
        if self.fd >= 0 and event & (IN | BROKEN) and self._mux.loop.wants(self.fd) & IN:
            self.ready(IN)

    def _flush(self) -> None:
        try:
            if not self.outlet.flush():
                return
        except OSError:
            self._broken()
            return
        self._mux.release(self)
        self._relax()

    def _walk(self, data: bytearray, *, at: int, end: int) -> None:
        """Send runs of whole frames; those that are changed or refused go apart; keep the rest."""
        if self.part is not None:
            at = self._fill(self.part, data, at=at, end=end)
        skipped = min(self.drop, end - at)
        self.drop -= skipped
        start = at = at + skipped
        while end - at >= HEADER_SIZE and self.alive:
            header = _head(data, at)
            check(header, REQUEST)
            size = header[0]
            after = at + HEADER_SIZE + size
            if after > end and size <= MAX_PAYLOAD:
                break
            if size > MAX_PAYLOAD or not self._plain(data, at):
                self._send(data, start=start, end=at)
                self._apart(data[at : min(after, end)], header)
                start = after
            at = after
        if at > end:
            self.drop = at - end
            return
        self._send(data, start=start, end=at)
        if at < end and self.alive:
            self.part = data[at:end]

    def _fill(self, part: bytearray, data: bytearray, *, at: int, end: int) -> int:
        """Complete the stored request from `data[at:end]`; returns where the next one begins."""
        taken = min(max(HEADER_SIZE - len(part), 0), end - at)
        part += memoryview(data)[at : at + taken]
        at += taken
        if len(part) < HEADER_SIZE:
            return at
        header = _head(part)
        check(header, REQUEST)
        size = header[0]
        if size > MAX_PAYLOAD:
            self.part = None
            self.drop = size
            self._apart(part, header)
            return at
        more: int = min(HEADER_SIZE + size - len(part), end - at)
        part += memoryview(data)[at : at + more]
        if len(part) == HEADER_SIZE + size:
            self.part = None
            self._walk(part, at=0, end=len(part))
        return at + more

    def _plain(self, data: bytearray, at: int) -> bool:
        """Whether the request at `at` goes on in one run with its neighbours; it has its upstream id then."""
        watch = self._mux.watch
        if watch is not None and watch.wants(data, at):
            return False
        return self._admit(data, at)

    def _admit(self, data: bytearray, at: int) -> bool:
        mux, flight = self._mux, self._mux.flight
        size, stream, _, _ = _head(data, at)
        if flight is not None and len(flight) >= MAX_CALLS:
            return False
        if mux.claim(self):
            mux.last = max(mux.last, stream)
        elif mux.rename(self, data, at=at):
            stream = mux.last
        else:
            return False
        if flight is not None:
            flight[stream] = data[at : at + HEADER_SIZE + size] if size <= NOTED else b""
        return True

    def _apart(self, data: bytearray, header: tuple[int, int, int, int]) -> None:
        """A request that is changed, or answered here."""
        watch = self._mux.watch
        size, stream, _, _ = header
        try:
            if size > MAX_PAYLOAD:
                self._mux.loop.count("too large")
                raise too_large(size)
            changed = watch.rewrite(bytes(data)) if watch is not None and watch.wants(data, 0) else None
            self._send_apart(data if changed is None else changed)
        except Refused as refused:
            self.refuse(stream, refused)
        except Later as later:
            frame = bytes(data)
            later.start(lambda result: self._send_late(frame, result))

    def _send_apart(self, data: bytearray) -> None:
        if not self._admit(data, 0):
            raise Refused(RESOURCE_EXHAUSTED, "too many calls of this pod wait for an answer")
        self._send(data, start=0, end=len(data))

    def _send_late(self, frame: bytes, result: bytes | Refused) -> None:
        """A request that was held back goes on, or is refused; calls that came after it have gone on meanwhile."""
        if not self.alive:
            return
        stream = _head(frame)[1]
        try:
            if isinstance(result, Refused):
                raise result
            if stream <= self._mux.last:
                self._mux.number_calls()
            self._send_apart(with_payload(frame, result))
        except Refused as refused:
            self.refuse(stream, refused)

    def _send(self, data: bytearray, *, start: int, end: int) -> None:
        if start < end and self.alive:
            self._mux.send(memoryview(data)[start:end], self)
