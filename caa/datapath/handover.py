"""What passes between a relay and its successor: parcels of state and descriptors over a unix socket; their format.

A parcel is a header (payload length, kind, number of descriptors) and a payload, a protobuf message written by hand.
Its descriptors travel by SCM_RIGHTS with its first byte. Unknown fields are skipped and absent ones are 0 or empty, so
a format may grow. One that means something else gets a new number: both sides name the formats they know, and the
highest that both do is spoken.
"""

from __future__ import annotations

import posix
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_RIGHTS, SHUT_RD, SOL_SOCKET
from struct import Struct, pack, unpack

from caa.datapath import edits
from caa.datapath.frames import Malformed
from caa.datapath.loop import BROKEN, IN, OUT, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from caa.datapath.loop import Loop
    from caa.datapath.sockets import Sock

    class Receiver(Protocol):
        def parcel(self, kind: int, payload: bytes, *, fds: list[int]) -> object: ...
        def ended(self, why: str, /) -> object: ...


OLDEST = NEWEST = 1
(HELLO, WELCOME, REFUSED, SHOW, SHOWN, FREEZE, FROZEN, TAKE, GIVEN, OK, REST, SHIM, CALLER, LAST, COMMIT) = range(1, 16)
SOCKET = "handover.sock"

# Descriptors in one parcel; the kernel takes 253 in a message. A pod has at most 33: its listener and 32 connections.
MOST_FDS = 64
# A pod's state is its unacknowledged bytes (2 MiB), what its shim has not read, and some kB.
_MOST_BYTES = 64 << 20
_HEAD = Struct(">IHH")
_READ = 256 << 10
_INT = 4


class Fields:
    """A message, read once. Raises `edits.EditError` when it is none."""

    __slots__ = ("_blobs", "_numbers")

    def __init__(self, data: bytes) -> None:
        self._numbers: dict[int, list[int]] = {}
        self._blobs: dict[int, list[bytes]] = {}
        for number, _, value, _, _ in edits.fields(data):
            if isinstance(value, int):
                self._numbers.setdefault(number, []).append(value)
            else:
                self._blobs.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """The last value of a number field; 0 when absent."""
        return self._numbers.get(field, [0])[-1]

    def numbers(self, field: int) -> list[int]:
        """All values of a number field."""
        return self._numbers.get(field, [])

    def blob(self, field: int) -> bytes:
        """The last value of a bytes field; empty when absent."""
        return self._blobs.get(field, [b""])[-1]

    def blobs(self, field: int) -> list[bytes]:
        """All values of a bytes field."""
        return self._blobs.get(field, [])

    def text(self, field: int) -> str:
        """The last value of a text field; empty when absent."""
        return self.blob(field).decode("utf-8", "replace")

    def texts(self, field: int) -> list[str]:
        """All values of a text field."""
        return [value.decode("utf-8", "replace") for value in self.blobs(field)]


def number(field: int, value: int) -> bytes:
    """A number field; nothing for 0."""
    return edits.varint_field(field, value) if value else b""


def blob(field: int, value: bytes | bytearray | str) -> bytes:
    """A bytes or text field; nothing when empty."""
    data = value.encode() if isinstance(value, str) else bytes(value)
    return edits.bytes_field(field, data) if data else b""


def blobs(field: int, values: Iterable[bytes | str]) -> bytes:
    """A repeated bytes or text field; an empty element stays one."""
    encoded = (value.encode() if isinstance(value, str) else value for value in values)
    return b"".join(edits.bytes_field(field, value) for value in encoded)


def millis(seconds: float) -> int:
    """A time that is left, in whole milliseconds; at least 1, for 0 means that there is none."""
    return max(int(seconds * 1000), 1)


class Parcels:
    """One end of the connection. Calls `owner.parcel` for each that came, and `owner.ended(why)` once, at its end.

    Descriptors that are sent stay the sender's; those that arrive are the receiver's, who closes them, unless it raises
    `Malformed` or `edits.EditError`. What came but was not handed out before the end is in `unheard`; what the other
    side sends later fails there, so both know which of its words counted.
    """

    __slots__ = ("_data", "_deaf", "_fds", "_loop", "_out", "_owner", "_sock", "fd", "unheard")

    def __init__(self, loop: Loop, sock: Sock, *, owner: Receiver) -> None:
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self._data = bytearray()
        self._fds: list[int] = []
        self._out: list[tuple[memoryview, tuple[int, ...]]] = []
        self._deaf = False  # the other side takes nothing more; what it has said is still to be read
        self.unheard: list[tuple[int, bytes]] = []
        self.fd = sock.fileno()
        loop.add(self.fd, IN, owner=self)

    def send(self, kind: int, payload: bytes = b"", *, fds: Sequence[int] = ()) -> bool:
        """Send a parcel now, or as soon as the other side reads; False when it takes nothing more."""
        if self.fd >= 0 and not self._deaf:
            data = _HEAD.pack(len(payload), kind, len(fds)) + payload
            self._out.append((memoryview(data), tuple(fds)))
            self._write()
        return self.fd >= 0 and not self._deaf

    def close(self) -> None:
        """End it without a word to the owner; again is fine."""
        if self.fd >= 0:
            self._drain()
            self._loop.close(self._sock, self.fd)
            self.fd = -1

    def _drain(self) -> None:
        """From the shutdown on the other side's words fail there; those before it are here."""
        try:
            self._sock.shutdown(SHUT_RD)
            while self._receive():
                pass
        except OSError:
            pass
        try:
            while (parcel := self._next()) is not None:
                self.unheard.append(parcel[:2])
                close_all(parcel[2])
        except Malformed:
            pass  # nothing is heard of what follows
        close_all(self._fds)
        self._fds = []

    def _end(self, why: str) -> None:
        if self.fd >= 0:
            self.close()
            self._owner.ended(why)

    def crashed(self) -> None:
        """A handler of ours failed: end."""
        self._end("a fault in the hand-over")

    def ready(self, event: int) -> None:
        """The peer speaks, or there is room to write."""
        if event & OUT:
            self._write()
        if event & (IN | BROKEN) and self.fd >= 0:
            self._read()

    def _write(self) -> None:
        while self._out:
            data, fds = self._out[0]
            rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
            try:
                sent = self._sock.sendmsg((data,), rights)
            except BlockingIOError:
                self._loop.ask(self.fd, OUT)
                return
            except (BrokenPipeError, ConnectionResetError):
                self._deaf = True
                self._out.clear()
                break
            except OSError as error:
                self._end(error.strerror or str(error))
                return
            if sent == len(data):
                self._out.pop(0)
            else:
                self._out[0] = data[sent:], ()
        self._loop.mute(self.fd, OUT)

    def _read(self) -> None:
        try:
            more = self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        try:
            while self.fd >= 0 and (parcel := self._next()) is not None:
                kind, payload, fds = parcel
                self._hand_out(kind, payload, fds=fds)
        except Malformed as error:
            self._end(str(error))
        if not more:
            self._end("the other side has ended")

    def _receive(self) -> bool:
        """Take what has come; False at the end. Raises `OSError`."""
        data, rights, flags, _ = self._sock.recvmsg(_READ, CMSG_SPACE(MOST_FDS * _INT), MSG_CMSG_CLOEXEC)
        for level, kind, cargo in rights:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                self._fds += unpack(f"{len(cargo) // _INT}i", cargo)
        if flags & MSG_CTRUNC:
            raise OSError("descriptors were lost on the way: too many open files, raise the limit (LimitNOFILE)")
        self._data += data
        return bool(data)

    def _next(self) -> tuple[int, bytes, list[int]] | None:
        """The next parcel, if it is whole. Raises `Malformed`."""
        if len(self._data) < _HEAD.size:
            return None
        size, kind, count = _HEAD.unpack_from(self._data)
        end = _HEAD.size + size
        if size > _MOST_BYTES or count > MOST_FDS:
            self._data.clear()
            raise Malformed(f"a parcel of {size} bytes and {count} descriptors")
        if len(self._data) < end:
            return None
        payload, fds = bytes(self._data[_HEAD.size : end]), self._fds[:count]
        del self._data[:end]
        del self._fds[:count]
        return kind, payload, fds

    def _hand_out(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        try:
            self._owner.parcel(kind, payload, fds=fds)
        except (edits.EditError, Malformed) as error:
            close_all(fds)
            self._end(f"parcel {kind} cannot be read: {describe(error)}")


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody has taken; one that is closed already is fine."""
    for fd in fds:
        try:
            posix.close(fd)
        except OSError:
            pass


def common_format(message: Fields, *, oldest: int = OLDEST, newest: int = NEWEST) -> int:
    """The format to speak with a peer that knows those from field 1 to field 2; 0 when there is none."""
    best = min(message.number(2), newest)
    return best if best >= max(message.number(1), oldest) else 0
