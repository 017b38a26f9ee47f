"""What Compute Engine refuses of an instance, beyond the shape of its body: names, sizes, TEEs, references."""

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

Body = Mapping[str, Any]

_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
_CONFIDENTIAL = (
    ("SEV_SNP", r"n2d-.*", "SEV_SNP_CAPABLE"),
    ("SEV", r"(n2d|c2d|c3d|c4d)-.*", "SEV_CAPABLE"),
    ("TDX", r"c3-standard-[0-9]+|a3-highgpu-1g", "TDX_CAPABLE"),
)
_NO_PD_STANDARD = ("c3", "c3d", "a3", "g2")


class Refused(Exception):
    """The API's answer: status, reason, words."""

    def __init__(self, status: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.status, self.reason, self.words = status, reason, words


def refuse_request_id(text: str) -> None:
    """A request id is a UUID, and not the zero one."""
    try:
        if uuid.UUID(text).int == 0:
            raise ValueError
    except ValueError:
        raise invalid("requestId", f"'{text}' is no UUID") from None


def invalid(field: str, words: str) -> Refused:
    """400, as the API writes it."""
    return Refused(400, "invalid", f"Invalid value for field '{field}': {words}.")


def not_found(path: str) -> Refused:
    """404, as the API writes it."""
    return Refused(404, "notFound", f"The resource '{path}' was not found")


def refuse_instance(body: Body, image: Body, *, zone: str) -> None:
    """Everything about the body alone."""
    if not re.fullmatch(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", str(body.get("name", ""))):
        raise invalid("resource.name", f"'{body.get('name')}'. Must be a match of regex '(?:[a-z](?:[-a-z0-9]...)?)'")
    for word in (
        *_labels(body.get("labels", {})),
        *_metadata(body),
        *_places(body, zone),
        *_scheduling(body),
        *_confidential(body, image),
        *_networks(body),
    ):
        raise word


def _labels(labels: Mapping[str, str]) -> Iterator[Refused]:
    if len(labels) > 64:
        yield invalid("resource.labels", "more than 64 labels")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield invalid("resource.labels", f"'{key}={value}'")


def _metadata(body: Body) -> Iterator[Refused]:
    values = [str(one.get("value", "")) for one in body.get("metadata", {}).get("items", ())]
    if any(len(one) > 262144 for one in values) or sum(map(len, values)) > 524288:
        yield Refused(413, "uploadTooLarge", "Value for metadata entry too large")


def _places(body: Body, zone: str) -> Iterator[Refused]:
    kinds = [body["machineType"], *(one["acceleratorType"] for one in body.get("guestAccelerators", ()))]
    kinds += [one["initializeParams"]["diskType"] for one in body["disks"] if "initializeParams" in one]
    for one in kinds:
        if f"zones/{zone}/" not in one:
            yield invalid("resource", f"'{one}' is not in zone '{zone}'")
    family = body["machineType"].rpartition("/")[2].partition("-")[0]
    if family in _NO_PD_STANDARD and any(one.endswith("/pd-standard") for one in kinds):
        yield invalid("resource.disks[0]", f"pd-standard disk type cannot be used by {family} machine type")


def _scheduling(body: Body) -> Iterator[Refused]:
    found, family = body.get("scheduling", {}), body["machineType"].rpartition("/")[2].partition("-")[0]
    stays = found.get("onHostMaintenance", "MIGRATE") != "TERMINATE"
    special = "confidentialInstanceConfig" in body or "guestAccelerators" in body or family in ("a2", "a3", "g2")
    spot = found.get("provisioningModel") == "SPOT"
    if stays and (special or spot):
        yield invalid("resource.scheduling.onHostMaintenance", "instances of this kind do not support live migration")
    if spot and found.get("automaticRestart", True):
        yield invalid("resource.scheduling.automaticRestart", "must be disabled for a spot VM")
    if "instanceTerminationAction" in found and not spot:
        yield invalid("resource.scheduling.instanceTerminationAction", "is for spot VMs only")
    if "guestAccelerators" in body and family != "n1":
        yield invalid("resource.guestAccelerators", f"not compatible with {family}")


def _confidential(body: Body, image: Body) -> Iterator[Refused]:
    features = {one["type"] for one in image.get("guestOsFeatures", ())}
    if "shieldedInstanceConfig" in body and "UEFI_COMPATIBLE" not in features:
        yield invalid("resource.shieldedInstanceConfig", "the image is not UEFI compatible")
    if not (config := body.get("confidentialInstanceConfig")):
        return
    kind, name = config.get("confidentialInstanceType"), body["machineType"].rpartition("/")[2]
    pattern, feature = next(((p, f) for k, p, f in _CONFIDENTIAL if k == kind), ("", ""))
    if not re.fullmatch(pattern, name):
        yield invalid("resource.confidentialInstanceConfig", f"{kind} is not supported by the machine type {name}")
    if feature not in features:
        yield invalid("resource.confidentialInstanceConfig", f"the image lacks the guest OS feature {feature}")
    if kind == "SEV_SNP" and body.get("minCpuPlatform") != "AMD Milan":
        yield invalid("resource.minCpuPlatform", "SEV_SNP needs AMD Milan")
    if any(one.get("interface", "NVME") != "NVME" for one in body["disks"]):
        yield invalid("resource.disks", "confidential VMs need the interface NVME")


def _networks(body: Body) -> Iterator[Refused]:
    names = [one["network"] for one in body["networkInterfaces"]]
    if len(set(names)) != len(names):
        yield invalid("resource.networkInterfaces", "each interface has to be in another network")
    for one in body["networkInterfaces"]:
        if one.get("stackType") == "IPV4_ONLY" and "ipv6AccessConfigs" in one:
            yield invalid("resource.networkInterfaces.ipv6AccessConfigs", "the stack type is IPV4_ONLY")
