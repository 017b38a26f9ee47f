"""What `LibvirtProvider.check` looks at, one finding a subject; blocking, makes nothing."""

import re
from collections.abc import Callable, Iterator, Sequence

from caa.errors import ProviderError
from caa.model.instance import Finding, Severity
from providers.libvirt import domain
from providers.libvirt.client import Host
from providers.libvirt.facts import Facts
from providers.libvirt.faults import ConnectionLost
from providers.libvirt.translate import GIB, Site

Look = Callable[[], Finding]


def findings(host: Host, site: Site) -> Sequence[Finding]:
    """Every subject, the broken ones too. Without a connection there is that one finding; `ConnectionLost` is not
    raised, for it is what a check has to say."""
    try:
        facts = host.facts()
    except ProviderError as error:
        return [_error("LIBVIRT_URI", error, remedy="start libvirtd there, and see that this node may use it")]
    return list(_looked_at(host, site, facts=facts))


def _looked_at(host: Host, site: Site, *, facts: Facts) -> Iterator[Finding]:
    yield Finding(
        severity=Severity.OK, subject="LIBVIRT_URI", detail=f"{facts.arch} host with {facts.memory_mib} MiB of memory"
    )
    yield _acceleration(facts)
    for subject, look, remedy in (
        ("LIBVIRT_POOL", lambda: _pool(host, site), "make the pool, or set LIBVIRT_POOL to one that is there"),
        ("LIBVIRT_NET", lambda: _network(host, site), "start the network, or set LIBVIRT_NET to another"),
        ("LIBVIRT_VOL_NAME", lambda: _image(host, site), "upload the image, or set LIBVIRT_VOL_NAME"),
        ("LIBVIRT_LAUNCH_SECURITY", lambda: _launch(site, facts), "see virsh domcapabilities on the libvirt host"),
        (
            "LIBVIRT_MEMORY",
            lambda: _memory(host, site, facts=facts),
            "set LIBVIRT_MEMORY, LIBVIRT_CPU to what the host has",
        ),
    ):
        yield _tried(subject, look, remedy=remedy)
    yield from _firmware(site, facts)
    yield from _cpuset(site, facts)


def _tried(subject: str, look: Look, *, remedy: str) -> Finding:
    try:
        return look()
    except ConnectionLost as error:
        return _error("LIBVIRT_URI", error, remedy="start libvirtd there, and see that this node may use it")
    except ProviderError as error:
        return _error(subject, error, remedy=remedy)


def _error(subject: str, error: ProviderError | str, *, remedy: str) -> Finding:
    detail = str(error).removeprefix(f"{subject}: ")
    return Finding(severity=Severity.ERROR, subject=subject, detail=detail, remedy=remedy)


def _warning(subject: str, detail: str, *, remedy: str) -> Finding:
    return Finding(severity=Severity.WARNING, subject=subject, detail=detail, remedy=remedy)


def _ok(subject: str, detail: str) -> Finding:
    return Finding(severity=Severity.OK, subject=subject, detail=detail)


def _acceleration(facts: Facts) -> Finding:
    if facts.kind == "qemu":
        return _warning(
            "LIBVIRT_ACCELERATION",
            "the host emulates the CPU (no usable /dev/kvm): pod VMs are slow and never confidential",
            remedy="load the kvm module, or use a host with hardware virtualisation",
        )
    return _ok("LIBVIRT_ACCELERATION", facts.kind)


def _pool(host: Host, site: Site) -> Finding:
    pool = host.pool(site.pool)
    free = f"{site.pool}: {pool.available / GIB:.1f} GiB free in {pool.path}"
    if pool.available < GIB:
        return _warning("LIBVIRT_POOL", free, remedy="make room: root disks grow as their pods write")
    return _ok("LIBVIRT_POOL", free)


def _network(host: Host, site: Site) -> Finding:
    dhcp = host.network(site.network)
    if dhcp is False:
        return _error(
            "LIBVIRT_NET",
            f"the network {site.network} hands out no addresses",
            remedy=f"add a <dhcp> range with virsh net-edit {site.network}, or set LIBVIRT_NET to another",
        )
    if dhcp is None:
        return _warning(
            "LIBVIRT_NET",
            f"{site.network} leads to a network that libvirt does not manage: addresses come from a DHCP server there, "
            "and are seen only by the guest agent or in the host's ARP table",
            remedy="see that a DHCP server is there and that the image has the guest agent",
        )
    return _ok("LIBVIRT_NET", f"{site.network}, with DHCP")


def _image(host: Host, site: Site) -> Finding:
    if not site.volume:
        return _ok("LIBVIRT_KERNEL", f"direct boot of {site.kernel}, without a root disk")
    image = host.image(site.pool, site.volume, boots=not site.kernel)
    return _ok("LIBVIRT_VOL_NAME", f"{image.path}: {image.format}, {image.capacity / GIB:.1f} GiB")


def _launch(site: Site, facts: Facts) -> Finding:
    kind = domain.launch_kind(site, facts)
    if kind and facts.launch is None:
        return _warning(
            "LIBVIRT_LAUNCH_SECURITY", f"the host does not say whether it has {kind}", remedy="try it with one pod"
        )
    return _ok("LIBVIRT_LAUNCH_SECURITY", kind or "ordinary VMs, not confidential")


def _memory(host: Host, site: Site, *, facts: Facts) -> Finding:
    if site.memory_mib > facts.memory_mib:
        detail = f"a pod VM takes {site.memory_mib} MiB, the host has {facts.memory_mib} in all"
        return _error("LIBVIRT_MEMORY", detail, remedy="set LIBVIRT_MEMORY to less")
    if facts.max_vcpus and site.vcpus > facts.max_vcpus:
        detail = f"a pod VM takes {site.vcpus} vCPUs, the host allows {facts.max_vcpus}"
        return _error("LIBVIRT_CPU", detail, remedy="set LIBVIRT_CPU to less")
    free = host.free_memory()
    if free is not None and free < site.memory_mib and not site.overcommit:
        detail = f"a pod VM takes {site.memory_mib} MiB, {free} MiB are free now"
        return _warning("LIBVIRT_MEMORY", detail, remedy="set LIBVIRT_MEMORY to less, or end other VMs")
    return _ok("LIBVIRT_MEMORY", f"{site.vcpus} vCPUs, {site.memory_mib} MiB a pod VM; {free or '?'} MiB free")


def _firmware(site: Site, facts: Facts) -> Iterator[Finding]:
    subject = "LIBVIRT_EFI_FIRMWARE"
    machine = domain.MACHINES[facts.arch]
    if site.firmware == "none" or not machine.uefi or (site.kernel and site.firmware == "auto"):
        yield _ok(subject, "no UEFI")
    elif site.firmware == "auto" and facts.uefi is False:
        yield _error(subject, "libvirt finds no UEFI firmware", remedy="install one (Debian: ovmf), or set it to none")
    elif site.firmware != "auto" and facts.loaders and site.firmware not in facts.loaders:
        known = ", ".join(sorted(facts.loaders))
        yield _warning(
            subject, f"the host does not list {site.firmware}", remedy=f"set it to auto, or to one of {known}"
        )
    else:
        yield _ok(subject, site.firmware)
    if site.secure_boot and facts.secure_boot is False:
        yield _error("LIBVIRT_SECURE_BOOT", "the host has no firmware for it", remedy="install one, or set it to false")
    if site.tpm and (facts.tpm is False or not machine.tpm):
        yield _error(
            "LIBVIRT_TPM", "the host emulates no TPM", remedy="install swtpm on the libvirt host, or set it to false"
        )


def _cpuset(site: Site, facts: Facts) -> Iterator[Finding]:
    """A warning alone: where CPUs are offline, numbers go further than their count."""
    highest = max((int(word) for word in re.findall(r"\d+", site.cpuset)), default=0)
    if facts.cpus and highest >= facts.cpus:
        yield _warning(
            "LIBVIRT_CPUSET",
            f"it is {site.cpuset}, the host has {facts.cpus} CPUs, counted from 0",
            remedy="name CPUs that virsh nodecpumap lists on the libvirt host",
        )
