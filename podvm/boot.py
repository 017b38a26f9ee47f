"""The guest's boot without systemd: `reference/podvm.md` 1.6 in its order but for one step; a first process's duties.

For pod VMs that are process trees (`providers/local`). An image with systemd runs the same commands from units.

    user data -> podns -> agent started -> pod network -> the agent's socket is there -> forwarder -> wait

A forwarder that ends afterwards is started again, with all that it does at its start; an agent that ends is the end.

The reference builds the pod network in the forwarder, once the agent's socket exists. Here it is built while the agent
starts, which takes longer: neither needs the other, `podns` is there before both, and no container runs before the
forwarder listens. What a TLS connection proves stays the same: the listener comes after all of it.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError
from caa.net import apply, spaces
from caa.net.ops import ChangeLink, Side
from podvm import network, prepare, provision
from podvm.clouds.contract import Source
from podvm.progress import log_to_console, say

_SERVICE_SECONDS = 60.0  # until the agent, then the forwarder, listens
_LAST_WORDS_SECONDS = 1.0  # the forwarder still passes on what the agent said last
_STOP_SECONDS = 5.0  # until what does not stop is killed, with this process
_POLL_SECONDS = 0.002
# A forwarder that lived shorter than this is started again after a pause, which doubles up to the longest one.
_LIVED_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_AGENT, _FORWARDER = "agent", "forwarder"
_STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _STOPS | {signal.SIGCHLD}
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)  # an agent expects them as a fresh program has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to boot. `agent` is the agent's command line; it has to listen at the forwarder's `agent_socket`.

    `environ` is what agent and forwarder get; below `machine` is what the machine says about itself.
    """

    agent: tuple[str, ...]
    environ: Mapping[str, str]
    machine: Path = Path("/")
    forwarder: prepare.Options = field(default_factory=prepare.Options)
    rules: provision.Rules = field(default_factory=provision.Rules)


class _Ended(CaaError):
    """A process that has to live has ended, or a stop was asked for."""


def boot(options: Options, sources: Sequence[Source]) -> int:
    """Boot, then wait until the agent ends or a SIGTERM comes; 0 after a stop, else 1.

    Everything else in the pod VM dies with this process when it is the first one of its PID namespace.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # taken by sigwait, so nothing is ever interrupted
    log_to_console()
    say("boot")
    services: dict[int, str] = {}
    try:
        _start_all(options, sources, services=services)
        reason = _wait(services, Revival(lambda: _start_again(options, services), time.monotonic))
    except (CaaError, OSError) as error:
        say(f"failed: {error}")
        reason = ""
    _stop(services)
    say("halt")
    return 0 if reason == "stop" else 1


def _start_all(options: Options, sources: Sequence[Source], *, services: dict[int, str]) -> None:
    provision.provision(sources, options.rules)
    network.ensure_netns(options.forwarder.pod_namespace)
    with spaces.opened(options.forwarder.pod_namespace) as both:
        apply.perform(ChangeLink(side=Side.HOST, device="lo", up=True), both)
    say("podns is there")
    agent_socket = Path(options.forwarder.agent_socket)
    agent_socket.parent.mkdir(parents=True, exist_ok=True)
    services[_spawn(options.agent, options.environ)] = _AGENT
    say("agent started")
    # While the agent starts. The listener, which proves that all of this is done, still comes last.
    command = prepare.prepare(options.forwarder)
    say("pod network is there")
    _await_socket(agent_socket, services)
    say("agent listens")
    with _notifications() as (name, ready):
        services[_spawn([*command, f"-notify-socket={name}"], options.environ)] = _FORWARDER
        say("forwarder started")
        _await_ready(ready, services)
    say("forwarder listens")


def _spawn(command: Sequence[str], environ: Mapping[str, str]) -> int:
    signals = (*_PYTHON_IGNORES, *_SIGNALS)
    return os.posix_spawnp(command[0], list(command), dict(environ), setsid=True, setsigmask=(), setsigdef=signals)


def _await_socket(path: Path, services: dict[int, str]) -> None:
    """A socket that exists is taken for one that listens, as systemd's `PathExists` does it in an image."""
    _await(path.exists, services, what=f"the agent at {path}")


def _await_ready(ready: socket.socket, services: dict[int, str]) -> None:
    def is_ready() -> bool:
        try:
            return b"READY=1" in ready.recv(4096)
        except BlockingIOError:
            return False

    _await(is_ready, services, what="the forwarder")


def _await(is_there: Callable[[], bool], services: dict[int, str], *, what: str) -> None:
    deadline = time.monotonic() + _SERVICE_SECONDS
    while not is_there():
        if ended := _next_end(services, _POLL_SECONDS):
            raise _Ended(f"{ended} while {what} was waited for")
        if time.monotonic() > deadline:
            raise _Ended(f"{what} does not listen after {_SERVICE_SECONDS:g} s")


@contextmanager
def _notifications() -> Iterator[tuple[str, socket.socket]]:
    """A socket for `sd_notify`, in the abstract name space of the pod VM's own network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ready:
        name = f"podvm-boot-{os.getpid()}"
        ready.bind(f"\0{name}")
        yield f"@{name}", ready


def _start_again(options: Options, services: dict[int, str]) -> None:
    """The forwarder with all that it finds at its start; of that nothing changes what stands."""
    services[_spawn(prepare.prepare(options.forwarder), options.environ)] = _FORWARDER


class Revival:
    """Starts the forwarder again: at once after a life of a second, else after a pause that doubles up to 2 s."""

    def __init__(self, start: Callable[[], None], now: Callable[[], float]) -> None:
        self._start = start
        self._now = now
        self._since = now()
        self._pause = 0.0
        self._due: float | None = None

    def left(self) -> float | None:
        """Seconds until `attend` has something to do; None while the forwarder lives."""
        return None if self._due is None else max(self._due - self._now(), 0.0)

    def attend(self) -> None:
        """There is no forwarder: start one if it is time. One that cannot be started counts as ended at once."""
        if self._due is None:
            self._plan()
        if self._due is None or self._now() < self._due:
            return
        self._since, self._due = self._now(), None
        try:
            self._start()
            say("forwarder started again")
        except (CaaError, OSError) as error:
            say(f"forwarder not started again: {error}")
            self._plan()

    def _plan(self) -> None:
        short = self._now() - self._since < _LIVED_SECONDS
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE) if short else 0.0
        self._due = self._now() + self._pause


def _wait(services: dict[int, str], revival: Revival) -> str:
    """Reap whatever ends until it is the agent; "stop" when a signal asked for the end."""
    while True:
        ended = _next_end(services, revival.left())
        if ended:
            say(ended)
        if ended == "stop" or _AGENT not in services.values():
            break
        if _FORWARDER not in services.values():
            revival.attend()
    if ended != "stop" and _FORWARDER in services.values():
        _settle(services, _FORWARDER, seconds=_LAST_WORDS_SECONDS)
    return ended


def _settle(services: dict[int, str], name: str, *, seconds: float) -> None:
    """Give the service called `name` ("" for all) some time to end by itself."""
    deadline = time.monotonic() + seconds
    while any(one.startswith(name) for one in services.values()) and time.monotonic() < deadline:
        if (ended := _next_end(services, _POLL_SECONDS)) not in ("", "stop"):
            say(ended)


def _next_end(services: dict[int, str], seconds: float | None) -> str:
    """Wait for a signal; "stop", the sentence that tells which service ended, or "" for neither."""
    info = signal.sigwaitinfo(_SIGNALS) if seconds is None else signal.sigtimedwait(_SIGNALS, seconds)
    if info is not None and info.si_signo in _STOPS:
        return "stop"
    return "; ".join(_reap(services))


def _reap(services: dict[int, str]) -> list[str]:
    """Collect every dead child, adopted orphans of containers included."""
    ended: list[str] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid in services:
            ended.append(f"{services.pop(pid)} ended with {os.waitstatus_to_exitcode(status)}")


def _stop(services: dict[int, str]) -> None:
    for pid in services:
        os.kill(pid, signal.SIGTERM)
    _settle(services, "", seconds=_STOP_SECONDS)
    for pid in services:
        os.kill(pid, signal.SIGKILL)
