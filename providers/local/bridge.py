"""The private network of local pod VMs: a bridge in the node's own namespace and one veth cable to each pod VM.

The bridge is made with the first pod VM and goes with the last one; the caller holds a lock around both. Everything
is found by name, so it works after a restart of the node. Raises `NetworkError`.
"""

import errno
import os
from ipaddress import IPv4Interface, IPv4Network

from caa.errors import NetworkError
from caa.model.network import Route
from caa.net import codec, netns
from caa.net import messages as m
from caa.net.netlink import Netlink
from providers.local.translate import Site

_NEW = codec.NLM_F_CREATE | codec.NLM_F_EXCL
_GUEST_DEVICE = "eth0"
# linux/if_link.h and linux/veth.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 10, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_ANYWHERE = IPv4Network("0.0.0.0/0")


def plug(site: Site, name: str, *, address: IPv4Interface, pid: int) -> None:
    """Lay the cable from the bridge into the network namespace of the process `pid`, and configure both ends.

    The guest gets `address` on `eth0` and a default route by the bridge, so every address of the node can be reached.
    """
    with netns.opened(f"/proc/{pid}/ns/net") as guest, Netlink.open() as node:
        bridge = _ensure_bridge(node, site)
        node.change(
            m.RTM_NEWLINK,
            _new_veth(site.link_name(name), bridge=bridge, guest=guest),
            flags=_NEW,
            what=f"make the cable of {name}",
        )
        cable = _index(node, site.link_name(name))
        node.change(m.RTM_NEWLINK, m.link_change(cable, up=True), what=f"switch on the cable of {name}")
        with Netlink.open(guest) as inside:
            _configure(inside, address, gateway=site.gateway)


def plugged(site: Site, name: str) -> bool:
    """Whether the pod VM's cable ends in this network namespace."""
    with Netlink.open() as node:
        return node.link(site.link_name(name)) is not None


def unplug(site: Site, name: str) -> None:
    """Take the pod VM's cable away, and the bridge when it was the last one; absent is done."""
    with Netlink.open() as node:
        _delete(node, site.link_name(name))
        bridge = node.link(site.bridge)
        if bridge is not None and not _has_ports(node, bridge.index):
            _delete(node, site.bridge)


def _ensure_bridge(node: Netlink, site: Site) -> int:
    found = node.link(site.bridge)
    if found is not None and found.kind != "bridge":
        raise NetworkError(f"{site.bridge} exists and is not a bridge: set LOCAL_BRIDGE to a free name")
    if found is None:
        # Set, since else it is that of the lowest port and changes with it: the guests' neighbour entries go stale.
        hwaddr = codec.attribute(_IFLA_ADDRESS, m.packed_mac(_hwaddr(site.gateway)))
        body = m.link_index(0) + codec.text(_IFLA_IFNAME, m.checked_name(site.bridge)) + hwaddr
        node.change(m.RTM_NEWLINK, body + _kind("bridge"), flags=_NEW, what=f"make the bridge {site.bridge}")
    index = _index(node, site.bridge)
    address = m.address(index, site.gateway, prefix_route=True)
    _add(node, m.RTM_NEWADDR, body=address, what=f"give {site.bridge} an address")
    node.change(m.RTM_NEWLINK, m.link_change(index, up=True), what=f"switch on {site.bridge}")
    return index


def _new_veth(name: str, *, bridge: int, guest: int) -> bytes:
    """A cable whose far end appears in the guest's namespace as it is made, so nothing has to be moved."""
    peer = m.link_index(0) + codec.text(_IFLA_IFNAME, _GUEST_DEVICE) + codec.u32(_IFLA_NET_NS_FD, guest)
    data = codec.nested(_IFLA_INFO_DATA, codec.attribute(_VETH_INFO_PEER, peer))
    body = m.link_index(0) + codec.text(_IFLA_IFNAME, m.checked_name(name)) + codec.u32(_IFLA_MASTER, bridge)
    return body + _kind("veth", data)


def _kind(kind: str, data: bytes = b"") -> bytes:
    return codec.nested(_IFLA_LINKINFO, codec.text(_IFLA_INFO_KIND, kind), data)


def _configure(inside: Netlink, address: IPv4Interface, *, gateway: IPv4Interface) -> None:
    device = _index(inside, _GUEST_DEVICE)
    inside.change(m.RTM_NEWLINK, m.link_change(device, hwaddr=_hwaddr(address)), what="name the guest's interface")
    inside.change(m.RTM_NEWLINK, m.link_change(device, up=True), what="switch on the guest's interface")
    body = m.address(device, address, prefix_route=True)
    _add(inside, m.RTM_NEWADDR, body=body, what=f"give the guest {address}")
    default = Route(destination=_ANYWHERE, gateway=gateway.ip, device=_GUEST_DEVICE)
    _add(inside, m.RTM_NEWROUTE, body=m.route(device, default), what="set the guest's default route")


def _hwaddr(address: IPv4Interface) -> str:
    """Derived from the address, so that the neighbour entry of who had it before stays true.

    A stale one cost a start half a minute.
    """
    return "02:ca:" + address.ip.packed.hex(":")


def _has_ports(node: Netlink, bridge: int) -> bool:
    links = node.dump(m.RTM_GETLINK, m.link_index(0))
    header = len(m.link_index(0))
    return any(codec.number(codec.attributes(body[header:]).get(_IFLA_MASTER)) == bridge for body in links)


def _index(netlink: Netlink, name: str) -> int:
    link = netlink.link(name)
    if link is None:
        raise NetworkError(f"the interface {name} vanished: {os.strerror(errno.ENODEV)}")
    return link.index


def _add(netlink: Netlink, kind: int, *, body: bytes, what: str) -> None:
    try:
        netlink.change(kind, body, flags=_NEW, what=what)
    except codec.KernelRefused as error:
        if error.errno != errno.EEXIST:
            raise


def _delete(netlink: Netlink, name: str) -> None:
    link = netlink.link(name)
    if link is None:
        return
    try:
        netlink.change(m.RTM_DELLINK, m.link_index(link.index), what=f"delete the link {name}")
    except codec.KernelRefused as error:
        if error.errno != errno.ENODEV:
            raise
