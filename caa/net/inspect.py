"""Reading a namespace, pure: what a CNI plugin left for the pod, and which host interface carries the tunnels.

`spaces.look` takes the snapshot from the kernel; everything here is a function of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from caa.errors import ConfigError, InvalidInput, NetworkError
from caa.model.instance import IPAddress
from caa.model.network import IPInterface, PodNetwork, Route
from caa.net import messages as m

_PREFERRED = "eth0"  # the CNI convention; decides between several candidates
_WITHOUT_ADDRESS = "give the pod an address, or look at the CNI plugin's log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A namespace as it stands."""

    links: tuple[m.Link, ...] = ()
    addresses: tuple[m.Address, ...] = ()
    routes: tuple[m.RouteRow, ...] = ()
    neighbours: tuple[m.NeighbourRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The interface that carries a tunnel's packets, with the address they come from and its MTU."""

    interface: str
    address: IPInterface
    mtu: int


def pod_network(seen: Snapshot) -> PodNetwork:
    """The pod's interface with all that hangs on it; raises `InvalidInput` when there is none, or no address."""
    link = _pod_link(seen)
    addresses = tuple(_global(seen, link.index))
    if not addresses:
        raise InvalidInput(f"the pod's interface {link.name} has no address: {_WITHOUT_ADDRESS}")
    return PodNetwork(
        interface=link.name,
        hwaddr=link.hwaddr,
        mtu=link.mtu,
        addresses=addresses,
        routes=tuple(_routes(seen, link)),
        neighbours=tuple(
            replace(row.neighbour, device=link.name)
            for row in seen.neighbours
            if row.index == link.index and row.neighbour.state & m.NUD_PERMANENT
        ),
    )


def _pod_link(seen: Snapshot) -> m.Link:
    """The interface of the default route, else the only one; `eth0` is preferred, tunnels of ours do not count."""
    candidates = {link.index: link for link in seen.links if not link.loopback and link.kind != "vxlan"}
    routed = [candidates[row.index] for row in _defaults(seen) if row.index in candidates]
    pool = routed or [link for link in candidates.values() if link.up] or list(candidates.values())
    if not pool:
        raise InvalidInput("the pod's network namespace holds no interface besides the loopback")
    named = [link for link in pool if link.name == _PREFERRED]
    if not named and not routed and len(pool) > 1:
        names = ", ".join(link.name for link in pool)
        raise InvalidInput(f"the pod's network namespace holds several interfaces ({names}) and no default route")
    return (named or pool)[0]


def _defaults(seen: Snapshot) -> list[m.RouteRow]:
    """Default routes of the main table that leave by an interface, the preferred one first (IPv4, lowest metric)."""
    found = (
        row
        for row in seen.routes
        if row.index and row.kind == m.RTN_UNICAST and row.route.table == 254 and row.route.destination.prefixlen == 0
    )
    return sorted(found, key=lambda row: (row.route.destination.version, row.route.metric))


def _global(seen: Snapshot, index: int) -> Iterable[IPInterface]:
    for address in seen.addresses:
        six_local = address.interface.version == 6 and address.interface.ip.is_link_local
        if address.index == index and address.usable and not six_local:
            yield address.interface


def _routes(seen: Snapshot, link: m.Link) -> Iterable[Route]:
    """Unicast routes of every table but the local one, without IPv6's own for link-local and multicast."""
    for row in seen.routes:
        to = row.route.destination
        own = to.version == 6 and (to.network_address.is_link_local or to.network_address.is_multicast)
        if row.index == link.index and row.kind == m.RTN_UNICAST and row.route.table != m.RT_TABLE_LOCAL and not own:
            yield replace(row.route, device=link.name)


def host_underlay(seen: Snapshot, wanted: str = "") -> Underlay:
    """The host interface that carries the tunnels, `wanted` or the default route's, with its first global address.

    Raises `ConfigError`, which says what to set.
    """
    link = _host_link(seen, wanted)
    family = next((row.route.destination.version for row in _defaults(seen) if row.index == link.index), 4)
    usable = [a.interface for a in seen.addresses if a.index == link.index and a.usable and a.scope == 0]
    usable.sort(key=lambda address: address.version != family)  # stable: the first of the route's family wins
    if not usable:
        raise ConfigError(f"host interface {link.name} has no global address: set HOST_INTERFACE or --host-interface")
    return Underlay(interface=link.name, address=usable[0], mtu=link.mtu)


def _host_link(seen: Snapshot, wanted: str) -> m.Link:
    if wanted:
        named = [link for link in seen.links if link.name == wanted]
        if named:
            return named[0]
        names = ", ".join(link.name for link in seen.links if not link.loopback)
        raise ConfigError(f"HOST_INTERFACE {wanted!r} does not exist on this node; there are: {names or 'none'}")
    by_index = {link.index: link for link in seen.links}
    routed = [by_index[row.index] for row in _defaults(seen) if row.index in by_index]
    if not routed:
        raise ConfigError(
            "this node has no default route to tell its interface: set HOST_INTERFACE or --host-interface"
        )
    return routed[0]


def check_held(addresses: Iterable[m.Address], worker: IPAddress) -> None:
    """Raises `NetworkError` when the host lost the tunnel's address since the tunnel was planned."""
    if all(address.interface.ip != worker for address in addresses):
        raise NetworkError(
            f"the tunnel's worker address {worker} is on no interface of this node any more: start the pod again"
        )


def way_underlay(seen: Snapshot, way: m.RouteRow | None) -> Underlay | None:
    """The underlay of a route that the kernel looked up; None while the interface is down or has no address."""
    link = next((link for link in seen.links if way is not None and link.index == way.index), None)
    if way is None or link is None or not link.up:
        return None
    address = _source(seen, way)
    return None if address is None else Underlay(interface=link.name, address=address, mtu=link.mtu)


def _source(seen: Snapshot, way: m.RouteRow) -> IPInterface | None:
    """The address the kernel would send from, else the interface's first usable one of the same family."""
    usable = [a.interface for a in seen.addresses if a.index == way.index and a.usable]
    usable = [address for address in usable if address.version == way.route.destination.version]
    preferred = way.route.source
    return next((address for address in usable if address.ip == preferred), usable[0] if usable else None)
