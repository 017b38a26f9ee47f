"""The driver `azure`: the contract over `Arm`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from caa.config.load import Settings
from caa.config.node import EXTERNAL_NETWORK_VIA_PODVM
from caa.errors import Gone, Misconfigured
from caa.model.ids import InstanceId
from caa.model.instance import InstanceState, Tee
from caa.provider.capacity import FullPlaces, Place, first_with_room, places
from caa.provider.choose import fallbacks, offered, priced, tee_of
from caa.provider.clock import Clock
from caa.provider.contract import Capabilities, Finding, Instance, InstanceType, LaunchRequest, Owner
from caa.provider.pacing import Pacing
from caa.provider.requests import image_of, refuse_name, refuse_user_data
from caa.provider.rows import (
    FALLBACK_TYPES,
    FALLBACK_ZONES,
    FULL_FOR,
    IMAGE_ALLOWLIST,
    PURCHASE_OPTIONS,
    SPOT,
    TYPE_PRICES,
    USE_PUBLIC_IP,
    given,
)
from providers.azure import check, shapes, translate
from providers.azure import settings as rows
from providers.azure.around import Surroundings
from providers.azure.client import Arm
from providers.azure.fleet import Fleet, left_of
from providers.azure.together import all_of

_USER_DATA_LIMIT = 65536  # characters of base64; Azure's "user data for virtual machines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the driver works with."""

    arm: Arm
    around: Surroundings
    fleet: Fleet
    pacing: Pacing
    clock: Clock


class AzureProvider:
    """Pod VMs as Azure VMs. An id is a whole ARM id: a VM's, or that of a disk, interface or address left behind."""

    def __init__(self, values: Settings, means: Means) -> None:
        self._values = values
        self._arm = means.arm
        self._around = means.around
        self._pacing = means.pacing
        self._fleet = means.fleet
        self._full = FullPlaces(values[FULL_FOR], means.clock.now)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.capabilities = Capabilities(
            user_data_limit=_USER_DATA_LIMIT,
            user_data_base64=True,
            default_type=values[rows.INSTANCE_SIZE],
            console=True,
            volumes=True,
        )

    async def check(self) -> Sequence[Finding]:
        """Prove what a launch needs, by asking for it; nothing is made."""
        return await check.findings(self._arm, self._around, values=self._values, plan=self._plan)

    async def instance_types(self) -> Sequence[InstanceType]:
        """The sizes that pods may ask for; while DISABLECVM is false only those with a TEE."""
        names = {one.lower() for one in (self.capabilities.default_type, *self._values[rows.INSTANCE_SIZES])}
        types = [one for one in await self._around.catalogue.types() if one.name.lower() in names]
        mine = priced(types, self._values[TYPE_PRICES])
        return offered(mine, confidential=not self._values[rows.DISABLE_CVM])

    async def create(self, request: LaunchRequest) -> Instance:
        """Find the VM of this name, or make it in the first place that has room."""
        async with self._lock(request.name), self._pacing.creating():
            plan, candidates = await self._plan(request)
            return await first_with_room(candidates, lambda place: self._fleet.launch(plan, place), full=self._full)

    async def delete(self, instance: InstanceId) -> None:
        """Delete, and wait until it is gone. Disk, interfaces and addresses go with it; volumes stay."""
        found = self._where(instance)
        if found is None:
            return  # never one of Azure's
        async with self._lock(found.name):
            if found.kind == shapes.VM:
                await self._fleet.remove(found.name, group=found.group)
            else:
                await self._fleet.remove_part(found)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """VMs by their tags, and disks, interfaces and addresses whose VM is gone."""
        vms, parts = await all_of([self._fleet.vms(), self._fleet.parts()])
        owners = {left_of(one): owned for one in parts if (owned := shapes.owned(one)) is not None}
        unseen = owners.keys() - {str(one.get("name")).lower() for one in vms}  # gone, or a listing that lags behind
        vms += [one for one in await all_of(self._fleet.vm(name) for name in sorted(unseen)) if one is not None]
        living = {str(one.get("name")).lower() for one in vms}
        public = self._values[USE_PUBLIC_IP]
        mine = [one for one in vms if (owned := shapes.owned(one)) is not None and owned.owner == owner]
        listed = await all_of(self._fleet.instance(one, public=public) for one in mine)
        for one in parts:
            owned = shapes.owned(one) or owners.get(left_of(one))  # a disk that lost its VM before it had tags
            if owned is not None and owned.owner == owner and left_of(one) not in living:
                listed.append(shapes.leftover(one, owned))
        return listed

    async def state(self, instance: InstanceId) -> InstanceState:
        """By the VM's instance view."""
        found = self._where(instance)
        if found is None or found.kind != shapes.VM:
            return InstanceState.ABSENT
        try:
            return shapes.state(await self._arm.read("compute.virtual_machines.instance_view", found.group, found.name))
        except Gone:
            return InstanceState.ABSENT

    async def console(self, instance: InstanceId) -> bytes:
        """The serial log, up to a MiB; empty when there is none yet, or no such VM."""
        found = self._where(instance)
        if found is None or found.kind != shapes.VM:
            return b""
        try:
            where = await self._arm.read(
                "compute.virtual_machines.retrieve_boot_diagnostics_data", found.group, found.name
            )
        except Gone:
            return b""
        url = str(where.get("serialConsoleLogBlobUri") or "")
        return await self._arm.fetch(url) if url.startswith("https://") else b""

    async def close(self) -> None:
        """Let go of connections; a later call opens them again."""
        await self._around.catalogue.close()
        await self._arm.close()

    async def _plan(self, request: LaunchRequest) -> tuple[translate.Plan, list[Place]]:
        """Check the request and decide everything, before anything is made or paid for."""
        refuse_name(request.name, pattern=translate.NAME_PATTERN, limit=self.capabilities.name_limit)
        refuse_user_data(request, self.capabilities)
        translate.disks(request.volumes, self._values[rows.SUBSCRIPTION])
        translate.refuse_missing(self._values)
        allowed, pattern = self._values[IMAGE_ALLOWLIST], rows.IMAGE_PATTERN
        wanted = image_of(request, default=self._values[rows.IMAGE], allowed=allowed, pattern=pattern)
        types, key = await self._around.catalogue.types(), await self._around.public_key()
        image = await self._around.image(wanted)
        chosen = request.instance_type or self.capabilities.default_type
        tee = Tee.NONE if self._values[rows.DISABLE_CVM] else tee_of(chosen, types)
        named = {one.name: one for one in types}
        further = self._values[FALLBACK_TYPES]
        kinds = fallbacks(chosen, further, sizing=request.sizing, types=types, tee=tee)
        for one in [one for one in kinds if one in named]:
            translate.refuse_unfit(image, named[one].arch, tee=tee)
        nics = 2 if given(self._values, EXTERNAL_NETWORK_VIA_PODVM) else 1
        plan = translate.Plan(request=request, image=image, public_key=key, tee=tee, nics=nics, settings=self._values)
        return plan, await self._places(request, kinds, types=named)

    async def _places(
        self, request: LaunchRequest, kinds: Sequence[str], *, types: dict[str, InstanceType]
    ) -> list[Place]:
        zones = [self._values[rows.ZONE], *self._values[FALLBACK_ZONES]]
        spot = [one == SPOT for one in self._values[PURCHASE_OPTIONS]]
        candidates = [
            one
            for one in places(kinds, zones, spot=spot)
            if not one.zone or one.instance_type not in types or one.zone in types[one.instance_type].zones
        ]
        if not candidates:
            raise Misconfigured(
                f"{', '.join(kinds)} cannot be had in the zones {', '.join(zones)} of {self._values[rows.REGION]} with "
                "this subscription: change AZURE_INSTANCE_SIZE, AZURE_ZONE or FALLBACK_ZONES"
            )
        held = await self._around.disk_zones(request.volumes, request.name)
        return translate.places_of_disks(candidates, held)

    def _where(self, instance: InstanceId) -> shapes.Where | None:
        found = shapes.where(instance)
        ours = self._values[rows.SUBSCRIPTION]
        if found is not None and found.subscription.lower() != ours.lower():
            raise Misconfigured(
                f"{instance} is in another subscription than AZURE_SUBSCRIPTION_ID ({ours}): set that back to delete it"
            )
        return found

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name.lower(), asyncio.Lock())
