"""The old relay's half of a hand-over: it shows what it has, then gives it away piece by piece while it serves.

The successor asks (`caa.relay.taking`). HELLO gets the names of the links; SHOW a link's state, which the successor
tries to read, and dials its pod VM. FREEZE ends all changes to the list: no commands, no new connections. TAKE gives
one link with its descriptors, and OK lets go of it here. REST gives the connections of shims and node, COMMIT ends this
process. Whatever fails before that: everything that was not confirmed goes on here, unchanged.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]  # functools costs 0.5 MB

from caa.datapath.frames import Malformed
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
    common_format,
    number,
)
from caa.datapath.loop import describe
from caa.relay.moving import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from caa.datapath.loop import Loop, Timer
    from caa.datapath.sockets import Listener, Sock
    from caa.relay.agent_front import AgentFront
    from caa.relay.commands import Commands
    from caa.relay.hypervisor_front import HypervisorFront
    from caa.relay.link import Link

    class Estate(Protocol):
        """All that a relay has."""

        loop: Loop
        agents: AgentFront
        commands: Commands
        hypervisor: HypervisorFront
        listeners: list[Listener]  # of shims, of the node
        lock: int

        def paths(self) -> tuple[str, str, str]: ...


# A successor that is silent for so long has hung: we go on without it.
PATIENCE = 10.0
# How long all links without a session may take to come to the end of an answer, and how often to look.
_ANSWER_SECONDS = 2.0
_PAUSE = 0.002


class Giver:
    """`left()` is called when a successor has everything. One hand-over at a time."""

    __slots__ = ("_estate", "_frozen", "_given", "_heir", "_left", "_loop", "_patient_until", "_watch")

    def __init__(self, estate: Estate, *, left: Callable[[], object]) -> None:
        self._estate = estate
        self._loop = estate.loop
        self._left = left
        self._heir: Parcels | None = None
        self._frozen = False
        self._patient_until = 0.0
        self._given: dict[str, Link] = {}
        self._watch: Timer | None = None

    def accepted(self, sock: Sock) -> None:
        """A relay has connected that wants to take over."""
        if self._heir is not None:
            late = Parcels(self._loop, sock, owner=_Late())
            late.send(REFUSED, blob(1, "another relay is taking over already"))
            late.close()
            return
        self._wait()
        self._heir = Parcels(self._loop, sock, owner=self)

    def parcel(self, kind: int, payload: bytes, *, fds: list[int]) -> None:
        """The successor asks for something."""
        close_all(fds)
        act = {
            HELLO: self._greet,
            SHOW: self._show,
            FREEZE: self._freeze,
            TAKE: self._give,
            OK: self._let_go,
            REST: self._give_rest,
            COMMIT: self._leave,
        }.get(kind)
        if act is None or (kind in (TAKE, OK, REST, COMMIT) and not self._frozen):
            raise Malformed("not now")
        act(Fields(payload))
        if self._heir is not None:
            self._wait()

    def ended(self, why: str) -> None:
        """The successor is gone before it had everything: go on with what is here, but for what it has confirmed."""
        unheard = [] if self._heir is None else self._heir.unheard
        self._heir = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._frozen and self._has_left(unheard):
            return
        self._loop.count("hand-over failed", f"{why}; this relay goes on")
        if self._frozen:
            self._thaw()

    def _has_left(self, unheard: list[tuple[int, bytes]]) -> bool:
        """Obey what the successor had said before the end: it serves what it has confirmed, and all from COMMIT on."""
        for kind, payload in unheard:
            if kind == COMMIT:
                self._leave(Fields(b""))
                return True
            if kind == OK:
                self._each([partial(self._confirmed, payload)])
        return False

    def _wait(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.later(PATIENCE, self._too_slow)

    def _too_slow(self) -> None:
        self._drop(f"the successor was silent for {PATIENCE:g} s")

    def _drop(self, why: str) -> None:
        heir = self._heir
        if heir is not None:
            heir.send(REFUSED, blob(1, why))
        if self._heir is not None:  # else it has hung up first
            self._heir.close()
            self.ended(why)

    def _say(self, kind: int, payload: bytes = b"", *, fds: list[int] | None = None) -> None:
        if self._heir is not None:
            self._heir.send(kind, payload, fds=fds or [])

    # What the successor asks, in this order

    def _greet(self, hello: Fields) -> None:
        spoken = common_format(hello)
        if not spoken:
            theirs = f"{hello.number(1)} to {hello.number(2)}"
            self._drop(f"no common format: the successor knows {theirs}, this relay {OLDEST} to {NEWEST}")
            return
        mine, theirs_at = self._estate.paths(), tuple(hello.texts(3))
        if theirs_at and theirs_at != mine:
            what = "REMOTE_HYPERVISOR_ENDPOINT, CAA_RUN_DIR and PODS_DIR cannot change while it runs"
            self._drop(f"the relay that runs serves {mine[0]} with {mine[1]} and {mine[2]}: {what}")
            return
        self._say(WELCOME, number(1, spoken) + blobs(2, self._names()))

    def _names(self) -> list[str]:
        return [link.sandbox for link in self._estate.agents.links() if link.moves()]

    def _show(self, ask: Fields) -> None:
        link = self._estate.agents.find(ask.text(1))
        self._say(SHOWN, b"" if link is None or not link.moves() else blob(1, dump(link)[0]))

    def _freeze(self, _ask: Fields) -> None:
        self._frozen = True
        self._patient_until = self._loop.now() + _ANSWER_SECONDS
        for listener in self._estate.listeners:
            listener.freeze()
        for channel in self._estate.commands.channels:
            channel.freeze()
        for link in self._estate.agents.links():
            link.hold_dial()
        self._say(FROZEN, blobs(1, self._names()))

    def _give(self, ask: Fields) -> None:
        link = self._estate.agents.find(ask.text(1))
        if link is None:
            self._say(GIVEN)
        elif link.within_answer() and self._loop.now() < self._patient_until:
            heir = self._heir
            self._loop.later(_PAUSE, lambda: self._give_later(ask, heir))
        else:
            self._hand(link)

    def _give_later(self, ask: Fields, heir: Parcels | None) -> None:
        if heir is None or heir is not self._heir:
            return
        try:
            self._give(ask)
        except Exception as error:  # the fault of a timer is nobody's, and the successor would wait for us
            self._drop(f"a fault in the hand-over: {describe(error)}")

    def _hand(self, link: Link) -> None:
        self._given[link.sandbox] = link
        since = self._loop.now()
        link.freeze()
        state, fds = dump(link)
        self._say(GIVEN, blob(1, state) + number(2, int(since * 1e6)), fds=fds)

    def _confirmed(self, payload: bytes) -> None:
        self._let_go(Fields(payload))

    def _let_go(self, ask: Fields) -> None:
        link = self._given.pop(ask.text(1), None)
        if link is not None:
            self._estate.agents.forget(link)
            link.leave()

    def _give_rest(self, _ask: Fields) -> None:
        estate = self._estate
        parts = [(SHIM, session.freeze) for session in estate.hypervisor.sessions]
        parts += [(CALLER, partial(estate.commands.freeze, channel)) for channel in estate.commands.channels]
        for kind, freeze in parts:
            if self._heir is None:  # it has hung up, and all goes on here
                return
            state, fds = freeze()
            self._say(kind, state, fds=fds)
        stops = blobs(1, estate.hypervisor.courier.waiting())
        self._say(LAST, stops, fds=[estate.lock, *(listener.fd for listener in estate.listeners)])

    def _leave(self, _ask: Fields) -> None:
        self._loop.count("handed over", "another relay has everything; this one ends")
        self._heir = None
        self._left()

    # The hand-over has failed

    def _thaw(self) -> None:
        """Everything goes on, whatever becomes of one of its parts."""
        self._frozen = False
        estate = self._estate
        given, self._given = self._given, {}
        self._each(link.thaw for link in given.values())
        self._each(link.dial_on for link in estate.agents.links())
        self._each(session.thaw for session in estate.hypervisor.sessions)
        self._each(channel.thaw for channel in estate.commands.channels)
        self._each(listener.thaw for listener in estate.listeners)

    def _each(self, acts: Iterable[Callable[[], object]]) -> None:
        for act in tuple(acts):
            try:
                act()
            except Exception as error:  # it costs this one, not those after it
                self._loop.count("crashed", f"after a hand-over that failed: {describe(error)}")


class _Late:
    """Speaks for nobody: a successor that came while another one is at it."""

    def parcel(self, _kind: int, _payload: bytes, *, fds: list[int]) -> None:
        """It is not heard."""
        close_all(fds)

    def ended(self, _why: str) -> None:
        """It may go."""
