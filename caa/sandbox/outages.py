"""Links that are down: is the pod VM cut off, or is it gone? The cloud is asked, and a pod whose VM is gone is ended.

A cut is survived for AGENT_LINK_GRACE, which for a dead pod VM would be minutes in which its pod hangs. From the link
alone the two look the same. `reason` is the rule, `Outages` looks again and again and ends what is gone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from caa.errors import CaaError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import InstanceState
from caa.model.sandbox import Phase, Sandbox
from caa.provider.contract import Provider
from caa.sandbox.ports import AgentLinks, Clock
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

# A pod has 30 s from the death of its VM to its end: 10 until the relay holds a silent link for cut, then these.
LOOK_EVERY = 2.0  # seconds; a look asks the relay for its links
SURE_AFTER = 1.0  # between the two answers that it takes
PATIENCE = 5.0  # for one answer
AT_ONCE = 16  # questions under way
_LEAST_PAUSE = 0.05

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0  # between two questions about a pod VM that is only cut off

_GONE = MappingProxyType(
    {
        InstanceState.ABSENT: "its pod VM is gone: the cloud has no {instance}",
        InstanceState.STOPPED: "its pod VM {instance} does not run any more: it crashed or was stopped",
    }
)


def reason(instance: InstanceId, answers: Sequence[InstanceState]) -> str:
    """Why the pod has to end, "" when it may go on: only two answers in a row are believed, for what a cloud shows lags
    behind what is, and an end cannot be taken back."""
    if len(answers) < 2 or not all(one in _GONE for one in answers):
        return ""
    return _GONE[answers[-1]].format(instance=instance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A link that is down: when to ask about its pod VM (again), and how long to wait after that."""

    ask_at: float
    pause: float = 0.0

    def asked(self, now: float) -> "Outage":
        """The VM was asked about, and the pod goes on."""
        pause = min(2 * self.pause or FIRST_PAUSE, LONGEST_PAUSE)
        return Outage(ask_at=now + pause, pause=pause)


@dataclass(slots=True, kw_only=True)
class Outages:
    """Looks at the running sandboxes whose link the relay has and that is down. `now` is a clock that never jumps.

    What is not known (the relay is away, the cloud does not answer) never costs a pod its life: the relay's own grace
    period ends it then.
    """

    service: SandboxService
    links: AgentLinks
    provider: Provider
    clock: Clock
    now: Callable[[], float]
    _outages: Mapping[SandboxId, Outage] = field(default_factory=dict)

    async def forever(self) -> None:
        """Look at a low rate, without a pause while more links are down than are asked about at once."""
        while True:
            await self.clock.sleep(_LEAST_PAUSE if self._due(self._outages) else LOOK_EVERY)
            await self.once()

    async def once(self) -> Sequence[SandboxId]:
        """One look; returns the sandboxes that were ended. Those that were never asked about come first."""
        found = await self._down()
        if found is None:
            return []
        down = {one.id: one for one in found}
        self._tell(down)
        self._outages = {one: self._outages.get(one, Outage(ask_at=self.now())) for one in down}
        asked = sorted(self._due(self._outages), key=lambda one: self._outages[one].pause)[:AT_ONCE]
        ended = await asyncio.gather(*(self._looked_at(down[one]) for one in asked))
        again = {one: self._outages[one].asked(self.now()) for one in asked}
        self._outages = {**self._outages, **again}
        return [one for one, gone in zip(asked, ended, strict=True) if gone]

    def _due(self, outages: Mapping[SandboxId, Outage]) -> list[SandboxId]:
        now = self.now()
        return [one for one, outage in outages.items() if outage.ask_at <= now]

    async def _down(self) -> Sequence[Sandbox] | None:
        """None while the relay is away."""
        running = [one for one in self.service.records() if one.phase is Phase.RUNNING and one.instance is not None]
        if not running:
            return []
        try:
            down = {one.sandbox for one in await self.links.list() if not one.connected}
        except CaaError as error:
            log.debug("the relay could not be asked for its links", error=str(error))
            return None
        return [one for one in running if one.id in down]

    def _tell(self, down: Mapping[SandboxId, Sandbox]) -> None:
        for one in down.keys() - self._outages.keys():
            log.warning("the link to a pod VM is down, asking the cloud", sandbox=one, instance=down[one].instance)
        for one in self._outages.keys() - down.keys():
            log.info("the link to a pod VM is not down any more", sandbox=one)

    async def _looked_at(self, record: Sandbox) -> bool:
        """Whether it was ended. A link that is up meanwhile is proof enough that the pod VM lives."""
        calls = self.service.calls(record.id)
        assert record.instance is not None
        why = await self._why_gone(record.instance)
        if not why or record.id not in {one.id for one in await self._down() or ()}:
            return False
        pod = f"{record.pod.pod_namespace}/{record.pod.pod_name}"
        log.error("ending a pod", sandbox=record.id, pod=pod, instance=record.instance, reason=why)
        try:
            return await self.service.give_up(record.id, record.phase, calls=calls, why=why)
        except CaaError as error:  # the stop goes on in memory even when the disk refuses
            log.error("the end of the pod could not be written", sandbox=record.id, error=str(error))
            return True

    async def _why_gone(self, instance: InstanceId) -> str:
        answers = [await self._asked(instance)]
        if answers[0] in _GONE:
            await self.clock.sleep(SURE_AFTER)
            answers.append(await self._asked(instance))
        return reason(instance, answers)

    async def _asked(self, instance: InstanceId) -> InstanceState:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.provider.state(instance)
        except Exception as error:  # whatever a driver raises, an unknown state ends no pod
            log.warning("the cloud could not be asked", instance=instance, error=f"{type(error).__name__}: {error}")
            return InstanceState.UNKNOWN
