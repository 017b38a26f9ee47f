"""Pure: a launch request into Compute Engine's request. The body is REST's, as the API reference writes it."""

import re
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caa.config.load import Settings
from caa.errors import InvalidRequest, Misconfigured
from caa.model.instance import Arch, LaunchRequest, Tee
from caa.provider.capacity import Place
from caa.provider.ownership import written
from caa.provider.rows import SECURE_BOOT, USE_PUBLIC_IP
from providers.gcp import settings as rows
from providers.gcp.shapes import LIMITS, Image, accelerators, feature, path_of, tees

NAME_PATTERN = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
IMAGE_PATTERN = (
    r"((https://[a-z0-9.-]+/compute/v1/)?/?projects/[a-z0-9.:-]{1,80}/global/images/(family/)?)?" + NAME_PATTERN
)
VOLUME_PATTERN = rf"/?projects/[a-z0-9.:-]+/(?:zones|regions)/[a-z0-9-]+/disks/{NAME_PATTERN}"

_NAMESPACE = uuid.UUID("6f1a3a0e-6d4b-5a53-9b53-0d8c8ee1c8d1")  # of our request ids
_MOST_VOLUMES = 127  # Compute Engine, "Disk limits": 128 with the root disk
_MOST_CONFIDENTIAL = 39  # Confidential VM, "Limitations": 40 with the root disk
_CONFIDENTIAL: Mapping[Tee, str] = {Tee.SEV: "SEV", Tee.SNP: "SEV_SNP", Tee.TDX: "TDX"}
_BY_NAME: Mapping[str, Tee] = {name: tee for tee, name in _CONFIDENTIAL.items()}
_HYPERDISK = frozenset({"c4", "c4a", "c4d", "n4", "n4a", "n4d", "g4", "a4", "m4", "x4", "z4", "h4d"})
_NO_PD_STANDARD = frozenset({"c3", "c3d", "a3", "g2", "m3", "h3", "z3"})
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is decided before anything is made, but the place."""

    request: LaunchRequest
    image: Image
    tee: Tee
    settings: Settings
    tags: Mapping[str, str]  # resource-manager tags by their ids
    external: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything that is made."""
        return written(self.request, self.settings[rows.LABELS], limits=LIMITS)


def request_id(plan: Plan, place: Place, *, generation: int) -> str:
    """The id by which Compute Engine knows a repeated request, the same in every process."""
    return str(uuid.uuid5(_NAMESPACE, f"{plan.request.token} {place} {generation}"))


def body(plan: Plan, place: Place) -> Body:
    """The instance to insert."""
    values, gpus = plan.settings, accelerators(plan.settings[rows.ACCELERATORS]).get(place.instance_type)
    made: Body = {
        "name": plan.request.name,
        "machineType": f"zones/{place.zone}/machineTypes/{place.instance_type}",
        "labels": plan.labels,
        "metadata": {"items": _metadata(plan.request.user_data)},
        "disks": [root_disk(plan, place), *(volume(one, plan.tee) for one in plan.request.volumes)],
        "networkInterfaces": interfaces(plan, place.zone),
        "scheduling": scheduling(plan.tee, place, gpus=bool(gpus) or _has_gpus(place.instance_type)),
        **_security(plan, place),
    }
    if gpus:
        kind = f"zones/{place.zone}/acceleratorTypes/{gpus[0]}"
        made["guestAccelerators"] = [{"acceleratorType": kind, "acceleratorCount": gpus[1]}]
    if tags := values[rows.NETWORK_TAGS]:
        made["tags"] = {"items": list(tags)}
    if account := values[rows.SERVICE_ACCOUNT]:
        made["serviceAccounts"] = [{"email": account, "scopes": [_SCOPE]}]
    if plan.tags:
        made["params"] = {"resourceManagerTags": dict(plan.tags)}
    return made


def root_disk(plan: Plan, place: Place) -> Body:
    """The root disk, called like the instance; it goes with it."""
    values = plan.settings
    first: Body = {
        "diskName": plan.request.name,
        "sourceImage": plan.image.path,
        "diskType": f"zones/{place.zone}/diskTypes/{disk_type(values, place.instance_type)}",
        "labels": plan.labels,
    }
    if size := max(values[rows.ROOT_SIZE], plan.image.size):
        first["diskSizeGb"] = str(size)
    if plan.tags:
        first["resourceManagerTags"] = dict(plan.tags)
    disk: Body = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": first}
    if values[rows.KMS_KEY]:
        disk["diskEncryptionKey"] = {"kmsKeyName": values[rows.KMS_KEY]}
    return disk | _interface(plan.tee)


def volume(path: str, tee: Tee) -> Body:
    """A data volume, attached in the insert itself; it stays when the instance goes."""
    source = path_of(path)
    name = source.rpartition("/")[2]
    disk: Body = {"source": source, "deviceName": name, "mode": "READ_WRITE", "type": "PERSISTENT", "autoDelete": False}
    return disk | _interface(tee)


def disk_type(values: Settings, machine_type: str) -> str:
    """GCP_DISK_TYPE; while it is not set, one that the machine type can have."""
    family = machine_type.partition("-")[0]
    if values.is_set(rows.DISK_TYPE):
        return values[rows.DISK_TYPE]
    if family in _HYPERDISK:
        return "hyperdisk-balanced"
    return "pd-balanced" if family in _NO_PD_STANDARD else values[rows.DISK_TYPE]


def interfaces(plan: Plan, zone: str) -> list[Body]:
    """The network interfaces; each is in a network of its own, as Compute Engine wants it."""
    values = plan.settings
    pairs = [(values[rows.NETWORK], values[rows.SUBNETWORK])]
    if plan.external:
        pairs.append((values[rows.EXTERNAL_NETWORK], values[rows.EXTERNAL_SUBNETWORK]))
    public = _public(values) if values[USE_PUBLIC_IP] else {}
    return [_nic(values, zone, network=network, subnetwork=subnetwork) | public for network, subnetwork in pairs]


def scheduling(tee: Tee, place: Place, *, gpus: bool) -> Body:
    """A pod VM is never started anew by the cloud: its pod would be gone."""
    stays = tee is Tee.NONE and not gpus and not place.spot
    made: Body = {
        "automaticRestart": False,
        "onHostMaintenance": "MIGRATE" if stays else "TERMINATE",
        "provisioningModel": "SPOT" if place.spot else "STANDARD",
    }
    return made | ({"instanceTerminationAction": "DELETE"} if place.spot else {})


def network_path(text: str, project: str) -> str:
    """A VPC network by its path."""
    return path_of(text) or f"projects/{project}/global/networks/{text.rpartition('/')[2]}"


def subnetwork_path(text: str, project: str, *, zone: str) -> str:
    """A subnetwork by its path. Raises `Misconfigured` when it is in another region than the zone."""
    region = zone.rpartition("-")[0]
    path = path_of(text) or f"projects/{project}/regions/{region}/subnetworks/{text.rpartition('/')[2]}"
    match = re.search(r"/regions/([^/]+)/", path)
    if not match or match[1] != region:
        raise Misconfigured(
            f"the subnetwork {text} is not in the region of the zone {zone}: correct GCP_SUBNETWORK, GCP_ZONE and "
            "FALLBACK_ZONES, or set GCP_SUBNETWORK to a short name that every region has"
        )
    return path


def subnetwork_of(network: str, subnetwork: str, *, project: str, zone: str) -> str:
    """The path of the subnetwork that an interface gets. A network of automatic mode has one of its own name in every
    region ("VPC networks", "Auto mode"). Raises as `subnetwork_path`."""
    _, owner, _, _, name = network_path(network, project).split("/")
    return subnetwork_path(subnetwork or name, project if subnetwork else owner, zone=zone)


def image_path(text: str, project: str) -> str:
    """`projects/P/global/images/I` of whatever form the image is named in."""
    return path_of(text) or f"projects/{project}/global/images/{text.strip('/')}"


def wanted_tee(values: Settings, machine_type: str, *, strongest: Tee) -> Tee:
    """The TEE for this machine type. Raises `Misconfigured` when GCP_CONFIDENTIAL_TYPE names one that it lacks."""
    named = values[rows.CONFIDENTIAL_TYPE]
    if not named:
        return strongest
    if _BY_NAME[named] not in tees(machine_type):
        found = ", ".join(sorted(_CONFIDENTIAL[one] for one in tees(machine_type))) or "none"
        raise Misconfigured(
            f"GCP_CONFIDENTIAL_TYPE is {named}, and the machine type {machine_type} has {found}: choose another type, "
            "or leave GCP_CONFIDENTIAL_TYPE empty"
        )
    return _BY_NAME[named]


def refuse_unfit(image: Image, arch: Arch, *, tee: Tee) -> None:
    """Raise `Misconfigured` when the image does not boot on the type, or not in the TEE."""
    if image.arch is not arch:
        raise Misconfigured(
            f"the image {image.path} is for {image.arch}, the machine type for {arch}: change one of both"
        )
    if tee is not Tee.NONE and not (image.uefi and tee in image.tees):
        raise Misconfigured(
            f"the image {image.path} is not made for {_CONFIDENTIAL[tee]}: it needs the guest OS features "
            f"UEFI_COMPATIBLE and {feature(tee)}; make it with them, or set DISABLECVM=true"
        )


def refuse_volumes(volumes: Sequence[str], *, confidential: bool) -> None:
    """Raise `InvalidRequest` unless they are disks of this cloud, each once and not too many."""
    if bad := [one for one in volumes if not re.fullmatch(VOLUME_PATTERN, one)]:
        raise InvalidRequest(f"the volume {bad[0][:120]!r} is no disk of Compute Engine (projects/P/zones/Z/disks/D)")
    most = _MOST_CONFIDENTIAL if confidential else _MOST_VOLUMES
    if len(volumes) > most or len({path_of(one) for one in volumes}) != len(volumes):
        raise InvalidRequest(f"the pod has {len(volumes)} volumes: each once, at most {most}, are possible")


def quoted(key: str, value: str) -> str:
    """One comparison of a filter; `value` has been checked to hold no quote."""
    return f'({key} = "{value}")'


def by_labels(labels: Mapping[str, str]) -> str:
    """A filter that selects what has all these labels."""
    return " AND ".join(quoted(f"labels.{key}", value) for key, value in labels.items())


def _metadata(user_data: bytes) -> list[Body]:
    return [
        {"key": "user-data", "value": b64encode(user_data).decode()},
        {"key": "user-data-encoding", "value": "base64"},
        {"key": "block-project-ssh-keys", "value": "true"},
    ]


def _security(plan: Plan, place: Place) -> Body:
    """TEE and shielded VM; Google wants Milan to be named for SEV-SNP ("Create a Confidential VM instance")."""
    values, made = plan.settings, Body()
    if plan.tee is not Tee.NONE:
        kind = _CONFIDENTIAL[plan.tee]
        made["confidentialInstanceConfig"] = {"enableConfidentialCompute": True, "confidentialInstanceType": kind}
    if plan.tee is Tee.SNP and place.instance_type.startswith("n2d-"):
        made["minCpuPlatform"] = "AMD Milan"
    if plan.image.uefi:
        made["shieldedInstanceConfig"] = {
            "enableSecureBoot": values[SECURE_BOOT],
            "enableVtpm": values[rows.VTPM],
            "enableIntegrityMonitoring": values[rows.INTEGRITY] and values[rows.VTPM],
        }
    elif values[SECURE_BOOT]:
        raise Misconfigured(f"ENABLE_SECURE_BOOT is set, and the image {plan.image.path} is not UEFI_COMPATIBLE")
    return made


def _nic(values: Settings, zone: str, *, network: str, subnetwork: str) -> Body:
    project = values[rows.PROJECT]
    made: Body = {"network": network_path(network, project), "stackType": values[rows.STACK_TYPE]}
    if subnetwork:
        made["subnetwork"] = subnetwork_path(subnetwork, project, zone=zone)
    return made


def _public(values: Settings) -> Body:
    tier, stack, made = values[rows.NETWORK_TIER], values[rows.STACK_TYPE], Body()
    if stack != "IPV6_ONLY":
        made["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": tier}]
    if stack != "IPV4_ONLY":  # IPv6 from outside is of the premium tier only
        config = {"type": "DIRECT_IPV6", "name": "External IPv6", "networkTier": "PREMIUM"}
        made["ipv6AccessConfigs"] = [config]
    return made


def _interface(tee: Tee) -> Body:
    """Confidential VMs have NVMe disks only."""
    return {} if tee is Tee.NONE else {"interface": "NVME"}


def _has_gpus(machine_type: str) -> bool:
    return machine_type.partition("-")[0] in ("a2", "a3", "a4", "g2", "g4")
