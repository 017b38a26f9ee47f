"""Unix sockets under asyncio: the one file of `caa.wire` that touches sockets and transports.

Bytes are read into one buffer a connection (`BufferedProtocol`), so a large frame costs no quadratic copying.
"""

import asyncio
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from caa.errors import StateError, Unavailable

_READ_SIZE = 64 << 10
_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel knows it (`SO_PEERCRED`)."""

    uid: int
    pid: int


class Receiver(Protocol):
    """What a byte stream tells its owner. `bytes_received` must copy what it keeps."""

    def bytes_received(self, data: memoryview) -> None: ...

    def writable_again(self) -> None: ...

    def lost(self) -> None:
        """The stream is gone; fires once, after everything else."""


class ByteStream(asyncio.BufferedProtocol):
    """One connected socket: bytes to a receiver, writes with back-pressure, reading that can be held."""

    def __init__(self, owner: Callable[["ByteStream"], Receiver]) -> None:
        self._buffer = bytearray(_READ_SIZE)
        self._owner = owner
        self._transport: asyncio.Transport
        self._receiver: Receiver
        self._drained = asyncio.Event()
        self._drained.set()
        self._hangup: _HangupWatch | None = None
        self.gone = asyncio.Event()

    # what the owner does

    @property
    def choked(self) -> bool:
        """The peer reads slower than we write: the transport holds more than its high-water mark."""
        return not self._drained.is_set()

    def peer(self) -> Peer:
        pid, uid, _ = _UCRED.unpack(self._socket().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(uid=uid, pid=pid)

    def write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer has taken enough; returns at once when the stream is gone."""
        while self.choked and not self.gone.is_set():
            await self._drained.wait()

    def hold_reading(self) -> None:
        """Stop reading; the peer's end is still noticed, so that nobody works for the dead. Twice is once."""
        if self._hangup is None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._hangup = _HangupWatch(self._socket().fileno(), self.abort)

    def resume_reading(self) -> None:
        if self._hangup is not None:
            self._hangup.close()
            self._hangup = None
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is written, then close."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _socket(self) -> socket.socket:
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._receiver = self._owner(self)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # the signature is asyncio's
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.bytes_received(memoryview(self._buffer)[:nbytes])

    def eof_received(self) -> None:
        """A peer that sends no more takes no answers either: Go's ttrpc knows no half-closed connection."""

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()
        self._receiver.writable_again()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # a peer may go in any way
        if self._hangup is not None:
            self._hangup.close()
            self._hangup = None
        self.gone.set()
        self._drained.set()
        self._receiver.lost()


class _HangupWatch:
    """Tells of a peer's end while nobody reads.

    asyncio forgets a descriptor whose reading is paused; an epoll of our own, itself watched by the loop, does not.
    """

    def __init__(self, descriptor: int, hung_up: Callable[[], None]) -> None:
        self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLRDHUP)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), hung_up)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class Listener:
    """A listening unix socket at a path of ours."""

    def __init__(self, path: Path, server: asyncio.Server) -> None:
        self._path = path
        self._inode = path.stat().st_ino
        self._server = server

    def close(self) -> None:
        """Stop listening and remove the path, unless somebody else has taken it over. Twice is once."""
        self._server.close()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            return


async def listen(path: str, owner: Callable[[ByteStream], Receiver]) -> Listener:
    """Listen at `path` with mode 0600, in place of whatever is there; raises `StateError`.

    The socket is made under a temporary name and renamed, so a client finds either the old one or one that answers.
    """
    target = Path(path)
    loop = asyncio.get_running_loop()
    try:
        with _bound(target) as listening:
            server = await loop.create_unix_server(lambda: ByteStream(owner), sock=listening, backlog=_BACKLOG)
        return Listener(target, server)
    except OSError as error:
        raise StateError(f"cannot listen on {path}: {error.strerror or error}") from error


@contextmanager
def _bound(target: Path) -> Iterator[socket.socket]:
    """A socket under a temporary name; at the end of the block it gets its own, after an error it is gone."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before the name exists: Linux gives the name the descriptor's mode
        listening.bind(str(temporary))
        yield listening
        temporary.rename(target)
    except BaseException:
        listening.close()
        temporary.unlink(missing_ok=True)
        raise


async def dial(path: str, owner: Callable[[ByteStream], Receiver]) -> ByteStream:
    """Connect to a unix socket; raises `Unavailable`."""
    try:
        _, stream = await asyncio.get_running_loop().create_unix_connection(lambda: ByteStream(owner), path)
    except OSError as error:
        raise Unavailable(f"ttrpc: nobody answers at {path}: {error.strerror or error}") from error
    return stream
