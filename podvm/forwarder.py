"""The forwarder's process in the pod VM: TLS on port 15150 on one side, the agent on the other.

Lean on purpose: `podvm.prepare` reads `apf.json`, builds the network, writes the PEM files, and replaces itself with
this. The FIRST agent connection is kept for ever, because the agent deletes its socket at CreateSandbox.

One that was killed loses its agent connection and its sessions. Its successor dials the agent again where the socket
still exists (it has to lie outside `/run/kata-containers`) and tells the relay to begin anew; where it does not, the
successor says so to whoever comes, so that the pod fails at once and with the reason.
"""

from __future__ import annotations

import gc
import posix
import sys
from _signal import SIGINT, SIGTERM, signal  # type: ignore[import-not-found]  # signal imports enum
from _socket import AF_UNIX, SOCK_DGRAM, socket
from time import monotonic, sleep

from caa.datapath.clock import Clock
from caa.datapath.door import Door
from caa.datapath.edits import EditError
from caa.datapath.flags import FlagError, Flags
from caa.datapath.frames import INTERNAL, RESOURCE_EXHAUSTED, Later, Malformed, Refused, Watch
from caa.datapath.greeter import Greeter, has_session, owner_of
from caa.datapath.greeting import BEGIN_ANEW, NO_AGENT, PROTOCOL
from caa.datapath.loop import Loop, be_nice, say
from caa.datapath.mux import Mux
from caa.datapath.session_branch import KEEP_SECONDS, SessionBranch
from caa.datapath.sockets import connect_unix, listen_tcp, tune
from caa.datapath.tls import WANT, Handshake, TlsError, TlsFiles, reason, server_context
from podvm import rewrites, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from caa.datapath.session import Session
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject

AGENT_SOCKET = "/run/kata-containers/agent.sock"
LISTEN = "0.0.0.0:15150"  # what the reference listens on; mutual TLS guards it
AGENT_SECONDS = 150.0
_AGENT_PAUSE = 0.05
_AGENT_AGAIN_SECONDS = 1.0  # after a restart: an agent that has been there is there, or is gone
_HANDSHAKES = 64
_LAST_WORDS_SECONDS = 0.5  # a relay whose link broke at the agent's end comes back and hears of it
_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from podvm.forwarder import main; sys.exit(main(sys.argv[1:]))"


def public_flags() -> dict[str, str | bool | float]:
    """The flags that both stages take, with their defaults; names and values as the reference's forwarder has them."""
    return {
        "kata-agent-socket": AGENT_SOCKET,
        "pod-namespace": rewrites.POD_NAMESPACE,
        "listen": LISTEN,
        "disable-tls": False,
        "ca-cert-file": "",
        "cert-file": "",
        "cert-key": "",
        "tls-min-version": "",
        "tls-cipher-suites": "",
    }


def flags() -> Mapping[str, str | bool | float]:
    """The flags of this stage: the last four come from `podvm.cli` and the tests."""
    return {
        **public_flags(),
        "notify-socket": "",
        "served-file": "",
        "agent-timeout-seconds": AGENT_SECONDS,
        "session-keep-seconds": KEEP_SECONDS,
        "niceness": "-10",
    }


def command(*args: str) -> list[str]:
    """The argument list for exec: this process with these flags, from a checkout or an installed wheel alike."""
    root = __file__.rpartition("/podvm/")[0] or "/"
    return [sys.executable, "-I", "-S", "-c", _PROGRAM.format(root=root), *args]


class CannotStart(Exception):
    """Why the forwarder cannot serve, in a sentence for the console."""


class Forwarder:
    """Accepts clients, each after its handshake, and puts them on the agent's connection."""

    __slots__ = (
        "_branches",
        "_clock",
        "_context",
        "_door",
        "_had_sessions",
        "_handshakes",
        "_keep",
        "_mux",
        "_pod_namespace",
        "failed",
        "loop",
    )

    def __init__(self, loop: Loop, context: Any, *, pod_namespace: str) -> None:
        """`context` is None without TLS."""
        self.loop = loop
        self.failed = False
        self._context = context
        self._pod_namespace = pod_namespace
        # Who has not said all that we need to hear, by descriptor, the oldest first.
        self._handshakes: dict[int, tuple[Handshake | Greeter, Sock]] = {}
        self._mux: Mux | None = None
        self._clock = Clock(loop)
        self._door = Door(pool=loop.pool)
        self._branches: dict[bytes, SessionBranch] = {}
        self._keep = KEEP_SECONDS
        self._had_sessions = False

    def keep_sessions(self, seconds: float) -> None:
        """How long a session waits for its relay."""
        self._keep = seconds

    def serve_agent(self, agent: Sock) -> None:
        """Keep this connection to the agent for ever."""
        self._mux = Mux(self.loop, agent, tls=None, watch=self._watch(), keeper=self)

    def accepted(self, sock: Sock) -> None:
        """A client has connected."""
        tune(sock)
        if self._context is None:
            self._attach(sock, None)
        else:
            while len(self._handshakes) >= _HANDSHAKES:
                self._evict()
            handshake = Handshake(self.loop, sock, context=self._context, server_name=None, owner=self)
            self._handshakes[sock.fileno()] = handshake, sock

    def _evict(self) -> None:
        """The one that has kept us waiting longest goes, so that silent clients never keep the relay out."""
        fd = next(iter(self._handshakes))
        handshake, sock = self._handshakes.pop(fd)
        handshake.abandon()
        self.loop.count("refused", f"more than {_HANDSHAKES} handshakes under way: the oldest is dropped")
        self.loop.close(sock, fd)

    def secured(self, sock: Sock, tls: TlsObject) -> None:
        """The client has shown its certificate."""
        if has_session(tls):
            self._handshakes[sock.fileno()] = Greeter(self.loop, sock, tls=tls, owner=self), sock
            return
        self._handshakes.pop(sock.fileno(), None)
        self._attach(sock, tls)

    def not_secured(self, sock: Sock, error: Exception) -> None:
        """The client is none of ours, or said nothing."""
        self._handshakes.pop(sock.fileno(), None)
        self.loop.count("handshake failed", reason(error))
        self.loop.close(sock, sock.fileno())

    def greeted(self, sock: Sock, tls: TlsObject, *, data: bytes) -> None:
        """A relay that can has named its session."""
        self._handshakes.pop(sock.fileno(), None)
        try:
            session, answer = self._door.admit(data, owner_of(tls.getpeercert(True)), word=self._word())
        except Malformed as error:
            self._turn_away(sock, str(error))
            return
        branch = self._branch(session) if session is not None else None
        if branch is not None:
            branch.resume_on(sock, tls, answer=answer)
            return
        self.loop.count("session refused", "" if answer else "its id is known, secret or certificate are not its own")
        if answer and session is None:
            try:
                tls.write(answer)
            except (OSError, *WANT):
                pass  # it dials again
        self.loop.close(sock, sock.fileno())

    def _word(self) -> int:
        """What a relay whose session is unknown has to know about the agent."""
        if self._mux is None or self._mux.closed:
            return NO_AGENT
        return 0 if self._mux.last else BEGIN_ANEW

    def not_greeted(self, sock: Sock, error: Exception) -> None:
        """The client agreed on a session and then named none."""
        self._handshakes.pop(sock.fileno(), None)
        self._turn_away(sock, reason(error))

    def _turn_away(self, sock: Sock, why: str) -> None:
        self.loop.count("greeting failed", why)
        self.loop.close(sock, sock.fileno())

    def _branch(self, session: Session) -> SessionBranch | None:
        """The session's place at the agent; a session that gets none ends."""
        branch = self._branches.get(session.identity)
        if branch is None and self._mux is not None:
            self._had_sessions = True
            branch = SessionBranch(self._mux, session, clock=self._clock, ended=self._ended)
            branch.keep_for(self._keep)
            if not self._mux.adopt(branch):
                self._door.forget(session)
                return None
            self._branches[session.identity] = branch
        return branch

    def _ended(self, session: Session) -> None:
        self._door.forget(session)
        self._branches.pop(session.identity, None)

    def _attach(self, sock: Sock, tls: TlsObject | None) -> None:
        if self._mux is not None:
            self._mux.attach(sock, tls)
        else:
            self._turn_away(sock, "a client without a session, and the agent's socket is gone")

    def lost(self, why: str) -> None:
        """The agent is gone, and with it the pod."""
        self.loop.count("agent lost", why)
        self.failed = True
        if self._had_sessions:
            self.loop.later(_LAST_WORDS_SECONDS, self.loop.stop)
        else:
            self.loop.stop()

    def _watch(self) -> Watch:
        return Watch(
            {
                "CreateContainer": self._create_container,
                "CreateSandbox": rewrites.create_sandbox,
                "DestroySandbox": self._destroy_sandbox,
            }
        )

    def _create_container(self, payload: bytes) -> bytes:
        if full := volumes.no_room():
            raise Refused(RESOURCE_EXHAUSTED, full)
        wanted = rewrites.cloud_volumes(payload)
        if wanted:
            raise Later(lambda done: volumes.attach(self.loop, wanted, done=lambda got: done(self._on(payload, got))))
        return self._make_sources(payload)

    def _on(self, payload: bytes, attached: list[tuple[bytes, bytes]] | str) -> bytes | Refused:
        """The request with its volumes in place; what went wrong is the container's answer."""
        if isinstance(attached, str):
            return Refused(INTERNAL, attached)
        try:
            return self._make_sources(rewrites.move_binds(payload, attached))
        except Refused as refused:
            return refused
        except EditError as error:
            return Refused(INTERNAL, f"the volumes cannot be put into the request: {error}")

    def _make_sources(self, payload: bytes) -> bytes:
        changed, sources = rewrites.create_container(payload, self._pod_namespace)
        for source in sources:
            try:
                volumes.make_folders(source)
            except OSError as error:
                raise Refused(INTERNAL, f"cannot make the bind source {source!r}: {error.strerror}") from error
        return changed

    def _destroy_sandbox(self, payload: bytes) -> bytes:
        try:
            volumes.unmount_all()
        except (volumes.UnmountError, OSError) as error:
            self.loop.count("not unmounted", str(error))  # the VM ends in a moment, and the agent must hear of it
        return payload


def _wait_for_agent(path: str, seconds: float) -> Sock:
    """Connect to the agent, which may still be starting."""
    end = monotonic() + seconds
    while True:
        try:
            return connect_unix(path)
        except OSError as error:
            if monotonic() > end:
                raise CannotStart(f"no agent at {path} within {seconds:g} s: {error.strerror or error}") from error
        sleep(_AGENT_PAUSE)


def _agent_again(path: str, served: str, *, seconds: float) -> Sock | None:
    """The agent's connection; None when an earlier forwarder had one, says the file `served`, and it is gone."""
    again = bool(served) and _exists(served)
    try:
        sock = _wait_for_agent(path, _AGENT_AGAIN_SECONDS if again else seconds)
    except CannotStart as error:
        if not again:
            raise
        say(f"forwarder: {error}, after a restart: the pod cannot go on")
        return None
    if served and not again:
        _mark(served)
    return sock


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def _mark(path: str) -> None:
    """Make an empty file. Without it a restarted forwarder waits longer for an agent that is gone."""
    try:
        posix.close(posix.open(path, posix.O_CREAT | posix.O_WRONLY | posix.O_CLOEXEC, 0o600))
    except OSError as error:
        say(f"forwarder: -served-file {path}: {error.strerror}")


def _context(settings: Flags) -> Any:
    if settings.given("disable-tls"):
        return None
    names = ("ca-cert-file", "cert-file", "cert-key", "tls-min-version")
    ca, cert, key, version = map(settings.text, names)
    files = TlsFiles(ca=ca, cert=cert, key=key, min_version=version)
    files.ciphers = tuple(name.strip() for name in settings.text("tls-cipher-suites").split(",") if name.strip())
    try:
        return server_context(files, protocol=PROTOCOL)
    except TlsError as error:
        raise CannotStart(str(error)) from error


def _address(text: str) -> tuple[str, int]:
    """Host and port of `-listen`; an IPv6 address stands in brackets, an empty host means every address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise CannotStart(f"-listen {text}: an address and a port are needed, as in 0.0.0.0:15150 or [::]:15150")
    return host.strip("[]") or "::", int(port)


def _notify(path: str) -> None:
    """Tell systemd that we serve (sd_notify(3)); `@` begins an abstract name."""
    if not path:
        return
    sock = socket(AF_UNIX, SOCK_DGRAM)
    try:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.send(b"READY=1")
    except OSError as error:
        say(f"forwarder: -notify-socket {path}: {error.strerror or error}")
    finally:
        sock.close()


def _leave(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def _serve(settings: Flags) -> int:
    loop = Loop()
    forwarder = Forwarder(loop, _context(settings), pod_namespace=settings.text("pod-namespace"))
    forwarder.keep_sessions(settings.number("session-keep-seconds"))
    host, port = _address(settings.text("listen"))
    agent = _agent_again(
        settings.text("kata-agent-socket"),
        settings.text("served-file"),
        seconds=settings.number("agent-timeout-seconds"),
    )
    if agent is not None:
        forwarder.serve_agent(agent)
    try:
        listen_tcp(loop, host, port=port, keeper=forwarder)
    except OSError as error:
        raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    _notify(settings.text("notify-socket"))
    be_nice(settings.text("niceness"))
    gc.collect()
    gc.freeze()
    loop.run()
    return 1 if forwarder.failed else 0


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM, or until the agent is lost (1); 2 for a wrong flag."""
    for number in (SIGTERM, SIGINT):
        signal(number, _leave)
    try:
        return _serve(Flags(flags(), argv))
    except FlagError as error:
        say(f"forwarder: {error}")
        return 2
    except CannotStart as error:
        say(f"forwarder: {error}")
        return 1
