"""Pod VMs as a cloud sees them: what is asked for, what exists, what a driver can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from caa.model.ids import InstanceId, SandboxId

IPAddress = IPv4Address | IPv6Address


class Arch(StrEnum):
    """CPU architectures that pod VM images exist for."""

    AMD64 = "amd64"
    ARM64 = "arm64"
    S390X = "s390x"
    PPC64LE = "ppc64le"


class Tee(StrEnum):
    """Trusted execution environments."""

    NONE = "none"
    SEV = "sev"  # memory encryption without integrity: Google Cloud only
    SNP = "snp"
    TDX = "tdx"
    SE = "se"
    CCA = "cca"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What the pod asks for; 0 and "" mean "not asked"."""

    instance_type: str = ""
    vcpus: int = 0
    memory_mib: int = 0
    gpus: int = 0
    gpu_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One line of a cloud's catalogue. `price` is per hour in the cloud's currency, None where unknown."""

    name: str
    vcpus: int
    memory_mib: int
    gpus: int = 0
    arch: Arch = Arch.AMD64
    tees: frozenset[Tee] = frozenset()
    zones: frozenset[str] = frozenset()
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who an instance belongs to: one cluster, one worker node. Written as tags on everything that is created."""

    cluster: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InitdataDigest:
    """The digest of the initdata that the guest will have, raw bytes. `algorithm` is sha256, sha384 or sha512."""

    algorithm: str
    value: bytes

    def fitted(self, size: int) -> bytes:
        """The digest in a field of `size` bytes of a TEE's evidence: zeros behind a short one, the end of a long one
        cut off. So Kata's shims write HOST_DATA and MRCONFIGID, and so a verifier compares them (`regularize_data` in
        Trustee's verifier; `reference/podvm.md` 2.3)."""
        return self.value[:size].ljust(size, b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """Everything a driver needs to make one pod VM.

    `name` is unique per sandbox: the same name asked for twice is the same instance. `token` is the idempotency token
    for clouds that take one. `instance_type` is already chosen ("" where the driver takes `sizing` as numbers).
    `user_data` is the cloud-config document, not yet base64. `image` is "" for the configured default. `namespace` and
    `pod` are for the tags. `volumes` are disks of the cloud, by its ids, to attach in this order. `initdata` is for
    drivers that write a confidential VM's launch data (HOST_DATA, MRCONFIGID).
    """

    name: str
    sandbox: SandboxId
    owner: Owner
    token: str
    user_data: bytes = field(repr=False)
    instance_type: str = ""
    sizing: Sizing = field(default_factory=Sizing)
    image: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    pod: str = ""
    volumes: tuple[str, ...] = ()
    initdata: InitdataDigest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A pod VM that exists. `addresses` are reachable from the worker node, the preferred one first."""

    id: InstanceId
    name: str
    addresses: tuple[IPAddress, ...]
    sandbox: SandboxId | None = None
    instance_type: str = ""
    created_at: float = 0.0  # seconds since the epoch; 0 where the cloud does not say


class InstanceState(StrEnum):
    """Whether a pod VM can still carry its pod."""

    RUNNING = "running"  # or being started, rebooted, moved
    STOPPED = "stopped"  # it is there and does not run: crashed, stopped, being removed
    ABSENT = "absent"
    UNKNOWN = "unknown"  # who has it cannot tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do and how much it takes.

    `user_data_limit` is in bytes, counted after base64 when `user_data_base64`; None means no limit.
    `sized_by_type`: the cloud has a catalogue of instance types; otherwise `Sizing` numbers are taken as they are.
    `default_type` is what a pod gets that asks for nothing; it may always be asked for.
    """

    user_data_limit: int | None = None
    user_data_base64: bool = False
    sized_by_type: bool = True
    default_type: str = ""
    name_limit: int = 63
    console: bool = False
    volumes: bool = False
    isolates: bool = True  # False only for `local`: its pod VMs are processes


class Severity(StrEnum):
    """How bad a finding is; `ERROR` means that pods cannot start."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of `Provider.check`: what was looked at, how it is, what to do about it."""

    severity: Severity
    subject: str
    detail: str
    remedy: str = ""
