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
from caa.relay.dial import Dialler
from caa.relay.moving import DARK, LOST, Arrived, take_up

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

    class House(Protocol):
        """What the new relay puts into its place."""

        loop: Loop
        agents: AgentFront
        commands: Commands
        hypervisor: HypervisorFront

        def paths(self) -> tuple[str, str, str]: ...
        def inherit(self, fds: Sequence[int], /) -> object: ...
        def orphaned(self, why: str, /) -> object: ...
        def turned_away(self, why: str, /) -> object: ...


# More handshakes at once stall the pod VMs of a shared host, and take memory (`docs/performance.md`).
_DIALS = 4
# Links under way between the two relays: while one resumes, the next one is written.
_MOVES = 2
# How long to get links ready; a pod VM that is slower is dialled after it has moved.
_READY_SECONDS = 4.0
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


class Taker:
    """Ends in `house.inherit(fds)`, `house.orphaned(why)` or `house.turned_away(why)`, once."""

    __slots__ = ("_asked", "_busy", "_coming", "_frozen", "_house", "_loop", "_old", "_ready", "_rest", "_watch")

    def __init__(self, house: House, sock: Sock) -> None:
        self._house = house
        self._loop = house.loop
        self._asked: list[str] = []  # links to be shown, later those to be taken
        self._busy: dict[str, Ready] = {}
        self._ready: dict[str, Ready] = {}
        self._coming = 0
        self._frozen = False
        self._rest: list[tuple[int, bytes, list[int]]] = []
        self._old = Parcels(house.loop, sock, owner=self)
        self._watch: Timer = house.loop.later(_PATIENCE, self._too_slow)
        self._old.send(HELLO, number(1, OLDEST) + number(2, NEWEST) + blobs(3, house.paths()))

    def parcel(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        """The old relay answers."""
        self._watch.cancel()
        if not self._frozen:
            self._watch = self._loop.later(_PATIENCE, self._too_slow)
        if kind in (SHIM, CALLER, LAST):
            self._rest.append((kind, payload, fds))
            if kind == LAST:
                self._commit()
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
        """The old relay is gone. Its shims' connections are lost but for those that came here."""
        self._watch.cancel()
        if not self._frozen:
            self._drop_ready()
            self._house.turned_away(why)
            return
        rest, self._rest = self._rest, []
        self._house.orphaned(why)
        self._install(rest)
        self._drop_ready()

    def _refused(self, message: Fields) -> None:
        self._frozen = False
        self._old.close()
        self.ended(message.text(1))

    def _too_slow(self) -> None:
        self._old.close()
        self.ended(f"it was silent for {_PATIENCE:g} s")

    # Getting ready

    def _begin(self, message: Fields) -> None:
        self._asked = message.texts(2)
        self._loop.later(_READY_SECONDS, self._freeze)
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
            context = self._house.agents.context(link.target)
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
        self._coming -= 1
        state = Fields(payload).blob(1)
        try:
            if state:
                self._serve(Arrived(state, self._house.agents), fds)
        except (edits.EditError, Malformed) as error:
            # It has changed into something unreadable since it was shown: this pod is lost, the others are not.
            close_all(fds)
            self._loop.count("not taken", f"a pod's state cannot be read: {error}")
        self._take_next()

    def _serve(self, arrived: Arrived, fds: list[int]) -> None:
        agents = self._house.agents
        link = take_up(agents, arrived, fds=fds)
        self._old.send(OK, blob(1, arrived.sandbox))
        ready = self._ready.pop(arrived.sandbox, None)
        dialler = None if ready is None else ready.dialler
        link.go_on(dialler, dark=arrived.state == DARK, seconds=arrived.left or agents.grace)

    def _commit(self) -> None:
        self._watch.cancel()
        self._old.send(COMMIT)
        self._old.close()
        rest, self._rest = self._rest, []
        _, payload, fds = rest.pop()
        self._house.inherit(fds)
        for sandbox in Fields(payload).texts(1):
            self._house.hypervisor.courier.deliver(sandbox)
        self._install(rest)
        self._drop_ready()

    def _install(self, rest: list[tuple[int, bytes, list[int]]]) -> None:
        """The connections of shims and node."""
        for kind, payload, fds in rest:
            if kind == SHIM:
                self._house.hypervisor.take_up(payload, fds)
            elif kind == CALLER:
                self._house.commands.take_up(payload, fds)
            else:
                close_all(fds)

    def _drop_ready(self) -> None:
        for ready in (*self._ready.values(), *self._busy.values()):
            if ready.dialler is not None:
                ready.dialler.close()
        self._ready.clear()
        self._busy.clear()
