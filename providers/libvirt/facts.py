"""What a libvirt host says about itself, read from its XML documents; pure.

`<capabilities>` and `<domainCapabilities>` are described in libvirt's formatcaps and formatdomaincaps pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from xml.etree import ElementTree

from caa.errors import Misconfigured, ProviderError
from caa.model.instance import Arch

ARCHES: Mapping[str, Arch] = MappingProxyType(
    {
        "x86_64": Arch.AMD64,
        "i686": Arch.AMD64,  # the host of libvirt's own test driver
        "aarch64": Arch.ARM64,
        "s390x": Arch.S390X,
        "ppc64le": Arch.PPC64LE,
    }
)
FILE_POOLS = frozenset({"dir", "fs", "netfs"})
_KINDS = ("kvm", "qemu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A libvirt host as far as we need it. `launch` and `max_vcpus` are None where the host does not say.

    `arch` is libvirt's word (x86_64), `kind` the type of domain (kvm, qemu). `sev` holds cbitpos and reducedPhysBits.
    `cpus` counts those that are online, 0 where the host does not say.
    `uefi` says whether libvirt can choose a UEFI firmware, `loaders` which images it knows by path.
    """

    arch: str
    kind: str
    memory_mib: int = 0
    cpus: int = 0
    max_vcpus: int | None = None
    launch: frozenset[str] | None = None
    sev: tuple[int, int] | None = None
    uefi: bool | None = None
    secure_boot: bool | None = None
    tpm: bool | None = None
    loaders: frozenset[str] = frozenset()

    @property
    def known_arch(self) -> Arch:
        """Our word for it."""
        return ARCHES[self.arch]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """A storage pool: its kind, the folder of its files, and the bytes that are free."""

    kind: str
    path: str
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts:
    """A volume: its path on the libvirt host, format (qcow2, raw) and size in bytes."""

    path: str
    format: str
    capacity: int


def parsed(document: str) -> ElementTree.Element:
    """A document of libvirt as a tree; raises `ProviderError` when it is none."""
    try:
        return ElementTree.fromstring(document)  # noqa: S314  # libvirtd's own answer, on a connection that is root's
    except ElementTree.ParseError as error:
        raise ProviderError(f"libvirt sent a document that cannot be read: {error}") from error


def guest_of(capabilities: str, acceleration: str) -> tuple[str, str]:
    """The architecture of the host and the kind of domain to make, from `<capabilities>`.

    `acceleration` is auto, kvm or qemu. Raises `Misconfigured` when the host cannot make such domains.
    """
    tree = parsed(capabilities)
    arch = tree.findtext("host/cpu/arch", "")
    if arch not in ARCHES:
        raise Misconfigured(f"LIBVIRT_URI: hosts of architecture {arch or 'unknown'} are not supported")
    kinds = [
        domain.get("type", "")
        for guest in tree.findall("guest")
        if guest.findtext("os_type") == "hvm"
        for domain in guest.findall(f"arch[@name='{arch}']/domain")
    ]
    return arch, _kind(kinds, acceleration)


def _kind(kinds: list[str], acceleration: str) -> str:
    wanted = _KINDS if acceleration == "auto" else (acceleration,)
    for kind in wanted:
        if kind in kinds:
            return kind
    if acceleration == "auto" and "test" in kinds:
        return "test"  # libvirt's own test driver
    has = ", ".join(sorted(set(kinds))) or "none at all"
    raise Misconfigured(
        f"LIBVIRT_ACCELERATION is {acceleration}, and the libvirt host has {has}: "
        "load the kvm module and let libvirt use /dev/kvm, or install QEMU"
    )


def facts(arch: str, kind: str, *, memory_mib: int, cpus: int = 0, domain_capabilities: str = "") -> Facts:
    """Everything from `<domainCapabilities>`; "" where the driver has no such document."""
    if not domain_capabilities:
        return Facts(arch=arch, kind=kind, memory_mib=memory_mib, cpus=cpus)
    tree = parsed(domain_capabilities)
    vcpu = tree.find("vcpu")
    firmware = {one.text for one in tree.findall("os/enum[@name='firmware']/value")}
    return Facts(
        arch=arch,
        kind=kind,
        memory_mib=memory_mib,
        cpus=cpus,
        max_vcpus=int(vcpu.get("max", "0")) or None if vcpu is not None else None,
        launch=_launch(tree),
        sev=_sev(tree),
        uefi="efi" in firmware,
        secure_boot="yes" in {one.text for one in tree.findall("os/loader/enum[@name='secure']/value")},
        tpm="emulator" in {one.text for one in tree.findall("devices/tpm/enum[@name='backendModel']/value")},
        loaders=frozenset(one.text or "" for one in tree.findall("os/loader/value")),
    )


def _launch(tree: ElementTree.Element) -> frozenset[str]:
    """Old hosts have an element a kind, newer ones (libvirt 10.5) also a list of kinds."""
    found = {kind for kind in ("sev", "s390-pv", "tdx") if tree.find(f"features/{kind}[@supported='yes']") is not None}
    security = tree.find("features/launchSecurity[@supported='yes']")
    if security is not None:
        found |= {one.text or "" for one in security.findall("enum[@name='sectype']/value")}
    return frozenset(found)


def _sev(tree: ElementTree.Element) -> tuple[int, int] | None:
    sev = tree.find("features/sev[@supported='yes']")
    if sev is None or not sev.findtext("cbitpos"):
        return None
    return int(sev.findtext("cbitpos", "0")), int(sev.findtext("reducedPhysBits", "0"))


def pool_of(document: str) -> PoolFacts:
    """From `<pool>`."""
    tree = parsed(document)
    return PoolFacts(
        kind=tree.get("type", ""),
        path=tree.findtext("target/path", "").rstrip("/"),
        available=int(tree.findtext("available", "0")),
    )


def volume_of(document: str) -> VolumeFacts:
    """From `<volume>`."""
    tree = parsed(document)
    form = tree.find("target/format")
    return VolumeFacts(
        path=tree.findtext("target/path", ""),
        format=form.get("type", "raw") if form is not None else "raw",
        capacity=int(tree.findtext("capacity", "0")),
    )


def has_dhcp(document: str) -> bool | None:
    """Whether a `<network>` hands out addresses itself; None where a bridge leads to a network of others."""
    tree = parsed(document)
    forward = tree.find("forward")
    if forward is not None and forward.get("mode") in {"bridge", "private", "vepa", "passthrough", "hostdev"}:
        return None
    return tree.find("ip/dhcp") is not None


def macs(document: str) -> frozenset[str]:
    """The MAC addresses of a `<domain>`'s network interfaces."""
    return frozenset(one.get("address", "").lower() for one in parsed(document).findall("devices/interface/mac"))
