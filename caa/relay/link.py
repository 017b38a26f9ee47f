"""One sandbox's link: its socket here, the connection to its pod VM there, and what happens when that breaks."""

from __future__ import annotations

import posix

from caa.datapath.frames import DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, Refused
from caa.datapath.session import Session
from caa.datapath.sockets import listen_unix
from caa.datapath.tls import is_curable
from caa.relay.dial import LONGEST_PAUSE, Dialler
from caa.relay.folders import SOCKET, own_directory, remove
from caa.relay.plain_mux import PlainMux
from caa.relay.session_mux import SessionMux
from caa.relay.volumes import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from caa.datapath.clock import Clock
    from caa.datapath.frames import Watch
    from caa.datapath.loop import Loop, Timer
    from caa.datapath.sockets import Listener, Sock
    from caa.datapath.tls import TlsObject
    from caa.relay.dial import Target

    class Front(Protocol):
        """What a link needs of those who keep it."""

        loop: Loop
        clock: Clock
        watch: Watch | None
        grace: float
        silence: float
        pods_dir: str

        def context(self, target: Target, /, *, session: bool) -> Any: ...
        def forget(self, link: Link, /) -> object: ...
        def stood_still(self, seconds: float, /) -> object: ...

    class Waiter(Protocol):
        def done(self) -> object: ...
        def refused(self, refused: Refused) -> object: ...


# A link that breaks sooner than this after it came up, and has brought nothing, is dialled with a pause.
_SETTLED_SECONDS = 1.0
_FIRST_PAUSE = 0.02
# A pod VM that does not answer sooner, after a hand-over, counts as cut off.
_RESUME_SECONDS = 0.5


class Link:
    """One sandbox's link: dialling, then connected, then lost. A lost one stays listed until closed or opened again.

    With a session it may be cut and come back in between; the shim's connections and the socket stay.
    """

    __slots__ = (
        "_dialler",
        "_front",
        "_got",
        "_held",
        "_pause",
        "_resuming",
        "_retry",
        "_since",
        "_stood",
        "deadline",
        "listener",
        "loop",
        "mux",
        "sandbox",
        "session",
        "target",
        "waiters",
    )

    def __init__(self, front: Front, sandbox: str, *, target: Target) -> None:
        self._front = front
        self.loop = front.loop
        self._dialler: Dialler | None = None
        self.listener: Listener | None = None
        self.mux: PlainMux | SessionMux | None = None
        self.session: Session | None = None
        self._retry: Timer | None = None
        self._resuming: Timer | None = None  # looks whether a hand-over has been followed by a link
        self._since = self.deadline = self._pause = 0.0
        self._stood = 0.0  # the time since which it stands still for a hand-over
        self._got = 0
        self._held = False  # the first dial stands still
        self.sandbox = sandbox
        self.target = target
        self.waiters: tuple[Waiter, ...] = ()

    def dial(self, seconds: float, waiter: Waiter) -> None:
        """Start dialling. Raises `Refused` when the certificates cannot be used."""
        self._dial(seconds)
        self.waiters += (waiter,)

    def _dial(self, seconds: float) -> None:
        context = self._front.context(self.target, session=bool(self._front.grace))
        self.deadline = self.loop.now() + seconds
        self._dialler = Dialler(self._front.loop, self.target, context=context, seconds=seconds, caller=self)
        if self._front.grace and not self.target.disable_tls:
            self._dialler.offer(self.forgotten())

    def wait(self, seconds: float, waiter: Waiter) -> None:
        """One more who wants to hear when the link is up."""

        def too_late() -> None:
            if waiter in self.waiters:
                self.waiters = tuple(one for one in self.waiters if one is not waiter)
                text = f"sandbox {self.sandbox}: the link was down for the whole {seconds:.1f} s"
                waiter.refused(Refused(DEADLINE_EXCEEDED, text))

        self.waiters += (waiter,)
        if self.stands():
            self._front.loop.later(seconds, too_late)

    def dialling(self) -> bool:
        """Whether a dial is under way."""
        return self._dialler is not None or self._retry is not None

    def stands(self) -> bool:
        """Whether the socket listens; the link itself may be down for a while."""
        return self.mux is not None

    def connected(self) -> bool:
        """Whether the connection to the VM stands and the socket listens."""
        return self.mux is not None and not self.mux.dark

    def shims(self) -> int:
        """Connections of the shim."""
        return 0 if self.mux is None else len(self.mux.branches)

    def close(self, refused: Refused) -> None:
        """End everything; who still waits for the link hears `refused`."""
        self._stop_dialling()
        self._stop_waiting()
        self._stop_listening()
        if self.mux is not None:
            self.mux.close()
            self.mux = None
        self._tell(refused)

    def _stop_dialling(self) -> None:
        if self._dialler is not None:
            self._dialler.close()
            self._dialler = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _stop_waiting(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def _tell(self, refused: Refused | None) -> None:
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            if refused is None:
                waiter.done()
            else:
                waiter.refused(refused)

    def _stop_listening(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        remove(self._directory())

    def _directory(self) -> str:
        return f"{self._front.pods_dir}/{self.sandbox}"

    def moves(self) -> bool:
        """Whether there is anything to move; what is still dialled for the first time is asked for anew."""
        return self.stands() or not (self.dialling() or self._held)

    def hold_dial(self) -> None:
        """Stop the first dial."""
        if not self.moves():
            self._stop_dialling()
            self._held = True

    def dial_on(self) -> None:
        """Go on with the first dial."""
        if self._held:
            self._held = False
            try:
                self._dial(max(self.deadline - self.loop.now(), 0.0))
            except Refused as refused:
                self.not_dialled(refused)

    def within_answer(self) -> bool:
        """Whether a shim has a part of an answer which no other connection to the agent could complete."""
        return isinstance(self.mux, PlainMux) and (self.mux.skip > 0 or bool(self.mux.part))

    def freeze(self) -> None:
        """Stand still, to be dumped; `thaw` or `leave` comes next."""
        self._stop_dialling()
        self._stop_waiting()
        if self.listener is not None:
            self.listener.freeze()
        if self.mux is not None:
            self.mux.freeze()

    def thaw(self) -> None:
        """Go on here."""
        if self.listener is not None:
            self.listener.thaw()
        if self.mux is not None:
            self.mux.thaw()

    def leave(self) -> None:
        """Let go of everything: another process has it."""
        if self.listener is not None:
            self.listener.leave()
        if self.mux is not None:
            self.mux.leave()

    def go_on(self, dialler: Dialler | None, *, dark: bool, seconds: float, since: float = 0.0) -> None:
        """Serve what was taken up, over a connection that waits in `dialler`, or over one that is dialled now.

        `since` is when the other relay stopped serving it, by the loop's clock, which all processes share.
        """
        if self.mux is None:
            return
        self.deadline = self.loop.now() + seconds
        self._stood = since
        if dialler is None:
            self._redial()
        else:
            self._dialler = dialler
            dialler.use(self.session, caller=self, seconds=seconds)
        if dark or dialler is None:
            self._not_resumed()
        else:
            self._resuming = self.loop.later(_RESUME_SECONDS, self._not_resumed)

    def _not_resumed(self) -> None:
        """There is no link yet: what a shim must not wait for is answered from now on."""
        mux = self.mux
        if isinstance(mux, SessionMux) and mux.fd < 0 and not mux.dark:
            mux.dim()

    # What the dialler says

    def dialled(self, sock: Sock, tls: TlsObject | None) -> None:
        """The VM is there: listen for the shim, or go on with it."""
        self._dialler = None
        self._since = self._front.loop.now()
        moved, self._stood = self._stood, 0.0
        if moved:
            self._front.stood_still(self._since - moved)
        if isinstance(self.mux, SessionMux) and tls is not None:
            if self.session is not None and self.session is not self.mux.session:
                self._begin_anew(self.mux, self.session)
            self._got = self.mux.session.got
            self._front.loop.count("link resumed", "" if moved else f"sandbox={self.sandbox}")
            self.mux.go_on(sock, tls)
            self._tell(None)
            return
        if isinstance(self.mux, PlainMux):  # from another relay
            self.mux.go_on(sock, tls)
            return
        self.mux = self._make_mux(sock, tls)
        self.see(self.mux)
        try:
            directory = self._directory()
            own_directory(directory)
            path = f"{directory}/{SOCKET}"
            self.listener = listen_unix(self._front.loop, path, keeper=self, removes=False)
        except OSError as error:
            self._front.forget(self)
            text = f"cannot listen in {self._directory()}: {error.strerror or error}"
            self.close(Refused(INTERNAL, text))
            return
        self._tell(None)

    def _make_mux(self, sock: Sock, tls: TlsObject | None) -> PlainMux | SessionMux:
        front, session = self._front, self.session
        if session is not None and session.up and tls is not None:
            return SessionMux(front, sock, tls=tls, session=session, keeper=self)
        self.session = None
        return PlainMux(front.loop, sock, tls=tls, watch=front.watch, keeper=self)

    def aim(self, target: Target) -> None:
        """The same peer, as a later request describes it."""
        self.target = target
        if self.mux is not None:
            self.see(self.mux)

    def see(self, mux: PlainMux | SessionMux) -> None:
        """Let the mux look at the requests that tell the guest of the pod's volumes."""
        if self.target.volumes:
            mux.watch = watch(self.target.volumes)

    def _begin_anew(self, mux: SessionMux, session: Session) -> None:
        again, refused = mux.begin_anew(session)
        text = f"the forwarder was restarted: {again} calls are asked again, {refused} refused"
        self._front.loop.count("session begun anew", f"sandbox={self.sandbox}: {text}")

    def forgotten(self) -> Session:
        """The forwarder does not know the session, or there is none yet: the one to begin."""
        self.session = Session(posix.urandom(16), posix.urandom(32), pool=self._front.loop.pool)
        self.session.suffer(self._front.silence)
        return self.session

    def not_dialled(self, refused: Refused) -> None:
        """The dial has failed for good: nothing is kept, but that a lost link stays listed."""
        self._dialler = None
        front = self._front
        if isinstance(self.mux, SessionMux):
            if is_curable(refused.text) and front.loop.now() < self.deadline:
                front.loop.count("link refused", f"sandbox={self.sandbox}: {refused.text}")
                self._retry = front.loop.later(LONGEST_PAUSE, self._redial)
                return
            self.mux.give_up(refused.text)
            return
        if self.mux is not None:
            self.mux.close()
            self.lost(refused.text)
            return
        front.forget(self)
        self.close(refused)

    def accepted(self, sock: Sock) -> None:
        if self.mux is not None:
            self.mux.attach(sock, None)

    # What the mux says

    def cut(self, why: str) -> None:
        """The link is down: dial again, at once unless it breaks again and again before anything came over it."""
        front = self._front
        now = front.loop.now()
        front.loop.count("link cut", f"sandbox={self.sandbox}: {why}; dialling again for {front.grace:g} s")
        self.deadline = now + front.grace
        again = now - self._since < _SETTLED_SECONDS and self.session is not None and self.session.got == self._got
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), LONGEST_PAUSE) if again else 0.0
        self._redial()

    def _redial(self) -> None:
        self._retry = None
        front, session = self._front, self.session
        left = self.deadline - front.loop.now()
        try:
            context = front.context(self.target, session=session is not None)
        except Refused as refused:  # files that are just being replaced
            if left <= 0:
                self.not_dialled(refused)
            else:
                self._retry = front.loop.later(min(LONGEST_PAUSE, left), self._redial)
            return
        self._dialler = Dialler(front.loop, self.target, context=context, seconds=max(left, 0), caller=self)
        if session is not None:
            self._dialler.resume(session, pause=self._pause)

    def lost(self, why: str) -> None:
        """The link is gone for good; the shim's connections are closed by now."""
        self._front.loop.count("link lost", f"sandbox={self.sandbox}: {why}")
        self.mux = None
        self._stop_dialling()
        self._stop_listening()
        self._tell(Refused(UNAVAILABLE, f"sandbox {self.sandbox}: {why}"))
