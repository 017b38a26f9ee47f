"""Stops that must not be lost: a file each, written through before the shim hears OK, and brought to the node."""

from __future__ import annotations

import posix

from caa.datapath import edits
from caa.datapath.channel import Channel
from caa.datapath.frames import HEADER_SIZE, RESPONSE, call
from caa.datapath.sockets import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from caa.datapath.loop import Loop, Timer

HYPERVISOR = "hypervisor.Hypervisor"
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_ANSWER_SECONDS = 10.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


def is_safe(sandbox: str) -> bool:
    """Whether an id may become a file name: as `caa.model.ids.sandbox_id` demands."""
    return 0 < len(sandbox) <= 128 and _SAFE.issuperset(sandbox) and sandbox[0] not in "_.-"


class Stops:
    """The folder `stops/` of the state directory: an empty file named after each sandbox that has to end."""

    __slots__ = ("_directory",)

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def record(self, sandbox: str) -> None:
        """Write the stop through to the disk; again is fine. Raises `OSError`."""
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
        _sync(posix.open(self._path(sandbox), flags, 0o600))
        _sync(posix.open(self._directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC))

    def pending(self, sandbox: str) -> bool:
        """Whether the node has not made the stop its own yet (it removes the file then)."""
        try:
            posix.stat(self._path(sandbox))
        except OSError:
            return False
        return True

    def _path(self, sandbox: str) -> str:
        return f"{self._directory}/{sandbox}"


def _sync(fd: int) -> None:
    try:
        posix.fsync(fd)
    finally:
        posix.close(fd)


class Courier:
    """Brings recorded stops to the node which it did not answer in time, one after the other, until it says OK.

    The node looks into the folder at its start only, so one that was merely slow has to be told again.
    """

    __slots__ = ("_channel", "_loop", "_node_path", "_pause", "_queue", "_stops", "_timer")

    def __init__(self, loop: Loop, node_path: str, *, stops: Stops) -> None:
        self._loop = loop
        self._node_path = node_path
        self._stops = stops
        self._queue: list[str] = []
        self._pause = _FIRST_PAUSE
        self._channel: Channel | None = None
        self._timer: Timer | None = None

    def deliver(self, sandbox: str) -> None:
        """Make sure that the node hears of this stop; it is recorded already."""
        if sandbox not in self._queue:
            self._queue.append(sandbox)
        if self._timer is None:
            self._timer = self._loop.later(self._pause, self._go)

    def waiting(self) -> int:
        """Stops that have not been delivered."""
        return len(self._queue)

    def framed(self, channel: Channel, frame: bytes) -> None:
        """The node's answer; anything but OK is asked again later."""
        channel.close()
        self._channel = None
        if not _is_ok(frame):
            self._later()
            return
        self._queue.pop(0)
        self._pause = _FIRST_PAUSE
        self._next(0)

    def ended(self, _channel: Channel) -> None:
        """The node went away without an answer."""
        self._channel = None
        self._later()

    def _go(self) -> None:
        """Ask about the first stop that still has its file."""
        self._drop_channel()
        self._queue = [sandbox for sandbox in self._queue if self._stops.pending(sandbox)]
        if not self._queue:
            self._timer = None
            return
        try:
            channel = Channel(self._loop, connect_unix(self._node_path), expected=RESPONSE, owner=self)
        except OSError:
            self._later()
            return
        self._channel = channel
        self._next(_ANSWER_SECONDS)
        payload = edits.bytes_field(1, self._queue[0].encode())
        channel.send(call(HYPERVISOR, "StopVM", stream=1, payload=payload, timeout=int(_ANSWER_SECONDS * 1e9)))

    def _later(self) -> None:
        """Ask the next one first, and more slowly."""
        self._queue.append(self._queue.pop(0))
        self._next(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _next(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(delay, self._go)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _is_ok(frame: bytes) -> bool:
    try:
        return edits.last_varint(edits.last_bytes(frame[HEADER_SIZE:], 1), 1) == 0
    except edits.EditError:
        return False
