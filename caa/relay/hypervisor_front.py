"""`hypervisor.sock`: the shims' calls about VMs, passed to the node unchanged, kept while the node is away.

One connection to the node for each connection of a shim, so that the node sees a shim that vanished. The node may go
and come back: calls wait within their own deadline and are sent again, which the node's calls allow (CreateVM, StartVM
and StopVM of the same id mean the same again). StopVM never waits.
"""

from __future__ import annotations

from caa.datapath import edits
from caa.datapath.channel import Channel
from caa.datapath.frames import (
    HEADER_SIZE,
    INVALID_ARGUMENT,
    REQUEST,
    RESOURCE_EXHAUSTED,
    RESPONSE,
    UNAVAILABLE,
    Malformed,
    Refused,
    Request,
    answer,
    refusal,
    stream_of,
    with_timeout,
)
from caa.datapath.handover import Fields, blob, blobs, millis, number
from caa.datapath.sockets import Sock, connect_unix
from caa.relay.stops import HYPERVISOR, is_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from caa.datapath.loop import Loop, Timer
    from caa.relay.stops import Courier, Scribe

# runtime-rs gives StopVM one second and never asks again.
STOP_SECONDS = 0.5
_CALLS = 128
_STORED = 8 << 20
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_NANO = 1_000_000_000


class Call:
    """A call that has no answer yet. `deadline` is the loop's time; `own` tells whether the shim gave one."""

    __slots__ = ("deadline", "frame", "late", "method", "own", "stop", "stream", "timer")

    def __init__(self, stream: int, frame: bytes) -> None:
        self.stream = stream
        self.frame = frame
        self.method = ""
        self.own = 0
        self.stop = ""
        self.deadline = 0.0
        self.late = False
        self.timer: Timer | None = None


class Session:
    """One connection of a shim and its counterpart to the node."""

    __slots__ = ("_calls", "_front", "_frozen", "_loop", "_node", "_pause", "_redial", "_shim", "_told", "_writing")

    def __init__(self, front: HypervisorFront, sock: Sock) -> None:
        self._front = front
        self._loop = front.loop
        self._calls: dict[int, Call] = {}
        self._told: dict[int, str] = {}  # stops that we answered ourselves; the node has not yet
        self._writing: dict[int, bytes] = {}  # stops on their way to the disk
        self._frozen = False
        self._pause = _FIRST_PAUSE
        self._redial: Timer | None = None
        self._node: Channel | None = None
        self._shim = Channel(self._loop, sock, expected=REQUEST, owner=self)
        front.sessions.append(self)

    # Going to another relay: 1 the shim's channel, 2 the node's, 3 calls, 4 stops that were answered here (1 stream,
    # 2 sandbox), 5 requests to be taken anew. A call: 1 frame, 2 method, 3 own deadline, 4 stop, 5 ms left, 6 late.

    def freeze(self) -> tuple[bytes, list[int]]:
        """Stand still; returns the state, and the descriptors: of the shim's connection and, if any, of the node's."""
        self._frozen = True
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        for call in self._calls.values():
            _cancel(call)
        now = self._loop.now()
        parts = blob(1, self._shim.freeze()) + blobs(3, (_call_state(call, now) for call in self._calls.values()))
        parts += blobs(4, (number(1, stream) + blob(2, told) for stream, told in self._told.items()))
        parts += blobs(5, self._writing.values())
        if self._node is None:
            return parts, [self._shim.fd]
        return parts + edits.bytes_field(2, self._node.freeze()), [self._shim.fd, self._node.fd]

    def thaw(self) -> None:
        """Go on after all. What was written to the disk meanwhile is asked again: once recorded is enough."""
        self._frozen = False
        self._shim.thaw()
        for call in tuple(self._calls.values()):
            self._rearm(call, call.deadline - self._loop.now())
        if self._node is not None:
            self._node.thaw()
        elif self._calls:
            self._away()
        self._write_again()

    def resume(self, state: Fields, node: Sock | None) -> None:
        """Go on with what the predecessor had frozen."""
        for field in map(Fields, state.blobs(3)):
            call = Call(stream_of(field.blob(1)), field.blob(1))
            call.method, call.own, call.stop = field.text(2), field.number(3), field.text(4)
            call.late = bool(field.number(6))
            self._calls[call.stream] = call
            self._rearm(call, field.number(5) / 1000)
        for field in map(Fields, state.blobs(4)):
            self._told[field.number(1)] = field.text(2)
        self._writing = {stream_of(frame): frame for frame in state.blobs(5)}
        if node is not None:
            self._node = Channel(self._loop, node, expected=RESPONSE, owner=self)
            self._node.resume(Fields(state.blob(2)))
        elif self._calls:
            self._away()
        self._shim.resume(Fields(state.blob(1)))
        self._write_again()

    def _rearm(self, call: Call, seconds: float) -> None:
        self._set_deadline(call, max(seconds, 0.0))
        if call.stop:
            _cancel(call)
            call.timer = self._loop.later(STOP_SECONDS, lambda: self._answer_stop(call))

    def _write_again(self) -> None:
        writing, self._writing = self._writing, {}
        for stream, frame in writing.items():
            self._asked(stream, frame)

    def framed(self, channel: Channel, frame: bytes) -> None:
        """A request of the shim, or an answer of the node."""
        if channel is self._shim:
            self._asked(stream_of(frame), frame)
        else:
            self._answered(stream_of(frame), frame)

    def ended(self, channel: Channel) -> None:
        """One of the two is gone."""
        if channel is self._shim:
            self._front.sessions.remove(self)
            self._close()
        else:
            self._node_gone()

    def _close(self) -> None:
        """The shim vanished: so does our connection to the node; stops are still brought there."""
        if self._redial is not None:
            self._redial.cancel()
        if self._node is not None:
            self._node.close()
        for call in self._calls.values():
            _cancel(call)
            if call.stop:
                self._front.courier.deliver(call.stop)
        self._calls.clear()
        self._deliver_told()

    def _deliver_told(self) -> None:
        for sandbox in self._told.values():
            self._front.courier.deliver(sandbox)
        self._told.clear()

    # The shim asks

    def _asked(self, stream: int, frame: bytes) -> None:
        """A StopVM is on the disk before anything else happens to it."""
        sandbox = _to_stop(frame)
        if sandbox:
            self._writing[stream] = frame
            self._front.scribe.write(sandbox, lambda problem: self._recorded(frame, sandbox, problem=problem))
        else:
            self._begin(stream, frame, stop="")

    def _recorded(self, frame: bytes, sandbox: str, *, problem: str) -> None:
        if self._frozen or self._writing.get(stream_of(frame)) is not frame:
            return
        del self._writing[stream_of(frame)]
        if problem:
            self._loop.count("stop not recorded", f"sandbox={sandbox}: {problem}")
        if self._shim.fd >= 0:
            self._begin(stream_of(frame), frame, stop="" if problem else sandbox)
        else:
            self._front.courier.deliver(sandbox)

    def _begin(self, stream: int, frame: bytes, *, stop: str) -> None:
        try:
            self._admit(stream, frame)
        except Refused as refused:
            self._shim.send(refusal(stream, refused))
            return
        call = Call(stream, frame)
        call.stop = stop
        self._read(call)
        self._calls[stream] = call
        if self._node is not None:
            self._node.send(frame)
        elif not self._dial():
            self._away()
        if call.stop and self._node is None:
            self._answer_stop(call)

    def _admit(self, stream: int, frame: bytes) -> None:
        if stream in self._calls:
            raise Refused(INVALID_ARGUMENT, f"stream id {stream} is in use")
        stored = sum(len(call.frame) for call in self._calls.values())
        if len(self._calls) >= _CALLS or stored + len(frame) > _STORED + HEADER_SIZE:
            raise Refused(RESOURCE_EXHAUSTED, "too many calls wait for the node")

    def _read(self, call: Call) -> None:
        """Learn the deadline. What cannot be read is the node's to refuse."""
        seconds = self._front.grace
        try:
            request = Request(call.frame[HEADER_SIZE:])
            call.method = request.method
            if request.timeout:
                call.own = request.timeout
                seconds = request.timeout / _NANO
        except edits.EditError:
            pass
        self._set_deadline(call, seconds)
        if call.stop:
            _cancel(call)
            call.timer = self._loop.later(STOP_SECONDS, lambda: self._answer_stop(call))

    def _set_deadline(self, call: Call, seconds: float) -> None:
        _cancel(call)
        call.deadline = self._loop.now() + seconds
        call.timer = self._loop.later(seconds, lambda: self._expired(call))

    def _expired(self, call: Call) -> None:
        """Past its deadline: the node answers if it is there, else we do."""
        call.late = True
        if self._node is None and self._calls.get(call.stream) is call:
            self._give_up(call)

    def _give_up(self, call: Call) -> None:
        del self._calls[call.stream]
        _cancel(call)
        what = call.method or "the call"
        limit = "its own deadline" if call.own else f"CONTROL_PLANE_GRACE ({self._front.grace:g} s)"
        text = f"{what} was not answered within {limit}: the control plane (caa node) does not answer on "
        self._shim.send(refusal(call.stream, Refused(UNAVAILABLE, text + self._front.node_path)))

    def _answer_stop(self, call: Call) -> None:
        """The stop is on disk, so the shim need not wait; a late answer of the node is dropped."""
        if self._calls.get(call.stream) is not call:
            return
        del self._calls[call.stream]
        _cancel(call)
        self._shim.send(answer(call.stream))
        if self._node is None:
            self._front.courier.deliver(call.stop)
        else:
            self._told[call.stream] = call.stop

    # The node answers, comes and goes

    def _answered(self, stream: int, frame: bytes) -> None:
        call = self._calls.pop(stream, None)
        if call is None:
            self._told.pop(stream, None)
            return
        _cancel(call)
        self._shim.send(frame)

    def _node_gone(self) -> None:
        self._node = None
        self._deliver_told()
        for call in tuple(self._calls.values()):
            if call.stop:
                self._answer_stop(call)
            elif call.late:
                self._give_up(call)
            elif not call.own:
                self._set_deadline(call, self._front.grace)
        if self._calls:
            self._away()

    def _away(self) -> None:
        """Dial again in a moment."""
        if self._redial is None:
            self._redial = self._loop.later(self._pause, self._again)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _again(self) -> None:
        self._redial = None
        if self._calls and self._node is None and not self._dial():
            self._away()

    def _dial(self) -> bool:
        """Connect to the node and send it all that waits; False when it is away."""
        try:
            sock = connect_unix(self._front.node_path)
        except OSError:
            return False
        self._node = node = Channel(self._loop, sock, expected=RESPONSE, owner=self)
        self._pause = _FIRST_PAUSE
        for call in tuple(self._calls.values()):
            node.send(self._current(call))
        return True

    def _current(self, call: Call) -> bytes:
        """The call as it came; one that has waited carries what is left of its time."""
        left = call.deadline - self._loop.now()
        if not call.own or call.stop or call.own - left * _NANO < 0.1 * _NANO:
            return call.frame
        return with_timeout(call.frame, max(int(left * _NANO), 1))


class HypervisorFront:
    """All connections of shims. `grace` (seconds) is for calls that carry no deadline."""

    __slots__ = ("courier", "grace", "loop", "node_path", "scribe", "sessions")

    def __init__(self, loop: Loop, node_path: str, *, scribe: Scribe, courier: Courier, grace: float) -> None:
        self.loop = loop
        self.node_path = node_path
        self.scribe = scribe
        self.courier = courier
        self.grace = grace
        self.sessions: list[Session] = []

    def accepted(self, sock: Sock) -> None:
        """A shim has connected."""
        Session(self, sock)

    def take_up(self, state: bytes, fds: Sequence[int]) -> None:
        """A shim's connection that was another relay's. Raises `Malformed`, and then no descriptor is taken."""
        fields = Fields(state)
        if len(fds) != 1 + bool(fields.blobs(2)):
            raise Malformed(f"{len(fds)} descriptors for a connection of a shim")
        socks = [_sock(fd) for fd in fds]
        Session(self, socks[0]).resume(fields, socks[1] if len(socks) > 1 else None)


def _sock(fd: int) -> Sock:
    sock = Sock(fileno=fd)
    sock.setblocking(False)
    return sock


def _call_state(call: Call, now: float) -> bytes:
    left = number(5, millis(call.deadline - now)) + number(6, call.late)
    return blob(1, call.frame) + blob(2, call.method) + number(3, call.own) + blob(4, call.stop) + left


def _to_stop(frame: bytes) -> str:
    """The sandbox that a StopVM names, "" for every other call and for an id that could not be a file's name."""
    try:
        request = Request(frame[HEADER_SIZE:])
        if request.service != HYPERVISOR or request.method != "StopVM":
            return ""
        sandbox = edits.last_bytes(request.payload, 1).decode("utf-8", "replace")
    except edits.EditError:
        return ""
    return sandbox if is_safe(sandbox) else ""


def _cancel(call: Call) -> None:
    if call.timer is not None:
        call.timer.cancel()
