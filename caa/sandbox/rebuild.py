"""Records that the store has lost, told from the world: what the relay talks to runs, the cloud names its instance, and
its tunnel stands in the pod's namespace with the pod's name on it.

Only running sandboxes are found again. One that was created only is unknown to its StartVM, and the kubelet makes
another; one whose start was under way is an orphan, and the sweep removes it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from caa.errors import CaaError
from caa.model.ids import SandboxId, instance_name
from caa.model.instance import Instance, Owner
from caa.model.network import Standing
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.provider.contract import Provider
from caa.sandbox.ports import AgentLinks, Clock, LinkState, PodNetworking, StateStore
from caa.sandbox.service import SandboxService

log = structlog.get_logger(__name__)

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_PATIENCE = 60.0  # seconds for the cloud's list; without it the instances are found when they are deleted
_LAST_STEP = "link"
_ENDED = 4096  # tunnels that may have stood after the highest that stands; there are 16 million ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the world shows of one running sandbox."""

    sandbox: SandboxId
    instance: Instance | None = None
    standing: Standing | None = None
    ca: str = ""

    @property
    def pod(self) -> PodSpec:
        """As CreateVM said it, without sizing and initdata, which only a start needs."""
        whose = self.standing.whose if self.standing else None
        return PodSpec(
            pod_name=whose.pod_name if whose else "",
            pod_namespace=whose.pod_namespace if whose else "",
            netns=self.standing.netns if self.standing else "",
        )

    @property
    def name(self) -> str:
        if self.instance is not None:
            return self.instance.name
        return instance_name(self.pod.pod_name, self.sandbox) if self.pod.pod_name else f"unknown-{self.sandbox}"


def record_of(seen: Seen, *, boot_id: str, now: float) -> Sandbox:
    """What can be told of a running sandbox."""
    instance, standing = seen.instance, seen.standing
    return Sandbox(
        id=seen.sandbox,
        pod=seen.pod,
        phase=Phase.RUNNING,
        instance_name=seen.name,
        token="",
        boot_id=boot_id,
        created_at=(instance.created_at if instance else 0.0) or now,
        reached=_LAST_STEP,
        instance=instance.id if instance else None,
        addresses=(instance.addresses if instance else ()) or ((standing.peer,) if standing else ()),
        network=standing.network if standing else None,
        tunnel=standing.tunnel if standing else None,
        ca=seen.ca,
    )


def instance_of(sandbox: SandboxId, instances: Sequence[Instance]) -> Instance | None:
    """By its tag, or where the driver tells none by the end of its name (`caa.model.ids.instance_name`)."""
    tagged = [one for one in instances if one.sandbox == sandbox]
    named = [one for one in instances if one.sandbox is None and one.name.endswith(f"-{sandbox.lower()[:8]}")]
    return next(iter(tagged or named), None)


def standing_of(sandbox: SandboxId, standing: Sequence[Standing], *, instance: Instance | None) -> Standing | None:
    """By what is written on it, or for one without that by the address of the pod VM at its end."""
    written = [one for one in standing if one.whose is not None and one.whose.sandbox == sandbox]
    addresses = instance.addresses if instance else ()
    leading = [one for one in standing if one.whose is None and one.peer in addresses]
    return next(iter(written or leading), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Gives the service the sandboxes that its store has lost."""

    service: SandboxService
    store: StateStore
    network: PodNetworking
    links: AgentLinks
    provider: Provider
    owner: Owner
    clock: Clock
    boot_id: str

    async def spare_tunnels(self) -> None:
        """Before the first start: no new tunnel may get the id of one that stands, nor of one that stood a moment ago.

        The pod VM of a pod that has just ended may still send; its packets must not reach the next pod. Asks this
        machine alone.
        """
        indexes = [one.tunnel.index for one in await self._standing()]
        if indexes:
            await self.store.use_tunnel_index(max(indexes) + _ENDED)

    async def until_done(self, reason: str) -> None:
        """Ask until the relay answers: before that nobody knows what runs, and nothing may be swept. `reason` says
        why records may be missing."""
        pause = _FIRST_PAUSE
        while not await self._done(reason):
            await self.clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _done(self, reason: str) -> bool:
        try:
            known = {one.id for one in self.service.records()}
            running = [one for one in await self.links.list() if one.sandbox not in known]
            if not running:
                log.info("no pod runs that has no record", reason=reason)
                return True
            log.warning(
                "pods run that have no record, rebuilding the store from them", reason=reason, pods=len(running)
            )
            instances = await self._instances()
            standing = await self._standing()
            adopted = [await self._adopted(one, instances, standing=standing) for one in running]
        except CaaError as error:
            log.warning("the store is not rebuilt yet, trying again", error=str(error))
            return False
        log.warning("the store is rebuilt from what runs", adopted=sum(adopted))
        return True

    async def _instances(self) -> Sequence[Instance]:
        return await _asked(self.provider.list_owned(self.owner), "the cloud's instances")

    async def _standing(self) -> Sequence[Standing]:
        return await _asked(self.network.standing(), "the pods' tunnels")

    async def _adopted(self, link: LinkState, instances: Sequence[Instance], *, standing: Sequence[Standing]) -> bool:
        sandbox = link.sandbox
        instance = instance_of(sandbox, instances)
        found = standing_of(sandbox, standing, instance=instance)
        seen = Seen(sandbox=sandbox, instance=instance, standing=found, ca=link.ca)
        record = record_of(seen, boot_id=self.boot_id, now=self.clock.wall())
        new = await self.service.adopt(record)
        if new:
            log.warning(
                "a running sandbox without a record is adopted",
                sandbox=sandbox,
                instance=record.instance_name,
                pod=f"{record.pod.pod_namespace}/{record.pod.pod_name}",
                netns=record.pod.netns,
            )
        return new


async def _asked(question: Awaitable[Sequence[T]], what: str) -> Sequence[T]:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await question
    except Exception as error:  # whatever it is: pods must be known before their StopVM comes
        log.warning("could not be asked what runs", what=what, error=f"{type(error).__name__}: {error}")
        return []
