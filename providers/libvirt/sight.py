"""What is read off one of libvirt's domains: whose it is, whether it runs, where it can be reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import libvirt

from caa.model.instance import IPAddress
from providers.libvirt import facts, translate
from providers.libvirt.connection import code_of
from providers.libvirt.faults import NO_DOMAIN, NO_METADATA
from providers.libvirt.translate import NAMESPACE, Record

_SOURCES: Final = (
    ("DHCP leases", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE),
    ("guest agent", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
    ("ARP table", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A domain: `record` is None when it is not ours."""

    name: str
    uuid: str
    active: bool
    record: Record | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A domain at one moment: `no_room` when QEMU stopped it because the pool is full; `tried` says what each address
    source answered."""

    active: bool
    no_room: bool = False
    addresses: tuple[IPAddress, ...] = ()
    tried: str = ""


def found(lookup: Callable[[], Any]) -> Found | None:
    """A domain and its record; None when it is not there, or vanishes meanwhile."""
    try:
        dom = lookup()
        name, uuid = dom.name(), dom.UUIDString()
        return Found(name=name, uuid=uuid, active=bool(dom.isActive()), record=_record(dom, name, uuid=uuid))
    except libvirt.libvirtError as error:
        if code_of(error) != NO_DOMAIN:
            raise
        return None


def _record(dom: Any, name: str, *, uuid: str) -> Record | None:
    try:
        document = dom.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, 0)
    except libvirt.libvirtError as error:
        if code_of(error) != NO_METADATA:
            raise
        return None
    return translate.record_of(document, name=name, uuid=uuid)


def look(lookup: Callable[[], Any]) -> Look:
    """Whether it runs and which addresses it has: the first source that knows one is believed."""
    try:
        dom = lookup()
        if not dom.isActive():
            return Look(active=False)
        state, reason = dom.state(0)
        full = (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
        addresses, tried = _addresses(dom)
        return Look(active=True, no_room=full, addresses=addresses, tried=tried)
    except libvirt.libvirtError as error:
        if code_of(error) != NO_DOMAIN:
            raise
        return Look(active=False)


def _addresses(dom: Any) -> tuple[tuple[IPAddress, ...], str]:
    """The addresses from the first source that has any, and what the others said. Each source may fail by itself."""
    tried = []
    for name, source in _SOURCES:
        try:
            interfaces = dom.interfaceAddresses(source, 0) or {}
        except libvirt.libvirtError as error:
            if code_of(error) == NO_DOMAIN:
                raise
            tried.append(f"{name}: {error}")
            continue
        found = translate.usable(_of_interfaces(dom, interfaces, leased=name == "DHCP leases"))
        if found:
            return found, ""
        tried.append(f"{name}: none")
    return (), "; ".join(tried)


def _of_interfaces(dom: Any, interfaces: Mapping[str, Any], *, leased: bool) -> list[str]:
    """Of the cable that we gave it: a guest's agent also tells of tunnels and of the pod's own interfaces."""
    ours = None if leased or not interfaces else facts.macs(dom.XMLDesc(0))
    return [
        address["addr"]
        for interface in interfaces.values()
        if ours is None or str(interface.get("hwaddr", "")).lower() in ours
        for address in interface.get("addrs") or ()
    ]
