"""A custom role: what its Actions do not list is denied. Read from the page that operators copy it from."""

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers" / "azure.md"

_COMPUTE, _NETWORK = "Microsoft.Compute", "Microsoft.Network"
NEEDS: Mapping[str, tuple[str, ...]] = {
    "VirtualMachines.CreateOrUpdate": (
        f"{_COMPUTE}/virtualMachines/write",
        f"{_COMPUTE}/disks/write",
        f"{_NETWORK}/networkInterfaces/write",
        f"{_NETWORK}/networkInterfaces/join/action",
        f"{_NETWORK}/virtualNetworks/subnets/join/action",
    ),
    "VirtualMachines.Get": (f"{_COMPUTE}/virtualMachines/read",),
    "VirtualMachines.List": (f"{_COMPUTE}/virtualMachines/read",),
    "VirtualMachines.InstanceView": (f"{_COMPUTE}/virtualMachines/instanceView/read",),
    "VirtualMachines.Delete": (
        f"{_COMPUTE}/virtualMachines/delete",
        f"{_COMPUTE}/disks/delete",
        f"{_NETWORK}/networkInterfaces/delete",
    ),
    "VirtualMachines.Console": (f"{_COMPUTE}/virtualMachines/retrieveBootDiagnosticsData/action",),
    "Operations.Get": (f"{_COMPUTE}/locations/operations/read",),
    "NetworkOperations.Get": (f"{_NETWORK}/locations/operations/read",),
    "ResourceSkus.List": (f"{_COMPUTE}/skus/read",),
    "Usages.List": (f"{_COMPUTE}/locations/usages/read",),
    "GalleryImageVersions.Get": (f"{_COMPUTE}/galleries/images/versions/read",),
    "CommunityGalleryImageVersions.Get": (f"{_COMPUTE}/locations/communityGalleries/images/versions/read",),
    "SharedGalleryImageVersions.Get": (f"{_COMPUTE}/locations/sharedGalleries/images/versions/read",),
    "GalleryImages.Get": (f"{_COMPUTE}/galleries/images/read",),
    "CommunityGalleryImages.Get": (f"{_COMPUTE}/locations/communityGalleries/images/read",),
    "SharedGalleryImages.Get": (f"{_COMPUTE}/locations/sharedGalleries/images/read",),
    "Images.Get": (f"{_COMPUTE}/images/read",),
    "Disks.Get": (f"{_COMPUTE}/disks/read",),
    "Disks.List": (f"{_COMPUTE}/disks/read",),
    "Disks.Update": (f"{_COMPUTE}/disks/write",),
    "Disks.Delete": (f"{_COMPUTE}/disks/delete",),
    "NetworkInterfaces.Get": (f"{_NETWORK}/networkInterfaces/read",),
    "NetworkInterfaces.List": (f"{_NETWORK}/networkInterfaces/read",),
    "NetworkInterfaces.Delete": (f"{_NETWORK}/networkInterfaces/delete",),
    "PublicIPAddresses.Get": (f"{_NETWORK}/publicIPAddresses/read",),
    "PublicIPAddresses.List": (f"{_NETWORK}/publicIPAddresses/read",),
    "PublicIPAddresses.Delete": (f"{_NETWORK}/publicIPAddresses/delete",),
    "Subnets.Get": (f"{_NETWORK}/virtualNetworks/subnets/read",),
    "NetworkSecurityGroups.Get": (f"{_NETWORK}/networkSecurityGroups/read",),
    "Permissions.List": ("Microsoft.Authorization/permissions/read",),
}


class Role:
    """Which actions a caller may use: the `listed` without the `excepted`. `used` were asked for and allowed."""

    def __init__(self, allowed: list[str], excepted: list[str] | None = None) -> None:
        self.listed, self.excepted = set(allowed), set(excepted or ())
        self.used: set[str] = set()

    @classmethod
    def of_page(cls, page: Path = PAGE) -> "Role":
        """The first JSON block of the page that has Actions."""
        for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
            document = json.loads(block)
            if "Actions" in document:
                return cls(list(document["Actions"]))
        raise LookupError(f"{page} has no role")

    def missing(self, call: str, body: Any) -> list[str]:
        """The rights that the call needs and nobody gave."""
        needed = [*NEEDS[call], *(_further(body) if call == "VirtualMachines.CreateOrUpdate" else ())]
        denied = [one for one in needed if not _among(one, self.listed) or _among(one, self.excepted)]
        if not denied:
            self.used |= set(needed)
        return denied

    def told(self) -> list[dict[str, list[str]]]:
        """As Azure lists the permissions of a caller."""
        nothing: dict[str, list[str]] = {"dataActions": [], "notDataActions": []}
        return [{"actions": sorted(self.listed), "notActions": sorted(self.excepted), **nothing}]


def _among(action: str, patterns: set[str]) -> bool:
    return any(fnmatchcase(action.lower(), one.lower()) for one in patterns)


def _further(body: Any) -> list[str]:
    text = json.dumps(body)
    return [
        right
        for word, right in (
            ('"networkSecurityGroup"', f"{_NETWORK}/networkSecurityGroups/join/action"),
            ('"publicIPAddressConfiguration"', f"{_NETWORK}/publicIPAddresses/write"),
            ('"publicIPAddressConfiguration"', f"{_NETWORK}/publicIPAddresses/join/action"),
            ('"userAssignedIdentities"', "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"),
            ('"diskEncryptionSet"', f"{_COMPUTE}/diskEncryptionSets/read"),
            ("/galleries/", f"{_COMPUTE}/galleries/images/versions/read"),
        )
        if word in text
    ]
