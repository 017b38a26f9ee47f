"""A custom role in the project, and grants on single resources: what is not listed is denied.

The role is read from the page that operators copy it from.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.gcp.api import Called
from tests.fakes.gcp.rules import Refused, invalid

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers" / "gcp.md"
PROJECT = "projects/demo-project"

Need = tuple[str, str]  # a permission, and the path of what it is needed on

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "instances.aggregatedList": ("compute.instances.list",),
    "instances.get": ("compute.instances.get",),
    "instances.delete": ("compute.instances.delete",),
    "instances.getSerialPortOutput": ("compute.instances.getSerialPortOutput",),
    "disks.aggregatedList": ("compute.disks.list",),
    "disks.get": ("compute.disks.get",),
    "disks.delete": ("compute.disks.delete",),
    "regionDisks.get": ("compute.disks.get",),
    "acceleratorTypes.get": ("compute.acceleratorTypes.get",),
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
    "tagValues.getNamespaced": ("resourcemanager.tagValues.get",),
}
# What may be asked of a single resource; a name that it does not know is an error, not a "no".
_VALID: tuple[tuple[str, str], ...] = (
    (r"projects/[^/]+", r"compute\.[a-zA-Z]+\.[a-zA-Z]+|iam\.serviceAccounts\.actAs"),
    (r"projects/.+/images/.+", r"compute\.images\.[a-zA-Z]+"),
    (r"projects/.+/subnetworks/.+", r"compute\.subnetworks\.[a-zA-Z]+"),
    (r"tagValues/.+", r"resourcemanager\.tagValue(s|Bindings)\.[a-zA-Z]+"),
)
_OTHERS = ("compute.instances.get", "compute.networks.use", "iam.serviceAccounts.actAs")


class Role:
    """What a caller may do. `listed` is the role in our project, `on` what is granted on other resources by their
    path, a whole project's among them. `used` is what was needed and there."""

    def __init__(self, permissions: Iterable[str]) -> None:
        self.listed = set(permissions)
        self.on: dict[str, set[str]] = {}
        self.used: set[str] = set()
        self.known = self.listed | {one for needed in _NEEDED.values() for one in needed} | set(_OTHERS)

    @classmethod
    def of_page(cls, page: Path = PAGE) -> "Role":
        """The YAML block of the page that has `includedPermissions`."""
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            found = yaml.safe_load(block)
            if isinstance(found, dict) and "includedPermissions" in found:
                return cls(found["includedPermissions"])
        raise LookupError(f"{page} has no role")

    def refuse(self, call: Called, body: Mapping[str, Any]) -> None:
        """Raise the cloud's 403 when the call needs what nobody gave."""
        path = call.path
        needed = [(one, path) for one in _NEEDED.get(call.name, ())]
        needed += list(_of_insert(body)) if call.name == "instances.insert" else []
        for permission, resource in needed:
            if not self.allows(permission, resource):
                raise Refused(403, "forbidden", f"Required '{permission}' permission for '{resource}'")
        self.used |= {permission for permission, _ in needed}

    def allows(self, permission: str, resource: str) -> bool:
        """Whether it is granted on the resource, or in the project that it is in."""
        ours = resource.startswith((f"{PROJECT}/", "tagValues")) or resource in ("", PROJECT)
        if ours and permission in self.listed:
            return True
        project = "/".join(resource.split("/")[:2])
        return permission in self.on.get(resource, ()) or permission in self.on.get(project, ())

    def granted(self, asked: object, resource: str) -> list[str]:
        """Those of the permissions asked for that are there, as testIamPermissions tells."""
        if not isinstance(asked, list) or not 1 <= len(asked) <= 100:
            raise invalid("permissions", "1 to 100 names are expected")
        pattern = next((valid for path, valid in _VALID if re.fullmatch(path, resource)), "")
        if wrong := [one for one in asked if one not in self.known or not re.fullmatch(pattern, one)]:
            raise Refused(400, "badRequest", f"Permission {wrong[0]} is not valid for this resource")
        return [one for one in asked if self.allows(one, resource)]


def _of_insert(body: Mapping[str, Any]) -> Iterator[Need]:
    nics, disks = body.get("networkInterfaces") or (), body.get("disks") or ()
    made = {
        "compute.instances.create": True,
        "compute.instances.setLabels": "labels" in body,
        "compute.instances.setTags": "tags" in body,
        "compute.instances.setMetadata": "metadata" in body,
        "compute.instances.setServiceAccount": "serviceAccounts" in body,
        "compute.instances.createTagBinding": "params" in body,
        "compute.disks.create": True,
        "compute.disks.setLabels": True,
        "compute.disks.createTagBinding": "params" in body,
    }
    yield from ((name, PROJECT) for name, needed in made.items() if needed)
    for one in disks:
        if "source" in one:
            yield "compute.disks.use", one["source"]
        else:
            yield "compute.images.useReadOnly", one["initializeParams"]["sourceImage"]
    for one in nics:
        where = one.get("subnetwork") or one["network"]
        yield "compute.subnetworks.use", where
        if "accessConfigs" in one:
            yield "compute.subnetworks.useExternalIp", where
    for one in body.get("serviceAccounts") or ():
        yield "iam.serviceAccounts.actAs", f"{PROJECT}/serviceAccounts/{one['email']}"
    for one in body.get("params", {}).get("resourceManagerTags", {}).values():
        yield "resourcemanager.tagValueBindings.create", one
