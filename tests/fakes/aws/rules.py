"""What EC2 checks of RunInstances and moto does not: image, type, TEE, user data, interfaces, addresses, tokens."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.fakes.aws.model import Refused

_LIMIT = 16384


def refuse_launch(backend: Any, form: Mapping[str, str]) -> None:
    """Raise `Refused` for a launch that EC2 would refuse."""
    image = refuse_image(backend, form.get("ImageId", ""))
    kind = form.get("InstanceType", "")
    if kind not in INSTANCE_TYPES:
        raise Refused("InvalidInstanceType", f"The instance type '{kind}' does not exist.")
    processor = INSTANCE_TYPES[kind]["ProcessorInfo"]
    if image.architecture not in processor["SupportedArchitectures"]:
        raise Refused(
            "InvalidParameterValue", f"The architecture '{image.architecture}' of the AMI does not fit {kind}."
        )
    _refuse_cpu(form, kind, snp="amd-sev-snp" in processor.get("SupportedFeatures", ()), boot=image.boot_mode or "")
    _refuse_user_data(form.get("UserData", ""))
    _refuse_network(backend, form)
    if (key := form.get("KeyName")) and not any(one.key_name == key for one in backend.describe_key_pairs([])):
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")


def refuse_image(backend: Any, name: str) -> Any:
    """The image; raises `Refused` when there is none."""
    found = [one for one in backend.amis.values() if one.id == name]
    if not found:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{name}]' does not exist")
    return found[0]


def _refuse_cpu(form: Mapping[str, str], kind: str, *, snp: bool, boot: str) -> None:
    if form.get("CpuOptions.AmdSevSnp") != "enabled":
        return
    if not snp:
        raise Refused("InvalidParameterCombination", f"The instance type {kind} does not support AMD SEV-SNP.")
    if boot not in ("uefi", "uefi-preferred"):
        raise Refused("InvalidParameterCombination", "AMD SEV-SNP needs an AMI that boots by UEFI.")


def _refuse_user_data(text: str) -> None:
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise Refused("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from error
    if size > _LIMIT:
        raise Refused("InvalidParameterValue", f"User data is limited to {_LIMIT} bytes")


def _refuse_network(backend: Any, form: Mapping[str, str]) -> None:
    nics = {key.split(".")[1] for key in form if key.startswith("NetworkInterface.")}
    if nics and any(key.startswith("SecurityGroupId.") or key == "SubnetId" for key in form):
        raise Refused(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    public = any(key.endswith(".AssociatePublicIpAddress") and value == "true" for key, value in form.items())
    if public and len(nics) > 1:
        raise Refused(
            "InvalidParameterCombination",
            "associatePublicIPAddress cannot be specified when launching with multiple network interfaces.",
        )
    for key, value in form.items():
        if key == "SubnetId" or (key.startswith("NetworkInterface.") and key.endswith(".SubnetId")):
            if not any(value in by_name for by_name in backend.subnets.values()):
                raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{value}' does not exist")
        elif "SecurityGroupId." in key and not any(value in groups for groups in backend.groups.values()):
            raise Refused("InvalidGroup.NotFound", f"The security group '{value}' does not exist")


def zone_of(backend: Any, form: Mapping[str, str]) -> str:
    """The zone that the launch goes to."""
    wanted = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId", "")
    return next((zone for zone, subnets in backend.subnets.items() if wanted in subnets), "")


def digest(form: Mapping[str, str]) -> str:
    """What EC2 compares of two requests with one token."""
    return hashlib.sha256(repr(sorted(form.items())).encode()).hexdigest()


def refuse_absent(backend: Any, form: Mapping[str, str]) -> None:
    """Raise `Refused` when a call names what does not exist."""
    known = {
        "InstanceId": ("InvalidInstanceID.NotFound", {one.id for one in backend.all_instances()}),
        "VolumeId": ("InvalidVolume.NotFound", set(backend.volumes)),
        "NetworkInterfaceId": ("InvalidNetworkInterfaceID.NotFound", set(backend.enis)),
        "AllocationId": ("InvalidAllocationID.NotFound", {one.allocation_id for one in backend.addresses}),
        "AssociationId": ("InvalidAssociationID.NotFound", {one.association_id for one in backend.addresses}),
    }
    for key, value in form.items():
        code, names = known.get(key.split(".")[0], ("", set()))
        if code and value not in names:
            raise Refused(code, f"'{value}' does not exist")


def refuse_latest(backend: Any, form: Mapping[str, str]) -> None:
    """Raise `Refused` when an instance without the Nitro system is asked for its console as it is now."""
    kinds = [one.instance_type for one in backend.all_instances() if one.id == form.get("InstanceId")]
    nitro = all(INSTANCE_TYPES[one].get("Hypervisor") == "nitro" for one in kinds)
    if form.get("Latest") == "true" and not nitro:
        raise Refused("UnsupportedOperation", "This instance type does not support retrieving the latest console logs.")
