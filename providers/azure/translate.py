"""Pure: settings and launch requests into Azure's requests."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caa.config.load import Settings
from caa.errors import InvalidRequest, Misconfigured
from caa.model.instance import Arch, LaunchRequest, Tee
from caa.provider.capacity import Place
from caa.provider.ownership import written
from caa.provider.rows import SECURE_BOOT, TAGS, USE_PUBLIC_IP
from providers.azure import settings as rows
from providers.azure.shapes import LIMITS, Image

NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_NETWORK_API = "2022-11-01"  # the newest that compute takes for inline interfaces

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything decided about one pod VM but its place. `nics` is 2 when traffic leaves the cluster through it."""

    request: LaunchRequest
    image: Image
    public_key: str
    tee: Tee = Tee.NONE
    nics: int = 1
    settings: Settings = field(repr=False)

    @property
    def tags(self) -> Mapping[str, str]:
        return written(self.request, self.settings[TAGS], limits=LIMITS)


def refuse_unfit(image: Image, arch: Arch, *, tee: Tee) -> None:
    """Raise `Misconfigured` when the image cannot boot on the size, or not as a confidential VM."""
    if image.arch is not arch:
        raise Misconfigured(
            f"the image {image.id} is for {image.arch}, the size for {arch}: change AZURE_IMAGE_ID or "
            "AZURE_INSTANCE_SIZE (or the pod's annotations)"
        )
    if tee is not Tee.NONE and not (image.generation == "V2" and image.confidential):
        raise Misconfigured(
            f"the image {image.id} cannot be a confidential VM: DISABLECVM is false, so AZURE_IMAGE_ID has to be a "
            "gallery image of generation 2 whose SecurityType is ConfidentialVmSupported (or set DISABLECVM=true)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """Whom to ask about an image, as the SDK calls it, with which names; `version` is "" for the newest.

    `subscription` is "" for our own; galleries may be in others.
    """

    kind: str
    names: tuple[str, ...]
    version: str = ""
    subscription: str = ""


def image_name(image: str, region: str) -> ImageName:
    """An image's id (`settings.IMAGE_PATTERN`), taken apart."""
    parts = image.strip("/").split("/")
    others = {"communitygalleries": "community_gallery_image", "sharedgalleries": "shared_gallery_image"}
    if kind := others.get(parts[0].lower()):
        return ImageName(kind=kind, names=(region, parts[1], parts[3]), version="".join(parts[5:]))
    if parts[6].lower() == "images":
        return ImageName(kind="image", names=(parts[3], parts[7]))
    names = (parts[3], parts[7], parts[9])
    return ImageName(kind="gallery_image", names=names, version="".join(parts[11:]), subscription=parts[1])


def refuse_missing(values: Settings) -> None:
    """Raise `Misconfigured`, naming every setting that a pod VM cannot be made without."""
    needed = (rows.SUBSCRIPTION, rows.REGION, rows.RESOURCE_GROUP, rows.SUBNET, rows.IMAGE)
    if missing := [str(row.env) for row in needed if not values[row]]:
        raise Misconfigured(f"{', '.join(missing)}: not set; a pod VM cannot be made without")


def disks(volumes: Sequence[str], subscription: str) -> list[tuple[str, str]]:
    """The (resource group, name) of each volume. Raises `InvalidRequest` for what is no id of a disk of ours."""
    found = []
    for one in volumes:
        if re.fullmatch(rows.DISK_PATTERN, one) is None:
            raise InvalidRequest(f"the pod's volume {one[:200]!r} is not the id of an Azure disk")
        parts = one.split("/")
        if parts[2].lower() != subscription.lower():
            raise InvalidRequest(f"the pod's volume {one} is in another subscription than AZURE_SUBSCRIPTION_ID")
        found.append((parts[4], parts[8]))
    return found


def places_of_disks(candidates: Sequence[Place], zones: Mapping[str, str]) -> list[Place]:
    """The places where every disk of the pod can be attached. Raises `Misconfigured` when there is none."""
    wanted = {zone for zone in zones.values() if zone}
    if not wanted:
        return list(candidates)
    if len(wanted) == 1:
        zone = next(iter(wanted))
        if fitting := [one for one in candidates if one.zone == zone]:
            return fitting
    raise Misconfigured(
        f"the pod's volumes are in the zones {', '.join(sorted(wanted))}, and no place for its VM is in all of them: "
        "add the zone to FALLBACK_ZONES, or move the volumes"
    )


def virtual_machine(plan: Plan, place: Place) -> Body:
    """The whole VM, with its interfaces, addresses and root disk, which go when it goes."""
    values = plan.settings
    properties: Body = {
        "hardwareProfile": {"vmSize": place.instance_type},
        "storageProfile": _storage(plan),
        "osProfile": _os(plan),
        "networkProfile": {
            "networkApiVersion": _NETWORK_API,
            "networkInterfaceConfigurations": [_nic(plan, number) for number in range(plan.nics)],
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
        "userData": base64.b64encode(plan.request.user_data).decode(),
    }
    if security := _security(plan):
        properties["securityProfile"] = security
    if place.spot:
        properties |= {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}
    body: Body = {"location": values[rows.REGION], "tags": dict(plan.tags), "properties": properties}
    if place.zone:
        body["zones"] = [place.zone]
    if identities := values[rows.IDENTITIES]:
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {one: {} for one in identities}}
    return body


def disk_name(vm: str) -> str:
    """The root disk of a pod VM."""
    return f"{vm}-disk"


def _storage(plan: Plan) -> Body:
    values = plan.settings
    disk: Body = {
        "name": disk_name(plan.request.name),
        "createOption": "FromImage",
        "caching": "ReadWrite",
        "deleteOption": "Delete",
        "managedDisk": _managed(plan),
    }
    if size := values[rows.ROOT_SIZE]:
        disk["diskSizeGB"] = max(size, plan.image.size)
    storage: Body = {"imageReference": _image(plan.image.id), "osDisk": disk}
    if plan.request.volumes:
        storage["dataDisks"] = [
            {"lun": lun, "createOption": "Attach", "deleteOption": "Detach", "managedDisk": {"id": one}}
            for lun, one in enumerate(plan.request.volumes)
        ]
    return storage


def _managed(plan: Plan) -> Body:
    values = plan.settings
    keys = {"id": values[rows.DISK_ENCRYPTION_SET]} if values[rows.DISK_ENCRYPTION_SET] else None
    managed: Body = {"storageAccountType": values[rows.DISK_TYPE]}
    if plan.tee is Tee.NONE:
        return managed | ({"diskEncryptionSet": keys} if keys else {})
    kind = values[rows.CVM_ENCRYPTION]
    profile: Body = {"securityEncryptionType": kind}
    if keys and kind == rows.WHOLE_DISK:
        profile["diskEncryptionSet"] = keys
    return managed | {"securityProfile": profile}


def _image(name: str) -> Body:
    kind = name.lower()
    if kind.startswith("/communitygalleries/"):
        return {"communityGalleryImageId": name}
    if kind.startswith("/sharedgalleries/"):
        return {"sharedGalleryImageId": name}
    return {"id": name}


def _os(plan: Plan) -> Body:
    user = plan.settings[rows.SSH_USER]
    return {
        "computerName": plan.request.name,
        "adminUsername": user,
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {"publicKeys": [{"path": f"/home/{user}/.ssh/authorized_keys", "keyData": plan.public_key}]},
        },
    }


def _nic(plan: Plan, number: int) -> Body:
    values = plan.settings
    name = f"{plan.request.name}-net" + (str(number) if number else "")
    address: Body = {"primary": True, "subnet": {"id": values[rows.SUBNET]}}
    if values[USE_PUBLIC_IP]:
        address["publicIPAddressConfiguration"] = {
            "name": f"{name}-ip",
            "sku": {"name": "Standard", "tier": "Regional"},
            "tags": dict(plan.tags),
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    inner: Body = {
        "primary": number == 0,
        "deleteOption": "Delete",
        "ipConfigurations": [{"name": f"{name}-config", "properties": address}],
    }
    if group := values[rows.SECURITY_GROUP]:
        inner["networkSecurityGroup"] = {"id": group}
    return {"name": name, "tags": dict(plan.tags), "properties": inner}


def _security(plan: Plan) -> Body:
    values = plan.settings
    found: Body = {"encryptionAtHost": True} if values[rows.ENCRYPTION_AT_HOST] else {}
    if plan.tee is not Tee.NONE:
        found["securityType"] = "ConfidentialVM"
    elif _trusted(plan):
        found["securityType"] = "TrustedLaunch"
    else:
        return found
    return found | {"uefiSettings": {"secureBootEnabled": values[SECURE_BOOT], "vTpmEnabled": True}}


def _trusted(plan: Plan) -> bool:
    wanted = plan.settings[rows.TRUSTED_LAUNCH]
    if wanted == rows.ON and plan.image.generation != "V2":
        raise Misconfigured(
            f"AZURE_TRUSTED_LAUNCH is on, and the image {plan.image.id} is of generation 1: set AZURE_IMAGE_ID to one "
            "of generation 2, or AZURE_TRUSTED_LAUNCH to auto or off"
        )
    can = plan.image.trusted and plan.image.generation == "V2"
    return wanted == rows.ON or (wanted == rows.AUTO and can)
