"""What is asked once and kept: the catalogue, images, CPU platforms of zones, resource-manager tags."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa.config.load import Settings
from caa.errors import CredentialsError, Gone, InvalidRequest, Misconfigured, ProviderUnavailable
from caa.model.instance import InstanceType
from caa.provider.catalogue import Catalogue, Shelf
from caa.provider.clock import Clock
from caa.provider.kept import Kept
from caa.provider.requests import IMAGE_ANNOTATION
from caa.provider.rows import CATALOGUE_DIR, CATALOGUE_TTL, FALLBACK_TYPES, FALLBACK_ZONES, TAGS
from caa.provider.waiting import until
from providers.gcp import settings as rows
from providers.gcp import shapes
from providers.gcp.client import Gce
from providers.gcp.codes import DENIED
from providers.gcp.translate import image_path, quoted

_ZONES = "see GCP_ZONE and FALLBACK_ZONES"
_BATCH = 50  # names in a filter; a URL may not get too long


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long to wait for the cloud and how often to look, in seconds."""

    poll: float = 1.0
    find: float = 0.1  # creates within it look for an older instance of theirs together
    running: float = 300.0
    address: float = 120.0
    gone: float = 300.0
    volume: float = 120.0  # until a disk is free that its pod's last VM had
    undo: float = 120.0
    looks: int = 10  # for what a lost answer may have made
    read_timeout: float = 30.0
    long_poll: float = 60.0  # of one call of zoneOperations.wait, which the API holds for up to two minutes


class Surroundings:
    """What Google knows about images, types, zones and tags."""

    def __init__(self, gce: Gce, values: Settings, *, clock: Clock) -> None:
        self._gce = gce
        self._values = values
        self._images = Kept(self._fetch_image, clock)
        self._platforms = Kept(self._fetch_platforms, clock)
        self._tags = Kept(self._fetch_tag, clock)
        self._accelerators = Kept(self._fetch_accelerator, clock)
        names, zones = sorted(self.wanted_types()), self.zones()
        project, endpoint = values[rows.PROJECT], values[rows.COMPUTE_ENDPOINT]
        gpus = sorted(values[rows.ACCELERATORS].items())
        shelf = Shelf(
            path=values[CATALOGUE_DIR] / "gcp.json",
            ttl=values[CATALOGUE_TTL],
            subject=f"gcp {project} {endpoint} {' '.join(zones)} {' '.join(names)} {gpus}",
        )
        self.catalogue = Catalogue(lambda: self.fetch_types(names, zones), shelf, clock=clock)

    def zones(self) -> list[str]:
        """The zones to try, in order."""
        return list(dict.fromkeys([self._values[rows.ZONE], *self._values[FALLBACK_ZONES]]))

    def wanted_types(self) -> set[str]:
        """Every type that settings name."""
        values = self._values
        return {values[rows.MACHINE_TYPE], *values[rows.MACHINE_TYPES], *values[FALLBACK_TYPES]}

    async def fetch_types(self, names: Sequence[str], zones: Sequence[str]) -> Sequence[InstanceType]:
        """The types that exist in our zones; unknown ones are left out, `check` names them."""
        try:
            by_zone = await asyncio.gather(*(self._types_of_zone(names, zone) for zone in zones))
        except Gone as error:
            raise Misconfigured(f"{error}; {_ZONES}") from error
        found: dict[str, shapes.Reply] = {}
        where: dict[str, list[str]] = {}
        for zone, lines in zip(zones, by_zone, strict=True):
            for one in filter(shapes.is_machine_type, lines):
                found.setdefault(str(one["name"]), one)
                where.setdefault(str(one["name"]), []).append(zone)
        gpus = shapes.accelerators(self._values[rows.ACCELERATORS])
        return [shapes.machine_type(one, where[name], gpus=gpus.get(name, ("", 0))[1]) for name, one in found.items()]

    async def image(self, name: str) -> shapes.Image:
        """The image. Raises `InvalidRequest` when there is none."""
        return await self._images.get(name)

    async def platforms(self, zone: str) -> frozenset[str]:
        """The CPU platforms that a zone has."""
        return await self._platforms.get(zone)

    async def has_accelerator(self, model: str, zone: str) -> bool:
        """Whether GPUs of this model can be attached in the zone."""
        return await self._accelerators.get(f"{zone} {model}")

    async def tags(self) -> Mapping[str, str]:
        """The resource-manager tags of TAGS by their ids; without TAGS nobody is asked."""
        wanted = [f"{key}={value}" for key, value in self._values[TAGS].items()]
        return dict(await asyncio.gather(*(self._tags.get(one) for one in wanted)))

    async def volume_zones(self, volumes: Sequence[str]) -> list[str]:
        """Our zones in which all these disks can be attached. A regional disk is asked for its two.

        Raises `InvalidRequest` when there is none."""
        paths = [shapes.path_of(one) for one in volumes]
        where = await asyncio.gather(*(self._zones_of(one) for one in paths))
        found = [one for one in self.zones() if all(one in places for places in where)]
        if not found:
            told = ", ".join(f"{one} in {' and '.join(sorted(at))}" for one, at in zip(paths, where, strict=True))
            raise InvalidRequest(
                f"no zone of ours has all of the pod's volumes ({told}): name theirs in GCP_ZONE or FALLBACK_ZONES, or "
                "bind the claim to the node's zone"
            )
        return found

    async def volumes_free(self, volumes: Sequence[str], *, clock: Clock, limit: float, every: float) -> None:
        """Return when all disks can be attached: one may still be at the pod VM that its pod had before.

        Raises `InvalidRequest` for what will never be, `ProviderUnavailable` after `limit` seconds."""
        users: dict[str, str] = {}

        async def look(path: str) -> bool | None:
            found = await self._disk(path)
            users[path] = _busy(found, path)
            return True if not users[path] else None

        async def wait(path: str) -> None:
            what = f"the volume {path} is free"
            try:
                await until(lambda: look(path), clock=clock, limit=limit, every=every, what=what)
            except ProviderUnavailable as error:
                raise ProviderUnavailable(f"{error}; {users.get(path) or 'it could not be seen'}") from error

        await asyncio.gather(*(wait(shapes.path_of(one)) for one in volumes))

    async def _zones_of(self, path: str) -> frozenset[str]:
        where = path.split("/")
        return frozenset({where[3]}) if where[2] == "zones" else shapes.zones_of_disk(await self._disk(path))

    async def _disk(self, path: str) -> shapes.Reply:
        _, project, scope, where, _, name = path.split("/")
        service, key = ("RegionDisks", "region") if scope == "regions" else ("Disks", "zone")
        place: dict[str, Any] = {key: where}
        try:
            return await self._gce.call(service, "get", project=project, disk=name, **place)
        except Gone as error:
            raise InvalidRequest(f"{error}; the volume behind the pod's claim does not exist") from error

    async def _types_of_zone(self, names: Sequence[str], zone: str) -> list[shapes.Reply]:
        found: list[shapes.Reply] = []
        for at in range(0, len(names), _BATCH):
            wanted = " OR ".join(quoted("name", one) for one in names[at : at + _BATCH] if "-custom-" not in one)
            if wanted:
                pages = await self._gce.pages("MachineTypes", "list", zone=zone, filter=wanted)
                found += [one for page in pages for one in page.get("items") or ()]
        custom = (self._custom_type(one, zone) for one in names if "-custom-" in one)
        return [*found, *(one for one in await asyncio.gather(*custom) if one)]

    async def _custom_type(self, name: str, zone: str) -> shapes.Reply:
        """Custom types are in no list, yet each can be asked for."""
        try:
            return await self._gce.call("MachineTypes", "get", zone=zone, machine_type=name)
        except (Gone, InvalidRequest):
            return {}

    async def _fetch_image(self, name: str) -> shapes.Image:
        path = image_path(name, self._values[rows.PROJECT])
        project, last = path.split("/")[1], path.rpartition("/")[2]
        try:
            if "/images/family/" in path:
                found = await self._gce.call("Images", "get_from_family", project=project, family=last)
            else:
                found = await self._gce.call("Images", "get", project=project, image=last)
        except (Gone, InvalidRequest) as error:
            raise InvalidRequest(f"{error}; set PODVM_IMAGE_NAME, or the annotation {IMAGE_ANNOTATION}") from error
        return shapes.image(found, path)

    async def _fetch_platforms(self, zone: str) -> frozenset[str]:
        try:
            found = await self._gce.call("Zones", "get", zone=zone)
        except Gone as error:
            raise Misconfigured(f"{error}; {_ZONES}") from error
        return frozenset(map(str, found.get("availableCpuPlatforms") or ()))

    async def _fetch_accelerator(self, written: str) -> bool:
        zone, _, model = written.partition(" ")
        try:
            await self._gce.call("AcceleratorTypes", "get", zone=zone, accelerator_type=model)
        except Gone:
            return False
        return True

    async def _fetch_tag(self, written: str) -> tuple[str, str]:
        key, _, value = written.partition("=")
        if key.startswith("tagKeys/"):
            return key, value
        name = f"{key if '/' in key else f'{self._values[rows.PROJECT]}/{key}'}/{value}"
        try:
            found = await self._gce.resource_manager("tagValues/namespaced", name=name)
        except (Gone, CredentialsError) as error:
            if isinstance(error, CredentialsError) and not str(error).startswith(DENIED):
                raise  # no token at all, which no tag helps
            raise Misconfigured(
                f"{error}; TAGS names the resource-manager tag {name}: make it, or take it out of TAGS, or give "
                "the node's service account roles/resourcemanager.tagUser"
            ) from error
        return str(found.get("parent", "")), str(found.get("name", ""))


def _busy(found: shapes.Reply, path: str) -> str:
    """Why a disk cannot be attached now; "" when it can. Raises `InvalidRequest` when it never will."""
    status = str(found.get("status", "READY"))
    if status in ("FAILED", "DELETING", "UNAVAILABLE"):
        raise InvalidRequest(f"the volume {path} of the pod is {status}: bind the claim to another one")
    if status != "READY":
        return f"it is {status}; wait, or see the volume's claim"
    users = ", ".join(str(one).rpartition("/")[2] for one in found.get("users") or ())
    return f"it is attached to {users}; end that, or detach it" if users and not shapes.is_shared(found) else ""
