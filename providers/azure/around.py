"""What is asked once and kept: access, the catalogue, images, the key of administrators; and operations under way."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from caa.config.load import Settings
from caa.errors import Gone, InvalidRequest
from caa.model.instance import InstanceType
from caa.provider.catalogue import Catalogue, Shelf
from caa.provider.clock import Clock
from caa.provider.kept import Kept
from caa.provider.rows import CATALOGUE_DIR, CATALOGUE_TTL, FALLBACK_TYPES
from providers.azure import keys, shapes, translate
from providers.azure import settings as rows
from providers.azure.client import Access, Arm, Resource

_CLOUDS: Mapping[str, tuple[str, str]] = {
    rows.PUBLIC: ("https://management.azure.com", "https://login.microsoftonline.com"),
    rows.GOVERNMENT: ("https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
    rows.CHINA: ("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long to wait for the cloud and how often to look, in seconds."""

    poll: float = 2.0
    ready: float = 300.0
    gone: float = 300.0
    undo: float = 120.0
    reserved: float = 200.0  # Azure keeps an interface for its lost VM for 180 s
    again: float = 10.0  # between tries while it does
    read_timeout: float = 30.0


def access(values: Settings, waits: Waits) -> Access:
    """How to reach Azure, by the settings."""
    endpoint, authority = _CLOUDS[values[rows.CLOUD]]
    return Access(
        subscription=values[rows.SUBSCRIPTION],
        endpoint=values[rows.ENDPOINT].rstrip("/") or endpoint,
        authority=values[rows.AUTHORITY].rstrip("/") or authority,
        scope=f"{endpoint}/.default",
        client_id=values[rows.CLIENT_ID],
        secret=values[rows.CLIENT_SECRET],
        tenant=values[rows.TENANT_ID],
        token_file=values[rows.TOKEN_FILE],
        own_authority=bool(values[rows.AUTHORITY]) and values[rows.AUTHORITY].rstrip("/") != authority,
        ca=values[rows.CA_BUNDLE],
        read_timeout=waits.read_timeout,
    )


class Surroundings:
    """What Azure knows about sizes and images, and what the node knows about keys."""

    def __init__(self, arm: Arm, values: Settings, *, clock: Clock) -> None:
        self._arm = arm
        self._values = values
        self._images = Kept(self._ask_image, clock)
        names = sorted(self.wanted_types())
        where = f"{values[rows.SUBSCRIPTION]} {values[rows.REGION]} {values[rows.ENDPOINT]}"
        shelf = Shelf(
            path=values[CATALOGUE_DIR] / "azure.json",
            ttl=values[CATALOGUE_TTL],
            subject=f"azure {where} {' '.join(names)}",
        )
        self.catalogue = Catalogue(self._fetch, shelf, clock=clock)

    def wanted_types(self) -> set[str]:
        """Every size that settings name."""
        values = self._values
        return {values[rows.INSTANCE_SIZE], *values[rows.INSTANCE_SIZES], *values[FALLBACK_TYPES]}

    async def lines(self) -> Sequence[Resource]:
        """Azure's lines about those sizes, one listing; sizes that the region does not know have none."""
        wanted = {one.lower() for one in self.wanted_types()}
        found = await self._arm.pages("compute.resource_skus.list", filter=f"location eq '{self._region}'")
        return [one for one in found if str(one.get("name")).lower() in wanted]

    async def image(self, name: str) -> shapes.Image:
        """The image. Raises `InvalidRequest` when there is none."""
        return await self._images.get(name)

    async def public_key(self) -> str:
        """The administrator's key, or one whose private half nobody has."""
        path = self._values[rows.SSH_KEY]
        return keys.NOBODY if path is None else await asyncio.to_thread(keys.read, path)

    async def disk_zones(self, volumes: Sequence[str], vm: str) -> Mapping[str, str]:
        """The zone of each volume, "" for none. Raises when one is not there or cannot be attached to `vm` now."""
        disks = translate.disks(volumes, self._values[rows.SUBSCRIPTION])
        return {
            name: await self._disk_zone(name, group=group, disk=disk, vm=vm)
            for name, (group, disk) in zip(volumes, disks, strict=True)
        }

    async def _disk_zone(self, name: str, *, group: str, disk: str, vm: str) -> str:
        try:
            found = await self._arm.read("compute.disks.get", group, disk)
        except Gone as error:
            raise InvalidRequest(f"the pod's volume {name} does not exist: {error}") from error
        return shapes.refuse_busy_disk(found, name=name, region=self._values[rows.REGION], vm=vm)

    async def _fetch(self) -> Sequence[InstanceType]:
        """One listing for all sizes; unknown ones are left out, `check` names them."""
        types = [shapes.instance_type(one, self._region) for one in await self.lines()]
        spelt = [(name, name.lower()) for name in sorted(self.wanted_types())]  # Azure minds no case, choosing does
        return [replace(one, name=name) for one in types if one for name, lower in spelt if lower == one.name.lower()]

    async def _ask_image(self, name: str) -> shapes.Image:
        asked, kept = translate.image_name(name, self._region), None
        read = partial(self._arm.read, subscription=asked.subscription)
        try:
            found = await read(f"compute.{asked.kind}s.get", *asked.names)
            if asked.version:
                kept = await read(f"compute.{asked.kind}_versions.get", *asked.names, asked.version)
        except Gone as error:
            raise InvalidRequest(f"the image {name} is not there: {error}; set AZURE_IMAGE_ID") from error
        if kept is not None:
            shapes.refuse_far_version(kept, name=name, region=self._region)
        return shapes.image(name, found, version=kept)

    @property
    def _region(self) -> str:
        return self._values[rows.REGION]


class Operations:
    """Tokens of long-running operations by VM, on disk, so that a restarted node goes on waiting for what it began."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, operation: str, vm: str, *, token: str) -> None:
        """Remember it; nothing without a token."""
        if token:
            await asyncio.to_thread(self._write, self._path(operation, vm), token)

    async def token(self, operation: str, vm: str) -> str:
        """The token, "" for none."""
        return await asyncio.to_thread(self._read, self._path(operation, vm))

    async def forget(self, vm: str) -> None:
        """The VM is made, or gone."""
        for operation in (CREATE, DELETE):
            await asyncio.to_thread(self._path(operation, vm).unlink, missing_ok=True)

    def _path(self, operation: str, vm: str) -> Path:
        return self._folder / f"{sha256(f'{operation} {vm.lower()}'.encode()).hexdigest()[:32]}.token"

    def _write(self, path: Path, token: str) -> None:
        """Only its owner may read it: the operation's URL is signed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(token)
        fresh.replace(path)

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""


CREATE, DELETE = "compute.virtual_machines.begin_create_or_update", "compute.virtual_machines.begin_delete"
