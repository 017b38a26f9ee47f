"""One direction of a connection: read a bufferful, cut it through, keep what the other side does not take yet."""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]  # functools costs 0.5 MB

from caa.datapath.loop import BUFFER_SIZE, OUT
from caa.datapath.tls import WANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from caa.datapath.loop import Loop
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

# A full TLS record: more is likely to follow. Asking after a shorter one costs an exception a call.
RECORD = 16384
_FULL = BUFFER_SIZE - RECORD


class Outlet:
    """The writing half of a descriptor. What the kernel does not take waits in `rest`, and the source must pause.

    With TLS a refused write must be repeated with the same bytes in front, so `rest` only ever grows at its end.
    """

    __slots__ = ("_loop", "fd", "rest", "write")

    def __init__(self, loop: Loop, sock: Sock | None, *, tls: TlsObject | None) -> None:
        """Without a `sock` there is no connection yet, and nothing may be written."""
        self._loop = loop
        self.fd = -1
        self.write: Callable[[bytes | bytearray | memoryview], int] = _nowhere
        if sock is not None:
            self.fd = sock.fileno()
            self.write = sock.send if tls is None else tls.write
        self.rest: bytearray | None = None

    def send(self, data: bytes | bytearray | memoryview) -> bool:
        """Write, or keep; False when something is kept. Raises `OSError` when the peer is gone."""
        try:
            sent = self.write(data) if self.rest is None else 0
        except WANT:
            sent = 0
        if sent == len(data):
            return True
        self.keep(data[sent:])
        return False

    def keep(self, data: bytes | bytearray | memoryview) -> None:
        """Store what a write left over and ask to be told when there is room."""
        if self.rest is None:
            self.rest = bytearray(data)
            self._loop.ask(self.fd, OUT)
        else:
            self.rest += data

    def flush(self) -> bool:
        """Write what waits; True when nothing is left. Raises `OSError` when the peer is gone."""
        if self.rest is None:
            return True
        try:
            sent = self.write(self.rest)
        except WANT:
            return False
        if sent != len(self.rest):
            del self.rest[:sent]
            return False
        self.rest = None
        self._loop.mute(self.fd, OUT)
        return True

    def waiting(self) -> int:
        """Bytes that are kept."""
        return 0 if self.rest is None else len(self.rest)


def _nowhere(_data: bytes | bytearray | memoryview) -> int:
    raise ConnectionError("there is no connection to write to")


def reader(sock: Sock, tls: TlsObject | None) -> Callable[[memoryview], int]:
    """`read(buffer)` of a connection: bytes read, 0 at the end; raises one of `WANT` when nothing is there."""
    read: Callable[[memoryview], int] = sock.recv_into if tls is None else partial(tls.read, BUFFER_SIZE)
    return read


def gather(read: Callable[[int, memoryview], int], buffer: memoryview, *, got: int) -> int:
    """Go on reading TLS records into `buffer` while they come full; returns the bytes that are there now.

    Never leaves part of a record inside the TLS object, where epoll would not see it.
    """
    try:
        while got <= _FULL:
            more = read(BUFFER_SIZE, buffer[got:])
            got += more
            if more != RECORD:
                break
    except (OSError, *WANT):
        pass  # an end or an error comes again with the next read
    return got
