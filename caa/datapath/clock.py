"""The clock of all sessions of a process: who heard something is asked 0.1 s later, everybody once a second."""

from __future__ import annotations

from caa.datapath.heartbeat import LOOK
from caa.datapath.session import TICK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from caa.datapath.loop import Loop

    class Ticked(Protocol):
        def tick(self, now: float) -> object: ...


# Blocks of the pool that stay at hand from one second to the next.
_BLOCKS = 4


class Clock:
    """Calls `tick(now)` of its members. Without members it sets no timer."""

    __slots__ = ("_look_every", "_loop", "_members", "_runs", "_stirred")

    def __init__(self, loop: Loop, look: float = LOOK) -> None:
        self._loop = loop
        self._look_every = look
        self._members: dict[Ticked, None] = {}
        self._stirred: list[Ticked] = []
        self._runs = False

    def add(self, member: Ticked) -> None:
        """Ask it from now on; twice is once."""
        self._members[member] = None
        if not self._runs:
            self._runs = True
            self._loop.later(self._look_every, self._look)

    def remove(self, member: Ticked) -> None:
        """Ask it no more, but for a tick that is under way; one that is not here is fine."""
        self._members.pop(member, None)

    def stir(self, member: Ticked) -> None:
        """It has heard something. It says so once between two ticks."""
        if not self._stirred:
            self._loop.later(TICK, self._soon)
        self._stirred.append(member)

    def _soon(self) -> None:
        stirred, self._stirred = self._stirred, []
        self._tick(stirred)

    def _look(self) -> None:
        self._loop.pool.trim(_BLOCKS)
        self._runs = bool(self._members)
        if self._runs:
            self._loop.later(self._look_every, self._look)
            self._tick(list(self._members))

    def _tick(self, members: list[Ticked]) -> None:
        now = self._loop.now()
        for member in members:
            member.tick(now)
