"""Pure: settings and launch requests into sizes, names and records, and records into instances."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from ipaddress import ip_address
from types import MappingProxyType
from xml.etree import ElementTree

from caa.errors import InstanceTypeError, InvalidRequest, Misconfigured, ProviderError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import InitdataDigest, InstanceState, InstanceType, IPAddress, Tee
from caa.provider.contract import Instance, LaunchRequest, Owner
from caa.provider.requests import IMAGE_ANNOTATION, image_of
from providers.libvirt.facts import Facts

NAMESPACE = "urn:peerpods-caa:podvm:1"
PREFIX = "caa"
MACHINE_TYPE_ANNOTATION = "io.katacontainers.config.hypervisor.machine_type"
GIB = 1 << 30

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SIZE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{1,7})")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
_MOST_DATA = 22  # vdc to vdx
_PAUSED, _SHUTTING_DOWN, _SHUT_OFF, _CRASHED = 3, 4, 5, 6  # virDomainState
_PAUSED_FOR_GOOD = frozenset({5, 10})  # an I/O error (the pool is full), a crashed guest
_TEES: Mapping[str, Tee] = MappingProxyType({"sev-snp": Tee.SNP, "tdx": Tee.TDX, "s390-pv": Tee.SE})
_OWN_VOLUMES = ("-root.qcow2", "-seed.iso", "-console.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The settings, as one value. `volume` is "" where a directly booted pod VM has no root disk."""

    pool: str
    network: str
    volume: str
    images: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    launch: str = ""
    policy: int | None = None
    confidential: bool = False
    firmware: str = "auto"
    firmware_vars: str = ""
    secure_boot: bool = False
    tpm: bool = False
    vcpus: int = 2
    memory_mib: int = 8192
    overcommit: bool = False
    cpuset: str = ""
    root_bytes: int = 10 * GIB
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written into a domain's metadata: whose it is, where its files are, and its addresses once known."""

    name: str
    uuid: str
    sandbox: SandboxId
    owner: Owner
    pool: str
    size: str
    created_at: float
    addresses: tuple[IPAddress, ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def root(self) -> str:
        """The volume of its root disk."""
        return f"{self.name}-root.qcow2"

    @property
    def seed(self) -> str:
        """The volume of its user data."""
        return f"{self.name}-seed.iso"

    @property
    def console(self) -> str:
        """The volume that its serial console is written to."""
        return f"{self.name}-console.log"

    @property
    def volumes(self) -> tuple[str, ...]:
        """Every volume that is made for it. The user data goes first, for it holds the pod VM's key."""
        return (self.seed, self.root, self.console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A launch request that was understood: record, size, and the volumes of image ("" for none) and data."""

    record: Record
    vcpus: int
    memory_mib: int
    image: str
    data: tuple[str, ...]
    initdata: InitdataDigest | None = None


def plan(site: Site, request: LaunchRequest, *, uuid: str, now: float) -> Plan:
    """What to make for a request. Raises `InvalidRequest` and names the annotation or the setting."""
    _check_name(request.name)
    for text in (request.sandbox, request.owner.cluster, request.owner.node, *request.tags, *request.tags.values()):
        if not text.isprintable():
            raise InvalidRequest(f"{text[:80]!r} holds characters that a domain's metadata cannot")
    vcpus, memory = size(site, request)
    record = Record(
        name=request.name,
        uuid=uuid,
        sandbox=request.sandbox,
        owner=request.owner,
        pool=site.pool,
        size=f"{vcpus}x{memory}",
        created_at=round(now, 3),
        tags={**site.tags, **request.tags, "namespace": request.namespace, "pod": request.pod},
    )
    return Plan(
        record=record,
        vcpus=vcpus,
        memory_mib=memory,
        image=image(site, request),
        data=_data(site, request.volumes),
        initdata=request.initdata,
    )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"instance name {name[:80]!r} is not valid: 1 to 63 lower-case letters, digits and '-', no '-' at the ends"
        )


def size(site: Site, request: LaunchRequest) -> tuple[int, int]:
    """vCPUs and MiB: a type such as 4x8192 wins, then each number by itself, then the settings."""
    asked = request.sizing
    if asked.gpus or asked.gpu_model:
        raise InstanceTypeError("the libvirt provider gives no GPUs: remove the annotation default_gpus")
    named = request.instance_type or asked.instance_type
    if named:
        return _named_size(named)
    if asked.vcpus < 0 or asked.memory_mib < 0:
        raise InstanceTypeError(f"vCPUs {asked.vcpus} and memory {asked.memory_mib}: neither can be less than nothing")
    return asked.vcpus or site.vcpus, asked.memory_mib or site.memory_mib


def _named_size(name: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(name)
    if not found:
        raise InstanceTypeError(
            f"the annotation {MACHINE_TYPE_ANNOTATION} is {name[:80]!r}; for libvirt it is <vCPUs>x<MiB>, "
            "such as 4x8192"
        )
    return int(found[1]), int(found[2])


def image(site: Site, request: LaunchRequest) -> str:
    """The volume to boot from, "" for none. Only an operator's patterns let a pod choose another one, and never a file
    of a pod VM: a pool holds other pods' disks."""
    chosen = image_of(request, default=site.volume, allowed=site.images, pattern=_VOLUME.pattern)
    if chosen != site.volume and _of_a_pod(chosen):
        raise InvalidRequest(f"the annotation {IMAGE_ANNOTATION}: {chosen} is the file of a pod VM")
    return chosen


def _of_a_pod(volume: str) -> bool:
    return volume.endswith(_OWN_VOLUMES)


def _data(site: Site, volumes: Iterable[str]) -> tuple[str, ...]:
    """Data volumes by their names in the pool; never an image, and never a file of another pod VM."""
    wanted = tuple(volumes)
    for name in wanted:
        if not _VOLUME.fullmatch(name):
            raise InvalidRequest(f"the data volume {name[:80]!r} is not the name of a volume in {site.pool}")
        if _of_a_pod(name) or name == site.volume or any(fnmatchcase(name, one) for one in site.images):
            raise InvalidRequest(
                f"the volume {name} is an image (LIBVIRT_VOL_NAME, IMAGE_ALLOWLIST) or belongs to a pod VM: it cannot "
                "be a data volume"
            )
    if len(set(wanted)) < len(wanted):
        raise InvalidRequest(f"a data volume is named twice: {', '.join(wanted)}")
    if len(wanted) > _MOST_DATA:
        raise InvalidRequest(f"{len(wanted)} data volumes are more than {_MOST_DATA}")
    return wanted


def refuse_format(name: str, form: str) -> None:
    """Raise `InvalidRequest` for a data volume that is not raw. A guest that may write to its disk can write the header
    of another format there, libvirt then takes it for one, and QEMU would follow it to any file of the host."""
    if form != "raw":
        raise InvalidRequest(
            f"the data volume {name} holds {form}, or a guest has written that into it: data volumes have to be raw"
        )


def blamed(site: Site, error: ProviderError) -> ProviderError:
    """The error of a start; the setting is named whose path on the libvirt host libvirt or QEMU complains about."""
    said = str(error)
    for setting, path in (("LIBVIRT_EFI_VARS", site.firmware_vars), ("LIBVIRT_EFI_FIRMWARE", site.firmware)):
        if type(error) is ProviderError and path.startswith("/") and path in said:
            return Misconfigured(f"{setting}: it is no firmware on the libvirt host that libvirt can use: {said}")
    return error


def is_instance(instance: str) -> bool:
    """Whether a text can be an instance id of ours: a domain's UUID."""
    return _UUID.fullmatch(instance) is not None


def metadata(record: Record) -> ElementTree.Element:
    """The element that says whose a domain is."""
    attributes = {
        "cluster": record.owner.cluster,
        "node": record.owner.node,
        "sandbox": record.sandbox,
        "pool": record.pool,
        "size": record.size,
        "created": f"{record.created_at:.3f}",
        "addresses": " ".join(map(str, record.addresses)),
    }
    element = ElementTree.Element("podvm", attributes)
    for name, value in record.tags.items():
        ElementTree.SubElement(element, "tag", {"name": name, "value": value})
    return element


def record_of(document: str, *, name: str, uuid: str) -> Record:
    """The inverse of `metadata`. Raises `ProviderError` when it is not complete."""
    try:
        element = ElementTree.fromstring(document)  # noqa: S314  # what we wrote, from libvirtd
        at = element.attrib
        return Record(
            name=name,
            uuid=uuid,
            sandbox=SandboxId(at["sandbox"]),
            owner=Owner(cluster=at["cluster"], node=at["node"]),
            pool=at["pool"],
            size=at["size"],
            created_at=float(at["created"]),
            addresses=tuple(map(ip_address, at.get("addresses", "").split())),
            tags={tag.attrib["name"]: tag.attrib["value"] for tag in element if tag.tag.endswith("tag")},
        )
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ProviderError(
            f"the metadata of the domain {name} cannot be read: {type(error).__name__} {error}"
        ) from error


def instance(record: Record) -> Instance:
    """The instance as the node sees it; one that is still starting has no address."""
    return Instance(
        id=InstanceId(record.uuid),
        name=record.name,
        addresses=record.addresses,
        sandbox=record.sandbox,
        instance_type=record.size,
        created_at=record.created_at,
    )


def with_addresses(record: Record, addresses: tuple[IPAddress, ...]) -> Record:
    """The record of a pod VM whose addresses are known."""
    return replace(record, addresses=addresses)


def state_of(state: int, reason: int) -> InstanceState:
    """libvirt's state (`virDomainState`) in our words. A paused VM is not lost, unless QEMU paused it for good."""
    if state in (_SHUTTING_DOWN, _SHUT_OFF, _CRASHED) or (state == _PAUSED and reason in _PAUSED_FOR_GOOD):
        return InstanceState.STOPPED
    return InstanceState.RUNNING if state else InstanceState.UNKNOWN


def largest(facts: Facts) -> InstanceType:
    """What the host has, as a type."""
    vcpus = facts.max_vcpus or 1
    return InstanceType(
        name=f"{vcpus}x{facts.memory_mib}",
        vcpus=vcpus,
        memory_mib=facts.memory_mib,
        arch=facts.known_arch,
        tees=frozenset(_TEES[kind] for kind in facts.launch or () if kind in _TEES),
    )


def usable(addresses: Iterable[str]) -> tuple[IPAddress, ...]:
    """The addresses that a node can reach, IPv4 first, each once; words that are none are dropped."""
    found: set[IPAddress] = set()
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if not (address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast):
            found.add(address)
    return tuple(sorted(found, key=lambda one: (one.version, int(one))))
