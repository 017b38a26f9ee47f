"""Pure: EC2's replies into nouns. Nothing here trusts a reply to be complete."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

from caa.errors import InvalidRequest, ProviderUnavailable
from caa.model.ids import InstanceId
from caa.model.instance import Arch, Instance, InstanceState, InstanceType, Tee
from caa.provider.addresses import Nic, reachable
from caa.provider.ownership import Owned, TagLimits, read

LIMITS = TagLimits(key=128, value=256, count=50, reserved=("aws:",))
DEAD = frozenset({"terminated"})
ENDING = frozenset({"shutting-down", "terminated"})

_ARCHES: Mapping[str, Arch] = {"x86_64": Arch.AMD64, "arm64": Arch.ARM64}
_UEFI = frozenset({"uefi", "uefi-preferred"})

Reply = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A pod VM image: its root device's name, the root's size in GiB, and what it can boot on."""

    id: str
    root_device: str
    root_size: int
    arch: Arch
    uefi: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet: its zone, its VPC, and how many addresses are left."""

    id: str
    zone: str
    vpc: str
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a launch template says of that which we decide; "" and () where it says nothing.

    `flat` has its security groups beside the network interfaces: EC2 then refuses interfaces in the request.
    """

    image: str = ""
    instance_type: str = ""
    subnet: str = ""
    groups: tuple[str, ...] = ()
    flat: bool = False


def image(found: Reply) -> Image:
    """The image of a DescribeImages reply's line. Raises `InvalidRequest` when a pod VM cannot be made of it."""
    name, state = str(found.get("ImageId", "")), found.get("State", "available")
    if state != "available":
        raise InvalidRequest(f"InvalidAMIID.Unavailable: the image {name} is {state}; set PODVM_AMI_ID to another one")
    root = str(found.get("RootDeviceName", ""))
    mappings = {str(one.get("DeviceName")): one.get("Ebs") for one in found.get("BlockDeviceMappings") or ()}
    disk = mappings.get(root)
    if not root or disk is None:
        raise InvalidRequest(f"the image {name} has no EBS root disk ({root or 'no root device'}); build one that has")
    return Image(
        id=name,
        root_device=root,
        root_size=int(disk.get("VolumeSize") or 0),
        arch=_ARCHES.get(str(found.get("Architecture", "x86_64")), Arch.AMD64),
        uefi=found.get("BootMode") in _UEFI,
    )


def subnet(found: Reply) -> Subnet:
    """The subnet of a DescribeSubnets reply's line."""
    return Subnet(
        id=str(found["SubnetId"]),
        zone=str(found.get("AvailabilityZone", "")),
        vpc=str(found.get("VpcId", "")),
        free=int(found.get("AvailableIpAddressCount", 0)),
    )


def template(data: Reply) -> Template:
    """What the data of a launch template version says."""
    nics = data.get("NetworkInterfaces") or ()
    first: Reply = nics[0] if nics else {}
    flat = tuple(data.get("SecurityGroupIds") or ())
    return Template(
        image=str(data.get("ImageId", "")),
        instance_type=str(data.get("InstanceType", "")),
        subnet=str(first.get("SubnetId", "")),
        groups=tuple(first.get("Groups") or flat),
        flat=bool(flat),
    )


def instance_type(found: Reply, zones: Iterable[str]) -> InstanceType:
    """A line of the catalogue, from a DescribeInstanceTypes reply's line and the zones that offer the type."""
    processor = found.get("ProcessorInfo") or {}
    snp = "amd-sev-snp" in (processor.get("SupportedFeatures") or ())
    arches = [_ARCHES[one] for one in processor.get("SupportedArchitectures") or () if one in _ARCHES]
    gpus = (found.get("GpuInfo") or {}).get("Gpus") or ()
    return InstanceType(
        name=str(found["InstanceType"]),
        vcpus=int((found.get("VCpuInfo") or {}).get("DefaultVCpus", 0)),
        memory_mib=int((found.get("MemoryInfo") or {}).get("SizeInMiB", 0)),
        gpus=sum(int(one.get("Count", 0)) for one in gpus),
        arch=arches[0] if arches else Arch.AMD64,
        tees=frozenset({Tee.SNP}) if snp else frozenset(),
        zones=frozenset(zones),
    )


def instances(reply: Reply) -> list[Reply]:
    """Every instance of a DescribeInstances reply, or of one of RunInstances."""
    nested = [one for group in reply.get("Reservations") or () for one in group.get("Instances") or ()]
    return [*nested, *(reply.get("Instances") or ())]


def only_instance(reply: Reply) -> Reply:
    """The one instance of a RunInstances reply. Raises `ProviderUnavailable` when there is none."""
    found = instances(reply)
    if not found or not found[0].get("InstanceId"):
        raise ProviderUnavailable("AWS: the answer to RunInstances names no instance")
    return found[0]


def state(found: Reply) -> str:
    """`pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`; "" where nothing is said."""
    return str((found.get("State") or {}).get("Name", ""))


def running(found: Reply) -> InstanceState:
    """Whether it can still carry a pod."""
    told = state(found)
    if told in DEAD:
        return InstanceState.ABSENT
    return InstanceState.RUNNING if told in ("pending", "running") else InstanceState.STOPPED


def tags(found: Reply) -> dict[str, str]:
    """The tags of any resource."""
    return {str(one.get("Key")): str(one.get("Value", "")) for one in found.get("Tags") or ()}


def owned(found: Reply) -> Owned | None:
    """Whose a resource is; None when it is not one of ours."""
    return read(tags(found), limits=LIMITS)


def nics(found: Reply) -> list[Nic]:
    """The instance's network interfaces, by device index."""
    attached = sorted(found.get("NetworkInterfaces") or (), key=_index)
    return [_nic(one) for one in attached] or [Nic(private=_texts(found.get("PrivateIpAddress")))]


def _index(nic: Reply) -> int:
    return int((nic.get("Attachment") or {}).get("DeviceIndex", 0))


def _nic(found: Reply) -> Nic:
    private = found.get("PrivateIpAddresses") or [found]
    v6 = [str(one.get("Ipv6Address", "")) for one in found.get("Ipv6Addresses") or ()]
    return Nic(
        private=(*(str(one.get("PrivateIpAddress") or "") for one in private), *v6),
        public=_texts((found.get("Association") or {}).get("PublicIp")),
    )


def _texts(*found: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in found if one)


def instance(found: Reply, *, public: bool) -> Instance:
    """The instance as the node sees it; without addresses while they are not there."""
    mine = owned(found)
    began = found.get("LaunchTime")
    return Instance(
        id=InstanceId(str(found.get("InstanceId", ""))),
        name=mine.name if mine else tags(found).get("Name", ""),
        addresses=reachable(nics(found), public=public),
        sandbox=mine.sandbox if mine else None,
        instance_type=str(found.get("InstanceType", "")),
        created_at=began.timestamp() if isinstance(began, datetime) else 0.0,
    )


def attached(volume: Reply, to: str) -> bool:
    """Whether the volume is attached to this very instance: a volume may have more than one attachment."""
    return any(
        one.get("InstanceId") == to and one.get("State") == "attached" for one in volume.get("Attachments") or ()
    )


def holders(volume: Reply) -> list[str]:
    """The instances that keep a volume; those that are giving it up are left out."""
    return [
        str(one.get("InstanceId", "")) for one in volume.get("Attachments") or () if one.get("State") != "detaching"
    ]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The node's private address, and its security groups."""

    address: str
    groups: frozenset[str]


def whereabouts(address: str, groups: str) -> Whereabouts | None:
    """What instance metadata tells of the node; None where it tells no address."""
    try:
        return Whereabouts(str(ip_address(address)), frozenset(groups.split()))
    except ValueError:
        return None


def lets_in(groups: Sequence[Reply], protocol: str, *, port: int, node: Whereabouts | None = None) -> bool:
    """Whether any inbound rule of the groups is about this port and, where the node is known, about the node."""
    return any(
        _is_about(rule, protocol, port=port) and (node is None or _is_from(rule, node))
        for group in groups
        for rule in group.get("IpPermissions") or ()
    )


def _is_about(rule: Reply, protocol: str, *, port: int) -> bool:
    if str(rule.get("IpProtocol")) == "-1":
        return True
    low, high = int(rule.get("FromPort", 0)), int(rule.get("ToPort", 65535))
    return str(rule.get("IpProtocol")) == protocol and low <= port <= high


def _is_from(rule: Reply, node: Whereabouts) -> bool:
    """A prefix list may hold the node's address; what it holds is not looked up."""
    ranges = [str(one.get("CidrIp", "")) for one in rule.get("IpRanges") or ()]
    pairs = {str(one.get("GroupId")) for one in rule.get("UserIdGroupPairs") or ()}
    inside = any(ip_address(node.address) in ip_network(one, strict=False) for one in ranges if one)
    return inside or bool(pairs & node.groups) or bool(rule.get("PrefixListIds"))
