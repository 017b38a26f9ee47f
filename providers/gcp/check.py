"""What `check` looks at: each finding says what was found and what to change."""

from collections.abc import Awaitable, Callable, Mapping

from caa.config.load import Settings
from caa.errors import Gone, Misconfigured
from caa.model.instance import Finding, LaunchRequest
from caa.provider import checks
from caa.provider.capacity import Place
from caa.provider.checks import PROBE, ok
from caa.provider.rows import TAGS, USE_PUBLIC_IP
from providers.gcp import settings as rows
from providers.gcp import shapes, translate
from providers.gcp.client import Gce
from providers.gcp.surroundings import Surroundings

_WORDS = checks.TypeWords(
    "does not exist in our zones",
    "GCP_MACHINE_TYPE, GCP_INSTANCE_TYPES or FALLBACK_TYPES",
)
PERMISSIONS = (
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.get",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.disks.use",
    "compute.images.get",
    "compute.images.useReadOnly",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setTags",
    "compute.machineTypes.get",
    "compute.machineTypes.list",
    "compute.networks.get",
    "compute.networks.getEffectiveFirewalls",
    "compute.regions.get",
    "compute.subnetworks.get",
    "compute.subnetworks.use",
    "compute.zoneOperations.get",
    "compute.zones.get",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(gce: Gce, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. Credentials and permissions come first; without them nothing else is asked."""
    return await checks.in_turn(
        ("permissions", lambda: _permissions(gce, values)),
        ("image", lambda: _image(plan)),
        ("instance types", lambda: _types(around, values)),
        ("subnetwork", lambda: _subnetworks(gce, around, values=values)),
        ("firewall", lambda: _firewall(gce, values)),
        ("quota", lambda: _quota(gce, around)),
        page="gcp.md",
    )


async def _permissions(gce: Gce, values: Settings) -> list[Finding]:
    project, wanted = values[rows.PROJECT], [*PERMISSIONS]
    if values[USE_PUBLIC_IP]:
        wanted.append("compute.subnetworks.useExternalIp")
    if values[TAGS]:
        wanted += ["compute.instances.createTagBinding", "compute.disks.createTagBinding"]
    reply = await gce.resource_manager(f"projects/{project}:testIamPermissions", body={"permissions": wanted})
    missing = sorted(set(wanted) - set(reply.get("permissions") or ()))
    if missing:
        detail = f"the node's service account lacks {', '.join(missing)} in {project}"
        return [checks.error("permissions", detail, remedy="give it the role that docs/providers/gcp.md lists")]
    return [ok("permissions", f"all {len(wanted)} permissions are there in {project}")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, TEE, zone and tags together."""
    made, places = await plan(PROBE)
    return [ok("image", f"{made.image.path} is for {made.image.arch} and boots in {places[0]}, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    confidential = not values[rows.DISABLE_CVM]
    known, wanted = await around.catalogue.types(), around.wanted_types()
    return checks.types(known, wanted, values=values, confidential=confidential, words=_WORDS)


async def _subnetworks(gce: Gce, around: Surroundings, *, values: Settings) -> list[Finding]:
    if not values[rows.SUBNETWORK]:
        return [ok("subnetwork", "none is set; the network has to be of automatic mode")]
    paths = {
        translate.subnetwork_path(values[rows.SUBNETWORK], values[rows.PROJECT], zone=one) for one in around.zones()
    }
    return [await _subnetwork(gce, path) for path in sorted(paths)]


async def _subnetwork(gce: Gce, path: str) -> Finding:
    _, project, _, region, _, name = path.split("/")
    try:
        found = await gce.call(
            "Subnetworks", "get", project=project, region=region, subnetwork=name, views="WITH_UTILIZATION"
        )
    except Gone as error:
        raise Misconfigured(f"{error}; see GCP_SUBNETWORK") from error
    free = _free(found)
    if free is None:
        return ok("subnetwork", f"{name} in {region} has the range {found.get('ipCidrRange', '')}")
    detail = f"{name} in {region} has {free} free addresses"
    remedy = "take a larger GCP_SUBNETWORK, or name zones of other regions in FALLBACK_ZONES"
    return checks.left("subnetwork", detail, count=free, remedy=remedy)


def _free(found: Mapping[str, object]) -> int | None:
    details = found.get("utilizationDetails")
    known = details.get("ipv4Utilizations") if isinstance(details, Mapping) else None
    counts = [int(one["totalFreeIp"]) for one in known or () if "rangeName" not in one and "totalFreeIp" in one]
    return counts[0] if counts else None


async def _firewall(gce: Gce, values: Settings) -> list[Finding]:
    _, project, _, _, name = translate.network_path(values[rows.NETWORK], values[rows.PROJECT]).split("/")
    try:
        found = await gce.call("Networks", "get_effective_firewalls", project=project, network=name)
    except Gone as error:
        raise Misconfigured(f"{error}; see GCP_NETWORK") from error
    unsure = bool(found.get("firewallPolicys"))
    tags, rules = values[rows.NETWORK_TAGS], found.get("firewalls") or ()

    def shut(port: str, what: str) -> Finding:
        detail = f"no rule of the network {name} lets {port} in, which is {what}"
        remedy = f"allow {port} from the nodes, for the tags of GCP_NETWORK_TAGS or for all"
        if unsure:
            return checks.warning("firewall", f"{detail}; a firewall policy may", remedy=remedy)
        return checks.error("firewall", detail, remedy=remedy)

    return checks.ports(
        "firewall",
        values,
        lets_in=lambda protocol, port: shapes.lets_in(rules, protocol, port=port, tags=tags),
        told=shut,
    )


async def _quota(gce: Gce, around: Surroundings) -> list[Finding]:
    regions = sorted({one.rpartition("-")[0] for one in around.zones()})
    return [await _quota_of(gce, region) for region in regions]


async def _quota_of(gce: Gce, region: str) -> Finding:
    found = await gce.call("Regions", "get", region=region)
    quotas = {str(one.get("metric")): one for one in found.get("quotas") or ()}
    left = {
        metric: float(quotas[metric].get("limit", 0)) - float(quotas[metric].get("usage", 0))
        for metric in ("INSTANCES", "CPUS")
        if metric in quotas
    }
    told = ", ".join(f"{number:g} {metric}" for metric, number in left.items()) or "nothing about instances"
    remedy = "ask Google to raise the project's quota in this region"
    return checks.left(
        "quota", f"left in {region}: {told}", count=min(left.values(), default=checks.FEW), remedy=remedy
    )
