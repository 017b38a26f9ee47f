"""The relay's process: where its fronts meet, what it checks before it serves, how it ends."""

from __future__ import annotations

import gc
import posix
import sys
from _signal import SIGINT, SIGTERM, set_wakeup_fd, signal  # type: ignore[import-not-found]  # signal imports enum
from fcntl import LOCK_EX, LOCK_NB, flock

from caa.datapath.flags import FlagError, Flags
from caa.datapath.handover import SOCKET as HANDOVER_SOCKET
from caa.datapath.heartbeat import DEAD_AFTER
from caa.datapath.loop import IN, Loop, be_nice, be_spared, say
from caa.datapath.sockets import connect_unix, inherit_unix, listen_unix, unlink
from caa.relay.agent_front import AgentFront
from caa.relay.commands import Commands
from caa.relay.folders import own_directory
from caa.relay.giving import Giver
from caa.relay.hypervisor_front import HypervisorFront
from caa.relay.stops import Courier, Scribe, Stops
from caa.relay.taking import Rest, Taker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from caa.datapath.sockets import Listener, Sock

NODE_SOCKET = "node.sock"
COMMAND_SOCKET = "relay.sock"
# How often a relay that is to end looks whether the last shim has gone.
_LOOK_SECONDS = 0.2
# How often, and for how many times, to look whether a relay has ended that has hung up.
_TRY_SECONDS = 0.01
_TRIES = 50


def flags() -> Mapping[str, str | bool | float]:
    """The flags with their defaults; the types of the defaults are the types of the values."""
    return {
        "hypervisor-socket": "/run/peerpod/hypervisor.sock",
        "pods-dir": "/run/peerpod/pods",
        "run-dir": "/run/peerpod/relay",
        "state-dir": "/var/lib/peerpod",
        "grace-seconds": 600.0,
        "dial-timeout-seconds": 300.0,
        "link-grace-seconds": "300",
        "link-silence-seconds": DEAD_AFTER,
        "no-session": False,
        "successor-wait-seconds": "20",
        "niceness": "-10",
    }


class CannotStart(Exception):
    """Why the relay cannot serve, in a sentence for the operator."""


class Relay:
    """All parts of the process.

    `open` may raise `CannotStart`; where another relay runs it only begins to take over, and `failure` tells later why
    that did not succeed. `close` removes what was made, unless a successor has it.
    """

    __slots__ = (
        "_ending",
        "_giver",
        "_gone",
        "_heirs",
        "_lock_path",
        "_settings",
        "_wait",
        "agents",
        "commands",
        "failure",
        "hypervisor",
        "listeners",
        "lock",
        "loop",
    )

    def __init__(self, settings: Flags) -> None:
        """Raises `CannotStart`."""
        self._settings = settings
        self._lock_path = f"{settings.text('run-dir')}/relay.lock"
        self._heirs: Listener | None = None
        self._ending = self._gone = False
        self._wait = _seconds(settings, "successor-wait-seconds")
        self.failure = ""
        self.lock = -1
        self.listeners: list[Listener] = []
        self.loop = loop = Loop()
        silence = settings.number("link-silence-seconds")
        self.agents = AgentFront(loop, settings.text("pods-dir"), grace=_grace(settings), silence=silence)
        self.commands = Commands(loop, self.agents, dial_seconds=settings.number("dial-timeout-seconds"))
        stops = Stops(f"{settings.text('state-dir')}/stops")
        node = f"{settings.text('run-dir')}/{NODE_SOCKET}"
        courier, scribe = Courier(loop, node, stops=stops), Scribe(loop, stops)
        grace = settings.number("grace-seconds")
        self.hypervisor = HypervisorFront(loop, node, scribe=scribe, courier=courier, grace=grace)
        self._giver = Giver(self, left=self._left)

    def open(self) -> None:
        """Check the folders, then take over from the relay that runs, or listen."""
        settings = self._settings
        for name in ("run-dir", "state-dir", "pods-dir"):
            _prepare(name, settings.text(name))
        _prepare("state-dir", f"{settings.text('state-dir')}/stops")
        _prepare("hypervisor-socket", self._hypervisor_socket().rpartition("/")[0])
        try:
            sock = connect_unix(self._handover_socket())
        except OSError:
            self._begin()
        else:
            Taker(self, sock)

    def paths(self) -> tuple[str, str, str]:
        """The socket of the shims, the folder of the other sockets, the folder of the pods."""
        return self._hypervisor_socket(), self._settings.text("run-dir"), self._settings.text("pods-dir")

    def hurry(self) -> None:
        """From now on shims wait for us. Before, all that we do would be taken from the relay that serves them."""
        be_nice(self._settings.text("niceness"))
        gc.collect()
        gc.freeze()

    def told_to_end(self) -> None:
        """SIGTERM. While shims are attached a successor may still come; asked again, or without any, end now."""
        pods = sum(1 for link in self.agents.links() if link.shims())
        if self._ending or not pods or not self._wait:
            self.loop.stop()
            return
        self._ending = True
        say(f"told to end: waiting {self._wait:g} s for a successor, {pods} pods are attached")
        self.loop.later(self._wait, self.loop.stop)
        self.loop.later(_LOOK_SECONDS, self._look)

    def close(self) -> None:
        """Stop serving; the sockets go, the pods' links end."""
        if self._gone:
            return
        for listener in (*self.listeners, *((self._heirs,) if self._heirs is not None else ())):
            listener.close()
        self.agents.stop()
        if self.lock >= 0:
            unlink(self._lock_path)
            posix.close(self.lock)
            self.lock = -1

    # What the hand-over says

    def inherit(self, socks: Sequence[Sock], *, lock: int) -> None:
        """Everything has come from the relay before us: its lock, and the sockets of shims and node."""
        self.lock = lock
        shims, node = socks
        self.listeners.append(inherit_unix(self.loop, shims, path=self._hypervisor_socket(), keeper=self.hypervisor))
        self.listeners.append(inherit_unix(self.loop, node, path=self._command_socket(), keeper=self.commands))
        say(f"took over from another relay: {len(self.agents.links())} links")
        self._await_heirs()

    def stranded(self, why: str, *, rest: Rest, tries: int = _TRIES) -> None:
        """The hand-over has failed. When the relay before us has ended we go on with what came.

        Its lock is free within moments then. Else it serves all that we have not confirmed: without pods we cannot
        serve, with some we ask it again for the others, for nobody who has pods may go away.
        """
        try:
            self._begin()
        except CannotStart as error:
            if tries:
                self.loop.later(_TRY_SECONDS, lambda: self.stranded(why, rest=rest, tries=tries - 1))
                return
            rest.drop()
            if self.agents.links():
                self._ask_again(why)
                return
            self.failure = f"cannot take over from the relay that runs: {why}; {error}"
            self.loop.stop()
            return
        if self.agents.links():
            say(f"the relay before us ended while it handed over: {why}; {len(self.agents.links())} links came")
        rest.install()

    def _ask_again(self, why: str) -> None:
        say(f"the hand-over has failed: {why}; {len(self.agents.links())} links came, the others are asked for again")
        try:
            sock = connect_unix(self._handover_socket())
        except OSError as error:
            self.stranded(error.strerror or str(error), rest=Rest(self))
        else:
            Taker(self, sock)

    def _left(self) -> None:
        self._gone = True
        self.loop.stop()

    # Serving

    def _begin(self) -> None:
        """Take the lock and listen. `hypervisor.sock` comes last, when all else is ready."""
        hypervisor = self._hypervisor_socket()
        self._take_lock()
        _refuse_second(hypervisor)
        try:
            node = listen_unix(self.loop, self._command_socket(), keeper=self.commands)
            self.listeners = [listen_unix(self.loop, hypervisor, keeper=self.hypervisor), node]
        except OSError as error:
            raise CannotStart(f"cannot listen: {error.strerror or error}") from error
        self.hurry()
        self._await_heirs()

    def _await_heirs(self) -> None:
        say(f"serving {self._hypervisor_socket()}")
        try:
            self._heirs = listen_unix(self.loop, self._handover_socket(), keeper=self._giver)
        except OSError as error:
            say(f"no other relay can take over from this one: {self._handover_socket()}: {error.strerror or error}")

    def _look(self) -> None:
        if any(link.shims() for link in self.agents.links()):
            self.loop.later(_LOOK_SECONDS, self._look)
        else:
            self.loop.stop()

    def _hypervisor_socket(self) -> str:
        return self._settings.text("hypervisor-socket")

    def _command_socket(self) -> str:
        return f"{self._settings.text('run-dir')}/{COMMAND_SOCKET}"

    def _handover_socket(self) -> str:
        return f"{self._settings.text('state-dir')}/{HANDOVER_SOCKET}"

    def _take_lock(self) -> None:
        """One relay a run directory. The file goes when we end, so a lock on a file that is gone does not count."""
        while self.lock < 0:
            fd = posix.open(self._lock_path, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW, 0o600)
            try:
                flock(fd, LOCK_EX | LOCK_NB)
            except OSError:
                posix.close(fd)
                raise CannotStart(
                    f"another relay already serves {self._settings.text('hypervisor-socket')}: "
                    f"it holds the lock {self._lock_path}; stop it first"
                ) from None
            if _same_file(fd, self._lock_path):
                self.lock = fd
            else:
                posix.close(fd)


def _grace(settings: Flags) -> float:
    """How long a link may be down; 0, also by `--no-session`, means that its end is the end of the pod."""
    grace = _seconds(settings, "link-grace-seconds")
    return 0.0 if settings.given("no-session") else grace


def _seconds(settings: Flags, name: str) -> float:
    text = settings.text(name)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise CannotStart(f"--{name} {text}: a number is needed, 0 for none")
    return seconds


def _same_file(fd: int, path: str) -> bool:
    try:
        return posix.fstat(fd).st_ino == posix.stat(path).st_ino
    except OSError:
        return False


def _refuse_second(path: str) -> None:
    """Somebody who answers at the socket is not to be pushed aside."""
    try:
        connect_unix(path).close()
    except BlockingIOError:
        pass
    except OSError:
        return
    raise CannotStart(f"another relay already serves {path}: it accepts connections; stop it first")


def _prepare(name: str, path: str) -> None:
    """Make a folder, closed to others as far as it is ours alone, and prove that it can be written to."""
    probe = f"{path}/.relay-{posix.getpid()}"
    try:
        _make_parents(path.rpartition("/")[0])
        own_directory(path)
        posix.mkdir(probe, 0o700)
        posix.rmdir(probe)
    except OSError as error:
        raise CannotStart(f"--{name} {path} is not a folder we can write to: {error.strerror or error}") from error


def _make_parents(path: str) -> None:
    """Make missing folders, mode 0700."""
    if not path:
        return
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_parents(path.rpartition("/")[0])
        posix.mkdir(path, 0o700)


class _Signals:
    """SIGTERM and SIGINT as events of the loop: a handler could come between any two steps of ours."""

    __slots__ = ("_loop", "_read", "_told", "_write")

    def __init__(self, loop: Loop, told: Callable[[], object]) -> None:
        self._loop = loop
        self._told = told
        self._read, self._write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (SIGTERM, SIGINT):
            signal(number, lambda _signal, _frame: None)
        loop.add(self._read, IN, owner=self)

    def ready(self, _event: int) -> None:
        """A signal has come."""
        for _ in posix.read(self._read, 16):
            self._told()

    def crashed(self) -> None:
        """Without signals nobody could end us in peace: end now."""
        self._loop.stop()


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; 1 with a sentence on stderr when that is not possible."""
    relay = None
    try:
        relay = Relay(Flags(flags(), argv))
        _Signals(relay.loop, relay.told_to_end)
        be_spared()
        relay.open()
        relay.loop.run()
        if relay.failure:
            raise CannotStart(relay.failure)
    except FlagError as error:
        say(f"caa relay: {error}")
        return 2
    except CannotStart as error:
        say(f"caa relay: {error}")
        return 1
    finally:
        if relay is not None:
            relay.close()
        sys.stderr.flush()
    return 0
