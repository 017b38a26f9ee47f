"""Pure: what Azure answers, as our nouns."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caa.errors import Misconfigured, ProviderError
from caa.model.ids import InstanceId
from caa.model.instance import Arch, Instance, InstanceState, InstanceType, Tee
from caa.provider import ownership
from caa.provider.addresses import Nic, reachable
from caa.provider.ownership import Owned, TagLimits
from providers.azure.client import Resource
from providers.azure.refusals import of_status

# https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources, "Limitations"
LIMITS = TagLimits(
    key=512, value=256, count=50, key_pattern=r"[^<>%&\\?/]+", reserved=("microsoft", "azure", "windows", "hidden-")
)
VM, NIC, ADDRESS, DISK = "virtualMachines", "networkInterfaces", "publicIPAddresses", "disks"
FAILED, DELETING, SUCCEEDED = "failed", "deleting", "succeeded"

_ID = re.compile(
    r"/subscriptions/(?P<subscription>[A-Za-z0-9-]{1,64})/resourceGroups/(?P<group>[A-Za-z0-9._()-]{1,90})/providers/"
    r"Microsoft\.(Compute|Network)/(?P<kind>virtualMachines|networkInterfaces|publicIPAddresses|disks)/"
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,79})",
    re.IGNORECASE,
)
_POWERED = frozenset({"running", "starting"})
_DOWN = frozenset({"stopped", "stopping", "deallocated", "deallocating"})
_GPU_LESS = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A resource's id, whole and taken apart."""

    id: str
    subscription: str
    group: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What is known of an image; `security` are Azure's words for what it can be booted as, in lower case.

    `size` is its disk's in GiB, 0 where no version is named.
    """

    id: str
    arch: Arch = Arch.AMD64
    generation: str = "V1"
    security: str = ""
    size: int = 0

    @property
    def confidential(self) -> bool:
        return "confidential" in self.security

    @property
    def trusted(self) -> bool:
        return "trustedlaunch" in self.security


def where(text: str) -> Where | None:
    """The parts of an id of a kind that the driver makes; None for any other text."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    kinds = {one.lower(): one for one in (VM, NIC, ADDRESS, DISK)}
    kind = kinds[found["kind"].lower()]
    return Where(id=text, subscription=found["subscription"], group=found["group"], kind=kind, name=found["name"])


def properties(found: Resource) -> Mapping[str, Any]:
    """A resource's `properties`; empty where there are none."""
    return found.get("properties") or {}


def owned(found: Resource) -> Owned | None:
    """Whose it is, by its tags."""
    return ownership.read(found.get("tags") or {}, limits=LIMITS)


def provisioning(found: Resource) -> str:
    """How far the resource is made, in lower case."""
    return str(properties(found).get("provisioningState") or "").lower()


def statuses(found: Resource) -> list[Mapping[str, Any]]:
    """The statuses of a VM's instance view, whether it stands alone or in the VM."""
    view = properties(found).get("instanceView") or found
    return list(view.get("statuses") or ())


def power(found: Resource) -> str:
    """`running`, `stopped` and so on; "" while there is no machine."""
    codes = [str(one.get("code") or "") for one in statuses(found)]
    return next((one.split("/")[1].lower() for one in codes if one.lower().startswith("powerstate/")), "")


def state(view: Resource) -> InstanceState:
    """Whether a VM runs, by its instance view."""
    now = power(view)
    stages = [str(one.get("code") or "").lower().split("/") for one in statuses(view)]
    stage = next((one[1] for one in stages if one[0] == "provisioningstate" and len(one) > 1), "")
    if now in _DOWN or stage == DELETING or (stage == FAILED and not now):
        return InstanceState.STOPPED
    return InstanceState.RUNNING


def failure(found: Resource) -> ProviderError | None:
    """Why the VM could not be made, as far as its instance view says; None when it says nothing."""
    for one in statuses(found):
        parts = str(one.get("code") or "").split("/")
        if [part.lower() for part in parts[:2]] == ["provisioningstate", FAILED] and len(parts) > 2:
            return of_status(parts[2], str(one.get("message") or one.get("displayStatus") or ""))
    return None


def is_broken(found: Resource) -> bool:
    """Whether the VM could not be made. One that runs is not: Azure calls it failed when no guest agent reports."""
    return provisioning(found) == FAILED and power(found) not in _POWERED


def has_room(found: Resource) -> bool:
    """Whether Azure has found a host for the VM: it has power, or is wholly made."""
    return power(found) in _POWERED or provisioning(found) == SUCCEEDED


def root_disk(vm: Resource) -> str:
    """The id of the root disk, "" while there is none."""
    storage = properties(vm).get("storageProfile") or {}
    return str(((storage.get("osDisk") or {}).get("managedDisk") or {}).get("id") or "")


def nic_ids(vm: Resource) -> list[str]:
    """The ids of the interfaces, the primary one first."""
    found = (properties(vm).get("networkProfile") or {}).get("networkInterfaces") or ()
    ordered = sorted(found, key=lambda one: not (one.get("properties") or {}).get("primary", False))
    return [str(one["id"]) for one in ordered]


def nic(found: Resource, addresses: Mapping[str, str]) -> Nic:
    """An interface; `addresses` are the public ones by their ids in lower case."""
    private, public = [], []
    for one in properties(found).get("ipConfigurations") or ():
        inner = one.get("properties") or {}
        private.append(str(inner.get("privateIPAddress") or ""))
        public.append(addresses.get(str((inner.get("publicIPAddress") or {}).get("id") or "").lower(), ""))
    return Nic(private=[one for one in private if one], public=[one for one in public if one])


def public_ids(found: Resource) -> list[str]:
    """The ids of the public addresses of an interface."""
    inner = [one.get("properties") or {} for one in properties(found).get("ipConfigurations") or ()]
    return [str(one["publicIPAddress"]["id"]) for one in inner if one.get("publicIPAddress")]


def instance(vm: Resource, nics: Iterable[Nic] = (), *, public: bool = False) -> Instance:
    """A VM as an instance."""
    mine = owned(vm)
    return Instance(
        id=InstanceId(str(vm["id"])),
        name=mine.name if mine else str(vm.get("name") or ""),
        addresses=reachable(list(nics), public=public),
        sandbox=mine.sandbox if mine else None,
        instance_type=str((properties(vm).get("hardwareProfile") or {}).get("vmSize") or ""),
        created_at=_seconds(str(properties(vm).get("timeCreated") or "")),
    )


def leftover(found: Resource, mine: Owned) -> Instance:
    """A disk, interface or address whose VM is gone, as an instance that `delete` removes."""
    return Instance(id=InstanceId(str(found["id"])), name=mine.name, addresses=(), sandbox=mine.sandbox)


def instance_type(sku: Resource, region: str) -> InstanceType | None:
    """A line of the catalogue; None for what is no VM size, or not to be had in this region."""
    if str(sku.get("resourceType")) != VM or not sku.get("name"):
        return None
    zones: set[str] = set()
    for place in sku.get("locationInfo") or ():
        if str(place.get("location") or "").lower() == region:
            zones |= set(place.get("zones") or ())
    for limit in sku.get("restrictions") or ():
        if str(limit.get("type")).lower() == "location":
            return None
        zones -= set((limit.get("restrictionInfo") or {}).get("zones") or ())
    can = {str(one.get("name")): str(one.get("value") or "") for one in sku.get("capabilities") or ()}
    tee = {"snp": Tee.SNP, "tdx": Tee.TDX}.get(can.get("ConfidentialComputingType", "").lower())
    with suppress(ValueError):
        return InstanceType(
            name=str(sku["name"]),
            vcpus=int(can.get("vCPUsAvailable") or can.get("vCPUs") or "1"),
            memory_mib=int(float(can.get("MemoryGB") or "0") * 1024),
            gpus=int(can.get("GPUs") or _GPU_LESS),
            arch=Arch.ARM64 if can.get("CpuArchitectureType", "").lower() == "arm64" else Arch.AMD64,
            tees=frozenset({tee} if tee else ()),
            zones=frozenset(zones),
        )
    return None


def families(skus: Iterable[Resource]) -> Mapping[str, str]:
    """The family, which quotas are by, of each size by its name in lower case."""
    return {str(one.get("name")).lower(): str(one.get("family") or "") for one in skus}


def left_of_quotas(usages: Iterable[Resource]) -> Mapping[str, int]:
    """How much is left of each quota, by its name in lower case."""
    named = [(str((one.get("name") or {}).get("value")).lower(), one) for one in usages]
    return {name: int(one.get("limit") or 0) - int(one.get("currentValue") or 0) for name, one in named}


def image(name: str, found: Resource, *, version: Resource | None = None) -> Image:
    """What a gallery says of an image and its version, or a managed image of itself."""
    said, storage = properties(found), properties(found if version is None else version).get("storageProfile") or {}
    disk = storage.get("osDiskImage") or storage.get("osDisk") or {}
    features = {str(one.get("name")): str(one.get("value") or "") for one in said.get("features") or ()}
    return Image(
        id=name,
        arch=Arch.ARM64 if str(said.get("architecture") or "").lower() == "arm64" else Arch.AMD64,
        generation=str(said.get("hyperVGeneration") or "V1").upper(),
        security=features.get("SecurityType", "").lower(),
        size=int(disk.get("sizeInGB") or disk.get("diskSizeGB") or 0),
    )


def refuse_far_version(version: Resource, *, name: str, region: str) -> None:
    """Raise `Misconfigured` when an image's version is not kept in the region; other people's do not say where."""
    kept = (properties(version).get("publishingProfile") or {}).get("targetRegions") or ()
    names = [str(one.get("name") or "") for one in kept]
    if names and region not in {one.lower().replace(" ", "") for one in names}:
        raise Misconfigured(
            f"the image {name} is kept in {', '.join(names)} and not in {region} (AZURE_REGION): replicate it to there"
        )


def refuse_busy_disk(found: Resource, *, name: str, region: str, vm: str) -> str:
    """The zone of a disk that can be attached to `vm`, "" for one without a zone. Raises `Misconfigured`."""
    said = str(properties(found).get("diskState") or "")
    holder = str(found.get("managedBy") or "").lower()
    if said not in ("Unattached", "Reserved") and not holder.endswith(f"/virtualmachines/{vm.lower()}"):
        raise Misconfigured(f"the disk {name} of the pod is {said}: it has to be detached from what holds it first")
    place = str(found.get("location") or "").lower()
    if place != region:
        raise Misconfigured(f"the disk {name} of the pod is in {place}, pod VMs are made in {region} (AZURE_REGION)")
    return next(iter(found.get("zones") or ()), "")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return 0.0
