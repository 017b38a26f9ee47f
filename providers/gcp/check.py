"""What `check` looks at: each finding says what was found and what to change."""

from collections.abc import Awaitable, Callable, Mapping

from caa.config.load import Settings
from caa.config.node import EXTERNAL_NETWORK_VIA_PODVM
from caa.errors import CredentialsError, Gone, Misconfigured
from caa.model.instance import Finding, LaunchRequest
from caa.provider import checks
from caa.provider.capacity import Place
from caa.provider.checks import PROBE, ok
from caa.provider.rows import given
from providers.gcp import firewall, quota, rights, shapes, translate
from providers.gcp import settings as rows
from providers.gcp.client import Gce
from providers.gcp.surroundings import Surroundings

_WORDS = checks.TypeWords(
    "does not exist in our zones",
    "GCP_MACHINE_TYPE, GCP_INSTANCE_TYPES or FALLBACK_TYPES",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(gce: Gce, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. Credentials and permissions come first; without them nothing else is asked."""
    return await checks.in_turn(
        (rights.SUBJECT, lambda: rights.project(gce, around, values=values)),
        (rights.SUBJECT, lambda: rights.service_account(gce, values)),
        ("tags", lambda: rights.tags(gce, around)),
        ("image", lambda: _image(gce, plan)),
        ("instance types", lambda: _types(around, values)),
        ("accelerators", lambda: _accelerators(around, values)),
        ("subnetwork", lambda: _subnetworks(gce, around, values=values)),
        ("firewall", lambda: _unless_denied("firewall", _firewall(gce, values))),
        ("quota", lambda: _unless_denied("quota", _quota(gce, around, values=values))),
        page="gcp.md",
    )


async def _unless_denied(subject: str, found: Awaitable[list[Finding]]) -> list[Finding]:
    """What only the check reads: without the right to read it pods start all the same."""
    try:
        return await found
    except CredentialsError as error:
        return [checks.warning(subject, f"not known: {error}", remedy="give the right, or see to it by yourself")]


async def _image(gce: Gce, plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, TEE, zone and tags together."""
    made, places = await plan(PROBE)
    boot = "UEFI" if made.image.uefi else "BIOS"
    told = f"{made.image.path} is for {made.image.arch}, {boot}, and boots in {places[0]}, TEE {made.tee}"
    return [ok("image", told), await rights.image(gce, made.image.path)]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    confidential = not values[rows.DISABLE_CVM]
    known, wanted = await around.catalogue.types(), around.wanted_types()
    return checks.types(known, wanted, values=values, confidential=confidential, words=_WORDS)


async def _accelerators(around: Surroundings, values: Settings) -> list[Finding]:
    models = sorted({model for model, _ in shapes.accelerators(values[rows.ACCELERATORS]).values()})
    return [await _accelerator(around, model, zone=zone) for model in models for zone in around.zones()]


async def _accelerator(around: Surroundings, model: str, *, zone: str) -> Finding:
    if await around.has_accelerator(model, zone):
        return ok("accelerators", f"{zone} has {model}")
    remedy = "change GCP_ACCELERATORS, GCP_ZONE or FALLBACK_ZONES"
    return checks.warning("accelerators", f"{zone} has no {model}; no pod gets one there", remedy=remedy)


async def _subnetworks(gce: Gce, around: Surroundings, *, values: Settings) -> list[Finding]:
    """Those of every zone's region; where none is named, the one that a network of automatic mode has there."""
    named = [(values[rows.NETWORK], values[rows.SUBNETWORK])]
    if given(values, EXTERNAL_NETWORK_VIA_PODVM):
        named.append((values[rows.EXTERNAL_NETWORK], values[rows.EXTERNAL_SUBNETWORK]))
    paths = {
        translate.subnetwork_of(network, subnetwork, project=values[rows.PROJECT], zone=zone)
        for network, subnetwork in named
        for zone in around.zones()
    }
    found: list[Finding] = []
    for one in sorted(paths):
        found += await _unless_denied("subnetwork", _subnetwork(gce, one))
        found.append(await rights.subnetwork(gce, one, values=values))
    return found


async def _subnetwork(gce: Gce, path: str) -> list[Finding]:
    _, project, _, region, _, name = path.split("/")
    try:
        found = await gce.call(
            "Subnetworks", "get", project=project, region=region, subnetwork=name, views="WITH_UTILIZATION"
        )
    except Gone as error:
        told = "see GCP_SUBNETWORK, which only networks of automatic mode do without"
        raise Misconfigured(f"{error}; {told}") from error
    free = _free(found)
    if free is None:
        return [ok("subnetwork", f"{name} in {region} has the range {found.get('ipCidrRange', '')}")]
    detail = f"{name} in {region} has {free} free addresses"
    remedy = "take a larger GCP_SUBNETWORK, or name zones of other regions in FALLBACK_ZONES"
    return [checks.left("subnetwork", detail, count=free, remedy=remedy)]


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
    tags = values[rows.NETWORK_TAGS]
    machine = firewall.Machine(tags=frozenset(tags), account=values[rows.SERVICE_ACCOUNT])

    def said(protocol: str, port: int) -> firewall.Verdict:
        return firewall.verdict(found, machine, protocol=protocol, port=port)

    def shut(wanted: str, what: str) -> Finding:
        protocol, _, port = wanted.partition(" ")
        return _shut(wanted, what, rule=said(protocol, int(port)).rule)

    return checks.ports("firewall", values, lets_in=lambda *wanted: said(*wanted).open, told=shut)


def _shut(wanted: str, what: str, *, rule: str) -> Finding:
    why = f"the rule {rule} keeps {wanted} out" if rule else f"no rule of the network lets {wanted} in"
    remedy = f"allow {wanted} from the nodes, for the tags of GCP_NETWORK_TAGS or for all"
    return checks.error("firewall", f"{why}, which is {what}", remedy=remedy)


async def _quota(gce: Gce, around: Surroundings, *, values: Settings) -> list[Finding]:
    known = {one.name: one for one in await around.catalogue.types()}
    kind = known.get(values[rows.MACHINE_TYPE])
    if kind is None:
        return []  # the finding about types tells
    image = await around.image(values[rows.IMAGE])
    needed = quota.needs(values, kind, root_gib=max(values[rows.ROOT_SIZE], image.size))
    regions = dict.fromkeys(one.rpartition("-")[0] for one in around.zones())
    rooms = {region: quota.left(await gce.call("Regions", "get", region=region), needed) for region in regions}
    full = all(room and not min(room.values()) for room in rooms.values())
    return [_quota_of(region, room, kind=kind.name, full=full) for region, room in rooms.items()]


def _quota_of(region: str, room: Mapping[str, int], *, kind: str, full: bool) -> Finding:
    if not room:
        return ok("quota", f"{region} tells no quota of {kind}")
    metric, count = min(room.items(), key=lambda one: one[1])
    told = f"the quotas of {region} have room for {count} more pod VMs of {kind}; the least is {metric}"
    remedy = f"ask Google to raise {metric} in {region}, or name zones of other regions in FALLBACK_ZONES"
    # Where another region has room, one without it ends no pod.
    return checks.left("quota", told, count=count if full else max(count, 1), remedy=remedy)
