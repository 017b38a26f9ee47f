"""The driver `aws`: the contract over `Ec2`."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from caa.config.load import Settings
from caa.errors import Gone, InvalidRequest, Misconfigured
from caa.model.ids import InstanceId
from caa.model.instance import Tee
from caa.provider.capacity import FullPlaces, Place, first_with_room, places
from caa.provider.catalogue import Catalogue
from caa.provider.choose import fallbacks, offered, priced, tee_of
from caa.provider.clock import Clock
from caa.provider.contract import Capabilities, Finding, Instance, InstanceState, InstanceType, LaunchRequest, Owner
from caa.provider.ownership import of_owner
from caa.provider.pacing import Pacing
from caa.provider.requests import image_of, refuse_name, refuse_user_data
from caa.provider.rows import (
    FALLBACK_TYPES,
    FULL_FOR,
    IMAGE_ALLOWLIST,
    PURCHASE_OPTIONS,
    SPOT,
    TYPE_PRICES,
    USE_PUBLIC_IP,
)
from providers.aws import check, shapes, translate
from providers.aws import settings as rows
from providers.aws.client import Ec2
from providers.aws.launch import Fleet, address_instance, pages
from providers.aws.surroundings import Surroundings, Waits, owned_instances

_USER_DATA_LIMIT = 16384  # bytes before base64: EC2 user guide, "User data"
_LOOKS = 3
_ID = re.compile(r"(i|eipalloc)-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the driver works with."""

    ec2: Ec2
    around: Surroundings
    pacing: Pacing
    clock: Clock
    waits: Waits


class AwsProvider:
    """Pod VMs as EC2 instances. An id is `i-...`; `eipalloc-...` where only an address was left behind."""

    def __init__(self, values: Settings, means: Means) -> None:
        self._values = values
        self._ec2 = means.ec2
        self._around = means.around
        self._pacing = means.pacing
        self._fleet = Fleet(means.ec2, clock=means.clock, waits=means.waits)
        self._full = FullPlaces(values[FULL_FOR], means.clock.now)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.capabilities = Capabilities(
            user_data_limit=_USER_DATA_LIMIT,
            default_type=values[rows.INSTANCE_TYPE],
            console=True,
            volumes=True,
        )

    async def check(self) -> Sequence[Finding]:
        """Prove what a launch needs, by asking for it or by a dry run."""
        return await check.findings(self._ec2, self._around, values=self._values, plan=self._plan)

    async def instance_types(self) -> Sequence[InstanceType]:
        """The types that pods may ask for; while DISABLECVM is false only those with a TEE."""
        names = {self.capabilities.default_type, *self._values[rows.INSTANCE_TYPES]}
        types = [one for one in await self._around.catalogue.types() if one.name in names]
        mine = priced(types, self._values[TYPE_PRICES])
        return offered(mine, confidential=not self._values[rows.DISABLE_CVM])

    async def create(self, request: LaunchRequest) -> Instance:
        """Find the instance of this name, or make it in the first place that has room."""
        async with self._lock(request.name):
            if request.volumes:
                await self._free(request)  # may take a while, which costs nobody else's place
            async with self._pacing.creating():
                plan, candidates = await self._plan(request)
                if existing := await self._fleet.existing(plan):
                    return await self._fleet.finish(plan, existing)
                return await first_with_room(candidates, lambda place: self._fleet.launch(plan, place), full=self._full)

    async def delete(self, instance: InstanceId) -> None:
        """Terminate, give addresses back, wait until it is gone. Root disk and interfaces go with it."""
        if not _ID.fullmatch(instance):
            return  # never one of EC2's
        async with self._lock(instance):
            await self._fleet.remove(instance)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """Instances by their tags, and Elastic IPs whose instance is gone."""
        tags = of_owner(owner, limits=shapes.LIMITS)
        found, addresses = await asyncio.gather(pages(self._ec2, owned_instances(tags)), self._fleet.addresses(tags))
        mine = [one for one in found if (owned := shapes.owned(one)) is not None and owned.owner == owner]
        listed = [shapes.instance(one, public=self._values[USE_PUBLIC_IP]) for one in mine]
        living = {one.sandbox for one in listed}
        for one in addresses:
            owned = shapes.owned(one)
            if owned is not None and owned.owner == owner and owned.sandbox not in living:
                listed.append(address_instance(one, owned))
        return listed

    async def state(self, instance: InstanceId) -> InstanceState:
        """From DescribeInstances, in one call with whoever asks at the same moment.

        A new instance may stay unseen for some seconds, so what is not seen is looked for more than once.
        """
        if not _ID.fullmatch(instance):
            return InstanceState.ABSENT  # never one of EC2's
        for _ in range(_LOOKS):
            if (found := await self._fleet.see(instance)) is not None:
                return shapes.running(found)
        return InstanceState.ABSENT

    async def console(self, instance: InstanceId) -> bytes:
        """The serial log, its last 64 KiB; empty when there is none yet, or no such instance."""
        if not instance.startswith("i-"):
            return b""
        try:
            reply: Any = await self._ec2.call("get_console_output", InstanceId=instance, Latest=True)
        except InvalidRequest:  # only types of the Nitro system have the latest one; the others have one of the boot
            reply = await self._ec2.call("get_console_output", InstanceId=instance)
        except Gone:
            return b""
        return str(reply.get("Output") or "").encode()

    async def close(self) -> None:
        """Let go of connections and threads; a later call opens them again."""
        catalogue: Catalogue = self._around.catalogue
        await catalogue.close()
        await self._ec2.close()

    async def _free(self, request: LaunchRequest) -> None:
        plan, _ = await self._plan(request)
        if not await self._fleet.existing(plan):
            await self._fleet.free_volumes(request.volumes)

    async def _plan(self, request: LaunchRequest) -> tuple[translate.Plan, list[Place]]:
        """Check the request and decide everything, before anything is made or paid for."""
        refuse_name(request.name, pattern=translate.NAME_PATTERN, limit=self.capabilities.name_limit)
        refuse_user_data(request, self.capabilities)
        translate.refuse_volumes(request.volumes)
        template = await self._around.template()
        image, types, subnets, groups = await asyncio.gather(
            self._image(request, template),
            self._around.catalogue.types(),
            self._around.node.subnets(template),
            self._around.node.groups(template),
        )
        chosen = self._chosen_type(request, template)
        tee = Tee.NONE if self._values[rows.DISABLE_CVM] else tee_of(chosen, types)
        further = self._values[FALLBACK_TYPES]
        kinds = fallbacks(chosen, further, sizing=request.sizing, types=types, tee=tee)
        found = {one.name: one for one in types}
        for name in [one for one in kinds if one in found]:
            translate.refuse_unfit(image, found[name].arch, tee=tee)
        network = translate.network(self._values, groups, flat=template.flat)
        plan = translate.Plan(request=request, image=image, network=network, tee=tee, settings=self._values)
        return plan, await self._places(request, kinds, subnets=subnets, types=found)

    async def _image(self, request: LaunchRequest, template: shapes.Template) -> shapes.Image:
        default = self._values[rows.IMAGE] or template.image
        if not default:
            raise Misconfigured("PODVM_AMI_ID is not set: set it to the pod VM image of this region")
        allowed, pattern = self._values[IMAGE_ALLOWLIST], translate.IMAGE_PATTERN
        return await self._around.image(image_of(request, default=default, allowed=allowed, pattern=pattern))

    def _chosen_type(self, request: LaunchRequest, template: shapes.Template) -> str:
        if request.instance_type:
            return request.instance_type
        if template.instance_type and not self._values.is_set(rows.INSTANCE_TYPE):
            return template.instance_type
        return self.capabilities.default_type

    async def _places(
        self, request: LaunchRequest, kinds: Sequence[str], *, subnets: Sequence[str], types: dict[str, InstanceType]
    ) -> list[Place]:
        known, zones = await asyncio.gather(self._around.subnets(subnets), self._around.volume_zones(request.volumes))
        spot = [one == SPOT for one in self._values[PURCHASE_OPTIONS]]
        candidates = [
            one
            for one in places(kinds, subnets, spot=spot)
            if one.instance_type not in types
            or not types[one.instance_type].zones
            or known[one.zone].zone in types[one.instance_type].zones
        ]
        if not candidates:
            raise Misconfigured(
                f"{', '.join(kinds)} is not offered in the zones of {', '.join(subnets)}: change PODVM_INSTANCE_TYPE, "
                "AWS_SUBNET_ID or FALLBACK_ZONES"
            )
        return translate.places_of_volumes(candidates, known, zones=zones)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())
