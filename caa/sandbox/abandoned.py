"""Sandboxes that nobody attends to any more: how one is told, and what becomes of it.

A killed shim leaves a closed connection and nothing else, a kubelet that gave up leaves no StopVM (`reference/kata.md`
6.11). `sign_of` is the rule, `Abandonment` looks again and again and gives up what shows the same sign for long.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import structlog

from caa.errors import CaaError
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.ports import AgentLinks, PodState, PodWitness
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

LOOK_EVERY = 5.0  # seconds; a look asks the relay for its links, nobody else
_LEAST_PAUSE = 0.05


class Sign(Enum):
    """Why a sandbox looks abandoned. The value says it, for the log."""

    UNSTARTED = "no StartVM came for it"
    UNOPENED = "no shim has opened its agent socket"
    CLOSED = "its shim closed the agent connection and sent no StopVM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graces:
    """How long each sign has to be seen, in seconds; 0 means for ever."""

    unstarted: float = 600.0
    unopened: float = 120.0
    closed: float = 60.0

    def of(self, sign: Sign) -> float:
        return {Sign.UNSTARTED: self.unstarted, Sign.UNOPENED: self.unopened, Sign.CLOSED: self.closed}[sign]

    def pause(self) -> float:
        """How long to wait between two looks: a quarter of the shortest grace period, 5 s at most."""
        quarters = [grace / 4 for grace in (self.unstarted, self.unopened, self.closed) if grace]
        return max(min([LOOK_EVERY, *quarters]), _LEAST_PAUSE)


def sign_of(record: Sandbox, *, shims: int | None, opened: bool) -> Sign | None:
    """What a look at one sandbox tells. `shims` counts the shim's connections, None when the relay could not be asked;
    `opened` tells whether there was one before."""
    if record.phase in (Phase.CREATED, Phase.FAILED):
        return Sign.UNSTARTED
    if record.phase is Phase.RUNNING and shims == 0:
        return Sign.CLOSED if opened else Sign.UNOPENED
    return None  # a start has its caller, a stop has its task


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sign, how many calls had named the sandbox then, and since when it is seen."""

    sign: Sign
    calls: int
    since: float


@dataclass(slots=True, kw_only=True)
class Abandonment:
    """Looks at the service's sandboxes. `graces` may change at any time; `now` is a clock that never jumps, `sleep`
    waits by it.

    What is seen is kept in memory alone: after a restart every grace period begins anew.
    """

    service: SandboxService
    links: AgentLinks
    witness: PodWitness
    graces: Graces
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    _since: Mapping[SandboxId, _Seen] = field(default_factory=dict)
    _opened: frozenset[SandboxId] = frozenset()

    async def forever(self) -> None:
        """Look at a low rate."""
        while True:
            await self.sleep(self.graces.pause())
            await self.once()

    async def once(self) -> Sequence[SandboxId]:
        """One look; returns the sandboxes that were given up."""
        records = self.service.records()
        shims = await self._shims() if any(one.phase is Phase.RUNNING for one in records) else {}
        if shims is not None:
            here = {one for one, count in shims.items() if count}
            running = {one.id for one in records if one.phase is Phase.RUNNING}
            self._opened = frozenset((self._opened | here) & running)
        signs = {one: self._sign(one, shims) for one in records}
        suspects = {one: sign for one, sign in signs.items() if sign is not None}
        self._since = {one.id: self._first_seen(one, sign) for one, sign in suspects.items()}
        return [one.id for one, sign in suspects.items() if await self._given_up(one, sign)]

    async def _shims(self) -> Mapping[SandboxId, int] | None:
        try:
            return {one.sandbox: one.shims for one in await self.links.list()}
        except CaaError as error:
            log.debug("the relay could not be asked for its links", error=str(error))
            return None

    def _sign(self, record: Sandbox, shims: Mapping[SandboxId, int] | None) -> Sign | None:
        count = None if shims is None else shims.get(record.id, 0)
        return sign_of(record, shims=count, opened=record.id in self._opened)

    def _first_seen(self, record: Sandbox, sign: Sign) -> _Seen:
        earlier, now = self._since.get(record.id), _Seen(sign, self.service.calls(record.id), self.now())
        return earlier if earlier is not None and (earlier.sign, earlier.calls) == (sign, now.calls) else now

    async def _given_up(self, record: Sandbox, sign: Sign) -> bool:
        state = await self.witness.state(record)
        seen = self._since[record.id]
        age, grace = self.now() - seen.since, self.graces.of(sign)
        if state is PodState.RUNS:  # should Kubernetes fall silent, the grace period begins anew
            self._since = {**self._since, record.id: replace(seen, since=self.now())}
            return False
        if state is PodState.UNKNOWN and (not grace or age < grace):
            return False
        log.warning("giving up a sandbox", sandbox=record.id, reason=sign.value, pod_is=state, seen_for_s=round(age, 1))
        try:
            return await self.service.give_up(record.id, record.phase, calls=seen.calls, why=sign.value)
        except CaaError as error:  # the stop goes on in memory even when the disk refuses
            log.error("could not give up the sandbox", sandbox=record.id, error=str(error))
            return False
