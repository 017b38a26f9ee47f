"""A custom role: what is not listed is denied. Read from the page that operators copy it from."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers" / "gcp.md"

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "instances.aggregatedList": ("compute.instances.list",),
    "instances.get": ("compute.instances.get",),
    "instances.delete": ("compute.instances.delete",),
    "instances.getSerialPortOutput": ("compute.instances.getSerialPortOutput",),
    "disks.aggregatedList": ("compute.disks.list",),
    "disks.get": ("compute.disks.get",),
    "disks.delete": ("compute.disks.delete",),
    "machineTypes.list": ("compute.machineTypes.list",),
    "machineTypes.get": ("compute.machineTypes.get",),
    "images.get": ("compute.images.get",),
    "images.getFromFamily": ("compute.images.getFromFamily",),
    "zones.get": ("compute.zones.get",),
    "regions.get": ("compute.regions.get",),
    "subnetworks.get": ("compute.subnetworks.get",),
    "networks.getEffectiveFirewalls": ("compute.networks.getEffectiveFirewalls", "compute.networks.get"),
    "zoneOperations.wait": ("compute.zoneOperations.get",),
    "zoneOperations.get": ("compute.zoneOperations.get",),
    "tagValues.namespaced": ("resourcemanager.tagValues.get",),
}


class Role:
    """Which permissions a caller has. `used` are those that were needed and there."""

    def __init__(self, permissions: Iterable[str]) -> None:
        self.listed = set(permissions)
        self.used: set[str] = set()

    @classmethod
    def of_page(cls, page: Path = PAGE) -> "Role":
        """The YAML block of the page that has `includedPermissions`."""
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            found = yaml.safe_load(block)
            if isinstance(found, dict) and "includedPermissions" in found:
                return cls(found["includedPermissions"])
        raise LookupError(f"{page} has no role")

    def missing(self, call: str, body: Mapping[str, Any]) -> list[str]:
        """The permissions that the call needs and nobody gave."""
        needed = _of_insert(body) if call == "instances.insert" else list(_NEEDED.get(call, ()))
        denied = [one for one in needed if one not in self.listed]
        if not denied:
            self.used |= set(needed)
        return denied

    def granted(self, asked: Iterable[str]) -> list[str]:
        """Those of the permissions asked for that are there."""
        return [one for one in asked if one in self.listed]


def _of_insert(body: Mapping[str, Any]) -> list[str]:
    nics = body.get("networkInterfaces") or ()
    further = {
        "compute.instances.setLabels": "labels" in body,
        "compute.instances.setTags": "tags" in body,
        "compute.instances.setMetadata": "metadata" in body,
        "compute.instances.setServiceAccount": "serviceAccounts" in body,
        "iam.serviceAccounts.actAs": "serviceAccounts" in body,
        "compute.disks.use": any("source" in one for one in body.get("disks") or ()),
        "compute.disks.setLabels": True,
        "compute.subnetworks.useExternalIp": any("accessConfigs" in one for one in nics),
        "compute.instances.createTagBinding": "params" in body,
        "compute.disks.createTagBinding": "params" in body,
        "resourcemanager.tagValueBindings.create": "params" in body,
    }
    always = ("instances.create", "disks.create", "images.useReadOnly", "subnetworks.use")
    return [*(f"compute.{one}" for one in always), *(name for name, needed in further.items() if needed)]
