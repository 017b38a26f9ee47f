"""Pure: Compute Engine's replies into nouns. Nothing here trusts a reply to be complete."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caa.errors import ConfigError, InvalidRequest, ProviderUnavailable
from caa.model.ids import InstanceId
from caa.model.instance import Arch, Instance, InstanceState, InstanceType, Tee
from caa.provider.addresses import Nic, reachable
from caa.provider.ownership import Owned, TagLimits, read

# Compute Engine, "Labeling resources": lower-case letters, digits, _ and -, 63 characters, 64 labels.
LIMITS = TagLimits(
    key=63,
    value=63,
    count=64,
    key_pattern=r"[a-z][a-z0-9_-]*",
    value_pattern=r"[a-z0-9_-]*",
    plain=r"[a-z0-9-]",
    reserved=("goog",),
)
# Resource Manager, "Tags overview": 50 on a resource; our own are labels, so the 12 places kept for them do not count.
TAG_LIMITS = TagLimits(key=512, value=256, count=62)

_ARCHES: Mapping[str, Arch] = {"X86_64": Arch.AMD64, "ARM64": Arch.ARM64, "": Arch.AMD64}
_RUNS = frozenset({"PENDING", "PROVISIONING", "STAGING", "RUNNING", "REPAIRING"})
_ENDED = frozenset({"PENDING_STOP", "STOPPING", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED", "DEPROVISIONING"})
# Confidential VM, "Supported configurations", as of 2026: which machine types have which TEE.
_TEES: Sequence[tuple[str, frozenset[Tee]]] = (
    (r"n2d-.+", frozenset({Tee.SNP, Tee.SEV})),
    (r"c2d-.+|c3d-.+|c4d-.+|g4-standard-48", frozenset({Tee.SEV})),
    (r"c3-standard-[0-9]+|a3-highgpu-1g", frozenset({Tee.TDX})),
)
_STRONGEST = (Tee.SNP, Tee.TDX, Tee.SEV)
_FEATURES: Mapping[Tee, str] = {Tee.SEV: "SEV_CAPABLE", Tee.SNP: "SEV_SNP_CAPABLE", Tee.TDX: "TDX_CAPABLE"}

Reply = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A pod VM image: its path, size in GiB, and what it can boot on and in."""

    path: str
    size: int
    arch: Arch
    uefi: bool
    tees: frozenset[Tee]


def image(found: Reply, name: str) -> Image:
    """The image. Raises `InvalidRequest` while a pod VM cannot be made of it."""
    state = str(found.get("status", "READY"))
    if state != "READY":
        raise InvalidRequest(f"the image {name} is {state}; set PODVM_IMAGE_NAME to another one, or wait")
    features = {str(one.get("type")) for one in found.get("guestOsFeatures") or ()}
    return Image(
        path=path_of(str(found.get("selfLink", ""))) or name,
        size=int(found.get("diskSizeGb", 0)),
        arch=_ARCHES.get(str(found.get("architecture", "")), Arch.AMD64),
        uefi="UEFI_COMPATIBLE" in features,
        tees=frozenset(tee for tee, feature in _FEATURES.items() if feature in features),
    )


def feature(tee: Tee) -> str:
    """What an image for this TEE has among its guestOsFeatures."""
    return _FEATURES[tee]


def tees(machine_type: str) -> frozenset[Tee]:
    """The TEEs of a machine type; the API does not tell, Google's page does."""
    return next((found for pattern, found in _TEES if re.fullmatch(pattern, machine_type)), frozenset())


def strongest(found: Iterable[Tee]) -> Tee:
    """The TEE to take of several."""
    known = set(found)
    return next((one for one in _STRONGEST if one in known), Tee.NONE)


def is_machine_type(found: Reply) -> bool:
    """Whether a line tells enough to choose by."""
    return bool(found.get("name") and found.get("guestCpus") and found.get("memoryMb"))


def machine_type(found: Reply, zones: Iterable[str], *, gpus: int) -> InstanceType:
    """A line of the catalogue; `gpus` are those that are attached beside its own."""
    own = sum(int(one.get("guestAcceleratorCount", 0)) for one in found.get("accelerators") or ())
    name = str(found["name"])
    return InstanceType(
        name=name,
        vcpus=int(found["guestCpus"]),
        memory_mib=int(found["memoryMb"]),
        gpus=own + gpus,
        arch=_ARCHES.get(str(found.get("architecture", "")), Arch.AMD64),
        tees=tees(name),
        zones=frozenset(zones),
    )


def accelerators(written: Mapping[str, str]) -> Mapping[str, tuple[str, int]]:
    """GCP_ACCELERATORS: model and count by machine type. Raises `ConfigError`."""
    found: dict[str, tuple[str, int]] = {}
    for name, value in written.items():
        match = re.fullmatch(r"([a-z0-9-]+)(?::([1-9][0-9]?))?", value)
        if not match:
            raise ConfigError(f"GCP_ACCELERATORS: {name}={value[:80]!r} has to be like n1-standard-8=nvidia-tesla-t4:1")
        found[name] = (match[1], int(match[2] or 1))
    return found


def scoped(replies: Iterable[Reply], key: str) -> list[Reply]:
    """What an aggregated list holds, of all zones."""
    scopes = (scope for reply in replies for scope in (reply.get("items") or {}).values())
    return [one for scope in scopes for one in scope.get(key) or () if one.get("name")]


def unreachable(replies: Iterable[Reply]) -> frozenset[str]:
    """The zones that an aggregated list could not reach: it is complete without them, as it looks."""
    found: set[str] = set()
    for reply in replies:
        named = [str(one) for one in reply.get("unreachables") or ()]
        scopes = (reply.get("items") or {}).items()
        named += [key for key, scope in scopes if (scope.get("warning") or {}).get("code") == "UNREACHABLE"]
        found |= {one.rpartition("/")[2] for one in named if "zones/" in one}
    return frozenset(found)


def owned(found: Reply) -> Owned | None:
    """Whose it is; None when it is not ours."""
    return read(found.get("labels") or {}, limits=LIMITS)


def zone(found: Reply) -> str:
    """The zone of an instance or a disk, by its name."""
    return str(found.get("zone", "")).rpartition("/")[2]


def state(found: Reply) -> InstanceState:
    """What its status means."""
    status = str(found.get("status", ""))
    if status in _RUNS:
        return InstanceState.RUNNING
    return InstanceState.STOPPED if status in _ENDED else InstanceState.UNKNOWN


def instance(found: Reply, *, public: bool) -> Instance:
    """Compute Engine's instance as ours; no addresses while the one that counts is not there yet."""
    nics = [_nic(one) for one in found.get("networkInterfaces") or ()]
    mine = owned(found)
    return Instance(
        id=InstanceId(str(found.get("name", ""))),
        name=str(found.get("name", "")),
        addresses=reachable(nics, public=public),
        sandbox=mine.sandbox if mine else None,
        instance_type=str(found.get("machineType", "")).rpartition("/")[2],
        created_at=_epoch(str(found.get("creationTimestamp", ""))),
    )


def left_disk(found: Reply) -> Instance:
    """A root disk whose instance is gone, as an instance that `delete` removes."""
    mine, name = owned(found), str(found.get("name", ""))
    return Instance(
        id=InstanceId(f"disk/{zone(found)}/{name}"),
        name=mine.name if mine else name,
        addresses=(),
        sandbox=mine.sandbox if mine else None,
        created_at=_epoch(str(found.get("creationTimestamp", ""))),
    )


def zones_of_disk(found: Reply) -> frozenset[str]:
    """The zones in which a disk can be attached: its own, or those of its replicas."""
    places = found.get("replicaZones") or [found.get("zone", "")]
    return frozenset(str(one).rpartition("/")[2] for one in places)


def is_shared(found: Reply) -> bool:
    """Whether several instances may have the disk at once."""
    return bool(found.get("multiWriter")) or found.get("accessMode") == "READ_WRITE_MANY"


def operation(found: Reply) -> str:
    """The name of an operation. Raises `ProviderUnavailable` for what is none."""
    name = str(found.get("name", ""))
    if not name:
        raise ProviderUnavailable("Compute Engine's answer is no operation")
    return name


def path_of(text: str) -> str:
    """`projects/...` of a URL or path; "" where there is none."""
    at = text.find("projects/")
    return text[at:] if at >= 0 else ""


def _nic(found: Reply) -> Nic:
    access = [*(found.get("accessConfigs") or ()), *(found.get("ipv6AccessConfigs") or ())]
    public = [str(one.get("natIP") or one.get("externalIpv6") or "") for one in access]
    private = [str(found.get("networkIP") or ""), str(found.get("ipv6Address") or "")]
    return Nic(private=[one for one in private if one], public=[one for one in public if one])


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
