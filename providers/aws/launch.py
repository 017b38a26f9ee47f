"""One launch and one removal: the calls in their order, each find-able again after a lost answer."""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caa.errors import Gone, InvalidRequest, ProviderError, ProviderUnavailable, Throttled
from caa.model.ids import InstanceId
from caa.model.instance import Instance
from caa.provider.capacity import Place
from caa.provider.clock import Clock
from caa.provider.ownership import Owned, of_sandbox
from caa.provider.waiting import Lookout, all_or_nothing, until
from providers.aws import shapes, translate
from providers.aws.client import Ec2
from providers.aws.codes import TOKEN_USED
from providers.aws.surroundings import Waits

_GENERATIONS = 20  # of one sandbox's name; each one is an instance that was made and ended
_FILTER_VALUES = 200  # values a filter takes; the API's limit


@dataclass(slots=True)
class _Attempt:
    """What is known of a launch that may have to be undone; `unsure` once a request may have made what was not seen."""

    made: str = ""
    unsure: bool = False
    tokens: list[str] = field(default_factory=list)

    def heard(self, reply: shapes.Reply) -> None:
        """An answer to RunInstances; it may come after the launch was cancelled."""
        found = shapes.instances(reply)
        if found and found[0].get("InstanceId"):
            self.unsure = False
            self.made = "" if shapes.state(found[0]) in shapes.ENDING else str(found[0]["InstanceId"])


class Fleet:
    """Instances by id or sandbox, many in one call; making one; removing one."""

    def __init__(self, ec2: Ec2, *, clock: Clock, waits: Waits) -> None:
        self._ec2 = ec2
        self._clock = clock
        self._waits = waits
        self._by_id = Lookout(lambda ids: self._look("instance-id", ids), clock=clock, every=waits.poll)
        self._by_sandbox = Lookout(lambda ids: self._look("tag:caa-sandbox", ids), clock=clock, every=waits.find)

    async def launch(self, plan: translate.Plan, place: Place) -> Instance:
        """Make the pod VM in this place, all or nothing."""
        attempt = _Attempt()
        return await all_or_nothing(
            self._whole(plan, place, attempt=attempt), lambda: self._undo(attempt), budget=self._waits.undo
        )

    async def existing(self, plan: translate.Plan) -> str:
        """The id of a living instance that was made for this very sandbox before, "" when there is none."""
        found = await self._by_sandbox.see(plan.request.sandbox)
        return _living(plan, found) if found else ""

    async def finish(self, plan: translate.Plan, name: str, *, seen: shapes.Reply | None = None) -> Instance:
        """Volumes, public addresses, and the wait for an address. Doing it twice is doing it once."""
        if plan.request.volumes or plan.network.elastic:
            seen = await self._until(name, lambda found: shapes.state(found) == "running", limit=self._waits.running)
        await asyncio.gather(self._attach(plan, name), self._elastic(plan, seen or {}))
        public = plan.network.public
        if seen is None or not shapes.instance(seen, public=public).addresses or plan.network.elastic:
            seen = await self._until(
                name, lambda found: bool(shapes.instance(found, public=public).addresses), limit=self._waits.address
            )
        return shapes.instance(seen, public=public)

    async def free_volumes(self, volumes: Sequence[str]) -> None:
        """Return when all can be attached: an instance that is ending, such as the pod's last one, lets go of them.

        Raises `InvalidRequest` when one is in use otherwise.
        """
        await asyncio.gather(
            *(
                until(
                    functools.partial(self._free, one),
                    clock=self._clock,
                    limit=self._waits.attach,
                    every=self._waits.poll,
                    what=f"the volume {one} is free",
                )
                for one in volumes
            )
        )

    async def see(self, name: str) -> shapes.Reply | None:
        """One instance; None when there is none. Shares the call with others."""
        return await self._by_id.see(name)

    async def remove(self, name: str, *, fresh: bool = False) -> None:
        """Terminate, give the addresses back, and return when it is gone.

        A new instance is not listed at once, so one that is not seen is terminated all the same; a `fresh` one, which
        certainly was made, as often as it takes.
        """
        if name.startswith("eipalloc-"):
            await self._release({"AllocationId": name})
            return
        found = await self.see(name)
        if found is None and await self._terminated_unseen(name, tries=self._waits.looks if fresh else 1):
            what = f"the instance {name} is listed"
            found = await until(
                lambda: self.see(name), clock=self._clock, limit=self._waits.address, every=0, what=what
            )
        owned = shapes.owned(found) if found else None
        if found is not None and shapes.state(found) not in shapes.ENDING:
            await self._tolerant("terminate_instances", InstanceIds=[name])
        if owned is not None:
            await self.release_all(owned)
        if found is not None and shapes.state(found) not in shapes.DEAD:
            await until(
                lambda: self._is_gone(name),
                clock=self._clock,
                limit=self._waits.gone,
                every=0,
                what=f"the instance {name} is terminated",
            )

    async def release_all(self, owned: Owned) -> None:
        """Give back every Elastic IP of a sandbox."""
        for one in await self.addresses(of_sandbox(owned, limits=shapes.LIMITS)):
            await self._release(one)

    async def addresses(self, tags: Mapping[str, str]) -> list[shapes.Reply]:
        """The Elastic IPs with these tags."""
        reply = await self._ec2.call("describe_addresses", Filters=translate.filters(tags))
        return list(reply.get("Addresses") or ())

    async def _whole(self, plan: translate.Plan, place: Place, *, attempt: _Attempt) -> Instance:
        found = await self._run(plan, place, attempt=attempt)
        return await self.finish(plan, attempt.made, seen=found)

    async def _run(self, plan: translate.Plan, place: Place, *, attempt: _Attempt) -> shapes.Reply | None:
        for generation in range(_GENERATIONS):
            parameters = translate.run_instances(plan, place, generation=generation)
            attempt.tokens.append(parameters["ClientToken"])
            attempt.unsure = True
            try:
                found = shapes.only_instance(await self._ec2.call("run_instances", heard=attempt.heard, **parameters))
            except ProviderError as error:
                if isinstance(error, ProviderUnavailable) and not isinstance(error, Throttled):
                    raise
                if not str(error).startswith(TOKEN_USED):
                    attempt.unsure = False
                    raise
                attempt.made = await self._of_token(plan, parameters["ClientToken"])
                attempt.unsure = False
            else:
                if attempt.made:
                    return found
            if attempt.made:
                return None
        raise ProviderError(f"{plan.request.name} was made and removed {_GENERATIONS} times: stop and start the pod")

    async def _of_token(self, plan: translate.Plan, token: str) -> str:
        """The living instance that the token made with other user data, "" when it has ended.

        One of a node that crashed may be too new to be listed; a second one would be made beside it.
        """
        for _ in range(self._waits.looks):
            if listed := await self._all("client-token", [token]):
                return next(filter(None, (_living(plan, one) for one in listed)), "")
            await self._clock.sleep(self._waits.poll)
        return ""

    async def _undo(self, attempt: _Attempt) -> None:
        if attempt.made:
            await self.remove(attempt.made, fresh=True)
        elif attempt.unsure:
            await self._remove_unseen(attempt.tokens)

    async def _remove_unseen(self, tokens: list[str]) -> None:
        """Look for what a lost answer told of; a new instance may stay unseen for some seconds."""
        for _ in range(self._waits.looks):
            found = [one for one in await self._all("client-token", tokens) if shapes.state(one) not in shapes.ENDING]
            for one in found:
                await self.remove(str(one["InstanceId"]), fresh=True)
            if found:
                return
            await self._clock.sleep(self._waits.poll)

    async def _attach(self, plan: translate.Plan, name: str) -> None:
        volumes = plan.request.volumes
        if volumes:
            devices = translate.device_names(len(volumes))
            await asyncio.gather(
                *(
                    self._attach_one(name, volume, device=device)
                    for volume, device in zip(volumes, devices, strict=True)
                )
            )

    async def _attach_one(self, instance: str, volume: str, *, device: str) -> None:
        """Attached already is well: the answer of an earlier try was lost."""
        try:
            await self._ec2.call("attach_volume", VolumeId=volume, InstanceId=instance, Device=device)
        except ProviderError as error:
            if not str(error).startswith("VolumeInUse") or not await self._is_on_the_way(volume, instance):
                raise
        await until(
            lambda: self._attached(volume, instance),
            clock=self._clock,
            limit=self._waits.attach,
            every=self._waits.poll,
            what=f"the volume {volume} is attached to {instance}",
        )

    async def _free(self, volume: str) -> bool | None:
        found = await self._volume(volume)
        state = found.get("State", "missing")
        if state in ("available", "creating"):
            return state == "available" or None
        holders = shapes.holders(found)
        living = [one for one in holders if not await self._is_ending(one)]
        if state != "in-use" or living:
            held = f" by {', '.join(living)}" if living else ""
            raise InvalidRequest(f"the volume {volume} of the pod is {state}{held}, it has to be available")
        return None

    async def _is_ending(self, instance: str) -> bool:
        found = await self.see(instance)
        return found is None or shapes.state(found) in shapes.ENDING

    async def _is_on_the_way(self, volume: str, instance: str) -> bool:
        found = await self._volume(volume)
        return any(one.get("InstanceId") == instance for one in found.get("Attachments") or ())

    async def _attached(self, volume: str, instance: str) -> bool | None:
        return shapes.attached(await self._volume(volume), instance) or None

    async def _volume(self, name: str) -> shapes.Reply:
        found: list[shapes.Reply] = (await self._ec2.call("describe_volumes", VolumeIds=[name])).get("Volumes") or []
        return found[0] if found else {}

    async def _elastic(self, plan: translate.Plan, found: shapes.Reply) -> None:
        """One Elastic IP a network interface. They are tagged when they are made, so none is ever lost."""
        if not plan.network.elastic:
            return
        owned = shapes.owned(found)
        if owned is None:
            raise ProviderUnavailable(f"the tags of {plan.request.name} are not to be seen yet")
        free = [
            one for one in await self.addresses(of_sandbox(owned, limits=shapes.LIMITS)) if not one.get("AssociationId")
        ]
        for nic in found.get("NetworkInterfaces") or ():
            if (nic.get("Association") or {}).get("PublicIp"):
                continue
            address = free.pop() if free else await self._allocate(plan)
            await self._ec2.call(
                "associate_address",
                AllocationId=address["AllocationId"],
                NetworkInterfaceId=nic["NetworkInterfaceId"],
                AllowReassociation=False,
            )

    async def _allocate(self, plan: translate.Plan) -> shapes.Reply:
        tags = [translate.tagged("elastic-ip", plan.tags)]
        return await self._ec2.call("allocate_address", repeatable=False, Domain="vpc", TagSpecifications=tags)

    async def _release(self, address: shapes.Reply) -> None:
        if address.get("AssociationId"):
            await self._tolerant("disassociate_address", AssociationId=address["AssociationId"])
        await self._tolerant("release_address", AllocationId=address["AllocationId"])

    async def _tolerant(self, action: str, **parameters: Any) -> None:
        try:
            await self._ec2.call(action, **parameters)
        except Gone:
            return

    async def _until(self, name: str, fits: Callable[[shapes.Reply], bool], *, limit: float) -> shapes.Reply:
        async def look() -> shapes.Reply | None:
            found = await self.see(name)
            if found is not None and shapes.state(found) in shapes.ENDING:
                reason = (
                    (found.get("StateReason") or {}).get("Message") or found.get("StateTransitionReason") or "no reason"
                )
                raise ProviderError(f"the instance {name} ended before it was ready; EC2 says: {reason}")
            return found if found is not None and fits(found) else None

        what = f"the instance {name} is ready"
        return await until(look, clock=self._clock, limit=limit, every=0, what=what)

    async def _terminated_unseen(self, name: str, *, tries: int) -> bool:
        for _ in range(tries):
            try:
                await self._ec2.call("terminate_instances", InstanceIds=[name])
            except Gone:
                await self._clock.sleep(self._waits.poll)
            else:
                return True
        return False

    async def _is_gone(self, name: str) -> bool | None:
        found = await self.see(name)
        return found is None or shapes.state(found) in shapes.DEAD or None

    async def _look(self, key: str, wanted: frozenset[str]) -> Mapping[str, shapes.Reply]:
        found = await self._all(key, sorted(wanted))
        if key == "instance-id":
            return {str(one["InstanceId"]): one for one in found}
        living = [one for one in found if shapes.state(one) not in shapes.ENDING]
        return {owned.sandbox: one for one in living if (owned := shapes.owned(one)) is not None}

    async def _all(self, key: str, values: list[str]) -> list[shapes.Reply]:
        found: list[shapes.Reply] = []
        for at in range(0, len(values), _FILTER_VALUES):
            wanted = [{"Name": key, "Values": values[at : at + _FILTER_VALUES]}]
            found += await pages(self._ec2, wanted)
        return found


def _living(plan: translate.Plan, found: shapes.Reply) -> str:
    """The id of an instance that lives and is this very sandbox's, else ""."""
    mine = shapes.owned(found)
    if not mine or (mine.owner, mine.name) != (plan.request.owner, plan.request.name):
        return ""
    return "" if shapes.state(found) in shapes.ENDING else str(found["InstanceId"])


async def pages(ec2: Ec2, wanted: list[dict[str, Any]]) -> list[shapes.Reply]:
    """Every instance that the filters select, page by page."""
    found: list[shapes.Reply] = []
    more: dict[str, Any] = {}
    while True:
        reply = await ec2.call("describe_instances", Filters=wanted, MaxResults=1000, **more)
        found += shapes.instances(reply)
        if not reply.get("NextToken"):
            return found
        more = {"NextToken": str(reply["NextToken"])}


def address_instance(found: shapes.Reply, owned: Owned) -> Instance:
    """An Elastic IP whose instance is gone, as an instance that `delete` removes."""
    return Instance(id=InstanceId(str(found["AllocationId"])), name=owned.name, addresses=(), sandbox=owned.sandbox)
