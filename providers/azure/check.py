"""What `check` looks at: each finding says what was found and what to change."""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_network

from caa.config.load import Settings
from caa.errors import CredentialsError, Gone, Misconfigured
from caa.model.instance import Finding, LaunchRequest
from caa.provider import checks
from caa.provider.capacity import Place
from caa.provider.checks import PROBE, ok, warning
from caa.provider.rows import PURCHASE_OPTIONS, SPOT
from providers.azure import rights, shapes, translate
from providers.azure import settings as rows
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
        ("permissions", lambda: _permissions(arm, values)),
        ("subnet", lambda: _subnet(arm, values)),
        ("security group", lambda: _groups(arm, values)),
        ("quota", lambda: _quota(arm, around, values=values)),
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


async def _permissions(arm: Arm, values: Settings) -> list[Finding]:
    """By Azure's own list of what we may do: it has no dry run."""
    found = []
    for scope, actions in rights.needed(values).items():
        try:
            given = await arm.listing(rights.path(scope), version=rights.VERSION)
        except CredentialsError as error:
            remedy = "add Microsoft.Authorization/permissions/read to the role, as docs/providers/azure.md does"
            return [warning("permissions", f"cannot be proven: {error}", remedy=remedy)]
        if lacking := rights.missing(actions, given):
            detail = f"not allowed on {scope}: {', '.join(lacking)}"
            remedy = f"give the identity the role of docs/providers/azure.md on {scope}"
            told = checks.warning if rights.FOR_PEOPLE.issuperset(lacking) else checks.error
            found.append(told("permissions", detail, remedy=remedy))
    return found or [ok("permissions", "we may make, change and remove pod VMs and what belongs to them")]


async def _read_subnet(arm: Arm, values: Settings) -> Resource:
    parts = values[rows.SUBNET].strip("/").split("/")
    try:
        return shapes.properties(await arm.read("network.subnets.get", parts[3], parts[7], parts[9]))
    except Gone as error:
        raise Misconfigured(f"{error}; see AZURE_SUBNET_ID") from error


async def _subnet(arm: Arm, values: Settings) -> list[Finding]:
    found, parts = await _read_subnet(arm, values), values[rows.SUBNET].strip("/").split("/")
    ranges = [*(found.get("addressPrefixes") or ()), *([found["addressPrefix"]] if found.get("addressPrefix") else [])]
    free = sum(ip_network(one).num_addresses - _RESERVED for one in dict.fromkeys(ranges))
    free -= len(found.get("ipConfigurations") or ())
    detail = f"{parts[9]} of {parts[7]} has {free} free addresses"
    return [checks.left("subnet", detail, count=free, remedy="take a larger one as AZURE_SUBNET_ID")]


async def _groups(arm: Arm, values: Settings) -> list[Finding]:
    """The interfaces' group and the subnet's: Azure lets in what both let in."""
    subnets = (await _read_subnet(arm, values)).get("networkSecurityGroup") or {}
    groups = dict.fromkeys((values[rows.SECURITY_GROUP], str(subnets.get("id") or "")))
    found = [one for group in groups if group for one in await _group(arm, group, values=values)]
    return found or [ok("security group", "neither AZURE_NSG_ID nor the subnet has one")]


async def _group(arm: Arm, group: str, *, values: Settings) -> list[Finding]:
    parts = group.strip("/").split("/")
    try:
        found = shapes.properties(await arm.read("network.network_security_groups.get", parts[3], parts[7]))
    except Gone as error:
        raise Misconfigured(f"{error}; see AZURE_NSG_ID") from error
    except CredentialsError as error:
        remedy = f"let us read {group}, or see for yourself that it lets the worker nodes in"
        return [warning("security group", str(error), remedy=remedy)]
    rules = [
        shapes.properties(one) for key in ("securityRules", "defaultSecurityRules") for one in found.get(key) or ()
    ]

    def shut(port: str, what: str) -> Finding:
        remedy = f"allow {port} from the worker nodes in {parts[7]} (AZURE_NSG_ID, or the subnet's)"
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


async def _quota(arm: Arm, around: Surroundings, *, values: Settings) -> list[Finding]:
    """The region's, the default size's family's and, where they are bought, spot VMs'. Never an error: a node whose
    pods have used the quota up may restart."""
    usages = shapes.left_of_quotas(await arm.pages("compute.usage.list", values[rows.REGION]))
    size = values[rows.INSTANCE_SIZE]
    family = shapes.families(await around.lines()).get(size.lower(), "")
    wanted = ("cores", family, "lowPriorityCores" if SPOT in values[PURCHASE_OPTIONS] else "")
    left = {name: usages[name.lower()] for name in wanted if name.lower() in usages}
    told = f"vCPUs left in {values[rows.REGION]}: {', '.join(f'{name} {left[name]}' for name in left) or 'not told'}"
    if all(count >= checks.FEW for count in left.values()):
        return [ok("quota", told)]
    return [warning("quota", told, remedy=f"ask Azure to raise the subscription's vCPU quotas for {size}")]
