"""Records that a damaged store has lost, told from the world: what the relay talks to runs, and the cloud names it.

Only running sandboxes are found again. One that was created only is unknown to its StartVM, and the kubelet makes
another; one whose start was under way is an orphan, and the sweep removes it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from caa.errors import CaaError
from caa.model.ids import SandboxId
from caa.model.instance import Instance, Owner
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.provider.contract import Provider
from caa.sandbox.ports import AgentLinks, Clock
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_PATIENCE = 60.0  # seconds for the cloud's list; without it the instances are found when they are deleted
_LAST_STEP = "link"


def record_of(sandbox: SandboxId, instance: Instance | None, *, boot_id: str, now: float) -> Sandbox:
    """What can be told of a running sandbox. Its tunnel cannot: that goes with the pod's namespace."""
    return Sandbox(
        id=sandbox,
        pod=PodSpec(pod_name="", pod_namespace="", netns=""),
        phase=Phase.RUNNING,
        instance_name=instance.name if instance else f"unknown-{sandbox}",
        token="",
        boot_id=boot_id,
        created_at=(instance.created_at if instance else 0.0) or now,
        reached=_LAST_STEP,
        instance=instance.id if instance else None,
        addresses=instance.addresses if instance else (),
    )


def instance_of(sandbox: SandboxId, instances: Sequence[Instance]) -> Instance | None:
    """By its tag, or where the driver tells none by the end of its name (`caa.model.ids.instance_name`)."""
    tagged = [one for one in instances if one.sandbox == sandbox]
    named = [one for one in instances if one.sandbox is None and one.name.endswith(f"-{sandbox.lower()[:8]}")]
    return next(iter(tagged or named), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Gives the service the sandboxes that its store has lost."""

    service: SandboxService
    links: AgentLinks
    provider: Provider
    owner: Owner
    clock: Clock
    boot_id: str

    async def until_done(self) -> None:
        """Ask until the relay answers: before that nobody knows what runs, and nothing may be swept."""
        pause = _FIRST_PAUSE
        while not await self._done():
            await self.clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _done(self) -> bool:
        try:
            running = [one.sandbox for one in await self.links.list()]
            instances = await self._instances() if running else []
            adopted = [await self._adopted(sandbox, instances) for sandbox in running]
        except CaaError as error:
            log.warning("the store is not rebuilt yet, trying again", error=str(error))
            return False
        log.warning("the store is rebuilt from what runs", links=len(running), adopted=sum(adopted))
        return True

    async def _instances(self) -> Sequence[Instance]:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.provider.list_owned(self.owner)
        except Exception as error:  # whatever it is: pods must be known before their StopVM comes
            log.warning("the cloud could not be asked what runs", error=f"{type(error).__name__}: {error}")
            return []

    async def _adopted(self, sandbox: SandboxId, instances: Sequence[Instance]) -> bool:
        instance = instance_of(sandbox, instances)
        record = record_of(sandbox, instance, boot_id=self.boot_id, now=self.clock.wall())
        new = await self.service.adopt(record)
        if new:
            log.warning("a running sandbox without a record is adopted", sandbox=sandbox, instance=record.instance_name)
        return new
