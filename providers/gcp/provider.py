"""The driver `gcp`: the contract over `Gce`."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from caa.config.load import Settings
from caa.config.node import EXTERNAL_NETWORK_VIA_PODVM
from caa.errors import Gone, InvalidRequest, Misconfigured
from caa.model.ids import InstanceId
from caa.model.instance import InstanceState, Tee
from caa.provider.capacity import FullPlaces, Place, first_with_room, places
from caa.provider.choose import fallbacks, priced, tee_of
from caa.provider.clock import Clock
from caa.provider.contract import Capabilities, Finding, Instance, InstanceType, LaunchRequest, Owner
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
    given,
)
from providers.gcp import check, shapes, translate
from providers.gcp import settings as rows
from providers.gcp.client import Gce
from providers.gcp.launch import Fleet
from providers.gcp.surroundings import Surroundings, Waits

_USER_DATA_LIMIT = 262144  # bytes of a metadata value: Compute Engine, "About VM metadata"
_DISK = re.compile(rf"disk/[a-z0-9-]+/({translate.NAME_PATTERN})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the driver works with."""

    gce: Gce
    around: Surroundings
    pacing: Pacing
    clock: Clock
    waits: Waits


class GcpProvider:
    """Pod VMs as instances. An id is the instance's name; `disk/ZONE/NAME` where only a disk was left behind."""

    def __init__(self, values: Settings, means: Means) -> None:
        self._values = values
        self._gce = means.gce
        self._around = means.around
        self._pacing = means.pacing
        self._clock, self._waits = means.clock, means.waits
        self._fleet = Fleet(means.gce, means.clock, waits=means.waits, zones=means.around.zones())
        self._full = FullPlaces(values[FULL_FOR], means.clock.now)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.capabilities = Capabilities(
            user_data_limit=_USER_DATA_LIMIT,
            user_data_base64=True,
            default_type=values[rows.MACHINE_TYPE],
            console=True,
            volumes=True,
        )

    async def check(self) -> Sequence[Finding]:
        """Prove what a launch needs. Compute Engine has no dry run, so permissions are asked for by name."""
        return await check.findings(self._gce, self._around, values=self._values, plan=self.plan)

    async def instance_types(self) -> Sequence[InstanceType]:
        """The types that pods may ask for; while DISABLECVM is false only those with the TEE."""
        names = {self.capabilities.default_type, *self._values[rows.MACHINE_TYPES]}
        mine = [one for one in await self._around.catalogue.types() if one.name in names]
        types = priced(mine, self._values[TYPE_PRICES])
        if self._values[rows.DISABLE_CVM]:
            return types
        return [one for one in types if self._has_tee(one)]

    async def create(self, request: LaunchRequest) -> Instance:
        """Find the instance of this name, or make it in the first place that has room."""
        async with self._lock(f"create {request.name}"):
            if request.volumes:
                await self._wait_for_volumes(request)
            async with self._pacing.creating():
                plan, candidates = await self.plan(request)
                if found := await self._fleet.existing(plan):
                    return await self._fleet.ready(plan, [found])
                return await first_with_room(candidates, lambda place: self._fleet.launch(plan, place), full=self._full)

    async def delete(self, instance: InstanceId) -> None:
        """Delete and wait until it is gone. Root disk and addresses go with it, data volumes stay."""
        if disk := _DISK.fullmatch(instance):
            await self._fleet.remove_disks(disk[1])
        elif re.fullmatch(translate.NAME_PATTERN, instance):
            async with self._lock(f"delete {instance}"):
                await self._fleet.remove(instance)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        """Instances by their labels, and root disks whose instance is gone."""
        wanted = translate.by_labels(of_owner(owner, limits=shapes.LIMITS))
        found, disks = await asyncio.gather(
            self._fleet.listed("Instances", wanted), self._fleet.listed("Disks", wanted)
        )
        mine = [one for one in found if (owned := shapes.owned(one)) is not None and owned.owner == owner]
        listed = [shapes.instance(one, public=self._values[USE_PUBLIC_IP]) for one in mine]
        names = {one.name for one in listed}
        left = [one for one in disks if not one.get("users") and one.get("name") not in names]
        return [*listed, *(shapes.left_disk(one) for one in left if (o := shapes.owned(one)) and o.owner == owner)]

    async def state(self, instance: InstanceId) -> InstanceState:
        """What the instances of this name are; it runs when one of them does."""
        if not re.fullmatch(translate.NAME_PATTERN, instance):
            return InstanceState.ABSENT
        states = {shapes.state(one) for one in await self._fleet.see(instance, everywhere=True)}
        order = (InstanceState.RUNNING, InstanceState.UNKNOWN, InstanceState.STOPPED)
        return next((one for one in order if one in states), InstanceState.ABSENT)

    async def console(self, instance: InstanceId) -> bytes:
        """The serial log of port 1; empty when there is none yet, or no such instance."""
        if not re.fullmatch(translate.NAME_PATTERN, instance):
            return b""
        for one in await self._fleet.see(instance):
            try:
                reply = await self._gce.call(
                    "Instances", "get_serial_port_output", zone=shapes.zone(one), instance=instance, port=1
                )
            except (Gone, InvalidRequest):
                continue
            return str(reply.get("contents") or "").encode()
        return b""

    async def close(self) -> None:
        """Let go of connections and threads; a later call opens them again."""
        await self._around.catalogue.close()
        await self._gce.close()

    async def plan(self, request: LaunchRequest) -> tuple[translate.Plan, list[Place]]:
        """Check the request and decide everything, before anything is made or paid for."""
        refuse_name(request.name, pattern=translate.NAME_PATTERN, limit=self.capabilities.name_limit)
        refuse_user_data(request, self.capabilities)
        translate.refuse_volumes(request.volumes, confidential=not self._values[rows.DISABLE_CVM])
        image, types, tags = await asyncio.gather(
            self._image(request), self._around.catalogue.types(), self._around.tags()
        )
        chosen = request.instance_type or self.capabilities.default_type
        tee = self._tee(chosen, types)
        found = {one.name: one for one in types}
        further = self._values[FALLBACK_TYPES]
        kinds = fallbacks(chosen, further, sizing=request.sizing, types=types, tee=tee)
        for name in [one for one in kinds if one in found]:
            translate.refuse_unfit(image, found[name].arch, tee=tee)
        external = given(self._values, EXTERNAL_NETWORK_VIA_PODVM)
        plan = translate.Plan(
            request=request, image=image, tee=tee, settings=self._values, tags=tags, external=external
        )
        candidates = await self._places(plan, kinds, types=found)
        translate.body(plan, candidates[0])  # what it has against the settings is told before a place is tried
        return plan, candidates

    async def _wait_for_volumes(self, request: LaunchRequest) -> None:
        """Which may take minutes, so nobody else's place is taken meanwhile. An instance that is there has them."""
        plan, _ = await self.plan(request)
        if not await self._fleet.existing(plan):
            limit, every = self._waits.volume, self._waits.poll
            await self._around.volumes_free(request.volumes, clock=self._clock, limit=limit, every=every)

    async def _image(self, request: LaunchRequest) -> shapes.Image:
        default = self._values[rows.IMAGE]
        if not default:
            raise Misconfigured("PODVM_IMAGE_NAME is not set: set it to the pod VM image")
        allowed, pattern = self._values[IMAGE_ALLOWLIST], translate.IMAGE_PATTERN
        return await self._around.image(image_of(request, default=default, allowed=allowed, pattern=pattern))

    def _tee(self, chosen: str, types: Sequence[InstanceType]) -> Tee:
        if self._values[rows.DISABLE_CVM]:
            return Tee.NONE
        tee_of(chosen, types)
        return translate.wanted_tee(self._values, chosen, strongest=shapes.strongest(shapes.tees(chosen)))

    def _has_tee(self, one: InstanceType) -> bool:
        try:
            return self._tee(one.name, [one]) is not Tee.NONE
        except Misconfigured:
            return False

    async def _places(
        self, plan: translate.Plan, kinds: Sequence[str], *, types: dict[str, InstanceType]
    ) -> list[Place]:
        zones = await self._around.volume_zones(plan.request.volumes)
        if plan.tee is Tee.SNP:
            known = await asyncio.gather(*(self._around.platforms(one) for one in zones))
            zones = [one for one, cpus in zip(zones, known, strict=True) if "AMD Milan" in cpus]
        spot = [one == SPOT for one in self._values[PURCHASE_OPTIONS]]
        found = [
            one
            for one in places(kinds, zones, spot=spot)
            if zones and (one.instance_type not in types or one.zone in types[one.instance_type].zones)
        ]
        fit = await self._with_gpus(found)
        if not fit:
            told = " with its GPUs (GCP_ACCELERATORS)" if found else " with its TEE" if plan.tee is not Tee.NONE else ""
            raise Misconfigured(
                f"{', '.join(kinds)} is not offered{told} in {', '.join(self._around.zones())}: change "
                "GCP_MACHINE_TYPE, GCP_ZONE or FALLBACK_ZONES"
            )
        return fit

    async def _with_gpus(self, found: Sequence[Place]) -> list[Place]:
        """Without the places whose zone lacks the GPUs that their type is to get."""
        wanted = shapes.accelerators(self._values[rows.ACCELERATORS])

        async def fits(place: Place) -> bool:
            model, _ = wanted.get(place.instance_type, ("", 0))
            return not model or await self._around.has_accelerator(model, place.zone)

        fit = await asyncio.gather(*map(fits, found))
        return [one for one, yes in zip(found, fit, strict=True) if yes]

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())
