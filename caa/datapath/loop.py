"""One thread, one epoll: owners by descriptor, timers, and the fate of a connection whose owner fails.

Level-triggered, so an owner may do one step and return. An event is a hint: it may be left over from a moment ago, so
every owner works on non-blocking descriptors and takes EAGAIN for an answer.
"""

from __future__ import annotations

import posix
from _heapq import heapify, heappop, heappush
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, POLLOUT, epoll
from select import poll as poller
from time import monotonic

from caa.datapath.frames import SLACK
from caa.datapath.replay import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Closable(Protocol):
        def close(self) -> object: ...

    class Owner(Protocol):
        def ready(self, event: int, /) -> object: ...
        def crashed(self) -> object: ...


IN = EPOLLIN
OUT = EPOLLOUT
BROKEN = EPOLLHUP | EPOLLERR

# One read takes at most this. Larger gains on reads of 1 MiB what it loses at 32 KiB (`docs/performance.md`).
BUFFER_SIZE = 128 << 10
_BATCH = 64
_GROWTH = 64
_CROWDED = 32  # timers; with more, those that were cancelled are looked for
# epoll takes at most 2^31 ms, and a caller may well say "in a year".
_LONGEST_WAIT = 3600.0
# Lines of one kind in one second; beyond it they are only counted, for a flood of bad peers must not fill a disk.
_LINES_PER_SECOND = 20


class _Nobody:
    """The owner of a descriptor that is not here."""

    __slots__ = ()

    def ready(self, _event: int) -> None:
        return

    def crashed(self) -> None:
        return


_NOBODY = _Nobody()


class Timer:
    """A call at a later time; `cancel` may come at any time, also twice."""

    __slots__ = ("_order", "call", "when")

    def __init__(self, when: float, order: int, *, call: Callable[[], object] | None) -> None:
        self.when = when
        self._order = order
        self.call = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self._order) < (other.when, other._order)


class Loop:
    """The event loop of a data path process. `buffer`, a view of `raw`, is shared by all: never keep one."""

    __slots__ = (
        "_crowded",
        "_dying",
        "_epoll",
        "_masks",
        "_order",
        "_owners",
        "_running",
        "_said",
        "_timers",
        "buffer",
        "counts",
        "pool",
        "raw",
    )

    def __init__(self) -> None:
        self._epoll = epoll()
        self._owners: list[Owner] = []
        self._masks: list[int] = []
        self._timers: list[Timer] = []
        self._dying: list[Closable] = []
        self._order = 0
        self._crowded = _CROWDED
        self._running = False
        self.pool = Pool(BUFFER_SIZE + SLACK)
        self.raw = self.pool.take()
        self.buffer = memoryview(self.raw)[:BUFFER_SIZE]
        self.counts: dict[str, int] = {}
        self._said: dict[str, tuple[float, int]] = {}  # per kind: the second it counts for, lines in it

    def lend(self) -> None:
        """Leave the buffer as it is to who keeps a view of it, and read on into another one."""
        self.raw = self.pool.take()
        self.buffer = memoryview(self.raw)[:BUFFER_SIZE]

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return monotonic()

    def add(self, fd: int, mask: int, *, owner: Owner) -> None:
        """Call `owner.ready(events)` for `fd`; when that raises, `owner.crashed()` must end the connection.

        A descriptor that is already here gets the new owner.
        """
        while fd >= len(self._owners):
            self._owners.extend([_NOBODY] * _GROWTH)
            self._masks.extend([0] * _GROWTH)
        self._owners[fd] = owner
        self.set(fd, mask)

    def ask(self, fd: int, events: int) -> None:
        """Want these events too."""
        self.set(fd, self._masks[fd] | events)

    def mute(self, fd: int, events: int) -> None:
        """Want these events no more."""
        self.set(fd, self._masks[fd] & ~events)

    def set(self, fd: int, new: int) -> None:
        """Want exactly these events. With none the descriptor is taken out of epoll altogether.

        An empty mask would still report a hang-up, over and over.
        """
        old = self._masks[fd]
        if new == old:
            return
        self._masks[fd] = new
        if not new:
            self._epoll.unregister(fd)
        elif old:
            self._epoll.modify(fd, new)
        else:
            self._epoll.register(fd, new)

    def wants(self, fd: int) -> int:
        """The events asked for."""
        return self._masks[fd]

    def remove(self, fd: int) -> None:
        """Forget a descriptor; one that is not here is fine."""
        if 0 <= fd < len(self._owners):
            self.set(fd, 0)
            self._owners[fd] = _NOBODY

    def close(self, thing: Closable, fd: int) -> None:
        """Forget `fd` and close its owner after this batch of events, so that its number is not taken within it."""
        self.remove(fd)
        self._dying.append(thing)

    def later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Call once after `delay` seconds."""
        self._order += 1
        timer = Timer(monotonic() + delay, self._order, call=call)
        heappush(self._timers, timer)
        if len(self._timers) > self._crowded:
            self._thin_out()
        return timer

    def _thin_out(self) -> None:
        """Drop the timers that were cancelled: each dial leaves some, which would stay until they are due."""
        self._timers[:] = [timer for timer in self._timers if timer.call is not None]
        heapify(self._timers)
        self._crowded = max(_CROWDED, 2 * len(self._timers))

    def count(self, what: str, text: str = "") -> None:
        """Count an event; with a text, say it on stderr too, unless this kind is said too often."""
        self.counts[what] = self.counts.get(what, 0) + 1
        if not text:
            return
        second, lines = self._said.get(what, (0.0, 0))
        if monotonic() - second >= 1:
            if lines > _LINES_PER_SECOND:
                say(f"{what}: {lines - _LINES_PER_SECOND} more of these were not written")
            second, lines = monotonic(), 0
        self._said[what] = second, lines + 1
        if lines < _LINES_PER_SECOND:
            say(f"{what}: {text}")

    def stop(self) -> None:
        """Leave `run` after this batch."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`, or until a signal handler raises `SystemExit`."""
        poll, owners, timers = self._epoll.poll, self._owners, self._timers
        self._running = True
        while self._running:
            events = poll(self._wait() if timers else -1, _BATCH)
            fd = -1
            try:
                for fd, event in events:
                    owners[fd].ready(event)
            except Exception as error:
                self._crashed(fd, error)
            if timers:
                self._fire()
            if self._dying:
                self._bury()

    def _wait(self) -> float:
        """Seconds until the next timer that still stands, at most an hour; -1 when none does."""
        timers = self._timers
        while timers and timers[0].call is None:
            heappop(timers)
        return min(max(timers[0].when - monotonic(), 0), _LONGEST_WAIT) if timers else -1

    def _fire(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0].when <= now:
            call = heappop(self._timers).call
            if call is None:
                continue
            try:
                call()
            except Exception as error:
                self.count("crashed", f"a timer failed: {describe(error)}")

    def _crashed(self, fd: int, error: Exception) -> None:
        """A fault of ours costs one connection; the rest of the batch comes again, epoll being level-triggered."""
        self.count("crashed", f"descriptor {fd}: {describe(error)}")
        try:
            (self._owners[fd] if fd >= 0 else _NOBODY).crashed()
        except Exception as second:
            self.remove(fd)
            self.count("crashed", f"closing descriptor {fd}: {describe(second)}")

    def _bury(self) -> None:
        dying, self._dying = self._dying, []
        for thing in dying:
            try:
                thing.close()
            except OSError as error:
                self.count("close failed", str(error))


def describe(error: BaseException) -> str:
    """An exception in one line, with the place it came from."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{place}"


def say(text: str) -> None:
    """One line to stderr. A full or closed pipe loses the line, never the pod.

    A pipe that is ready takes PIPE_BUF (4096) bytes without blocking; stderr may be shared, so it stays as it is.
    """
    ready = poller()
    ready.register(2, POLLOUT)
    try:
        if ready.poll(0) == [(2, POLLOUT)]:
            posix.write(2, text.encode("utf-8", "replace")[:4000] + b"\n")
    except OSError:
        pass


def be_spared() -> None:
    """Have the kernel end almost anything else first when memory runs out: all pods of a node hang on this process."""
    try:
        fd = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, b"-900")
        finally:
            posix.close(fd)
    except OSError as error:
        say(f"out-of-memory score not lowered: {error}")


def be_nice(niceness: str) -> None:
    """Take a niceness, -20 to 19; without the right to, or with a text that is no number, go on as we are.

    -10 keeps the tail short when the processor is contended (p99 1.7 ms against 6.0 ms). It also means that we are
    woken for every few bytes, which costs calls per second with many in flight (`docs/performance.md`).
    """
    try:
        posix.setpriority(posix.PRIO_PROCESS, 0, int(niceness))
    except (OSError, ValueError, OverflowError) as error:
        say(f"niceness {niceness} not taken: {error}")
