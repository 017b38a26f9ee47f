"""Pure: which rights the driver needs where, and which of them Azure's list of our permissions does not give."""

import re
from collections.abc import Iterable, Mapping, Sequence

from caa.config.load import Settings
from caa.provider.rows import USE_PUBLIC_IP
from providers.azure import settings as rows
from providers.azure.client import Resource

VERSION = "2022-04-01"  # of Microsoft.Authorization
_COMPUTE, _NETWORK = "Microsoft.Compute", "Microsoft.Network"
_IN_GROUP = (
    f"{_COMPUTE}/virtualMachines/read",
    f"{_COMPUTE}/virtualMachines/write",
    f"{_COMPUTE}/virtualMachines/delete",
    f"{_COMPUTE}/virtualMachines/instanceView/read",
    f"{_COMPUTE}/virtualMachines/retrieveBootDiagnosticsData/action",
    f"{_COMPUTE}/disks/read",
    f"{_COMPUTE}/disks/write",
    f"{_COMPUTE}/disks/delete",
    f"{_NETWORK}/networkInterfaces/read",
    f"{_NETWORK}/networkInterfaces/write",
    f"{_NETWORK}/networkInterfaces/delete",
    f"{_NETWORK}/networkInterfaces/join/action",
    f"{_NETWORK}/publicIPAddresses/read",
    f"{_NETWORK}/publicIPAddresses/delete",
)
FOR_PEOPLE = frozenset({f"{_COMPUTE}/virtualMachines/retrieveBootDiagnosticsData/action"})  # pods start without
_WITH_ADDRESSES = (f"{_NETWORK}/publicIPAddresses/write", f"{_NETWORK}/publicIPAddresses/join/action")


def needed(values: Settings) -> dict[str, Sequence[str]]:
    """The actions that launches need, by scope: the resource group, and whatever else settings name in full."""
    group = f"/subscriptions/{values[rows.SUBSCRIPTION]}/resourceGroups/{values[rows.RESOURCE_GROUP]}"
    found: dict[str, Sequence[str]] = {group: (*_IN_GROUP, *(_WITH_ADDRESSES if values[USE_PUBLIC_IP] else ()))}
    found[values[rows.SUBNET]] = (f"{_NETWORK}/virtualNetworks/subnets/join/action",)
    found[values[rows.SECURITY_GROUP]] = (f"{_NETWORK}/networkSecurityGroups/join/action",)
    found[values[rows.DISK_ENCRYPTION_SET]] = (f"{_COMPUTE}/diskEncryptionSets/read",)
    for one in values[rows.IDENTITIES]:
        found[one] = ("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",)
    if "/providers/microsoft.compute/galleries/" in values[rows.IMAGE].lower():
        image = re.sub(r"/versions/[^/]+$", "", values[rows.IMAGE], flags=re.IGNORECASE)
        found[image] = (f"{_COMPUTE}/galleries/images/versions/read",)
    found.pop("", None)
    return found


def path(scope: str) -> str:
    """Where Azure lists our permissions on this scope."""
    return f"{scope.rstrip('/')}/providers/Microsoft.Authorization/permissions"


def missing(actions: Iterable[str], permissions: Iterable[Resource]) -> list[str]:
    """The actions that no role assignment gives: each gives its `actions` without its own `notActions`."""
    known = list(permissions)
    return [one for one in actions if not any(_gives(permission, one) for permission in known)]


def _gives(permission: Mapping[str, object], action: str) -> bool:
    return _among(action, permission.get("actions")) and not _among(action, permission.get("notActions"))


def _among(action: str, patterns: object) -> bool:
    """`*` stands for any text, slashes too; case does not count."""
    given = patterns if isinstance(patterns, list) else []
    return any(
        re.fullmatch(re.escape(str(one)).replace(r"\*", ".*"), action, re.IGNORECASE) is not None for one in given
    )
