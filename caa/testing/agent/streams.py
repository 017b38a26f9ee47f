"""Standard streams of a process: pipes or a terminal, read and written without blocking the loop.

A read is one chunk, in the order of the callers. A reader that is cancelled before its chunk came takes nothing, one
that is abandoned on a living connection takes the next chunk with it: the real agent has both habits.
"""

import array
import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from caa.testing.agent.answers import error

CHUNK = 64 * 1024
TERMINAL_GONE = "Input/output error (os error 5)"


class Descriptor:
    """One descriptor of ours that the loop watches; closing it wakes whoever waits."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.open = True
        self._waiting: asyncio.Future[None] | None = None

    async def readable(self) -> None:
        """Return when there is data, the end, a closed descriptor, or (a pidfd) an exit. One caller at a time."""
        loop = asyncio.get_running_loop()
        await self._wait(loop.add_reader)

    async def writable(self) -> None:
        """Return when a write will take something, or the descriptor is closed. One caller at a time."""
        loop = asyncio.get_running_loop()
        await self._wait(loop.add_writer)

    def close(self) -> None:
        if self.open:
            self._forget()
            self.open = False
            os.close(self.fd)
            self._settle()

    async def _wait(self, watch: Callable[..., object]) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        watch(self.fd, self._settle)
        try:
            await self._waiting
        finally:
            self._waiting = None
            # A closed number may belong to somebody else by now.
            if self.open:
                self._forget()

    def _forget(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.fd)
        loop.remove_writer(self.fd)

    def _settle(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Reader:
    """The read end of a pipe, or a terminal's master."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._descriptor = Descriptor(fd)
        self._turn = asyncio.Lock()

    async def read(self, size: int) -> bytes:
        """The next chunk, at most `size` bytes, or nothing at the end. A hung-up terminal is an error, as recorded."""
        async with self._turn:
            while self._descriptor.open:
                try:
                    return os.read(self._descriptor.fd, min(size, CHUNK) or CHUNK)
                except BlockingIOError:
                    await self._descriptor.readable()
                except OSError as problem:
                    raise error(13, TERMINAL_GONE) from problem
            return b""

    def close(self) -> None:
        self._descriptor.close()


class Writer:
    """The write end of a pipe, or a terminal's master."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._descriptor = Descriptor(fd)
        self._turn = asyncio.Lock()

    async def write(self, data: bytes) -> int:
        """Write all of `data`; returns its length. A process that no longer reads is an error 13."""
        async with self._turn:
            rest = memoryview(data)
            while rest:
                rest = rest[await self._write_some(rest) :]
        return len(data)

    async def _write_some(self, data: memoryview) -> int:
        if not self._descriptor.open:
            raise error(13, "Broken pipe (os error 32)")
        try:
            return os.write(self._descriptor.fd, data)
        except BlockingIOError:
            await self._descriptor.writable()
            return 0
        except OSError as problem:
            raise error(13, f"{problem.strerror} (os error {problem.errno})") from problem

    def close(self) -> None:
        self._descriptor.close()


class Streams:
    """The three streams of one process as the agent's calls see them; a terminal has no stderr."""

    def __init__(self, stdin: Writer, stdout: Reader, *, stderr: Reader | None, terminal: int | None = None) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._terminal = terminal

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal is None:
            raise error(14, '"no tty"')
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_stdin(self) -> None:
        """A terminal has no end of input of its own: closing it would hang up the process."""
        if self._terminal is None:
            self.stdin.close()

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()


class Pipes:
    """Three pipes for a process without a terminal: `child` goes to runc, the other ends become its `Streams`."""

    def __init__(self) -> None:
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        self.child = (stdin[0], stdout[1], stderr[1])
        self._ours = (stdin[1], stdout[0], stderr[0])

    def close_child_ends(self) -> None:
        for fd in self.child:
            os.close(fd)

    def streams(self) -> Streams:
        stdin, stdout, stderr = self._ours
        return Streams(Writer(stdin), Reader(stdout), stderr=Reader(stderr))

    def discard(self) -> None:
        for fd in self._ours:
            os.close(fd)


class ConsoleSocket:
    """The unix socket on which runc hands over a terminal's master."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def streams(self) -> Streams:
        """After runc has exited: what it sent. One descriptor to read, a copy to write, so that each closes alone."""
        peer, _ = self._listener.accept()
        with peer:
            _, ancillary, _, _ = peer.recvmsg(4096, socket.CMSG_LEN(4))
        (_, _, data), *_rest = ancillary
        (master,) = array.array("i", data[:4])
        return Streams(Writer(os.dup(master)), Reader(master), stderr=None, terminal=master)
