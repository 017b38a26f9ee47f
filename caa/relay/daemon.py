"""The relay's process: where its fronts meet, what it checks before it serves, how it ends."""

from __future__ import annotations

import gc
import posix
import sys
from _signal import SIGINT, SIGTERM, signal  # type: ignore[import-not-found]  # signal imports enum
from fcntl import LOCK_EX, LOCK_NB, flock

from caa.datapath.flags import FlagError, Flags
from caa.datapath.heartbeat import DEAD_AFTER
from caa.datapath.loop import Loop, be_nice, say
from caa.datapath.sockets import connect_unix, listen_unix, unlink
from caa.relay.agent_front import AgentFront, own_directory
from caa.relay.commands import Commands
from caa.relay.hypervisor_front import HypervisorFront
from caa.relay.stops import Courier, Scribe, Stops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from caa.datapath.sockets import Listener

NODE_SOCKET = "node.sock"
COMMAND_SOCKET = "relay.sock"


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
        "niceness": "-10",
    }


class CannotStart(Exception):
    """Why the relay cannot serve, in a sentence for the operator."""


class Relay:
    """All parts of the process. `open` may raise `CannotStart`; `close` removes what was made."""

    __slots__ = ("_fronts", "_listeners", "_lock", "_lock_path", "_settings", "loop")

    def __init__(self, settings: Flags) -> None:
        self._settings = settings
        self._lock = -1
        self._lock_path = f"{settings.text('run-dir')}/relay.lock"
        self._listeners: list[Listener] = []
        self._fronts: list[AgentFront] = []
        self.loop = Loop()

    def open(self) -> None:
        """Take the lock, check the folders, listen. `hypervisor.sock` comes last, when all else is ready."""
        settings = self._settings
        for name in ("run-dir", "state-dir", "pods-dir"):
            _prepare(name, settings.text(name))
        _prepare("state-dir", f"{settings.text('state-dir')}/stops")
        self._take_lock()
        hypervisor = settings.text("hypervisor-socket")
        _refuse_second(hypervisor)
        _prepare("hypervisor-socket", hypervisor.rpartition("/")[0])
        stops = Stops(f"{settings.text('state-dir')}/stops")
        node = f"{settings.text('run-dir')}/{NODE_SOCKET}"
        silence = settings.number("link-silence-seconds")
        agents = AgentFront(self.loop, settings.text("pods-dir"), grace=_grace(settings), silence=silence)
        self._fronts.append(agents)
        commands = Commands(self.loop, agents, dial_seconds=settings.number("dial-timeout-seconds"))
        courier = Courier(self.loop, node, stops=stops)
        scribe = Scribe(self.loop, stops)
        grace = settings.number("grace-seconds")
        front = HypervisorFront(self.loop, node, scribe=scribe, courier=courier, grace=grace)
        try:
            command_socket = f"{settings.text('run-dir')}/{COMMAND_SOCKET}"
            self._listeners.append(listen_unix(self.loop, command_socket, accepted=commands.accepted))
            self._listeners.append(listen_unix(self.loop, hypervisor, accepted=front.accepted))
        except OSError as error:
            raise CannotStart(f"cannot listen: {error.strerror or error}") from error

    def niceness(self) -> str:
        """The setting as it was given."""
        return self._settings.text("niceness")

    def close(self) -> None:
        """Stop serving; the sockets go, the pods' links end."""
        for listener in self._listeners:
            listener.close()
        for front in self._fronts:
            front.stop()
        if self._lock >= 0:
            unlink(self._lock_path)
            posix.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        """One relay a run directory. The file goes when we end, so a lock on a file that is gone does not count."""
        while True:
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
                self._lock = fd
                return
            posix.close(fd)


def _grace(settings: Flags) -> float:
    """How long a link may be down; 0, also by `--no-session`, means that its end is the end of the pod."""
    text = settings.text("link-grace-seconds")
    try:
        grace = float(text)
    except ValueError:
        grace = -1.0
    if not 0 <= grace < 1e9:
        raise CannotStart(f"--link-grace-seconds {text}: a number is needed, 0 for none")
    return 0.0 if settings.given("no-session") else grace


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


def _leave(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; 1 with a sentence on stderr when that is not possible."""
    try:
        relay = Relay(Flags(flags(), argv))
    except FlagError as error:
        say(f"caa relay: {error}")
        return 2
    for number in (SIGTERM, SIGINT):
        signal(number, _leave)
    try:
        relay.open()
        be_nice(relay.niceness())
        gc.collect()
        gc.freeze()
        relay.loop.run()
    except CannotStart as error:
        say(f"caa relay: {error}")
        return 1
    finally:
        relay.close()
        sys.stderr.flush()
    return 0
