"""The agent links: for each sandbox `<pods dir>/<sandbox>/agent.ttrpc` here, one TLS connection to the VM there."""

from __future__ import annotations

import posix

from caa.datapath.clock import Clock
from caa.datapath.frames import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, UNAVAILABLE, Refused
from caa.datapath.greeting import PROTOCOL
from caa.datapath.heartbeat import DEAD_AFTER, LOOK
from caa.datapath.loop import say
from caa.datapath.mux import Mux
from caa.datapath.session import Session
from caa.datapath.sockets import listen_unix
from caa.datapath.tls import TlsError, client_context, is_curable
from caa.relay.dial import LONGEST_PAUSE, Dialler
from caa.relay.session_mux import SessionMux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from caa.datapath.frames import Watch
    from caa.datapath.loop import Loop, Timer
    from caa.datapath.sockets import Listener, Sock
    from caa.datapath.tls import TlsObject
    from caa.relay.dial import Target

    class Waiter(Protocol):
        def done(self) -> object: ...
        def refused(self, refused: Refused) -> object: ...


SOCKET = "agent.ttrpc"
# What relay and node put into their directories; a leading dot is a file on its way to its name.
_OUR_NAMES = (".", SOCKET, "hypervisor.sock", "node.", "relay.", "pods", "stops", "tls", "cluster-id")


# A link that breaks sooner than this after it came up, and has brought nothing, is dialled with a pause.
_SETTLED_SECONDS = 1.0
_FIRST_PAUSE = 0.02


class Link:
    """One sandbox's link: dialling, then connected, then lost. A lost one stays listed until closed or opened again.

    With a session it may be cut and come back in between; the shim's connections and the socket stay.
    """

    __slots__ = (
        "_deadline",
        "_dialler",
        "_directory",
        "_front",
        "_got",
        "_listener",
        "_mux",
        "_pause",
        "_retry",
        "_session",
        "_since",
        "sandbox",
        "target",
        "waiters",
    )

    def __init__(self, front: AgentFront, sandbox: str, *, target: Target) -> None:
        self._front = front
        self._directory = f"{front.pods_dir}/{sandbox}"
        self._dialler: Dialler | None = None
        self._listener: Listener | None = None
        self._mux: Mux | None = None
        self._session: Session | None = None
        self._retry: Timer | None = None
        self._since = self._deadline = self._pause = 0.0
        self._got = 0
        self.sandbox = sandbox
        self.target = target
        self.waiters: list[Waiter] = []

    def dial(self, seconds: float, waiter: Waiter) -> None:
        """Start dialling. Raises `Refused` when the certificates cannot be used."""
        context = self._front.context(self.target)
        self.waiters.append(waiter)
        self._dialler = Dialler(self._front.loop, self.target, context=context, seconds=seconds, caller=self)
        if self._front.grace and not self.target.disable_tls:
            self._dialler.offer(self.forgotten())

    def wait(self, seconds: float, waiter: Waiter) -> None:
        """One more who wants to hear when the link is up."""

        def too_late() -> None:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
                text = f"sandbox {self.sandbox}: the link was down for the whole {seconds:.1f} s"
                waiter.refused(Refused(DEADLINE_EXCEEDED, text))

        self.waiters.append(waiter)
        if self.stands():
            self._front.loop.later(seconds, too_late)

    def dialling(self) -> bool:
        """Whether a dial is under way."""
        return self._dialler is not None or self._retry is not None

    def stands(self) -> bool:
        """Whether the socket listens; the link itself may be down for a while."""
        return self._mux is not None

    def connected(self) -> bool:
        """Whether the connection to the VM stands and the socket listens."""
        return self._mux is not None and not self._mux.dark

    def shims(self) -> int:
        """Connections of the shim."""
        return 0 if self._mux is None else len(self._mux.branches)

    def close(self, refused: Refused) -> None:
        """End everything; who still waits for the link hears `refused`."""
        self._stop_dialling()
        self._stop_listening()
        if self._mux is not None:
            self._mux.close()
            self._mux = None
        self._tell(refused)

    def _stop_dialling(self) -> None:
        if self._dialler is not None:
            self._dialler.close()
            self._dialler = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _tell(self, refused: Refused | None) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if refused is None:
                waiter.done()
            else:
                waiter.refused(refused)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        _remove(self._directory)

    # What the dialler says

    def dialled(self, sock: Sock, tls: TlsObject | None) -> None:
        """The VM is there: listen for the shim, or go on with it."""
        self._dialler = None
        self._since = self._front.loop.now()
        if isinstance(self._mux, SessionMux) and tls is not None:
            if self._session is not None and self._session is not self._mux.session:
                self._begin_anew(self._mux, self._session)
            self._got = self._mux.session.got
            self._front.loop.count("link resumed", f"sandbox={self.sandbox}")
            self._mux.go_on(sock, tls)
            self._tell(None)
            return
        self._mux = self._make_mux(sock, tls)
        try:
            own_directory(self._directory)
            path = f"{self._directory}/{SOCKET}"
            self._listener = listen_unix(self._front.loop, path, accepted=self._accepted)
        except OSError as error:
            self._front.forget(self)
            text = f"cannot listen in {self._directory}: {error.strerror or error}"
            self.close(Refused(INTERNAL, text))
            return
        self._tell(None)

    def _make_mux(self, sock: Sock, tls: TlsObject | None) -> Mux:
        front, session = self._front, self._session
        if session is not None and session.up and tls is not None:
            return SessionMux(front, sock, tls=tls, session=session, keeper=self)
        self._session = None
        mux = Mux(front.loop, sock, tls=tls, watch=front.watch, lost=self.lost)
        mux.remember()
        return mux

    def _begin_anew(self, mux: SessionMux, session: Session) -> None:
        again, refused = mux.begin_anew(session)
        text = f"the forwarder was restarted: {again} calls are asked again, {refused} refused"
        self._front.loop.count("session begun anew", f"sandbox={self.sandbox}: {text}")

    def forgotten(self) -> Session:
        """The forwarder does not know the session, or there is none yet: the one to begin."""
        self._session = Session(posix.urandom(16), posix.urandom(32), pool=self._front.loop.pool)
        self._session.suffer(self._front.silence)
        return self._session

    def not_dialled(self, refused: Refused) -> None:
        """The dial has failed for good: nothing is kept, but that a lost link stays listed."""
        self._dialler = None
        front = self._front
        if isinstance(self._mux, SessionMux):
            if is_curable(refused.text) and front.loop.now() < self._deadline:
                front.loop.count("link refused", f"sandbox={self.sandbox}: {refused.text}")
                self._retry = front.loop.later(LONGEST_PAUSE, self._redial)
                return
            self._mux.give_up(refused.text)
            return
        front.forget(self)
        self.close(refused)

    def _accepted(self, sock: Sock) -> None:
        if self._mux is not None:
            self._mux.attach(sock, None)

    # What the mux says

    def cut(self, why: str) -> None:
        """The link is down: dial again, at once unless it breaks again and again before anything came over it."""
        front = self._front
        now = front.loop.now()
        front.loop.count("link cut", f"sandbox={self.sandbox}: {why}; dialling again for {front.grace:g} s")
        self._deadline = now + front.grace
        again = now - self._since < _SETTLED_SECONDS and self._session is not None and self._session.got == self._got
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), LONGEST_PAUSE) if again else 0.0
        self._redial()

    def _redial(self) -> None:
        self._retry = None
        front, session = self._front, self._session
        left = self._deadline - front.loop.now()
        if session is None:
            return
        try:
            context = front.context(self.target)
        except Refused as refused:  # files that are just being replaced
            if left <= 0:
                self.not_dialled(refused)
            else:
                self._retry = front.loop.later(min(LONGEST_PAUSE, left), self._redial)
            return
        self._dialler = Dialler(front.loop, self.target, context=context, seconds=max(left, 0), caller=self)
        self._dialler.resume(session, pause=self._pause)

    def lost(self, why: str) -> None:
        """The link is gone for good; the shim's connections are closed by now."""
        self._front.loop.count("link lost", f"sandbox={self.sandbox}: {why}")
        self._mux = None
        self._stop_dialling()
        self._stop_listening()
        self._tell(Refused(UNAVAILABLE, f"sandbox {self.sandbox}: {why}"))


class AgentFront:
    """All links of the node, by sandbox. `watch` holds the requests that are changed on the worker's side.

    `grace` is how many seconds a link with a session may be down; 0 means no sessions. `silence` is how long it may be
    silent, although it was asked, before it counts as cut.
    """

    __slots__ = ("_contexts", "_links", "clock", "grace", "loop", "pods_dir", "silence", "watch")

    def __init__(
        self,
        loop: Loop,
        pods_dir: str,
        *,
        watch: Watch | None = None,
        grace: float = 0.0,
        silence: float = DEAD_AFTER,
    ) -> None:
        self.loop = loop
        self.clock = Clock(loop, LOOK * silence / DEAD_AFTER)
        self.grace = grace
        self.silence = silence
        self.pods_dir = pods_dir
        self.watch = watch or None
        self._links: dict[str, Link] = {}
        self._contexts: dict[tuple[object, ...], tuple[tuple[object, ...], Any]] = {}

    def open(self, sandbox: str, target: Target, *, seconds: float, waiter: Waiter) -> None:
        """Open a link; `waiter` hears how it went. Twice is once; another peer replaces the link. Raises `Refused`."""
        if not target.addresses:
            raise Refused(INVALID_ARGUMENT, f"no address for sandbox {sandbox}")
        link = self._links.get(sandbox)
        if link is not None and link.target.same_peer(target):
            if link.connected():
                link.target = target
                waiter.done()
                return
            if link.dialling():
                link.target = target
                link.wait(seconds, waiter)
                return
        self.close(sandbox, "a newer request opens it towards another peer")
        link = Link(self, sandbox, target=target)
        link.dial(seconds, waiter)
        self._links[sandbox] = link

    def close(self, sandbox: str, why: str = "") -> None:
        """Close a link; one that is absent is fine. What a killed relay left of it goes too.

        The shim takes it as the end of its pod; a reason is written to the log.
        """
        link = self._links.pop(sandbox, None)
        if link is not None:
            if why:
                self.loop.count("link closed", f"sandbox={sandbox}: {why}")
            link.close(Refused(CANCELLED, f"sandbox {sandbox}: {why or 'the link was closed'}"))
        _remove(f"{self.pods_dir}/{sandbox}")

    def links(self) -> list[Link]:
        """All links, in the order they were opened."""
        return list(self._links.values())

    def forget(self, link: Link) -> None:
        """Take a link that has failed off the list."""
        if self._links.get(link.sandbox) is link:
            del self._links[link.sandbox]

    def abandon(self, waiters: list[Waiter]) -> None:
        """The callers have gone: a dial for which nobody waits any more ends."""
        for link in self.links():
            left = [waiter for waiter in link.waiters if waiter not in waiters]
            if link.waiters and not left and link.dialling() and not link.stands():
                link.waiters = []
                self.close(link.sandbox)
            else:
                link.waiters = left

    def stop(self) -> None:
        """Close all links and remove their sockets."""
        for link in self.links():
            self.close(link.sandbox, "the relay stops")

    def context(self, target: Target) -> Any:
        """One TLS context for all links with the same files; read again when a file has changed. Raises `Refused`."""
        if target.disable_tls:
            return None
        files = target.files
        key = (files.ca, files.cert, files.key, files.min_version, tuple(files.ciphers), target.skip_verify)
        stamp = files.key_of()
        known = self._contexts.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            protocol = PROTOCOL if self.grace else ""
            context = client_context(files, skip_verify=target.skip_verify, protocol=protocol)
        except TlsError as error:
            raise Refused(UNAVAILABLE, f"TLS towards {target.server_name}: {error}") from error
        self._contexts[key] = (stamp, context)
        return context


def _remove(directory: str) -> None:
    """Remove a sandbox's socket and folder; a folder in which somebody else keeps a file stays."""
    for remove, path in ((posix.unlink, f"{directory}/{SOCKET}"), (posix.rmdir, directory)):
        try:
            remove(path)
        except OSError:
            pass


def own_directory(path: str) -> None:
    """Make a directory with mode 0700. Its parent must exist. Raises `OSError`.

    One that is there already (a hostPath, which the kubelet makes 0755) is closed to others only when nothing but ours
    lies in it: with a setting like `/run` that would lock out every user. The sockets have a mode of their own.
    """
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        if not posix.stat(path).st_mode & 0o077:
            return
        if all(name.startswith(_OUR_NAMES) for name in posix.listdir(path)):
            posix.chmod(path, 0o700)
        else:
            say(f"{path} is open to other users and holds more than our files: its mode is left as it is")
