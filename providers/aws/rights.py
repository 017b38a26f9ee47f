"""Which calls a role must be allowed: each is tried by a dry run, on something that does not exist."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caa.errors import CredentialsError, ProviderError, ProviderUnavailable
from caa.model.instance import Finding
from caa.provider import checks
from providers.aws.client import Ec2

_NOBODY = "0123456789abcdef0"
_REMEDY = "give the node's role the rights that docs/providers/aws.md lists"


@dataclass(frozen=True, slots=True)
class Right:
    """A call, by boto3's name, with parameters that name nothing; `lost` is what does not work without it.

    Without `lost` no pod works. `tagged` are those that a role may have for what carries our tags alone.
    """

    action: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""
    tagged: bool = False

    @property
    def on_instance(self) -> bool:
        """Whether it can be tried on an instance that carries our tags."""
        return self.tagged and self.parameters.keys() <= {"InstanceId", "InstanceIds"}

    @property
    def name(self) -> str:
        """As a policy has it."""
        return "ec2:" + "".join(part.title() for part in self.action.split("_"))


_ALWAYS = (
    Right("describe_instances"),
    Right("describe_instance_types"),
    Right("describe_instance_type_offerings", {"LocationType": "availability-zone"}),
    Right("describe_addresses"),
    Right("terminate_instances", {"InstanceIds": [f"i-{_NOBODY}"]}, tagged=True),
    Right("describe_volumes", lost="a pod with volumes does not start"),
    Right(
        "attach_volume",
        {"VolumeId": f"vol-{_NOBODY}", "InstanceId": f"i-{_NOBODY}", "Device": "/dev/xvdb"},
        lost="a pod with volumes does not start",
        tagged=True,
    ),
    Right("get_console_output", {"InstanceId": f"i-{_NOBODY}"}, lost="there are no console logs", tagged=True),
)
_ELASTIC = (
    Right(
        "associate_address",
        {"AllocationId": f"eipalloc-{_NOBODY}", "NetworkInterfaceId": f"eni-{_NOBODY}"},
        tagged=True,
    ),
    Right("disassociate_address", {"AssociationId": f"eipassoc-{_NOBODY}"}, tagged=True),
    Right("release_address", {"AllocationId": f"eipalloc-{_NOBODY}"}, tagged=True),
)


def needed(*, elastic: bool) -> Sequence[Right]:
    """The rights that the other questions of `check` do not prove. RunInstances, CreateTags: see the launch."""
    return (*_ALWAYS, *(_ELASTIC if elastic else ()))


async def findings(ec2: Ec2, rights: Sequence[Right], *, by_tag: bool, mine: str) -> list[Finding]:
    """What is missing. `mine` is the id of an instance that carries our tags, if there is one."""
    given = await asyncio.gather(*(_given(ec2, one, mine=mine) for one in rights))
    missing = [one for one, is_given in zip(rights, given, strict=True) if not is_given]
    found = [_missing(one, unsure=by_tag and one.tagged and not (mine and one.on_instance)) for one in missing]
    return found or [checks.ok("rights", f"all {len(rights)} calls that change or look at something are allowed")]


def _missing(right: Right, *, unsure: bool) -> Finding:
    if unsure:
        return checks.warning(
            "rights",
            f"{right.name} cannot be proven: nothing carries our tags yet, and the role may touch nothing else",
            remedy="run the check again while a pod VM runs",
        )
    if right.lost:
        return checks.warning("rights", f"{right.name} is not allowed: {right.lost}", remedy=_REMEDY)
    return checks.error("rights", f"{right.name} is not allowed", remedy=_REMEDY)


async def _given(ec2: Ec2, right: Right, *, mine: str) -> bool:
    """EC2 looks at rights first, so what it has against the parameters is proof enough."""
    parameters = dict(right.parameters)
    if mine and right.on_instance:
        parameters = {key: [mine] if key == "InstanceIds" else mine for key in parameters}
    try:
        await ec2.allowed(right.action, **parameters)
    except CredentialsError:
        return False
    except ProviderUnavailable:
        raise
    except ProviderError:
        return True
    return True
