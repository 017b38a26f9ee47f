"""Many downstream connections on ONE upstream ttrpc connection, which is kept for its whole life.

The real agent deletes its socket at CreateSandbox, so nobody can dial it twice (Kata 4.1.0). The first connection that
asks something is passed on as it is, stream ids included. When a second one asks something, every later call gets an
upstream id of its own: the last one plus 2, because Go's ttrpc server refuses ids that do not grow. A connection that
asks nothing (runtime-rs keeps such a one) costs nothing.

Answers are cut through: a frame is passed on as it comes in. Only the headers are read, so that an answer of our own is
put between two frames and never into one. Answers to a connection that is gone are dropped. A relay's mux remembers the
calls in flight, for `flight.reask` on another connection to the agent.
"""

from __future__ import annotations

from struct import pack_into

from caa.datapath.branch import MAX_CALLS, Branch
from caa.datapath.frames import HEADER, HEADER_SIZE, MAX_PAYLOAD, RESPONSE, Malformed, check, scan_answers, too_large
from caa.datapath.loop import BROKEN, IN, OUT
from caa.datapath.pipe import RECORD, Outlet, gather, reader
from caa.datapath.tls import WANT, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from caa.datapath.frames import Flight, Watch
    from caa.datapath.loop import Loop
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

    class Keeper(Protocol):
        def lost(self, why: str, /) -> object: ...


# Connections on one link. A shim has one or two; more than this is a fault and is refused.
MAX_BRANCHES = 32
AS_THEY_ARE = 0xFFFFFFFF  # an `identity`: no id is changed
_LAST_ID = 0xFFFFFFFD
_head = HEADER.unpack_from


class Mux:
    """The upstream half: answers come in here and go to the connection that asked.

    `keeper.lost(reason)` is called once when the upstream connection ends by itself, after all downstream ones.
    """

    __slots__ = (
        "_held",
        "_keeper",
        "_read",
        "_sock",
        "_tls",
        "branches",
        "calls",
        "closed",
        "dark",
        "direct",
        "fd",
        "flight",
        "identity",
        "last",
        "loop",
        "outlet",
        "owner",
        "part",
        "skip",
        "stopped",
        "to",
        "watch",
        "write",
    )

    def __init__(
        self,
        loop: Loop,
        sock: Sock | None,
        *,
        tls: TlsObject | None,
        watch: Watch | None,
        keeper: Keeper,
    ) -> None:
        """Without a `sock`, as after a hand-over, it waits for `connect`."""
        self.loop = loop
        self.watch = watch
        self.branches: tuple[Branch, ...] = ()
        self.calls: dict[int, tuple[Branch, int]] | None = None  # by the id upstream, once ids are changed
        self.direct: Branch | None = None  # may send without a change of ids
        self.identity = AS_THEY_ARE  # answers up to this id belong to the owner, under the same id
        self.last = 0  # the highest id sent upstream
        self.dark = False  # the link is down for a while
        self.flight: Flight | None = None  # calls that wait for an answer, by the id sent upstream; see `remember`
        self.closed = self.stopped = False  # stopped: nothing more can be sent for the moment
        self.owner: Branch | None = None
        self._keeper = keeper
        self._held: tuple[Branch, ...] = ()  # not a set: an empty one takes 216 bytes of every pod
        self.to: Branch | None = None  # who gets the rest of the frame that is under way
        self.skip = 0  # bytes of it still to come
        self.part = b""  # the beginning of a header
        self.fd = -1
        self.outlet = Outlet(loop, None, tls=None)
        self._read: Callable[[memoryview], int] = len  # nobody calls it before `connect`
        if sock is not None:
            self.connect(sock, tls)

    def remember(self) -> None:
        """Keep the calls in flight, for `flight.reask`. To be said before the first call."""
        self.flight = {}

    def connect(self, sock: Sock, tls: TlsObject | None) -> None:
        """Use this upstream connection."""
        self.outlet = Outlet(self.loop, sock, tls=tls)
        self.write = self.outlet.write
        self.fd = self.outlet.fd
        self._sock = sock
        self._tls = tls
        self._choose_reader()
        self.loop.add(self.fd, 0 if self._held else IN, owner=self)

    def _choose_reader(self) -> None:
        self._read = reader(self._sock, self._tls)

    def attach(self, sock: Sock, tls: TlsObject | None) -> Branch | None:
        """Serve one more downstream connection; None (and it is closed) when there are too many."""
        branch = self.new_branch()
        if not self.adopt(branch):
            self.loop.close(sock, sock.fileno())
            return None
        branch.connect(sock, tls)
        return branch

    def new_branch(self) -> Branch:
        return Branch(self)

    def adopt(self, branch: Branch) -> bool:
        """Take a branch that has no connection yet; False when there are too many."""
        if self.closed or len(self.branches) >= MAX_BRANCHES:
            self.loop.count("refused", f"more than {MAX_BRANCHES} connections on one link")
            return False
        self.branches += (branch,)
        return True

    def close(self) -> None:
        """End everything without a word; again is fine."""
        if self.closed:
            return
        self.closed = True
        self._hang_up()
        for branch in self.branches:
            branch.close()

    def leave(self) -> None:
        """Let go of everything: another process has the shim's connections."""
        self.closed = True
        self._hang_up()
        for branch in self.branches:
            branch.leave()

    def _hang_up(self) -> None:
        if self.fd < 0:
            return
        if self._tls is not None and self.outlet.rest is None:
            try:
                self._tls.shutdown()
            except (OSError, ValueError):
                pass  # the peer need not hear it
        self.loop.close(self._sock, self.fd)
        self.fd = -1

    # What branches ask

    def claim(self, branch: Branch) -> bool:
        """Whether `branch` may send without a change of ids; the first that asks may, until another one does."""
        if self.direct is branch:
            return True
        if not self.last:
            self.direct = self.owner = branch
            return True
        self.number_calls()
        return False

    def number_calls(self) -> None:
        """Give every call an upstream id of its own from now on: they do not come with growing ids any more."""
        if self.identity == AS_THEY_ARE:
            self.direct, self.calls = None, {}
            self.identity = self.last

    def rename(self, branch: Branch, data: bytearray, *, at: int) -> bool:
        """Give the request at `at` an upstream id, in place; False when there are too many calls."""
        if self.calls is None or len(self.calls) >= MAX_CALLS or self.last >= _LAST_ID:
            return False
        fresh = self.last = self.last + 2
        self.calls[fresh] = (branch, _head(data, at)[1])
        pack_into(">I", data, at + 4, fresh)
        return True

    def send(self, data: memoryview, branch: Branch | None) -> None:
        """Send whole frames upstream. When it is full all branches pause; who filled it comes last when it goes on."""
        try:
            sent = self.write(data) if self.outlet.rest is None else 0
        except WANT:
            sent = 0
        except OSError as error:
            self._broken(reason(error))
            return
        if sent != len(data):
            self.outlet.keep(data[sent:])
            self.full(branch)

    def full(self, branch: Branch | None) -> None:
        """Pause all branches; `branch` comes last when they go on."""
        self.branches = tuple(sorted(self.branches, key=lambda one: one is branch))
        self.stopped = True
        for one in self.branches:
            one.pause()

    def break_off(self) -> None:
        """Nothing follows what has been read of the agent so far. Who has got a part of an answer only, ends."""
        partly, self.to = (self.to if self.skip else None), None
        self.skip, self.part = 0, b""
        if partly is not None:
            self.loop.count("answer broken off", "a connection of the shim has got a part of it and is closed")
            partly.close()

    def take_back(self, stream: int) -> tuple[Branch | None, int]:
        """Expect no answer to a call any more; who made it, None when it is gone, and its own id there."""
        if self.flight:
            self.flight.pop(stream, None)
        if stream <= self.identity or self.calls is None:
            return self.owner, stream
        return self.calls.pop(stream, (None, 0))

    def within(self, branch: Branch) -> bool:
        """Whether `branch` has got a part of a frame only, so that nothing may be put in now."""
        return self.to is branch and self.skip > 0

    def hold(self, branch: Branch) -> None:
        """A branch does not read its answers: read no more of them until it does."""
        if branch not in self._held:
            self._held += (branch,)
        if self.fd >= 0:
            self.loop.mute(self.fd, IN)

    def brake(self, branch: Branch) -> None:
        """The branch takes no further frame: hold it, once the one under way has been read to its end."""
        if not self.within(branch):
            self.hold(branch)
            return
        self.release(branch)
        self._read = self._read_frame

    def _read_frame(self, buffer: memoryview) -> int:
        return self._sock.recv_into(buffer[: self.skip] if self.skip else buffer)

    def release(self, branch: Branch) -> None:
        """The branch has taken what waited for it."""
        self._held = tuple(one for one in self._held if one is not branch)
        if self._read == self._read_frame:
            self._choose_reader()
        if not self._held and self.fd >= 0:
            self.loop.ask(self.fd, IN)

    def detach(self, branch: Branch) -> None:
        """Forget a branch that is gone; what was meant for it is dropped from now on."""
        self.branches = tuple(one for one in self.branches if one is not branch)
        streams = [stream for stream, (asker, _) in (self.calls or {}).items() if asker is branch]
        if self.owner is branch:
            self.owner = self.direct = None
            streams += [stream for stream in self.flight or () if stream <= self.identity]
        if self.to is branch:
            self.to = None
        for stream in streams:
            self.take_back(stream)
        self.release(branch)

    # What the upstream connection says

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._end("a fault in the relay")

    def _broken(self, why: str) -> None:
        self._end(why)

    def _end(self, why: str) -> None:
        if self.closed:
            return
        self.close()
        self._keeper.lost(why)

    def ready(self, event: int) -> None:
        """The agent answers, or there is room to write."""
        if event != IN:
            self._unusual(event)
            return
        buffer = self.loop.buffer
        try:
            got = self._read(buffer)
        except WANT:
            return
        except OSError as error:
            self._broken(reason(error))
            return
        if got == RECORD and self._tls is not None:
            got = gather(self._tls.read, buffer, got=got)
        elif not got:
            self._broken("closed by the peer")
            return
        self._pass(buffer, got)

    def _pass(self, buffer: memoryview, got: int) -> None:
        """Pass on what was read. The first two cases are nearly all there is."""
        if got <= self.skip:
            self.skip -= got
            if self.to is not None:
                self.to.deliver(buffer[:got])
            return
        if not self.skip and not self.part:
            at, last = scan_answers(self.loop.raw, got, identity=self.identity, flight=self.flight)
            if at >= got:
                self.to = self.owner
                if at > got:
                    self.skip = at - got
                    if self.flight:
                        self.flight.pop(last, None)
                if self.owner is not None:
                    self.owner.deliver(buffer[:got])
                return
        try:
            self._walk(buffer[:got])
        except Malformed as error:
            self.loop.count("malformed", f"from the agent's side: {error}")
            self._end(str(error))

    def _unusual(self, event: int) -> None:
        """Room to write, or a connection that broke: what is still there to read comes first."""
        if event & OUT and self._flush() and self.fd >= 0:
            self._go_on()
        if self.fd >= 0 and event & (IN | BROKEN) and (self.loop.wants(self.fd) & IN or event & BROKEN):
            self.ready(IN)

    def _go_on(self) -> None:
        self.stopped = False
        for branch in self.branches:
            branch.resume()

    def _flush(self) -> bool:
        try:
            return self.outlet.flush()
        except OSError as error:
            self._broken(reason(error))
            return False

    def _walk(self, data: memoryview) -> None:
        """Pass on runs of bytes for the same branch; what is left of a header waits in `part`."""
        if self.part:
            data = memoryview(bytearray(self.part) + data)
            self.part = b""
        start, end = 0, len(data)
        at = min(self.skip, end)
        self.skip -= at
        to = self.to
        while end - at >= HEADER_SIZE:
            header = _head(data, at)
            check(header, RESPONSE)
            size, stream, _, _ = header
            asker = self._asker(data, at, stream=stream)
            if asker is not to or size > MAX_PAYLOAD or (to is not None and to.late):
                self._give(to, data[start:at])
                start, to = at, asker
            at += HEADER_SIZE + size
            if size > MAX_PAYLOAD:
                self._shorten(to, _head(data, start))
                start, to = min(at, end), None
        self.to = to
        if at > end:
            self.skip, at = at - end, end
        self._give(to, data[start:at])
        if at < end:
            self.part = data[at:].tobytes()

    def _asker(self, data: memoryview, at: int, *, stream: int) -> Branch | None:
        """Who made the call; its own id is put back. None when it is gone."""
        branch, own = self.take_back(stream)
        if branch is not None and own != stream:
            pack_into(">I", data, at + 4, own)
        return branch

    def _give(self, to: Branch | None, run: memoryview) -> None:
        if to is not None and run:
            to.deliver(run)

    def _shorten(self, to: Branch | None, header: tuple[int, int, int, int]) -> None:
        """An answer beyond the limit: the caller hears why it gets none, the body is dropped as it comes."""
        self.loop.count("too large")
        if to is not None:
            self.skip, self.to = 0, None
            to.refuse(header[1], too_large(header[0]))
