"""What a project finds in the cloud before anything is made: zones, types, images, networks, quotas, tags."""

from collections.abc import Mapping
from typing import Any

from tests.fakes.gcp.rules import Refused, not_found

PROJECT = "demo-project"
ROOT = "https://www.googleapis.com/compute/v1/"

_CONFIDENTIAL = ("UEFI_COMPATIBLE", "SEV_CAPABLE", "SEV_SNP_CAPABLE", "TDX_CAPABLE", "GVNIC")
_TYPES: Mapping[str, tuple[int, int, str, int]] = {
    "e2-medium": (2, 4096, "X86_64", 0),
    "n2d-standard-2": (2, 8192, "X86_64", 0),
    "n2d-standard-4": (4, 16384, "X86_64", 0),
    "n2d-highcpu-8": (8, 8192, "X86_64", 0),
    "c2d-standard-2": (2, 8192, "X86_64", 0),
    "c3-standard-4": (4, 16384, "X86_64", 0),
    "n1-standard-8": (8, 30720, "X86_64", 0),
    "g2-standard-4": (4, 16384, "X86_64", 1),
    "t2a-standard-2": (2, 8192, "ARM64", 0),
}


class Land:
    """All of it may be changed by a test."""

    def __init__(self) -> None:
        self.free_addresses = 250
        self.zones = {
            "europe-west3-a": ["Intel Broadwell", "AMD Rome", "AMD Milan", "Intel Sapphire Rapids"],
            "europe-west3-b": ["Intel Broadwell", "AMD Rome", "AMD Milan"],
            "europe-west3-c": ["Intel Broadwell", "AMD Rome"],
            "europe-west4-a": ["Intel Broadwell", "AMD Milan"],
        }
        self.accelerators = {"europe-west3-a": {"nvidia-tesla-t4"}, "europe-west4-a": {"nvidia-tesla-t4", "nvidia-l4"}}
        self.dark: set[str] = set()  # zones that lists cannot reach
        self.without_tee: set[tuple[str, str]] = set()  # (SEV_SNP, SEV or TDX, zone), which no call tells
        self.networks = {f"projects/{PROJECT}/global/networks/{one}" for one in ("pods", "outside")}
        self.networks.add("projects/host-project/global/networks/shared")
        self.subnetworks = {
            f"projects/{PROJECT}/regions/{region}/subnetworks/{one}"
            for region in ("europe-west3", "europe-west4")
            for one in ("pods", "outside")
        }
        self.subnetworks.add("projects/host-project/regions/europe-west3/subnetworks/shared")
        ports = [{"IPProtocol": "tcp", "ports": ["15150"]}, {"IPProtocol": "udp", "ports": ["4000-5000"]}]
        rule = {"name": "pods", "direction": "INGRESS", "priority": 1000, "sourceTags": ["nodes"], "allowed": ports}
        self.firewalls: list[dict[str, Any]] = [rule]
        self.policies: list[dict[str, Any]] = []
        self.tags = {f"{PROJECT}/team/blue": ("tagKeys/11", "tagValues/12")}
        self.quotas = {
            "INSTANCES": 1000.0, "CPUS": 1000.0, "N2D_CPUS": 1000.0, "C2D_CPUS": 1000.0, "C3_CPUS": 100.0,
            "NVIDIA_T4_GPUS": 8.0, "IN_USE_ADDRESSES": 1000.0, "DISKS_TOTAL_GB": 50000.0, "SSD_TOTAL_GB": 5000.0,
        }  # fmt: skip
        self.images = _images()

    def machine_types(self, zone: str) -> list[dict[str, Any]]:
        """The types of a zone: TDX only where there is its processor."""
        if zone not in self.zones:
            raise not_found(f"projects/{PROJECT}/zones/{zone}")
        tdx = "Intel Sapphire Rapids" in self.zones[zone]
        return [_type(name, zone) for name in _TYPES if tdx or not name.startswith("c3-")]

    def machine_type(self, zone: str, name: str) -> dict[str, Any]:
        """One type, custom ones too."""
        found = next((one for one in self.machine_types(zone) if one["name"] == name), None)
        if found is None and "-custom-" in name:
            cpus, memory = map(int, name.split("-")[2:4])
            found = {"name": name, "guestCpus": cpus, "memoryMb": memory, "architecture": "X86_64", "zone": zone}
        if found is None:
            raise not_found(f"projects/{PROJECT}/zones/{zone}/machineTypes/{name}")
        return found

    def image(self, path: str) -> dict[str, Any]:
        """One image."""
        if path not in self.images:
            raise not_found(path)
        return self.images[path]

    def refuse_unknown(self, path: str) -> None:
        """Raise the cloud's 404 unless this is a network or subnetwork of ours."""
        if path not in self.networks | self.subnetworks:
            raise not_found(path)

    def refuse_beyond(self, used: Mapping[str, float], more: Mapping[str, float], *, region: str) -> None:
        """Raise the cloud's 403 when a quota would not hold."""
        for metric, number in more.items():
            if used[metric] + number > (most := self.quotas.get(metric, 1e9)):
                words = f"Quota '{metric}' exceeded.  Limit: {most:.1f} in region {region}."
                raise Refused(403, "quotaExceeded", words)


def costs(body: Mapping[str, Any], kind: Mapping[str, Any]) -> dict[str, float]:
    """What an instance takes of each quota."""
    family = str(kind["name"]).partition("-")[0]
    cpus = "CPUS" if family in ("e2", "n1") else f"{family.upper()}_CPUS"
    found = {"INSTANCES": 1.0, cpus: float(kind["guestCpus"])}
    found["IN_USE_ADDRESSES"] = float(sum("accessConfigs" in one for one in body["networkInterfaces"]))
    for one in body.get("guestAccelerators", ()):
        model = str(one["acceleratorType"]).rpartition("/nvidia-tesla-")[2].upper()
        found[f"NVIDIA_{model}_GPUS"] = float(one["acceleratorCount"])
    first = body["disks"][0].get("initializeParams", {})
    disks = "DISKS_TOTAL_GB" if str(first.get("diskType", "")).endswith("/pd-standard") else "SSD_TOTAL_GB"
    return found | {disks: float(first.get("diskSizeGb", 20))}


def _type(name: str, zone: str) -> dict[str, Any]:
    cpus, memory, arch, gpus = _TYPES[name]
    found: dict[str, Any] = {"name": name, "guestCpus": cpus, "memoryMb": memory, "architecture": arch, "zone": zone}
    if gpus:
        found["accelerators"] = [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": gpus}]
    return found


def _images() -> dict[str, dict[str, Any]]:
    found = {}
    for project, name, features, arch in (
        (PROJECT, "podvm", _CONFIDENTIAL, "X86_64"),
        (PROJECT, "podvm-bios", (), "X86_64"),
        (PROJECT, "podvm-plain", ("UEFI_COMPATIBLE",), "X86_64"),
        (PROJECT, "podvm-arm", ("UEFI_COMPATIBLE",), "ARM64"),
        ("image-project", "podvm", _CONFIDENTIAL, "X86_64"),
    ):
        path = f"projects/{project}/global/images/{name}"
        types = [{"type": one} for one in features]
        image = {"name": name, "status": "READY", "diskSizeGb": "20", "architecture": arch, "guestOsFeatures": types}
        found[path] = {**image, "selfLink": f"{ROOT}{path}"}
    found[f"projects/{PROJECT}/global/images/family/podvm"] = found[f"projects/{PROJECT}/global/images/podvm"]
    return found
