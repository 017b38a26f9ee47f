"""The XML of a pod VM's domain and of its volumes, for each architecture and kind of confidential VM; pure.

The elements are libvirt's (formatdomain, formatstorage); all but `sev-snp` and `tdx` are in the schema of libvirt 9.0,
`sev-snp` came with 10.5, `tdx` with 11.6. Everything that a pod may write goes through an XML writer, never a template.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree

from caa.errors import InvalidRequest, Misconfigured
from caa.model.instance import InitdataDigest
from providers.libvirt.facts import Facts, PoolFacts, VolumeFacts
from providers.libvirt.translate import NAMESPACE, PREFIX, Plan, Record, Site, metadata

Element = ElementTree.Element

LAUNCH_ORDER: Final = ("sev-snp", "tdx", "s390-pv", "sev")  # what DISABLECVM=false takes, the strongest first

# The guest owner's policy, without debugging: SEV API 1.55 table 2 (NODBG, NOKS), SNP firmware ABI 1.55 table 8 (SMT
# allowed, and the bit that has to be one), TDX module's SEPT_VE_DISABLE.
_POLICIES: Mapping[str, int] = MappingProxyType({"sev": 0x3, "sev-snp": 0x30000, "tdx": 0x10000000})

# Where the host writes what the guest's initdata has to be, and how many bytes there are (formatdomain, "Launch
# Security"). SEV and Secure Execution have no such field.
_HOST_DATA: Mapping[str, tuple[str, int]] = MappingProxyType({"sev-snp": ("hostData", 32), "tdx": ("mrConfigId", 48)})
_DIGEST_BYTES: Mapping[str, int] = MappingProxyType({"sha256": 32, "sha384": 48, "sha512": 64})


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs between architectures. "" for `tpm` where there is none, `uefi` whether there is such a firmware."""

    machine: str
    features: tuple[str, ...]
    kvm_cpu: str
    tpm: str
    uefi: bool


MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "x86_64": Machine("q35", ("acpi", "apic"), "host-model", "tpm-crb", uefi=True),
        "i686": Machine("", ("acpi",), "host-model", "tpm-crb", uefi=True),
        "aarch64": Machine("virt", (), "host-passthrough", "tpm-tis", uefi=True),
        "s390x": Machine("s390-ccw-virtio", (), "host-model", "", uefi=False),
        "ppc64le": Machine("pseries", (), "host-model", "tpm-spapr", uefi=False),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the host has for a pod VM: itself, the pool, and the image and data volumes of the plan."""

    facts: Facts
    pool: PoolFacts
    image: VolumeFacts | None
    data: tuple[VolumeFacts, ...] = ()


def launch_kind(site: Site, facts: Facts) -> str:
    """The kind of confidential VM, "" for an ordinary one; never an ordinary one in place of a confidential one.

    Raises `Misconfigured` when the host has not what is asked for. A host that does not say is asked by trying.
    """
    offered = facts.launch
    has = ", ".join(sorted(offered or ())) or "no kind of confidential VM"
    if site.launch:
        if offered is not None and site.launch not in offered:
            raise Misconfigured(
                f"LIBVIRT_LAUNCH_SECURITY is {site.launch}, and the libvirt host has {has}: see virsh domcapabilities "
                "there, the settings of its BIOS and kernel, and the versions of QEMU and libvirt"
            )
        return site.launch
    if not site.confidential:
        return ""
    for kind in LAUNCH_ORDER:
        if kind in (offered or ()):
            return kind
    raise Misconfigured(f"DISABLECVM is false, and the libvirt host has {has}: set it to true, or use another host")


def domain(site: Site, plan: Plan, *, parts: Parts) -> str:
    """The whole domain. Raises `Misconfigured` when settings and host do not fit."""
    machine = MACHINES[parts.facts.arch]
    kind = launch_kind(site, parts.facts)
    _check(site, machine, kind=kind)
    root = Element("domain", {"type": parts.facts.kind})
    _leaf(root, "name", plan.record.name)
    _leaf(root, "uuid", plan.record.uuid)
    _metadata(root, plan.record)
    _leaf(root, "memory", str(plan.memory_mib), unit="MiB")
    _leaf(root, "vcpu", str(plan.vcpus), **({"cpuset": site.cpuset} if site.cpuset else {}))
    _os(root, site, facts=parts.facts, kind=kind)
    _features(root, site, machine=machine, kind=kind)
    _cpu(root, machine, facts=parts.facts, kind=kind)
    _leaf(root, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _leaf(root, event, "destroy")  # a pod VM that begins anew has lost its pod
    _devices(root, site, plan=plan, parts=parts, confidential=bool(kind))
    if kind:
        _launch(root, site, facts=parts.facts, kind=kind)
        _host_data(root, plan.initdata, kind=kind)
    return text(root)


def text(element: Element) -> str:
    """The element as a document."""
    return ElementTree.tostring(element, encoding="unicode")


def record_text(record: Record) -> str:
    """The metadata element by itself, as `virDomainSetMetadata` takes it."""
    return text(metadata(record))


def volumes(site: Site, record: Record, *, image: VolumeFacts | None, seed_size: int) -> Iterator[tuple[str, str]]:
    """The volumes to make, by name, in order."""
    if image is not None:
        yield record.root, root_volume(record, image, size=site.root_bytes)
    yield record.console, raw_volume(record.console, 0)
    yield record.seed, raw_volume(record.seed, seed_size)


def root_volume(record: Record, base: VolumeFacts, *, size: int) -> str:
    """A qcow2 overlay over the image, `size` bytes or as large as the image."""
    volume = _volume(record.root, capacity=max(size, base.capacity), form="qcow2")
    backing = ElementTree.SubElement(volume, "backingStore")
    _leaf(backing, "path", base.path)
    _leaf(backing, "format", type=base.format)
    return text(volume)


def raw_volume(name: str, size: int) -> str:
    """A plain file that only root reads."""
    return text(_volume(name, capacity=size, form="raw"))


def _volume(name: str, *, capacity: int, form: str) -> Element:
    volume = Element("volume")
    _leaf(volume, "name", name)
    _leaf(volume, "capacity", str(capacity), unit="bytes")
    if form == "raw":
        _leaf(volume, "allocation", "0", unit="bytes")
    target = ElementTree.SubElement(volume, "target")
    _leaf(target, "format", type=form)
    _leaf(ElementTree.SubElement(target, "permissions"), "mode", "0600")
    return volume


def _leaf(parent: Element, tag: str, *content: str, **attributes: str) -> Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = "".join(content) or None
    return child


def _check(site: Site, machine: Machine, *, kind: str) -> None:
    if not machine.uefi and (site.secure_boot or site.firmware.startswith("/")):
        raise Misconfigured(f"LIBVIRT_EFI_FIRMWARE, LIBVIRT_SECURE_BOOT: {machine.machine} machines have no UEFI")
    if site.tpm and not machine.tpm:
        raise Misconfigured(f"LIBVIRT_TPM: {machine.machine} machines have no TPM")
    if kind in ("sev-snp", "tdx") and site.firmware == "none":
        raise Misconfigured(f"LIBVIRT_EFI_FIRMWARE is none, and {kind} needs UEFI: set it to auto")
    if (kind == "s390-pv") != (machine.machine == "s390-ccw-virtio" and bool(kind)):
        raise Misconfigured(f"LIBVIRT_LAUNCH_SECURITY is {kind}, which {machine.machine} machines do not have")
    if site.firmware == "none" and machine.machine == "virt" and not site.kernel:
        raise Misconfigured(
            "LIBVIRT_EFI_FIRMWARE is none: an aarch64 machine boots a disk by UEFI only, set it to auto"
        )


def _metadata(root: Element, record: Record) -> None:
    ours = metadata(record)
    ours.tag = f"{PREFIX}:podvm"
    ours.set(f"xmlns:{PREFIX}", NAMESPACE)
    for tag in ours:
        tag.tag = f"{PREFIX}:tag"
    ElementTree.SubElement(root, "metadata").append(ours)


def _os(root: Element, site: Site, *, facts: Facts, kind: str) -> None:
    machine = MACHINES[facts.arch]
    firmware = _firmware(site, machine, kind=kind)
    os = ElementTree.SubElement(root, "os", {"firmware": "efi"} if firmware == "auto" else {})
    attributes = {"arch": facts.arch} | ({"machine": machine.machine} if machine.machine else {})
    ElementTree.SubElement(os, "type", attributes).text = "hvm"
    if firmware == "auto":
        _autoselection(os, site)
    elif firmware != "none":
        _loader(os, site, path=firmware, kind=kind)
    if site.kernel:
        _leaf(os, "kernel", site.kernel)
        if site.initrd:
            _leaf(os, "initrd", site.initrd)
        _leaf(os, "cmdline", site.cmdline)


def _firmware(site: Site, machine: Machine, *, kind: str) -> str:
    """auto, none or a path. A kernel that is given needs no firmware, unless it has to be measured."""
    if not machine.uefi:
        return "none"
    if site.firmware == "auto" and site.kernel and not kind and not site.secure_boot:
        return "none"
    return site.firmware


def _autoselection(os: Element, site: Site) -> None:
    """libvirt chooses an image with, or without, these features (since 7.2); a loader beside it is refused by 9.0."""
    wanted = "yes" if site.secure_boot else "no"
    features = ElementTree.SubElement(os, "firmware")
    for name in ("secure-boot", "enrolled-keys"):
        _leaf(features, "feature", enabled=wanted, name=name)


def _loader(os: Element, site: Site, *, path: str, kind: str) -> None:
    """SNP and TDX measure a firmware without state, which is no flash memory; SEV takes a flash without state."""
    if kind in ("sev-snp", "tdx"):
        _leaf(os, "loader", path, type="rom", stateless="yes")
        return
    secure = {"secure": "yes"} if site.secure_boot else {}
    if kind == "sev":
        _leaf(os, "loader", path, readonly="yes", type="pflash", stateless="yes", **secure)
        return
    _leaf(os, "loader", path, readonly="yes", type="pflash", **secure)
    if site.firmware_vars:
        _leaf(os, "nvram", template=site.firmware_vars)


def _features(root: Element, site: Site, *, machine: Machine, kind: str) -> None:
    features = ElementTree.SubElement(root, "features")
    for name in machine.features:
        _leaf(features, name)
    if machine.machine == "virt" and (site.firmware != "none" and not site.kernel):
        _leaf(features, "acpi")
    if site.secure_boot and machine.machine == "q35" and site.firmware.startswith("/"):
        _leaf(features, "smm", state="on")
    if kind == "tdx":
        _leaf(features, "ioapic", driver="qemu")
    if not len(features):
        root.remove(features)


def _cpu(root: Element, machine: Machine, *, facts: Facts, kind: str) -> None:
    """Emulation gives all it can; a confidential guest sees the host's CPU, because it attests to it."""
    if facts.kind == "qemu":
        _leaf(root, "cpu", mode="maximum")
    elif facts.kind == "kvm":
        _leaf(root, "cpu", mode="host-passthrough" if kind in ("sev", "sev-snp", "tdx") else machine.kvm_cpu)


def _devices(root: Element, site: Site, *, plan: Plan, parts: Parts, confidential: bool) -> None:
    devices = ElementTree.SubElement(root, "devices")
    for disk in _disks(plan, parts):
        devices.append(disk)
    _console(devices, parts, record=plan.record)
    nic = _leaf(devices, "interface", type="network")
    _leaf(nic, "source", network=site.network)
    _leaf(nic, "model", type="virtio")
    rng = _leaf(devices, "rng", model="virtio")
    _leaf(rng, "backend", "/dev/urandom", model="random")
    if not confidential:
        channel = _leaf(devices, "channel", type="unix")
        _leaf(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if site.tpm:
        tpm = _leaf(devices, "tpm", model=MACHINES[parts.facts.arch].tpm)
        _leaf(tpm, "backend", type="emulator", version="2.0")
    _leaf(devices, "memballoon", model="none")
    if confidential:
        for device in devices:
            _encrypted(device)


def _encrypted(device: Element) -> None:
    """A virtio device reaches a confidential guest's memory only through buffers that the guest shares."""
    if device.tag not in ("disk", "interface", "rng"):
        return
    driver = device.find("driver")
    if driver is None:
        driver = ElementTree.SubElement(device, "driver")
    driver.set("iommu", "on")
    if device.tag == "interface":
        _leaf(device, "rom", enabled="no")  # its option ROM cannot run in an encrypted guest


def _disks(plan: Plan, parts: Parts) -> Iterator[Element]:
    """The root disk if there is one, the user data, data volumes: vda, vdb and so on, each with a serial."""
    record, folder = plan.record, parts.pool.path
    disks: list[tuple[str, str, str]] = []
    if parts.image is not None:
        disks.append((f"{folder}/{record.root}", "qcow2", "caa-root"))
    disks.append((f"{folder}/{record.seed}", "raw", "caa-seed"))
    disks += [(one.path, "raw", f"caa-data-{number}") for number, one in enumerate(parts.data)]
    for letter, (path, form, serial) in zip("abcdefghijklmnopqrstuvwxyz", disks, strict=False):
        yield _disk(path, form=form, target=f"vd{letter}", serial=serial)


def _disk(path: str, *, form: str, target: str, serial: str) -> Element:
    disk = Element("disk", {"type": "file", "device": "disk"})
    _leaf(disk, "driver", name="qemu", type=form)
    _leaf(disk, "source", file=path)
    _leaf(disk, "target", dev=target, bus="virtio")
    if serial == "caa-seed":
        _leaf(disk, "readonly")
    _leaf(disk, "serial", serial)
    if serial == "caa-root":
        _leaf(disk, "boot", order="1")
    return disk


def _console(devices: Element, parts: Parts, *, record: Record) -> None:
    """Into a file of the pool, so that it can be read from afar, and after the VM has died."""
    sclp = parts.facts.arch == "s390x"
    console = _leaf(devices, "console" if sclp else "serial", type="file")
    _leaf(console, "source", path=f"{parts.pool.path}/{record.console}")
    _leaf(console, "target", **({"type": "sclp"} if sclp else {"port": "0"}))


def _launch(root: Element, site: Site, *, facts: Facts, kind: str) -> None:
    hashes = {"kernelHashes": "yes"} if site.kernel and kind in ("sev", "sev-snp") else {}
    security = ElementTree.SubElement(root, "launchSecurity", {"type": kind, **hashes})
    if kind in ("sev", "sev-snp") and facts.sev:
        _leaf(security, "cbitpos", str(facts.sev[0]))
        _leaf(security, "reducedPhysBits", str(facts.sev[1]))
    if kind in _POLICIES:
        policy = _POLICIES[kind] if site.policy is None else site.policy
        _leaf(security, "policy", f"0x{policy:x}")
    if kind == "tdx":
        _leaf(security, "quoteGenerationService")


def _host_data(root: Element, digest: InitdataDigest | None, *, kind: str) -> None:
    """What the guest's initdata has to be, into the part of its evidence that the host writes before the launch."""
    security = root.find("launchSecurity")
    if digest is None or kind not in _HOST_DATA or security is None:
        return
    if len(digest.value) != _DIGEST_BYTES.get(digest.algorithm):
        raise InvalidRequest(
            f"an initdata digest of {digest.algorithm[:16]} with {len(digest.value)} bytes is none: {kind} takes a "
            "sha256, sha384 or sha512"
        )
    tag, size = _HOST_DATA[kind]
    _leaf(security, tag, base64.b64encode(digest.fitted(size)).decode())
