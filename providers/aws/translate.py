"""Pure: settings and launch requests into EC2's requests."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caa.config.load import Settings
from caa.config.node import EXTERNAL_NETWORK_VIA_PODVM
from caa.errors import InvalidRequest, Misconfigured
from caa.model.instance import Arch, LaunchRequest, Tee
from caa.provider.capacity import Place
from caa.provider.ownership import written
from caa.provider.rows import TAGS, USE_PUBLIC_IP, given
from providers.aws import settings as rows
from providers.aws.shapes import LIMITS, Image, Subnet

NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
IMAGE_PATTERN = r"ami-[0-9a-f]{8,17}"
VOLUME_PATTERN = r"vol-[0-9a-f]{8,17}"
_LAST_DEVICES = "abcdefghijklmnopqrstuvwxyz"

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where the pod VM's interfaces go. `nics` is 2 when traffic leaves the cluster through the pod VM."""

    groups: tuple[str, ...]
    nics: int = 1
    public: bool = False
    flat: bool = False

    @property
    def elastic(self) -> bool:
        """EC2 gives no public address by itself to an instance that is launched with two interfaces."""
        return self.public and self.nics > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything decided about one pod VM but its place."""

    request: LaunchRequest
    image: Image
    network: Network
    tee: Tee = Tee.NONE
    settings: Settings = field(repr=False)

    @property
    def tags(self) -> Mapping[str, str]:
        return {"Name": self.request.name, **written(self.request, self.settings[TAGS], limits=LIMITS)}


def refuse_unfit(image: Image, arch: Arch, *, tee: Tee) -> None:
    """Raise `Misconfigured` when the image cannot boot on the instance type, or not in its TEE."""
    if image.arch is not arch:
        raise Misconfigured(
            f"the image {image.id} is for {image.arch}, the instance type for {arch}: change PODVM_AMI_ID or "
            "PODVM_INSTANCE_TYPE (or the pod's annotations)"
        )
    if tee is not Tee.NONE and not image.uefi:
        raise Misconfigured(
            f"the image {image.id} does not boot by UEFI, which AMD SEV-SNP needs: set PODVM_AMI_ID to one whose boot "
            "mode is uefi or uefi-preferred, or set DISABLECVM=true"
        )


def refuse_volumes(volumes: Sequence[str]) -> None:
    """Raise `InvalidRequest` for what is no volume of EC2: it came from a file that others write."""
    for one in volumes:
        if not re.fullmatch(VOLUME_PATTERN, one):
            raise InvalidRequest(f"the volume {one[:80]!r} is no EBS volume id such as vol-0123456789abcdef0")


def token(request: LaunchRequest, place: Place, *, generation: int) -> str:
    """The ClientToken: the same for the same sandbox in the same place, at most 64 characters.

    EC2 goes on answering with an instance that has ended since; `generation` counts such answers.
    """
    text = "/".join((request.owner.cluster, request.owner.node, request.name, request.token, str(place)))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{text}/{generation}"))


def run_instances(plan: Plan, place: Place, *, generation: int = 0) -> Parameters:
    """The one call that makes the pod VM with its disks, interfaces, addresses and tags."""
    values = plan.settings
    parameters: Parameters = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token(plan.request, place, generation=generation),
        "ImageId": plan.image.id,
        "InstanceType": place.instance_type,
        "UserData": plan.request.user_data.decode(),  # boto3 does the base64
        "BlockDeviceMappings": [root_disk(plan)],
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": values[rows.HOP_LIMIT],
        },
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": [tagged(kind, plan.tags) for kind in ("instance", "volume", "network-interface")],
        **interfaces(plan.network, place.zone),
        **_bought(values, place),
        **_placed(values),
    }
    if plan.tee is Tee.SNP:
        parameters["CpuOptions"] = {"AmdSevSnp": "enabled"}
    if values[rows.USE_TEMPLATE]:
        parameters["LaunchTemplate"] = {"LaunchTemplateName": values[rows.TEMPLATE_NAME]}
    if values[rows.KEY_NAME]:
        parameters["KeyName"] = values[rows.KEY_NAME]
    if profile := values[rows.INSTANCE_PROFILE]:
        parameters["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    return parameters


def root_disk(plan: Plan) -> Parameters:
    """The root disk, by the name that the image at hand gives it; it goes with the instance."""
    values, disk = plan.settings, Parameters(DeleteOnTermination=True)
    if size := max(values[rows.ROOT_SIZE], plan.image.root_size):
        disk["VolumeSize"] = size
    if values[rows.ENCRYPT_ROOT]:
        disk["Encrypted"] = True
        if values[rows.KMS_KEY]:
            disk["KmsKeyId"] = values[rows.KMS_KEY]
    return {"DeviceName": plan.image.root_device, "Ebs": disk}


def interfaces(network: Network, subnet: str) -> Parameters:
    """The network interfaces; all of them go with the instance."""
    if network.flat:
        return {"SubnetId": subnet, "SecurityGroupIds": list(network.groups)}
    made = [
        Parameters(DeviceIndex=index, SubnetId=subnet, Groups=list(network.groups), DeleteOnTermination=True)
        for index in range(network.nics)
    ]
    if network.nics == 1:
        made[0]["AssociatePublicIpAddress"] = network.public
    return {"NetworkInterfaces": made}


def tagged(kind: str, tags: Mapping[str, str]) -> Parameters:
    """A tag specification."""
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def filters(tags: Mapping[str, str], **others: Sequence[str]) -> list[Parameters]:
    """Filters by tags and, with `_` for `-` in the name, by others."""
    by_tag = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    return [*by_tag, *({"Name": name.replace("_", "-"), "Values": list(values)} for name, values in others.items())]


def device_names(count: int) -> list[str]:
    """The device names of data volumes, in order: xvdb to xvdz, then xvdba, xvdbb and so on (the reference's)."""
    letters = _LAST_DEVICES[1:]
    names = [f"/dev/xvd{one}" for one in letters] + [f"/dev/xvd{a}{b}" for a in letters for b in _LAST_DEVICES]
    return names[:count]


def places_of_volumes(
    candidates: Sequence[Place], subnets: Mapping[str, Subnet], *, zones: Mapping[str, str]
) -> list[Place]:
    """The places in the zone of all volumes. Raises `InvalidRequest`, before anything is paid for."""
    fitting = [one for one in candidates if all(subnets[one.zone].zone == zone for zone in zones.values())]
    if not fitting:
        told = ", ".join(f"{volume} in {zone}" for volume, zone in zones.items())
        raise InvalidRequest(
            f"no subnet is in the zone of the pod's volumes ({told}): name one in AWS_SUBNET_ID or FALLBACK_ZONES, or "
            "bind the claim to the node's zone"
        )
    return fitting


def _bought(values: Settings, place: Place) -> Parameters:
    found = Parameters()
    if place.spot:
        spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        found["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    if reservation := values[rows.RESERVATION]:
        target = {"CapacityReservationTarget": {"CapacityReservationId": reservation}}
        found["CapacityReservationSpecification"] = target
        if values[rows.CAPACITY_BLOCK]:
            found["InstanceMarketOptions"] = {"MarketType": "capacity-block"}
    return found


def _placed(values: Settings) -> Parameters:
    host, group = values[rows.HOST_ID], values[rows.HOST_GROUP]
    wanted = {
        "GroupName": values[rows.PLACEMENT_GROUP],
        "HostId": host,
        "HostResourceGroupArn": group,
        "Tenancy": "host" if host or group else values[rows.TENANCY],
    }
    found = {key: value for key, value in wanted.items() if value}
    return {"Placement": found} if found else {}


def is_elastic(values: Settings) -> bool:
    """Whether pod VMs get Elastic IPs: EC2 gives one with two interfaces no public address by itself."""
    return bool(values[USE_PUBLIC_IP] and given(values, EXTERNAL_NETWORK_VIA_PODVM))


def network(values: Settings, groups: Sequence[str], *, flat: bool) -> Network:
    """The network that settings and template describe. Raises `Misconfigured` when they cannot go together."""
    external = given(values, EXTERNAL_NETWORK_VIA_PODVM)
    made = Network(groups=tuple(groups), nics=2 if external else 1, public=values[USE_PUBLIC_IP], flat=flat)
    if flat and (made.public or made.nics > 1):
        raise Misconfigured(
            "the launch template has its security groups beside its network interfaces, which EC2 allows with neither "
            "USE_PUBLIC_IP nor EXTERNAL_NETWORK_VIA_PODVM: put them into the template's network interface"
        )
    return made
