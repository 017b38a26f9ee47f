"""What the node may ask of the relay: `caa.relay.v1.AgentLinks` {Open, Close, List} on `relay.sock`, decoded by hand.

Field numbers as in `caa/wire/proto/src/relay.proto`.
"""

from __future__ import annotations

from sys import intern

from caa.datapath import edits
from caa.datapath.channel import Channel
from caa.datapath.frames import (
    HEADER_SIZE,
    INVALID_ARGUMENT,
    REQUEST,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    Malformed,
    Refused,
    Request,
    answer,
    refusal,
    stream_of,
)
from caa.datapath.handover import Fields, blob, blobs, millis, number
from caa.datapath.sockets import Sock
from caa.datapath.tls import TlsFiles
from caa.relay.dial import Target
from caa.relay.stops import is_safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from caa.datapath.loop import Loop
    from caa.relay.agent_front import AgentFront
    from caa.relay.link import Waiter

SERVICE = "caa.relay.v1.AgentLinks"
_IN_FLIGHT = 1024
_NANO = 1e9
# Kept back from the caller's deadline, so that the reason of a dial that fails reaches it before its own timer ends.
_ANSWER_SECONDS = 0.5
_LONGEST_REASON = 500


class Reply:
    """The answer that a call still waits for."""

    __slots__ = ("_commands", "channel", "request", "stream", "until")

    def __init__(self, commands: Commands, channel: Channel, *, stream: int) -> None:
        self._commands = commands
        self.channel = channel
        self.stream = stream
        self.request = b""  # the message of an Open
        self.until = 0.0  # the loop's time up to which its link is dialled

    def done(self) -> None:
        """The call has succeeded."""
        self._commands.settle(self)
        self.channel.send(answer(self.stream))

    def refused(self, refused: Refused) -> None:
        """The call has failed."""
        self._commands.settle(self)
        self.channel.send(refusal(self.stream, refused))


class Commands:
    """The service. A caller that goes away ends the dials that only it waits for."""

    __slots__ = ("_dial_seconds", "_front", "_loop", "_waiting", "channels")

    def __init__(self, loop: Loop, front: AgentFront, *, dial_seconds: float) -> None:
        self._loop = loop
        self._front = front
        self._dial_seconds = dial_seconds
        self._waiting: list[Reply] = []
        self.channels: list[Channel] = []

    def accepted(self, sock: Sock) -> None:
        """A new connection of the node."""
        self.channels.append(Channel(self._loop, sock, expected=REQUEST, owner=self))

    # Going to another relay: 1 the channel, 2 calls that wait: 1 stream, 2 the message of Open, 3 milliseconds left

    def freeze(self, channel: Channel) -> tuple[bytes, list[int]]:
        """One connection of the node stands still; returns its state and its descriptor."""
        now = self._loop.now()
        waiting = (
            number(1, reply.stream) + blob(2, reply.request) + number(3, millis(reply.until - now))
            for reply in self._waiting
            if reply.channel is channel
        )
        return blob(1, channel.freeze()) + blobs(2, waiting), [channel.fd]

    def take_up(self, state: bytes, fds: Sequence[int]) -> None:
        """A connection of the node that was another relay's. Raises `Malformed`, and then no descriptor is taken."""
        fields = Fields(state)
        if len(fds) != 1:
            raise Malformed(f"{len(fds)} descriptors for a connection of the node")
        sock = Sock(fileno=fds[0])
        sock.setblocking(False)
        channel = Channel(self._loop, sock, expected=REQUEST, owner=self)
        self.channels.append(channel)
        channel.resume(Fields(fields.blob(1)))
        for call in map(Fields, fields.blobs(2)):
            reply = Reply(self, channel, stream=call.number(1))
            try:
                self._begin(reply, call.blob(2), seconds=call.number(3) / 1000)
            except Refused as refused:
                reply.refused(refused)

    def ended(self, channel: Channel) -> None:
        """A connection of the node has gone."""
        self.channels.remove(channel)
        gone: list[Waiter] = [reply for reply in self._waiting if reply.channel is channel]
        self._waiting = [reply for reply in self._waiting if reply.channel is not channel]
        self._front.abandon(gone)

    def settle(self, reply: Reply) -> None:
        """A call is answered."""
        if reply in self._waiting:
            self._waiting.remove(reply)

    def framed(self, channel: Channel, frame: bytes) -> None:
        """One call."""
        stream = stream_of(frame)
        try:
            request = Request(frame[HEADER_SIZE:])
            if request.service != SERVICE:
                raise Refused(UNIMPLEMENTED, f"service {request.service} is not served here")
            if request.method == "Open":
                self._open(Reply(self, channel, stream=stream), request)
            elif request.method == "Close":
                self._front.close(_sandbox(request.payload), _reason(request.payload))
                channel.send(answer(stream))
            elif request.method == "List":
                channel.send(answer(stream, self._list()))
            else:
                raise Refused(UNIMPLEMENTED, f"method {request.method} of {SERVICE} does not exist")
        except edits.EditError as error:
            channel.send(refusal(stream, Refused(INVALID_ARGUMENT, f"not a protobuf message: {error}")))
        except Refused as refused:
            channel.send(refusal(stream, refused))

    def _open(self, reply: Reply, request: Request) -> None:
        if len(self._waiting) >= _IN_FLIGHT:
            raise Refused(RESOURCE_EXHAUSTED, f"{_IN_FLIGHT} links are being opened already")
        seconds = self._dial_seconds
        if request.timeout:
            seconds = request.timeout / _NANO
            seconds -= min(_ANSWER_SECONDS, seconds / 10)
        self._begin(reply, request.payload, seconds=seconds)

    def _begin(self, reply: Reply, message: bytes, *, seconds: float) -> None:
        sandbox, target = _sandbox(message), _target(message)
        reply.request = message
        reply.until = self._loop.now() + seconds
        self._waiting.append(reply)
        try:
            self._front.open(sandbox, target, seconds=seconds, waiter=reply)
        except Refused:
            self.settle(reply)
            raise

    def _list(self) -> bytes:
        return b"".join(
            edits.bytes_field(
                1,
                edits.bytes_field(1, link.sandbox.encode())
                + (edits.varint_field(2, 1) if link.connected() else b"")
                + (edits.varint_field(3, link.shims()) if link.shims() else b"")
                + (edits.bytes_field(4, link.target.files.ca.encode()) if link.target.files.ca else b""),
            )
            for link in self._front.links()
        )


def _text(payload: bytes, number: int) -> str:
    return edits.last_bytes(payload, number).decode("utf-8", "replace")


def _sandbox(payload: bytes) -> str:
    sandbox = _text(payload, 1)
    if not is_safe(sandbox):
        raise Refused(INVALID_ARGUMENT, f"sandbox id {sandbox[:32]!r} is not a name for a folder")
    return sandbox


def _reason(payload: bytes) -> str:
    """One line, whatever the node has passed on of a cloud's words."""
    return " ".join(_text(payload, 2).split())[:_LONGEST_REASON]


def _target(payload: bytes) -> Target:
    ca, cert, key, version = (intern(_text(payload, field)) for field in (5, 6, 7, 8))  # the same for most pods
    files = TlsFiles(ca=ca, cert=cert, key=key, min_version=version)
    files.ciphers = tuple(name for name in _text(payload, 9).replace(":", ",").replace(" ", "").split(",") if name)
    addresses = tuple(address.decode("utf-8", "replace") for address in edits.all_bytes(payload, 2))
    target = Target(addresses, edits.last_varint(payload, 3), server_name=intern(_text(payload, 4)), files=files)
    target.skip_verify = bool(edits.last_varint(payload, 10))
    target.disable_tls = bool(edits.last_varint(payload, 11))
    target.volumes = tuple((_text(one, 1), _text(one, 2)) for one in edits.all_bytes(payload, 12))
    if not 0 < target.port < 65536:
        raise Refused(INVALID_ARGUMENT, f"port {target.port} is not between 1 and 65535")
    if not (target.server_name or target.skip_verify or target.disable_tls):
        raise Refused(INVALID_ARGUMENT, "no server name to check the pod VM's certificate for")
    return target
