"""The new relay's half of a hand-over: it takes over what the running one has (`caa.relay.giving` names the steps).

Every state is read once before anything moves, so one that cannot be read costs no pod. TLS towards the pod VMs is
made before, a few at a time, while the old relay serves: then a link moves within a round trip. From its OK on a pod is
ours, and nothing is read from its shim or its pod VM before that. When the old relay dies in between, we go on with
what came.
"""

from __future__ import annotations

from caa.datapath import edits
from caa.datapath.frames import Malformed, Refused
from caa.datapath.handover import (
    CALLER,
    COMMIT,
    FREEZE,
    FROZEN,
    GIVEN,
    HELLO,
    LAST,
    NEWEST,
    OK,
    OLDEST,
    REFUSED,
    REST,
    SHIM,
    SHOW,
    SHOWN,
    TAKE,
    WELCOME,
    Fields,
    Parcels,
    blob,
    blobs,
    close_all,
    number,
)
from caa.datapath.loop import describe, say
from caa.relay.dial import Dialler
from caa.relay.moving import DARK, LOST, Arrived, listeners, take_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from caa.datapath.loop import Loop, Timer
    from caa.datapath.session import Session
    from caa.datapath.sockets import Sock
    from caa.datapath.tls import TlsObject
    from caa.relay.agent_front import AgentFront
    from caa.relay.commands import Commands
    from caa.relay.hypervisor_front import HypervisorFront
    from caa.relay.link import Link

    class House(Protocol):
        """What the new relay puts into its place."""

        loop: Loop
        agents: AgentFront
        commands: Commands
        hypervisor: HypervisorFront

        def paths(self) -> tuple[str, str, str]: ...
        def hurry(self) -> object: ...
        def inherit(self, socks: Sequence[Sock], /, *, lock: int) -> object: ...
        def stranded(self, why: str, /, *, rest: Rest) -> object: ...


# More handshakes at once stall the pod VMs of a shared host, and take memory (`docs/performance.md`).
_DIALS = 4
# Links under way between the two relays: while one resumes, the next one is written.
_MOVES = 2
# What a link has to come back, where links may not be down at all: it did not break by itself.
_LEAST_GRACE = 10.0
# The lock, and the listeners of shims and node.
_LAST_FDS = 3
# How long to get links ready, and how much longer for each; a pod VM that is slower is dialled after it has moved.
_READY_SECONDS = 4.0
_READY_SECONDS_EACH = 0.1
_READY_SECONDS_MOST = 25.0  # a forwarder waits 30 s for our greeting
# When to tell how long the pods have stood still: they have all been resumed by then.
_TELL_SECONDS = 1.0
_LONGEST_PAUSE = 60.0
# An old relay that is silent for so long has hung. Once it has frozen its list only its end ends the waiting: with pods
# on both sides nobody may go away.
_PATIENCE = 15.0


class Ready:
    """A link to a pod VM that is made ready for a session which has not come yet."""

    __slots__ = ("_taker", "dialler", "sandbox", "up")

    def __init__(self, taker: Taker, sandbox: str) -> None:
        self._taker = taker
        self.sandbox = sandbox
        self.dialler: Dialler | None = None
        self.up = False

    def dialled(self, _sock: Sock, _tls: TlsObject | None) -> None:
        """TLS is up; the dialler keeps it."""
        self.up = True
        self._taker.settled(self)

    def forgotten(self) -> Session:
        """Nobody is greeted before the dialler is handed on."""
        raise AssertionError("a link that only waits was greeted")

    def not_dialled(self, _refused: Refused) -> None:
        """It will be dialled again later."""
        self.dialler = None
        self._taker.settled(self)


class Rest:
    """What came and is not in use: connections of shims and node, links in doubt. `install` or `drop` them."""

    __slots__ = ("_house", "_links", "_parcels")

    def __init__(self, house: House) -> None:
        self._house = house
        self._links: list[Link] = []
        self._parcels: list[tuple[int, bytes, list[int]]] = []

    def doubt(self, link: Link) -> None:
        """A link that could not be confirmed."""
        self._links.append(link)

    def add(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        """One more."""
        self._parcels.append((kind, payload, fds))

    def drop(self) -> None:
        """Close them: the other relay serves them."""
        links, self._links = self._links, []
        for link in links:
            link.leave()
            self._house.agents.forget(link)
        parcels, self._parcels = self._parcels, []
        for _, _, fds in parcels:
            close_all(fds)

    def install(self) -> None:
        """Serve them: the other relay is gone. One that cannot be read is lost, the others are not."""
        house = self._house
        links, self._links = self._links, []
        for link in links:
            link.go_on(None, dark=False, seconds=max(house.agents.grace, _LEAST_GRACE))
        parcels, self._parcels = self._parcels, []
        for kind, payload, fds in parcels:
            try:
                (house.hypervisor if kind == SHIM else house.commands).take_up(payload, fds)
            except (edits.EditError, Malformed, OSError) as error:
                close_all(fds)
                house.loop.count("not taken", f"the state of a connection cannot be read: {error}")


class Taker:
    """Ends in `house.inherit(...)` or `house.stranded(...)`, once.

    Stranded means that the other relay has ended, or goes on with what we have not confirmed; `house` finds out.
    """

    __slots__ = ("_asked", "_busy", "_coming", "_frozen", "_house", "_loop", "_old", "_ready", "_rest", "_watch")

    def __init__(self, house: House, sock: Sock) -> None:
        self._house = house
        self._loop = house.loop
        self._asked: list[str] = []  # links to be shown, later those to be taken
        self._busy: dict[str, Ready] = {}
        self._ready: dict[str, Ready] = {}
        self._coming = 0
        self._frozen = False
        self._rest = Rest(house)
        self._old = Parcels(house.loop, sock, owner=self)
        self._watch: Timer = house.loop.later(_PATIENCE, self._too_slow)
        self._old.send(HELLO, number(1, OLDEST) + number(2, NEWEST) + blobs(3, house.paths()))

    def parcel(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        """The old relay answers."""
        self._watch.cancel()
        if not self._frozen:
            self._watch = self._loop.later(_PATIENCE, self._too_slow)
        if kind in (SHIM, CALLER) and self._frozen:
            self._rest.add(kind, payload, fds=fds)
        elif kind == LAST and self._frozen:
            self._commit(Fields(payload).texts(1), fds)
        elif kind == GIVEN:
            self._take(payload, fds)
        else:
            close_all(fds)
            self._hear(kind, Fields(payload))

    def _hear(self, kind: int, message: Fields) -> None:
        act = {WELCOME: self._begin, SHOWN: self._shown, FROZEN: self._move, REFUSED: self._refused}.get(kind)
        if act is None:
            raise Malformed(f"a parcel of kind {kind}")
        act(message)

    def ended(self, why: str) -> None:
        """The old relay is gone, or either of us has hung up."""
        self._watch.cancel()
        self._frozen = True
        self._drop_ready()
        self._house.stranded(why, rest=self._rest)

    def _refused(self, message: Fields) -> None:
        self._old.close()
        self.ended(message.text(1))

    def _too_slow(self) -> None:
        self._old.close()
        self.ended(f"it was silent for {_PATIENCE:g} s")

    # Getting ready

    def _begin(self, message: Fields) -> None:
        if not OLDEST <= message.number(1) <= NEWEST:
            raise Malformed(f"format {message.number(1)}")
        self._asked = message.texts(2)
        seconds = _READY_SECONDS + _READY_SECONDS_EACH * len(self._asked)
        self._loop.later(min(seconds, _READY_SECONDS_MOST), self._freeze)
        self._show_next()

    def _show_next(self) -> None:
        """Look at the next link while fewer than `_DIALS` are under way."""
        if self._frozen:
            return
        while self._asked and len(self._busy) + self._coming < _DIALS:
            self._coming += 1
            self._old.send(SHOW, blob(1, self._asked.pop()))
        if not self._busy and not self._coming:
            self._freeze()

    def _shown(self, message: Fields) -> None:
        self._coming -= 1
        if message.blob(1):
            self._dial(Arrived(message.blob(1), self._house.agents))
        self._show_next()

    def _dial(self, link: Arrived) -> None:
        if link.state in (LOST, DARK):
            return
        try:
            context = self._house.agents.context(link.target, session=link.session is not None)
        except Refused:
            return
        ready = self._busy[link.sandbox] = Ready(self, link.sandbox)
        ready.dialler = Dialler(self._loop, link.target, context=context, seconds=_READY_SECONDS, caller=ready)
        ready.dialler.hold()

    def settled(self, ready: Ready) -> None:
        """A link is ready, or cannot be made so."""
        self._busy.pop(ready.sandbox, None)
        if ready.up:
            self._ready[ready.sandbox] = ready
        self._show_next()

    # Taking

    def _freeze(self) -> None:
        if self._frozen or self._old.fd < 0:
            return
        self._frozen = True
        self._watch.cancel()
        for ready in self._busy.values():
            if ready.dialler is not None:
                ready.dialler.close()
        self._busy.clear()
        self._house.hurry()
        self._old.send(FREEZE)

    def _move(self, message: Fields) -> None:
        self._asked = message.texts(1)
        self._coming = 0
        self._take_next()

    def _take_next(self) -> None:
        while self._asked and self._coming < _MOVES:
            self._coming += 1
            self._old.send(TAKE, blob(1, self._asked.pop()))
        if not self._coming:
            self._old.send(REST)

    def _take(self, payload: bytes, fds: list[int]) -> None:
        message = Fields(payload)
        if not self._frozen:
            raise Malformed("nobody has asked for it")
        self._coming -= 1
        try:
            if message.blob(1):
                arrived = Arrived(message.blob(1), self._house.agents)
                fds, taken = [], fds
                self._serve(arrived, taken, since=message.number(2) / 1e6)
        except (edits.EditError, Malformed) as error:
            # It has changed into something unreadable since it was shown: this pod is lost, the others are not.
            self._loop.count("not taken", f"a pod's state cannot be read: {error}")
        close_all(fds)
        self._take_next()

    def _serve(self, arrived: Arrived, fds: list[int], *, since: float) -> None:
        agents = self._house.agents
        if not 0 <= self._loop.now() - since < _LONGEST_PAUSE:
            since = 0.0  # by another clock
        link = take_up(agents, arrived, fds=fds)
        if not self._old.send(OK, blob(1, arrived.sandbox)):
            self._rest.doubt(link)
            return
        ready = self._ready.pop(arrived.sandbox, None)
        dialler = None if ready is None else ready.dialler
        seconds = arrived.left or max(agents.grace, _LEAST_GRACE)
        try:
            link.go_on(dialler, dark=arrived.state == DARK, seconds=seconds, since=since)
        except Exception as error:  # the pod is ours by now: dial it anew
            self._loop.count("crashed", f"sandbox={arrived.sandbox}: {describe(error)}")
            if not link.dialling():
                link.go_on(None, dark=True, seconds=seconds)

    def _commit(self, stops: list[str], fds: list[int]) -> None:
        """From COMMIT the other relay is gone, so all that can fail comes before it."""
        if len(fds) != _LAST_FDS:
            raise Malformed(f"{len(fds)} descriptors of the relay itself")
        socks = listeners(fds[1:])
        self._watch.cancel()
        if not self._old.send(COMMIT):
            close_all((fds[0], *(sock.detach() for sock in socks)))
            return
        self._old.close()
        self._house.inherit(socks, lock=fds[0])
        for sandbox in stops:
            self._house.hypervisor.courier.deliver(sandbox)
        self._rest.install()
        self._drop_ready()
        self._loop.later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        """How long the pods have stood still, for the log."""
        pauses = sorted(self._house.agents.pauses)
        self._house.agents.pauses.clear()
        if pauses:
            middle, late = (pauses[int(len(pauses) * part)] * 1e3 for part in (0.5, 0.99))
            longest = pauses[-1] * 1e3
            say(f"{len(pauses)} links stood still: p50 {middle:.2f}, p99 {late:.2f}, longest {longest:.2f} ms")

    def _drop_ready(self) -> None:
        for ready in (*self._ready.values(), *self._busy.values()):
            if ready.dialler is not None:
                ready.dialler.close()
        self._ready.clear()
        self._busy.clear()
