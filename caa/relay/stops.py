"""Stops that must not be lost: a file each, written through before the shim hears OK, and brought to the node."""

from __future__ import annotations

import posix
from _signal import SIG_BLOCK, SIG_SETMASK, SIGINT, SIGTERM, pthread_sigmask  # type: ignore[import-not-found]
from _thread import start_new_thread

from caa.datapath import edits
from caa.datapath.channel import Channel
from caa.datapath.frames import HEADER_SIZE, RESPONSE, call
from caa.datapath.loop import IN
from caa.datapath.sockets import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from caa.datapath.loop import Loop, Timer

    Written = Callable[[str], object]  # told with "" or with why it is not on the disk

HYPERVISOR = "hypervisor.Hypervisor"
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
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

    def record(self, sandboxes: Sequence[str]) -> dict[str, str]:
        """Write stops through to the disk; again is fine. Returns those that failed, each with the reason."""
        failed = {}
        for sandbox in sandboxes:
            try:
                _sync(posix.open(self._path(sandbox), _CREATE, 0o600))
            except OSError as error:
                failed[sandbox] = error.strerror or str(error)
        try:
            _sync(posix.open(self._directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC))
        except OSError as error:
            return dict.fromkeys(sandboxes, error.strerror or str(error))
        return failed

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


class Scribe:
    """Records stops in a thread: a slow disk must not hold up the loop, and with it every pod's calls.

    The thread ends when nothing is left to write; what came meanwhile shares one write of the folder.
    """

    __slots__ = ("_done", "_event", "_loop", "_queue", "_running", "_stops")

    def __init__(self, loop: Loop, stops: Stops) -> None:
        self._loop = loop
        self._stops = stops
        self._queue: list[tuple[str, Written]] = []
        self._done: list[tuple[Written, str]] = []
        self._running = False
        self._event = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
        loop.add(self._event, IN, owner=self)

    def write(self, sandbox: str, written: Written) -> None:
        """Make a stop durable, then call `written` in the loop."""
        self._queue.append((sandbox, written))
        self._start()

    def close(self) -> None:
        """Stop telling; what is being written is still written."""
        self._loop.remove(self._event)
        posix.close(self._event)

    def _start(self) -> None:
        if self._queue and not self._running:
            self._running = True
            batch, self._queue = self._queue, []
            # The thread inherits the mask: a signal that it got would not wake the loop, whose thread has to act on it.
            before = pthread_sigmask(SIG_BLOCK, (SIGTERM, SIGINT))
            try:
                start_new_thread(self._work, (batch,))
            finally:
                pthread_sigmask(SIG_SETMASK, before)

    def _work(self, batch: list[tuple[str, Written]]) -> None:
        """In the thread: nothing but the disk, the list of results and the event."""
        failed = self._stops.record([sandbox for sandbox, _ in batch])
        self._done += [(written, failed.get(sandbox, "")) for sandbox, written in batch]
        posix.eventfd_write(self._event, 1)

    def ready(self, _event: int) -> None:
        """Tell what has been written."""
        try:
            posix.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._running = False
        self._start()
        while self._done:
            written, problem = self._done.pop(0)
            written(problem)

    def crashed(self) -> None:
        """One answer failed, its connection is gone; the others are told with another event."""
        posix.eventfd_write(self._event, 1)


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

    def waiting(self) -> Sequence[str]:
        """Stops that have not been delivered."""
        return tuple(self._queue)

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
