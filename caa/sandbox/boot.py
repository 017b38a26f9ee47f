"""What a new process does with the records it finds: carry on, or clean up what the record says.

`decide` is the rule, `Recovery` applies it: what needs no look at the world at once, so that it is in place before
the first call is served; running sandboxes afterwards, in the background.
"""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import structlog

from caa.errors import CaaError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Owner
from caa.model.sandbox import Phase, Sandbox
from caa.provider.contract import Provider
from caa.sandbox.ports import AgentLinks, LinkState
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PATIENCE = 60.0  # seconds for one answer; a cloud's that never comes must not keep links and tunnels from being mended


class Action(Enum):
    """What becomes of a record. The value says why, for the log."""

    KEEP = "carried on"
    REOPEN = "it runs, and the relay has no link to it"
    CLEAR = "its start was interrupted"
    STOP = "its stop was interrupted"
    DISCARD = "its start had failed"
    REBOOTED = "the node was booted since"
    LOST = "its pod VM is gone"


_UNDONE = frozenset({Action.STOP, Action.DISCARD, Action.REBOOTED, Action.LOST})
_AT_ONCE: Mapping[Phase, Action] = {
    Phase.CREATED: Action.KEEP,
    Phase.STARTING: Action.CLEAR,
    Phase.RUNNING: Action.KEEP,
    Phase.FAILED: Action.DISCARD,
    Phase.STOPPING: Action.STOP,
}


def decide(record: Sandbox, boot_id: str) -> Action:
    """What the record alone tells. After a boot of the node no namespace, tunnel or shim of before exists."""
    return Action.REBOOTED if record.boot_id != boot_id else _AT_ONCE[record.phase]


def decide_running(
    record: Sandbox, *, links: Sequence[LinkState] | None, instances: Collection[InstanceId] | None
) -> Action:
    """What becomes of a running sandbox; None stands for "could not be asked", and never costs a pod its life.

    A link that the relay has is left alone, also one that is down: it may be within its grace period, and whether the
    pod VM behind it is gone is the question of `caa.sandbox.outages`. Only a sandbox without a link, whose shim has
    lost its connection then, and without an instance is given up.
    """
    if links is None or any(link.sandbox == record.id for link in links):
        return Action.KEEP
    return Action.LOST if instances is not None and record.instance not in instances else Action.REOPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Applies the rule to the service's sandboxes, once, after `SandboxService.load`."""

    service: SandboxService
    links: AgentLinks
    provider: Provider
    owner: Owner
    boot_id: str

    async def at_once(self) -> None:
        """Set going what the records alone decide. Asks neither the cloud nor the relay."""
        for record in self.service.records():
            await self._apply(record, decide(record, self.boot_id))

    async def running(self) -> None:
        """Compare the running sandboxes with the relay's links and the cloud's instances."""
        running = [one for one in self.service.records() if one.phase is Phase.RUNNING]
        if not running:
            return
        links = await _asked(self.links.list(), "the relay's links")
        instances = {owner: await self._instances(owner) for owner in {self._owner(one) for one in running}}
        decisions = [(one, decide_running(one, links=links, instances=instances[self._owner(one)])) for one in running]
        await asyncio.gather(*(self._compared(one, action) for one, action in decisions))

    def _owner(self, record: Sandbox) -> Owner:
        """Whose tags its instance has: those of before, when the node or the cluster is called otherwise since."""
        return record.owner or self.owner

    async def _instances(self, owner: Owner) -> Collection[InstanceId] | None:
        listed = await _asked(self.provider.list_owned(owner), "the cloud's instances")
        return None if listed is None else {one.id for one in listed}

    async def _compared(self, record: Sandbox, action: Action) -> None:
        await self._apply(record, action)
        if action not in _UNDONE:
            await _asked(self.service.repair_network(record.id), f"the tunnel of {record.id}")

    async def _apply(self, record: Sandbox, action: Action) -> None:
        log.info("found a sandbox", sandbox=record.id, phase=record.phase, action=action.name, reason=action.value)
        try:
            if action in _UNDONE:
                await self.service.stop(record.id)
            elif action is Action.CLEAR:
                self.service.clear_interrupted(record.id)
            elif action is Action.REOPEN:
                await self.service.reopen_link(record.id)
        except CaaError as error:  # one bad sandbox must not keep the others from being looked at
            log.error("could not act on the sandbox", sandbox=SandboxId(record.id), error=str(error))


async def _asked(question: Awaitable[T], what: str) -> T | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await question
    except Exception as error:  # a driver that breaks its contract must not end every start of the node
        log.warning("could not be looked at, keeping what runs", what=what, error=f"{type(error).__name__}: {error}")
        return None
