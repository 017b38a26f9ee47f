"""What `check` looks at: each finding says what was found and what to change."""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_network

from caa.config.load import Settings
from caa.model.instance import Finding, LaunchRequest
from caa.provider import checks
from caa.provider.capacity import Place
from caa.provider.checks import PROBE, ok, warning
from providers.azure import settings as rows
from providers.azure import shapes, translate
from providers.azure.around import Surroundings
from providers.azure.client import Arm, Resource

_RESERVED = 5  # addresses that Azure keeps of a subnet
_WORDS = checks.TypeWords(
    "is not to be had in AZURE_REGION with this subscription",
    "AZURE_INSTANCE_SIZE, AZURE_INSTANCE_SIZES or FALLBACK_TYPES",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(arm: Arm, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. The credentials come first; without them nothing else is asked."""
    return await checks.in_turn(
        ("credentials", lambda: _identity(arm, values)),
        ("image", lambda: _image(plan)),
        ("instance types", lambda: _types(around, values)),
        ("subnet", lambda: _subnet(arm, values)),
        ("security group", lambda: _group(arm, values)),
        ("quota", lambda: _quota(arm, values)),
        page="azure.md",
    )


async def _identity(arm: Arm, values: Settings) -> list[Finding]:
    translate.refuse_missing(values)
    group = values[rows.RESOURCE_GROUP]
    found = await arm.pages("compute.virtual_machines.list", group)
    return [ok("credentials", f"Azure knows us, and the resource group {group}, which has {len(found)} VMs")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, zone and TEE together."""
    made, where = await plan(PROBE)
    return [ok("image", f"{made.image.id} is for {made.image.arch} and boots on {where[0]}, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    confidential = not values[rows.DISABLE_CVM]
    known, wanted = await around.catalogue.types(), around.wanted_types()
    return checks.types(known, wanted, values=values, confidential=confidential, words=_WORDS)


async def _subnet(arm: Arm, values: Settings) -> list[Finding]:
    parts = values[rows.SUBNET].strip("/").split("/")
    found = shapes.properties(await arm.read("network.subnets.get", parts[3], parts[7], parts[9]))
    ranges = [*(found.get("addressPrefixes") or ()), *([found["addressPrefix"]] if found.get("addressPrefix") else [])]
    free = sum(ip_network(one).num_addresses - _RESERVED for one in dict.fromkeys(ranges))
    free -= len(found.get("ipConfigurations") or ())
    detail = f"{parts[9]} of {parts[7]} has {free} free addresses"
    return [checks.left("subnet", detail, count=free, remedy="take a larger one as AZURE_SUBNET_ID")]


async def _group(arm: Arm, values: Settings) -> list[Finding]:
    name = values[rows.SECURITY_GROUP]
    if not name:
        return [ok("security group", "AZURE_NSG_ID is not set; the subnet's rules hold")]
    parts = name.strip("/").split("/")
    found = shapes.properties(await arm.read("network.network_security_groups.get", parts[3], parts[7]))
    rules = [
        shapes.properties(one) for key in ("securityRules", "defaultSecurityRules") for one in found.get(key) or ()
    ]

    def shut(port: str, what: str) -> Finding:
        remedy = f"allow {port} from the worker nodes in AZURE_NSG_ID"
        return warning("security group", f"{parts[7]} does not let {port} in, which is {what}", remedy=remedy)

    return checks.ports(
        "security group",
        values,
        lets_in=lambda protocol, port: _lets_in(rules, protocol.title(), port=port),
        told=shut,
    )


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
            return [ok("quota", detail)]
        return [warning("quota", detail, remedy="ask Azure to raise the subscription's vCPU quota in AZURE_REGION")]
    return [ok("quota", "Azure names no vCPU quota here")]
