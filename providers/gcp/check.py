"""What `check` looks at: each finding says what was found and what to change."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from caa.config.load import Settings
from caa.config.node import FORWARDER_PORT, VXLAN_PORT
from caa.errors import Gone, Misconfigured, ProviderError
from caa.model.ids import SandboxId
from caa.model.instance import Severity
from caa.provider.capacity import Place
from caa.provider.contract import Finding, LaunchRequest, Owner
from caa.provider.rows import FALLBACK_TYPES, TAGS, USE_PUBLIC_IP, given
from providers.gcp import settings as rows
from providers.gcp import shapes, translate
from providers.gcp.client import Gce
from providers.gcp.surroundings import Surroundings

_FEW = 16  # addresses, or instances of the quota
_REMEDY = "see docs/providers/gcp.md, troubleshooting by error text"
_PROBE = LaunchRequest(
    name="podvm-check",
    sandbox=SandboxId("check"),
    owner=Owner(cluster="check", node="check"),
    token="check",  # noqa: S106  # no secret
    user_data=b"#cloud-config\n",
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
    rights = await _asked("permissions", _permissions(gce, values))
    if any(one.severity is Severity.ERROR for one in rights):
        return rights
    parts = await asyncio.gather(
        _asked("image", _image(plan)),
        _asked("instance types", _types(around, values)),
        _asked("subnetwork", _subnetworks(gce, around, values=values)),
        _asked("firewall", _firewall(gce, values)),
        _asked("quota", _quota(gce, around)),
    )
    return [*rights, *(finding for part in parts for finding in part)]


async def _asked(subject: str, work: Awaitable[Sequence[Finding]]) -> list[Finding]:
    try:
        return list(await work)
    except ProviderError as error:
        return [_error(subject, str(error), remedy=error.remedy or _REMEDY)]


def _ok(subject: str, detail: str) -> Finding:
    return Finding(severity=Severity.OK, subject=subject, detail=detail)


def _error(subject: str, detail: str, *, remedy: str) -> Finding:
    return Finding(severity=Severity.ERROR, subject=subject, detail=detail, remedy=remedy)


def _warning(subject: str, detail: str, *, remedy: str) -> Finding:
    return Finding(severity=Severity.WARNING, subject=subject, detail=detail, remedy=remedy)


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
        return [_error("permissions", detail, remedy="give it the role that docs/providers/gcp.md lists")]
    return [_ok("permissions", f"all {len(wanted)} permissions are there in {project}")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, TEE, zone and tags together."""
    made, places = await plan(_PROBE)
    return [_ok("image", f"{made.image.path} is for {made.image.arch} and boots in {places[0]}, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    known = {one.name: one for one in await around.catalogue.types()}
    remedy = "correct GCP_MACHINE_TYPE, GCP_INSTANCE_TYPES or FALLBACK_TYPES"
    found = [
        _warning("instance types", f"{name} does not exist in our zones; no pod gets it", remedy=remedy)
        for name in sorted(around.wanted_types() - known.keys())
    ]
    if not values[rows.DISABLE_CVM]:
        told = "has no TEE; no pod gets it while DISABLECVM is false"
        remedy = "take it out of GCP_INSTANCE_TYPES and FALLBACK_TYPES, or set DISABLECVM=true"
        found += [
            _warning("instance types", f"{name} {told}", remedy=remedy)
            for name, one in sorted(known.items())
            if not one.tees
        ]
    further = values[FALLBACK_TYPES]
    fallback = ", then ".join(further) or "none"
    return [*found, _ok("instance types", f"{len(known)} known; when there is no room: {fallback}")]


async def _subnetworks(gce: Gce, around: Surroundings, *, values: Settings) -> list[Finding]:
    if not values[rows.SUBNETWORK]:
        return [_ok("subnetwork", "none is set; the network has to be of automatic mode")]
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
        return _ok("subnetwork", f"{name} in {region} has the range {found.get('ipCidrRange', '')}")
    detail = f"{name} in {region} has {free} free addresses"
    if free >= _FEW:
        return _ok("subnetwork", detail)
    severity = Severity.WARNING if free else Severity.ERROR
    remedy = "take a larger GCP_SUBNETWORK, or name zones of other regions in FALLBACK_ZONES"
    return Finding(severity=severity, subject="subnetwork", detail=detail, remedy=remedy)


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
    needed = (
        ("tcp", given(values, FORWARDER_PORT), "the forwarder (FORWARDER_PORT)"),
        ("udp", given(values, VXLAN_PORT), "the pod network (VXLAN_PORT)"),
    )
    tags = values[rows.NETWORK_TAGS]
    rules = found.get("firewalls") or ()
    return [
        _ok("firewall", f"{what} is let in")
        if shapes.lets_in(rules, protocol, port=port, tags=tags)
        else Finding(
            severity=Severity.WARNING if unsure else Severity.ERROR,
            subject="firewall",
            detail=f"no rule of the network {name} lets {protocol} {port} in, which is {what}"
            + ("; a firewall policy may" if unsure else ""),
            remedy=f"allow {protocol} {port} from the nodes, for the tags of GCP_NETWORK_TAGS or for all",
        )
        for protocol, port, what in needed
    ]


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
    if all(number >= _FEW for number in left.values()):
        return _ok("quota", f"left in {region}: {told}")
    return _warning(
        "quota", f"left in {region}: {told}", remedy="ask Google to raise the project's quota in this region"
    )
