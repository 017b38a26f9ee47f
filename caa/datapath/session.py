"""The resumable session between relay and forwarder: counts, acknowledgements, greeting, heartbeat, hand-over. Pure.

A cut link costs a pause, not a pod. The link carries the application's ttrpc frames unchanged and, between two of them,
control frames: a ttrpc header with stream 0, type 0x7F and the kind in the flags. Only application bytes are counted.
What makes it exact (measured and tortured as a probe first, `docs/performance.md`):

* `sent` counts what our application gave us; `Replay` holds it until the peer has acknowledged it.
* `got` counts what was handed to our application. Half a header, or half a control frame, waits in `part` and is not
  counted: a cut drops it and the peer sends it again.
* A control frame is written only where our own stream is between two frames.
* The limit stops the application only between two frames. A frame that was begun is finished, so the other side
  reaches a place for its acknowledgement, and two full directions cannot lock each other.

How the mux and the two processes use it. The application is the mux in the relay and the branch in the forwarder; the
`Outlet` of the link keeps what the kernel does not take, so the session knows nothing of partial writes.

1.  Relay, link up after TLS with ALPN `PROTOCOL`: write `hello()`, read EXACTLY `GREETING` bytes, never one more
    (the stream behind them may be in mid-frame), `welcome(them)`. `Gone`: the pod is lost. `Late`: dial again.
2.  Forwarder: read EXACTLY `GREETING` bytes, `session, answer = door.admit(them, certificate)`. With a session: close
    its old connection without reading it, write the answer, go on. Without: write the answer, if any, and close.
3.  Both then write `next()` until it is None, and again whenever the outlet has become empty.
4.  Application to link: `out = session.send(data, ahead)`; write `out` unless it is None (link down, or behind a
    replay: `next` gives it later). `ahead`, the bytes of the last frame still to come, is known to the mux (0 in the
    relay, which passes whole requests); with -1 the headers are walked here. Runs never end within a header, as the
    mux makes them. For 64 KiB or more say `keep=True`, once for a block, and read on into `pool.take()`.
    `if session.full:` read the application by `room(size)` bytes at most, not at all at 0.
5.  Link to application: where `scan_answers` or `scan_requests` saw whole application frames only (or all is within
    one) and `part` is empty: `session.passed(size, ahead)`. Else pass on each run of `session.received(view)`.
    They may be views of the loop's buffer. Then `if session.urgent:` write `attend()`, look at `ended`, and if not
    `full`, read the application again. `Malformed` ends the session.
6.  Clock: 0.1 s (`TICK`) after something came, and once a second (`heartbeat.LOOK`), write `due(now)`; in the relay
    `dead(now)` means: cut the link. Say `reading=False` while the link is muted: our own silence proves nothing.
7.  Link lost: `cut()`, and dial again. The application goes on until `full`.
8.  Hand-over: stop reading both sides, `dump()`; the successor `load`s it and begins at 1. If it fails, the old one
    `cut()`s and begins at 1 too; `Late` then tells it the attempt that the other one had reached.
9.  End: `end()`, then write `attend()`. In mid-frame nothing comes of it: close the link, have the door forget the
    session; the peer dials and hears `Gone`.
"""

from __future__ import annotations

from struct import Struct

from caa.datapath import greeting
from caa.datapath.frames import HEADER, HEADER_SIZE, Malformed
from caa.datapath.greeting import CONTROL, Gone, Greeting, Late, control
from caa.datapath.heartbeat import Heartbeat
from caa.datapath.replay import Replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.frames import Buffer
    from caa.datapath.replay import Pool

# Unacknowledged bytes at which the application is stopped; must exceed `SMALL` by far.
LIMIT = 2 << 20
RIDE = 128 << 10  # acknowledged with the next frame that goes out anyway
PUSH = 512 << 10  # acknowledged at once
SMALL = 512  # less than this waits for a frame to ride with, however long
TICK = 0.1
_COUNT = Struct(">Q")
_LONGEST = _COUNT.size
_MAGIC = b"CAAS"
# Magic, format, flags, length of the owner, attempt, id, secret, acknowledged, sent, got, out skip, in skip.
_FORMAT_1 = Struct(">4sBBHI16s32sQQQQQ")
_LAST_ATTEMPT = 0xFFFFFFFF
_KNOWN, _ENDING, _SERVER = 1, 2, 4
_head = HEADER.unpack_from
_size = Struct(">I").unpack_from


class StateError(Exception):
    """A dumped session that cannot be loaded."""


class Session:
    """One end of a session. A forwarder's end has an owner, the certificate that may resume it; a relay's has None.

    `identity` is 16 bytes, `secret` 32, both random. Read by the caller: `up`, `full`, `urgent`, `ended`, `part`.
    """

    __slots__ = (
        "_acknowledged",
        "_asked",
        "_bye",
        "_ending",
        "_free",
        "_heartbeat",
        "_in_skip",
        "_known",
        "_limit",
        "_mark",
        "_out_skip",
        "_peer",
        "_pong",
        "_push",
        "_replay",
        "_secret",
        "attempt",
        "ended",
        "full",
        "got",
        "identity",
        "owner",
        "part",
        "sent",
        "up",
        "urgent",
    )

    def __init__(
        self,
        identity: bytes,
        secret: bytes,
        *,
        owner: bytes | None = None,
        limit: int = LIMIT,
        pool: Pool | None = None,
    ) -> None:
        self.identity = identity
        self.owner = owner
        self.attempt = 0
        self.sent = self.got = 0
        self.up = False  # the greeting is done
        self._free = False  # and what had to be sent again is on its way
        self.full = self.urgent = self.ended = False
        self.part = b""
        self._secret = secret
        self._limit = limit
        self._peer = 0  # what the peer has acknowledged of `sent`
        self._replay = Replay(pool)
        self._known = self._ending = self._bye = self._asked = self._pong = False
        self._in_skip = self._out_skip = 0  # bytes still to come of the frame that is under way
        self._acknowledged = 0  # what we told the peer of `got`
        self._mark, self._push = RIDE, PUSH
        self._heartbeat = Heartbeat(asks=owner is None)

    # Application to link

    def send(self, data: memoryview, ahead: int = -1, *, keep: bool = False) -> Buffer | None:
        """Take what the application sends; returns what to write now, or None. See step 4. Raises `Malformed`."""
        size = len(data)
        boundary = self._out_skip
        if ahead >= 0:
            self._out_skip = ahead
        elif boundary >= size:
            self._out_skip = boundary - size
        elif boundary or _size(data)[0] + HEADER_SIZE != size:
            self._out_skip = _walk(data, boundary)
        if keep:
            self._replay.keep(data)
        else:
            self._replay.add(data)
        self.sent += size
        if self.sent - self._peer >= self._limit:
            self.full = True
        if not self._free:
            return None
        if self.got < self._mark or boundary > size:
            return data
        return b"".join((data[:boundary], self._owed(), data[boundary:]))

    def room(self, size: int) -> int:
        """How many of `size` bytes the application may send now: when full, only what finishes its frame."""
        return min(size, self._out_skip) if self.full else size

    def next(self) -> Buffer | None:
        """What comes after a greeting: everything that the peer lacks, block by block; then None. See step 3."""
        if self._free or not self.up:
            return None
        block = self._replay.next()
        if block is None:
            self._free = True
            return self.attend() or None
        return block

    def _owed(self) -> bytes:
        """The control frames that may go between any two frames."""
        self._acknowledged = self.got
        self._mark, self._push = self.got + RIDE, self.got + PUSH
        pong = control(greeting.PONG) if self._pong else b""
        self._pong = self._asked = False
        return control(greeting.ACK, _COUNT.pack(self.got)) + pong

    # Link to application

    def passed(self, size: int, ahead: int) -> None:
        """Count bytes in which the caller's own walk saw no control frame, `part` being empty. See step 5."""
        self._in_skip = ahead
        self.got += size
        if self.got >= self._push:
            self.urgent = True

    def received(self, data: memoryview) -> list[memoryview]:
        """Take what came from the link; returns the runs of application bytes in it. Raises `Malformed`."""
        size, skip = len(data), self._in_skip
        if skip >= size:
            self.passed(size, skip - size)
        elif skip or self.part or size < HEADER_SIZE or _size(data)[0] + HEADER_SIZE != size or data[8] == CONTROL:
            return self._strip(data)
        else:
            self.passed(size, 0)  # one whole frame: by far the most
        return [data]

    def _strip(self, data: memoryview) -> list[memoryview]:
        if self.part:
            data = memoryview(bytearray(self.part) + data)
            self.part = b""
        runs = []
        start, end = 0, len(data)
        at = self._in_skip
        while end - at >= HEADER_SIZE:
            size, stream, kind, flags = _head(data, at)
            after = at + HEADER_SIZE + size
            if kind == CONTROL and not stream:
                if size > _LONGEST:
                    raise Malformed(f"a control frame of {size} bytes")
                if after > end:
                    break
                runs.append(data[start:at])
                self._obey(flags, data[at + HEADER_SIZE : after])
                start = after
            at = after
        if at < end:
            self.part = data[at:].tobytes()
        runs.append(data[start : min(at, end)])
        self.passed(sum(map(len, runs)), max(at - end, 0))
        return [run for run in runs if len(run)]

    def _obey(self, kind: int, payload: memoryview) -> None:
        self.urgent = True
        self._heartbeat.stir()
        if kind == greeting.ACK and len(payload) == _COUNT.size:
            self._acknowledge(_COUNT.unpack(payload)[0])
        elif kind == greeting.ASK:
            self._asked = True
            self._mark = 0
        elif kind == greeting.PING:
            self._pong = True
            self._mark = 0
        elif kind == greeting.END:
            self.ended = True
        elif kind != greeting.PONG:
            raise Malformed(f"a control frame of kind {kind} and {len(payload)} bytes")

    def _acknowledge(self, count: int) -> None:
        if count > (self.sent if self._free else self._replay.given()):
            raise Malformed(f"{count} bytes are acknowledged, more than were sent")
        self._replay.drop(count)
        self._at(max(count, self._peer))

    def _at(self, count: int) -> None:
        self._peer = count
        self.full = self.sent - count >= self._limit

    # Control frames on their own

    def attend(self) -> bytes:
        """What to write because of what was received. See step 5.

        Few bytes are not acknowledged here: an acknowledgement would be answered by another one, for ever.
        """
        self.urgent = False
        self._push = self.got + PUSH
        return self._control_frames(RIDE)

    def due(self, now: float, *, reading: bool = True) -> bytes:
        """What to write because time has passed, often nothing. See step 6."""
        beat = self._heartbeat.look(now, self.got, reading=reading)
        frames = self._control_frames(SMALL)
        if self.got > self._acknowledged:
            self._mark = min(self._mark, self.got)  # it rides
        if beat and self._can_speak():
            frames += control(greeting.PING if self.owner is None else greeting.PONG)
        return frames

    def dead(self, now: float) -> bool:
        """Whether the link has been silent for too long, as seen by `due`; only the relay asks."""
        return self.up and self._heartbeat.dead(now)

    def suffer(self, silence: float) -> None:
        """Take so many seconds of silence for the end of the link, in place of the usual 8."""
        self._heartbeat.suffer(silence)

    def _can_speak(self) -> bool:
        return self._free and not self._out_skip

    def _control_frames(self, least: int) -> bytes:
        """An acknowledgement of `least` bytes or more, and what else is owed; within a frame nothing: it rides."""
        if not self._can_speak():
            return b""
        frames = b""
        if self._asked or self._pong or self.got - self._acknowledged >= least:
            frames = self._owed()
        if self._bye:
            self._bye = False
            frames += control(greeting.END)
        return frames

    def ask(self) -> bytes:
        """A frame that makes the peer acknowledge now, as before a hand-over; empty when it cannot be written now."""
        return control(greeting.ASK) if self._can_speak() else b""

    def end(self) -> None:
        """The session ends when everything has been sent. See step 9."""
        self._ending = self._bye = True

    # The link comes and goes

    def cut(self) -> None:
        """The link is gone; again is fine."""
        self.up = self._free = self._asked = self._pong = False
        self.part = b""
        self._heartbeat.stir()

    def hello(self) -> bytes:
        """The first bytes on a new link of the relay; each has a higher number than the one before."""
        self.cut()
        self.attempt += 1
        new = not self._known
        return greeting.hello(self.identity, self._secret, new=new, attempt=self.attempt, count=self.got)

    def welcome(self, data: Buffer) -> None:
        """Take the answer to `hello`. Raises `Forgotten`, another `Gone`, `Late`, `Malformed`."""
        answer = Greeting(data)
        if answer.identity != self.identity:
            raise Malformed("the answer names another session")
        if answer.version != greeting.VERSION:
            raise Gone(f"the forwarder speaks version {answer.version}, we speak {greeting.VERSION}")
        if answer.kind == greeting.GONE:
            raise greeting.farewell(answer.new, known=self._known)
        if answer.kind == greeting.LATE and self.attempt <= answer.attempt < _LAST_ATTEMPT:
            self.attempt = answer.attempt
            raise Late(f"attempt {answer.attempt} has been seen")
        if answer.kind != greeting.WELCOME or answer.attempt != self.attempt or not self.can_resume(answer.count):
            raise Malformed(f"cannot go on at {answer.count} of {self.sent} bytes")
        self.resume(answer.count)

    def authentic(self, hello: Greeting, owner: bytes) -> bool:
        """Whether a HELLO comes from who began the session."""
        return greeting.same(hello.secret, self._secret) & greeting.same(owner, self.owner or b"")

    def can_resume(self, count: int) -> bool:
        """Whether we still have what follows the peer's count."""
        return self._peer <= count <= self.sent

    def resume(self, count: int) -> None:
        """Go on over a new link. Both sides have just named their counts."""
        self.cut()
        self.up = self._known = True
        self._bye = self._ending
        self._acknowledged = self.got
        self._mark, self._push = self.got + RIDE, self.got + PUSH
        self._replay.rewind(count)
        self._at(count)

    def since(self, count: int) -> bytes:
        """A copy of what our application sent from `count` on, which the peer has not acknowledged."""
        return self._replay.since(count)

    # Hand-over

    def dump(self) -> bytes:
        """Everything another process needs, in format 1. It holds the secret. The session here is not changed."""
        flags = _KNOWN * self._known | _ENDING * self._ending | _SERVER * (self.owner is not None)
        owner = self.owner or b""
        who = (_MAGIC, 1, flags, len(owner), self.attempt, self.identity, self._secret)
        counts = (self._peer, self.sent, self.got, self._out_skip, self._in_skip)
        return _FORMAT_1.pack(*who, *counts) + owner + self._replay.since(self._peer)

    @classmethod
    def load(cls, data: bytes, *, limit: int = LIMIT, pool: Pool | None = None) -> Session:
        """The session of `dump`, its link cut. Raises `StateError`."""
        if len(data) < _FORMAT_1.size or data[:5] != _MAGIC + b"\x01":
            raise StateError(f"a session in an unknown format, {data[4:5].hex() or 'empty'}")
        _, _, flags, size, attempt, identity, secret, peer, sent, got, out_skip, in_skip = _FORMAT_1.unpack_from(data)
        begin = _FORMAT_1.size + size
        if sent < peer or len(data) - begin != sent - peer:
            raise StateError(f"{len(data) - begin} bytes to send again, {sent - peer} announced")
        owner = data[_FORMAT_1.size : begin] if flags & _SERVER else None
        session = cls(identity, secret, owner=owner, limit=limit, pool=pool)
        session.attempt, session.sent, session.got = attempt, sent, got
        session._out_skip, session._in_skip = out_skip, in_skip
        session._known, session._ending = bool(flags & _KNOWN), bool(flags & _ENDING)
        session._replay = Replay(pool, peer)
        session._replay.add(data[begin:])
        session._at(peer)
        return session


def _walk(data: memoryview, at: int) -> int:
    """Bytes still to come of the last frame in `data`, whose first header stands at `at`."""
    end = len(data)
    while end - at >= HEADER_SIZE:
        at += HEADER_SIZE + _size(data, at)[0]
    if at < end:
        raise Malformed("a run of frames that ends within a header")
    return at - end
