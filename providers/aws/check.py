"""What `check` looks at: each finding says what was found and what to change."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from caa.config.load import Settings
from caa.config.node import FORWARDER_PORT, VXLAN_PORT
from caa.errors import ProviderError
from caa.model.ids import SandboxId
from caa.model.instance import Severity
from caa.provider.capacity import Place
from caa.provider.contract import Finding, LaunchRequest, Owner
from caa.provider.rows import FALLBACK_TYPES, given
from providers.aws import settings as rows
from providers.aws import shapes, translate
from providers.aws.client import Ec2
from providers.aws.surroundings import Surroundings

_FEW_ADDRESSES = 16
_REMEDY = "see docs/providers/aws.md, troubleshooting by error text"
_PROBE = LaunchRequest(
    name="podvm-check",
    sandbox=SandboxId("check"),
    owner=Owner(cluster="check", node="check"),
    token="check",  # noqa: S106  # no secret
    user_data=b"#cloud-config\n",
)

Plan = Callable[[LaunchRequest], Awaitable[tuple[translate.Plan, list[Place]]]]


async def findings(ec2: Ec2, around: Surroundings, *, values: Settings, plan: Plan) -> list[Finding]:
    """All findings. The credentials come first; without them nothing else is asked."""
    identity = await _asked("credentials", _identity(ec2))
    if any(one.severity is Severity.ERROR for one in identity):
        return identity
    parts = await asyncio.gather(
        _asked("image", _image(plan)),
        _asked("instance types", _types(around, values)),
        _asked("subnets", _subnets(ec2, around)),
        _asked("security groups", _groups(ec2, around, values=values)),
        _asked("launch", _launch(ec2, plan)),
    )
    return [*identity, *(finding for part in parts for finding in part)]


async def _asked(subject: str, work: Awaitable[Sequence[Finding]]) -> list[Finding]:
    try:
        return list(await work)
    except ProviderError as error:
        return [Finding(severity=Severity.ERROR, subject=subject, detail=str(error), remedy=error.remedy or _REMEDY)]


def _ok(subject: str, detail: str) -> Finding:
    return Finding(severity=Severity.OK, subject=subject, detail=detail)


async def _identity(ec2: Ec2) -> list[Finding]:
    return [_ok("credentials", f"AWS knows us as {await ec2.identity()}")]


async def _image(plan: Plan) -> list[Finding]:
    """The plan of a pod that asks for nothing proves image, architecture, boot mode and TEE together."""
    made, _ = await plan(_PROBE)
    return [_ok("image", f"{made.image.id} is for {made.image.arch} and boots here, TEE {made.tee}")]


async def _types(around: Surroundings, values: Settings) -> list[Finding]:
    known = {one.name: one for one in await around.catalogue.types()}
    found = [
        Finding(
            severity=Severity.WARNING,
            subject="instance types",
            detail=f"{name} does not exist in this region; no pod gets it",
            remedy="correct PODVM_INSTANCE_TYPE, PODVM_INSTANCE_TYPES or FALLBACK_TYPES",
        )
        for name in sorted(around.wanted_types() - known.keys())
    ]
    if not values[rows.DISABLE_CVM]:
        found += [
            Finding(
                severity=Severity.WARNING,
                subject="instance types",
                detail=f"{name} has no TEE; no pod gets it while DISABLECVM is false",
                remedy="take it out of PODVM_INSTANCE_TYPES and FALLBACK_TYPES, or set DISABLECVM=true",
            )
            for name, one in sorted(known.items())
            if not one.tees
        ]
    wanted = values[FALLBACK_TYPES]
    fallback = ", then ".join(wanted) or "none"
    return [*found, _ok("instance types", f"{len(known)} known; when there is no room: {fallback}")]


async def _subnets(ec2: Ec2, around: Surroundings) -> list[Finding]:
    names = await around.node.subnets(await around.template())
    reply = await ec2.call("describe_subnets", SubnetIds=names)
    return [_subnet(shapes.subnet(one)) for one in reply.get("Subnets") or ()]


def _subnet(one: shapes.Subnet) -> Finding:
    detail = f"{one.id} in {one.zone} has {one.free} free addresses"
    if one.free >= _FEW_ADDRESSES:
        return _ok("subnets", detail)
    severity = Severity.WARNING if one.free else Severity.ERROR
    remedy = "take a larger subnet as AWS_SUBNET_ID, or name more in FALLBACK_ZONES"
    return Finding(severity=severity, subject="subnets", detail=detail, remedy=remedy)


async def _groups(ec2: Ec2, around: Surroundings, *, values: Settings) -> list[Finding]:
    names = await around.node.groups(await around.template())
    found = (await ec2.call("describe_security_groups", GroupIds=names)).get("SecurityGroups") or ()
    needed = (
        ("tcp", given(values, FORWARDER_PORT), "the forwarder (FORWARDER_PORT)"),
        ("udp", given(values, VXLAN_PORT), "the pod network (VXLAN_PORT)"),
    )
    return [
        _ok("security groups", f"{what} is let in")
        if shapes.lets_in(found, protocol, port=port)
        else Finding(
            severity=Severity.ERROR,
            subject="security groups",
            detail=f"no rule of {', '.join(names)} lets {protocol} {port} in, which is {what}",
            remedy=f"allow {protocol} {port} from the nodes' security group, or correct AWS_SG_IDS",
        )
        for protocol, port, what in needed
    ]


async def _launch(ec2: Ec2, plan: Plan) -> list[Finding]:
    """A dry run of the very call; it proves the rights on everything the call names."""
    made, candidates = await plan(_PROBE)
    place = candidates[0]
    parameters = translate.run_instances(made, place)
    del parameters["ClientToken"]
    await ec2.allowed("run_instances", **parameters)
    if made.network.elastic:
        await ec2.allowed(
            "allocate_address", Domain="vpc", TagSpecifications=[translate.tagged("elastic-ip", made.tags)]
        )
    return [_ok("launch", f"a pod VM may be made: {place}")]
