"""What link, address, route and neighbour messages say, pure: encoders for changes, typed records of dumps.

Layouts and numbers: linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h.
An encoder returns a message body; interface indexes are already resolved.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from caa.errors import InvalidInput
from caa.model.instance import IPAddress
from caa.model.network import IPInterface, IPNetwork, Neighbour, Route
from caa.net.codec import attribute, attributes, nested, number, string, text, u8, u32

AF_UNSPEC, AF_INET, AF_INET6, AF_BRIDGE = 0, 2, 10, 7
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
IFA_F_UNUSABLE = 0x01 | 0x08 | 0x20  # temporary, duplicate, deprecated
NUD_PERMANENT = 0x80
RTN_UNICAST = 1
RT_SCOPE_LINK = 253
RT_TABLE_LOCAL = 255
RTNH_F_ONLINK = 4
LONGEST_NAME = 15  # IFNAMSIZ without the zero byte

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDR = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_NEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index
_NEIGH = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """A VXLAN device's own settings. As in the reference it is bound to no interface: the routes to `remote` decide."""

    vni: int
    port: int
    local: IPAddress | None
    remote: IPAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface. `kind` is "" for a physical one; `vxlan` only where `kind` is "vxlan"."""

    index: int
    name: str
    kind: str = ""
    mtu: int = 0
    hwaddr: str = ""
    up: bool = False
    loopback: bool = False
    vxlan: Vxlan | None = None
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address of the interface `index`; `usable` is false for temporary, deprecated or duplicate ones."""

    index: int
    interface: IPInterface
    scope: int = 0
    usable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """A route as dumped: `kind` is the RTN_ type, `index` the interface (0 when it names none)."""

    index: int
    kind: int
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourRow:
    """A neighbour entry as dumped."""

    index: int
    neighbour: Neighbour


def packed_mac(hwaddr: str) -> bytes:
    """The bytes of `aa:bb:..`, as long as they are many; raises `InvalidInput`."""
    try:
        return bytes(int(part, 16) for part in hwaddr.split(":"))
    except ValueError as error:
        raise InvalidInput(f"{hwaddr[:40]!r} is not a hardware address") from error


def checked_name(name: str) -> str:
    """An interface name the kernel takes: 1 to 15 characters, no '/', no white space; raises `InvalidInput`."""
    bad = not name or len(name.encode()) > LONGEST_NAME or name in (".", "..")
    if bad or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
        raise InvalidInput(f"{name[:40]!r} is not an interface name (1 to {LONGEST_NAME} characters)")
    return name


# --- links ---------------------------------------------------------------------------------------------------------


def link_by_name(name: str) -> bytes:
    """Ask for one link by name."""
    return _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + text(3, checked_name(name))


def new_vxlan(name: str, vxlan: Vxlan, *, netns: int, mtu: int, hwaddr: str = "") -> bytes:
    """A VXLAN device with one fixed peer, placed into the namespace of the descriptor `netns` as it is made.

    Its UDP socket stays in the namespace that the request is sent from. Learning is off: the peer never changes.
    """
    assert vxlan.local is not None
    assert vxlan.remote is not None
    six = vxlan.remote.version == 6
    data = nested(
        2,  # IFLA_INFO_DATA
        u32(1, vxlan.vni),
        attribute(16 if six else 2, vxlan.remote.packed),
        attribute(17 if six else 4, vxlan.local.packed),
        u8(7, 0),
        attribute(15, struct.pack("!H", vxlan.port)),
    )
    body = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + text(3, checked_name(name)) + u32(4, mtu) + u32(28, netns)
    if hwaddr:
        body += attribute(1, packed_mac(hwaddr))
    return body + nested(18, text(1, "vxlan"), data)


def link_change(
    index: int, *, up: bool | None = None, mtu: int | None = None, hwaddr: str = "", alias: str = ""
) -> bytes:
    """Change the interface `index`; what is None or "" stays as it is."""
    flags = IFF_UP if up else 0
    body = _LINK.pack(AF_UNSPEC, 0, index, flags, 0 if up is None else IFF_UP)
    if mtu is not None:
        body += u32(4, mtu)
    if alias:
        body += text(20, alias)
    return body + attribute(1, packed_mac(hwaddr)) if hwaddr else body


def link_name(index: int, name: str) -> bytes:
    """Give the interface `index`, which has to be down, another name."""
    return _LINK.pack(AF_UNSPEC, 0, index, 0, 0) + text(3, checked_name(name))


def link_local_off(index: int) -> bytes:
    """No automatic IPv6 link-local address on `index`, so that it sends nothing by itself (IN6_ADDR_GEN_MODE_NONE)."""
    return _LINK.pack(AF_UNSPEC, 0, index, 0, 0) + nested(26, nested(AF_INET6, u8(8, 1)))


def link_index(index: int) -> bytes:
    """Name one link by its index, for a deletion."""
    return _LINK.pack(AF_UNSPEC, 0, index, 0, 0)


def read_link(body: bytes) -> Link:
    """Decode RTM_NEWLINK."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body[_LINK.size :])
    info = attributes(found.get(18, b""))
    kind = string(info.get(1))
    return Link(
        index=index,
        name=string(found.get(3)),
        kind=kind,
        mtu=number(found.get(4)),
        hwaddr=found.get(1, b"").hex(":"),
        up=bool(flags & IFF_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        vxlan=_read_vxlan(info.get(2, b"")) if kind == "vxlan" else None,
        alias=string(found.get(20)),
    )


def _read_vxlan(data: bytes) -> Vxlan:
    found = attributes(data)
    return Vxlan(
        vni=number(found.get(1)),
        port=int.from_bytes(found.get(15, b""), "big"),
        remote=_address(found.get(2) or found.get(16)),
        local=_address(found.get(4) or found.get(17)),
    )


def _address(data: bytes | None) -> IPAddress | None:
    return ip_address(data) if data else None


# --- addresses -----------------------------------------------------------------------------------------------------


def address(index: int, interface: IPInterface, *, prefix_route: bool = False) -> bytes:
    """An address without duplicate detection; with `prefix_route` the kernel adds the route to its network."""
    flags = IFA_F_NODAD | (0 if prefix_route else IFA_F_NOPREFIXROUTE)
    packed = interface.ip.packed
    body = _ADDR.pack(_family(interface.ip), interface.network.prefixlen, 0, 0, index)
    return body + attribute(2, packed) + attribute(1, packed) + u32(8, flags)


def _family(of: IPAddress | IPNetwork) -> int:
    return AF_INET if of.version == 4 else AF_INET6


def read_address(body: bytes) -> Address:
    """Decode RTM_NEWADDR; of a point-to-point pair the local end counts."""
    _, prefix, flags, scope, index = _ADDR.unpack_from(body)
    found = attributes(body[_ADDR.size :])
    local = ip_address(found.get(2) or found[1])
    return Address(
        index=index,
        interface=ip_interface((local, prefix)),
        scope=scope,
        usable=not number(found.get(8), flags) & IFA_F_UNUSABLE,
    )


# --- routes --------------------------------------------------------------------------------------------------------


def route(index: int, wanted: Route) -> bytes:
    """A unicast route through the interface `index`. A gateway of the other family travels as RTA_VIA (RFC 5549)."""
    to = wanted.destination
    table = wanted.table if wanted.table < 256 else 0
    flags = RTNH_F_ONLINK if wanted.onlink else 0
    body = _ROUTE.pack(_family(to), to.prefixlen, 0, 0, table, wanted.protocol, wanted.scope, RTN_UNICAST, flags)
    if to.prefixlen:
        body += attribute(1, to.network_address.packed)
    body += u32(4, index) + u32(15, wanted.table)
    if wanted.gateway is not None:
        body += _gateway(wanted.gateway, to.version)
    if wanted.source is not None:
        body += attribute(7, wanted.source.packed)
    return body + u32(6, wanted.metric) if wanted.metric else body


def _gateway(gateway: IPAddress, version: int) -> bytes:
    if gateway.version == version:
        return attribute(5, gateway.packed)
    return attribute(18, struct.pack("=H", _family(gateway)) + gateway.packed)


def route_lookup(to: IPAddress) -> bytes:
    """Ask which way the kernel would send a packet to `to`."""
    bits = to.max_prefixlen
    return _ROUTE.pack(_family(to), bits, 0, 0, 0, 0, 0, 0, 0) + attribute(1, to.packed)


def read_route(body: bytes) -> RouteRow | None:
    """Decode RTM_NEWROUTE; None for families other than IPv4 and IPv6. Of a multipath route the first hop counts."""
    family, bits, _, _, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    if family not in (AF_INET, AF_INET6):
        return None
    found = attributes(body[_ROUTE.size :])
    hop_flags, index, hop = _first_hop(found)
    source = _address(found.get(7))
    result = Route(
        destination=_network(family, found.get(1), bits=bits),
        gateway=_read_gateway(hop),
        source=source,
        protocol=protocol,
        scope=scope,
        table=number(found.get(15), table),
        metric=number(found.get(6)),
        onlink=bool((flags | hop_flags) & RTNH_F_ONLINK),
    )
    return RouteRow(index=index, kind=kind, route=result)


def _first_hop(found: dict[int, bytes]) -> tuple[int, int, dict[int, bytes]]:
    hops = found.get(9)
    if not hops:
        return 0, number(found.get(4)), found
    length, flags, _, index = _NEXTHOP.unpack_from(hops)
    return flags, index, attributes(hops[_NEXTHOP.size : length])


def _read_gateway(hop: dict[int, bytes]) -> IPAddress | None:
    return _address(hop.get(5)) or _address(hop.get(18, b"")[2:])


def _network(family: int, data: bytes | None, *, bits: int) -> IPNetwork:
    empty = bytes(4 if family == AF_INET else 16)
    found = ip_network((data or empty, bits), strict=False)
    assert isinstance(found, IPv4Network | IPv6Network)
    return found


# --- neighbours ----------------------------------------------------------------------------------------------------


def neighbour(index: int, wanted: Neighbour) -> bytes:
    """A neighbour entry on the interface `index`."""
    body = _NEIGH.pack(_family(wanted.address), index, wanted.state, 0, 0)
    return body + attribute(1, wanted.address.packed) + attribute(2, packed_mac(wanted.lladdr))


def read_neighbour(body: bytes) -> NeighbourRow | None:
    """Decode RTM_NEWNEIGH; None for bridge entries and those without a hardware address."""
    family, index, state, _, _ = _NEIGH.unpack_from(body)
    found = attributes(body[_NEIGH.size :])
    at, lladdr = _address(found.get(1)), found.get(2)
    if family not in (AF_INET, AF_INET6) or at is None or not lladdr:
        return None
    return NeighbourRow(index=index, neighbour=Neighbour(address=at, lladdr=lladdr.hex(":"), state=state))
