"""What `check` looks at: each finding says what was found and what to change."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from caa.config.identity import CLUSTER_ID
from caa.config.load import Settings
from caa.errors import ProviderError
from caa.model.instance import Finding, LaunchRequest, Severity
from caa.provider import checks
from caa.provider.capacity import Place
from caa.provider.checks import PROBE, ok
from caa.provider.ownership import CLUSTER
from caa.provider.rows import PURCHASE_OPTIONS, SPOT, given
from providers.aws import quotas, rights, shapes, translate
from providers.aws import settings as rows
from providers.aws.client import Ec2
from providers.aws.launch import pages
from providers.aws.surroundings import Surroundings

_WORDS = checks.TypeWords(
    "does not exist in this region",
    "PODVM_INSTANCE_TYPE, PODVM_INSTANCE_TYPES or FALLBACK_TYPES",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(ec2: Ec2, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. The credentials come first; without them nothing else is asked."""
    return await checks.in_turn(
        ("credentials", lambda: _identity(ec2)),
        ("image", lambda: _image(plan)),
        ("instance types", lambda: _types(around, values)),
        ("subnets", lambda: _subnets(ec2, around)),
        ("security groups", lambda: _groups(ec2, around, values=values)),
        ("launch", lambda: _launch(ec2, plan)),
        ("rights", lambda: _rights(ec2, values)),
        ("quota", lambda: _quota(ec2, around, values=values)),
        page="aws.md",
    )


async def _identity(ec2: Ec2) -> list[Finding]:
    return [ok("credentials", f"AWS knows us as {await ec2.identity()}")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, boot mode and TEE together."""
    made, _ = await plan(PROBE)
    return [ok("image", f"{made.image.id} is for {made.image.arch} and boots here, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    confidential = not values[rows.DISABLE_CVM]
    known, wanted = await around.catalogue.types(), around.wanted_types()
    return checks.types(known, wanted, values=values, confidential=confidential, words=_WORDS)


async def _subnets(ec2: Ec2, around: Surroundings) -> list[Finding]:
    names = await around.node.subnets(await around.template())
    reply = await ec2.call("describe_subnets", SubnetIds=names)
    return [_subnet(shapes.subnet(one)) for one in reply.get("Subnets") or ()]


def _subnet(one: shapes.Subnet) -> Finding:
    detail = f"{one.id} in {one.zone} has {one.free} free addresses"
    remedy = "take a larger subnet as AWS_SUBNET_ID, or name more in FALLBACK_ZONES"
    return checks.left("subnets", detail, count=one.free, remedy=remedy)


async def _groups(ec2: Ec2, around: Surroundings, *, values: Settings) -> list[Finding]:
    names = await around.node.groups(await around.template())
    found = (await ec2.call("describe_security_groups", GroupIds=names)).get("SecurityGroups") or ()

    node = await around.node.whereabouts()
    origin = f" from the node ({node.address})" if node else ""

    def shut(port: str, what: str) -> Finding:
        return checks.error(
            "security groups",
            f"no rule of {', '.join(names)} lets {port} in{origin}, which is {what}",
            remedy=f"allow {port} from the nodes' security group, or correct AWS_SG_IDS",
        )

    def lets_in(protocol: str, port: int) -> bool:
        return shapes.lets_in(found, protocol, port=port, node=node)

    return checks.ports("security groups", values, lets_in=lets_in, told=shut)


async def _launch(ec2: Ec2, plan: Plan) -> list[Finding]:
    """A dry run of the very call; it proves the rights on everything the call names."""
    made, candidates = await plan(PROBE)
    place = candidates[0]
    parameters = translate.run_instances(made, place)
    del parameters["ClientToken"]
    await ec2.allowed("run_instances", **parameters)
    if made.network.elastic:
        await ec2.allowed(
            "allocate_address", Domain="vpc", TagSpecifications=[translate.tagged("elastic-ip", made.tags)]
        )
    return [ok("launch", f"a pod VM may be made: {place}")]


async def _rights(ec2: Ec2, values: Settings) -> list[Finding]:
    """Dry runs of what else is called in a pod VM's life."""
    elastic = translate.is_elastic(values)
    by_tag, mine = values[rows.RIGHTS_BY_TAG], ""
    if by_tag:
        cluster = given(values, CLUSTER_ID)
        tags = translate.filters({CLUSTER: cluster}) if cluster else translate.filters({}, tag_key=[CLUSTER])
        found = shapes.instances(await ec2.call("describe_instances", Filters=tags, MaxResults=1000))
        mine = next((str(one["InstanceId"]) for one in found if shapes.state(one) in ("pending", "running")), "")
    return await rights.findings(ec2, rights.needed(elastic=elastic), by_tag=by_tag, mine=mine)


async def _quota(ec2: Ec2, around: Surroundings, *, values: Settings) -> list[Finding]:
    """vCPUs by family and way to buy, and Elastic IPs; no quota is worth an error but that of the default type."""
    try:
        known = await ec2.quotas()
    except ProviderError as error:
        remedy = "allow servicequotas:ListServiceQuotas, and see AWS_ENDPOINT_URL_SERVICE_QUOTAS"
        return [checks.warning("quota", f"not known: {error}", remedy=remedy)]
    living = await pages(ec2, translate.filters({}, instance_state_name=["pending", "running"]))
    found = {}
    for spot in sorted(one == SPOT for one in values[PURCHASE_OPTIONS]):
        for kind in (values[rows.INSTANCE_TYPE], *sorted(around.wanted_types())):
            named = quotas.quota_of(known, kind, spot=spot)
            if named and named[0] not in found:
                found[named[0]] = _vcpus_left(named, living, spot=spot, needed=kind == values[rows.INSTANCE_TYPE])
    return [*found.values(), *(await _addresses_left(ec2, known) if translate.is_elastic(values) else [])]


def _vcpus_left(
    quota: tuple[str, float, frozenset[str]], living: Sequence[shapes.Reply], *, spot: bool, needed: bool
) -> Finding:
    name, value, families = quota
    left = value - quotas.used(living, families, spot=spot)
    told = checks.left(
        "quota",
        f"{left:g} of {value:g} vCPUs are left: {name}",
        count=left,
        remedy="ask AWS to raise this quota in this region, or name types of other families in FALLBACK_TYPES",
    )
    return told if needed or told.severity is Severity.OK else replace(told, severity=Severity.WARNING)


async def _addresses_left(ec2: Ec2, known: Sequence[shapes.Reply]) -> list[Finding]:
    value = quotas.elastic_ips(known)
    if value is None:
        return []
    left = value - len((await ec2.call("describe_addresses")).get("Addresses") or ())
    remedy = "ask AWS for more Elastic IPs, or set USE_PUBLIC_IP=false"
    return [checks.left("quota", f"{left:g} of {value:g} Elastic IPs are left", count=left, remedy=remedy)]
