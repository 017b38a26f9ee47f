"""What `check` looks at: each finding says what was found and what to change."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_network

from caa.config.load import Settings
from caa.config.node import FORWARDER_PORT, VXLAN_PORT
from caa.errors import ProviderError
from caa.model.ids import SandboxId
from caa.model.instance import Severity
from caa.provider.capacity import Place
from caa.provider.contract import Finding, LaunchRequest, Owner
from caa.provider.rows import FALLBACK_TYPES, given
from providers.azure import settings as rows
from providers.azure import shapes, translate
from providers.azure.around import Surroundings
from providers.azure.client import Arm, Resource

_FEW_ADDRESSES, _RESERVED = 16, 5  # Azure keeps five addresses of a subnet
_REMEDY = "see docs/providers/azure.md, troubleshooting by error text"
_PROBE = LaunchRequest(
    name="podvm-check",
    sandbox=SandboxId("check"),
    owner=Owner(cluster="check", node="check"),
    token="check",  # noqa: S106  # no secret
    user_data=b"#cloud-config\n",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(arm: Arm, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. The credentials come first; without them nothing else is asked."""
    first = await _asked("credentials", _identity(arm, values))
    if any(one.severity is Severity.ERROR for one in first):
        return first
    parts = await asyncio.gather(
        _asked("image", _image(plan)),
        _asked("instance types", _types(around, values)),
        _asked("subnet", _subnet(arm, values)),
        _asked("security group", _group(arm, values)),
        _asked("quota", _quota(arm, values)),
    )
    return [*first, *(finding for part in parts for finding in part)]


async def _asked(subject: str, work: Awaitable[Sequence[Finding]]) -> list[Finding]:
    try:
        return list(await work)
    except ProviderError as error:
        return [Finding(severity=Severity.ERROR, subject=subject, detail=str(error), remedy=error.remedy or _REMEDY)]


def _ok(subject: str, detail: str) -> Finding:
    return Finding(severity=Severity.OK, subject=subject, detail=detail)


def _warning(subject: str, detail: str, *, remedy: str) -> Finding:
    return Finding(severity=Severity.WARNING, subject=subject, detail=detail, remedy=remedy)


async def _identity(arm: Arm, values: Settings) -> list[Finding]:
    translate.refuse_missing(values)
    group = values[rows.RESOURCE_GROUP]
    found = await arm.pages("compute.virtual_machines.list", group)
    return [_ok("credentials", f"Azure knows us, and the resource group {group}, which has {len(found)} VMs")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, zone and TEE together."""
    made, where = await plan(_PROBE)
    return [_ok("image", f"{made.image.id} is for {made.image.arch} and boots on {where[0]}, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    known = {one.name: one for one in await around.catalogue.types()}
    found = [
        _warning(
            "instance types",
            f"{name} is not to be had in {values[rows.REGION]} with this subscription; no pod gets it",
            remedy="correct AZURE_INSTANCE_SIZE, AZURE_INSTANCE_SIZES or FALLBACK_TYPES, or ask Azure for the size",
        )
        for name in sorted(around.wanted_types() - known.keys())
    ]
    if not values[rows.DISABLE_CVM]:
        found += [
            _warning(
                "instance types",
                f"{name} has no TEE; no pod gets it while DISABLECVM is false",
                remedy="take it out of AZURE_INSTANCE_SIZES and FALLBACK_TYPES, or set DISABLECVM=true",
            )
            for name, one in sorted(known.items())
            if not one.tees
        ]
    further = values[FALLBACK_TYPES]
    fallback = ", then ".join(further) or "none"
    return [*found, _ok("instance types", f"{len(known)} known; when there is no room: {fallback}")]


async def _subnet(arm: Arm, values: Settings) -> list[Finding]:
    parts = values[rows.SUBNET].strip("/").split("/")
    found = shapes.properties(await arm.read("network.subnets.get", parts[3], parts[7], parts[9]))
    ranges = [*(found.get("addressPrefixes") or ()), *([found["addressPrefix"]] if found.get("addressPrefix") else [])]
    free = sum(ip_network(one).num_addresses - _RESERVED for one in dict.fromkeys(ranges))
    free -= len(found.get("ipConfigurations") or ())
    detail = f"{parts[9]} of {parts[7]} has {free} free addresses"
    if free >= _FEW_ADDRESSES:
        return [_ok("subnet", detail)]
    severity = Severity.WARNING if free > 0 else Severity.ERROR
    return [Finding(severity=severity, subject="subnet", detail=detail, remedy="take a larger one as AZURE_SUBNET_ID")]


async def _group(arm: Arm, values: Settings) -> list[Finding]:
    name = values[rows.SECURITY_GROUP]
    if not name:
        return [_ok("security group", "AZURE_NSG_ID is not set; the subnet's rules hold")]
    parts = name.strip("/").split("/")
    found = shapes.properties(await arm.read("network.network_security_groups.get", parts[3], parts[7]))
    rules = [
        shapes.properties(one) for key in ("securityRules", "defaultSecurityRules") for one in found.get(key) or ()
    ]
    wanted = (("Tcp", given(values, FORWARDER_PORT), "forwarder"), ("Udp", given(values, VXLAN_PORT), "VXLAN"))
    shut = [
        _warning(
            "security group",
            f"{parts[7]} does not let {protocol} port {port} ({what}) in",
            remedy=f"allow {protocol} {port} from the worker nodes in AZURE_NSG_ID",
        )
        for protocol, port, what in wanted
        if not _lets_in(rules, protocol, port=port)
    ]
    return shut or [_ok("security group", f"{parts[7]} lets the forwarder's and the VXLAN port in")]


def _lets_in(rules: Sequence[Resource], protocol: str, *, port: int) -> bool:
    """What the first rule that fits says. A Deny counts when it is for everybody or for the virtual network."""
    for one in sorted(rules, key=lambda rule: int(rule.get("priority") or 0)):
        ports = [*(one.get("destinationPortRanges") or ()), str(one.get("destinationPortRange") or "")]
        inbound = one.get("direction") == "Inbound" and one.get("protocol") in ("*", protocol)
        if not inbound or not any(_covers(text, port) for text in ports):
            continue
        if one.get("access") == "Allow":
            return True
        if one.get("sourceAddressPrefix") in ("*", "VirtualNetwork", "0.0.0.0/0", None):
            return False
    return False


def _covers(text: str, port: int) -> bool:
    low, _, high = text.partition("-")
    return text == "*" or (low.isdigit() and int(low) <= port <= int(high or low))


async def _quota(arm: Arm, values: Settings) -> list[Finding]:
    for one in await arm.pages("compute.usage.list", values[rows.REGION]):
        if (one.get("name") or {}).get("value") != "cores":
            continue
        left = int(one.get("limit") or 0) - int(one.get("currentValue") or 0)
        detail = f"{left} vCPUs of the region's quota are left"
        if left > _RESERVED:
            return [_ok("quota", detail)]
        return [_warning("quota", detail, remedy="ask Azure to raise the subscription's vCPU quota in AZURE_REGION")]
    return [_ok("quota", "Azure names no vCPU quota here")]
