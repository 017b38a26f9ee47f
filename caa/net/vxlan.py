"""VXLAN plans, pure: what each half of the tunnel needs, given what is there already.

Worker half: a VXLAN device beside the pod's interface, and both redirected into each other. Guest half: a VXLAN device
that is the pod's interface, with the pod's hardware address, addresses, routes and neighbours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface

from caa.errors import InvalidInput, NetworkError
from caa.model.instance import IPAddress
from caa.model.network import PodNetwork, Route, Tunnel
from caa.net import messages as m
from caa.net.inspect import Underlay
from caa.net.ops import (
    AddAddress,
    AddIngress,
    AddNeighbour,
    AddRoute,
    AddVxlan,
    ChangeLink,
    ClearRedirect,
    DeleteIngress,
    DeleteLink,
    NoLinkLocal,
    Op,
    Redirect,
    Side,
)

KIND = "vxlan"
PORT = 4789  # IANA, RFC 7348
MIN_ID = 555000  # the reference's first id (`reference/deploy.md` 3.8)
MAX_ID = (1 << 24) - 1
WORKER_DEVICE = "vxlan1"  # in the pod's namespace, the reference's name
_OVERHEAD = 50  # over IPv4: IP 20 + UDP 8 + VXLAN 8 + the inner Ethernet header 14
_OVERHEAD_V6 = 70  # IP 40
_SMALLEST_V6 = 1280  # RFC 8200 5: below it the kernel switches IPv6 off


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What already stands in the pod's namespace: its links, and which link each one's traffic is redirected to.

    A redirect whose target link is gone is kept with the value "".
    """

    links: tuple[m.Link, ...] = ()
    redirects: Mapping[str, str]

    def link(self, name: str) -> m.Link | None:
        """The link of that name, if there."""
        return next((link for link in self.links if link.name == name), None)


def inner_mtu(underlay: int, pod: int, *, version: int) -> int:
    """The largest packet inside: the underlay's MTU minus the overhead of its IP version, at most the pod's."""
    return min(underlay - (_OVERHEAD if version == 4 else _OVERHEAD_V6), pod)


def tunnel(index: int, network: PodNetwork, *, underlay: Underlay, port: int, min_id: int) -> Tunnel:
    """Describe the tunnel for a pod. Raises `NetworkError` when ids run out or IPv6 would not fit."""
    vni = min_id + index
    if not 0 < vni <= MAX_ID:
        raise NetworkError(f"VXLAN id {vni} is not between 1 and {MAX_ID}: lower --vxlan-min-id")
    mtu = inner_mtu(underlay.mtu, network.mtu, version=underlay.address.version)
    if mtu < _SMALLEST_V6 and any(address.version == 6 for address in network.addresses):
        raise NetworkError(
            f"MTU {underlay.mtu} of {underlay.interface} leaves {mtu} inside the tunnel, IPv6 needs {_SMALLEST_V6}: "
            "raise it or choose another with HOST_INTERFACE or --host-interface"
        )
    return Tunnel(kind=KIND, index=index, vni=vni, port=port, worker=underlay.address, mtu=mtu)


def check_peer(tunnel: Tunnel, peer: IPAddress) -> None:
    """Both ends have to speak the same IP version; raises `InvalidInput`."""
    if tunnel.worker.version != peer.version:
        raise InvalidInput(
            f"pod VM address {peer} and worker address {tunnel.worker.ip} are of different IP versions: "
            "set HOST_INTERFACE or --host-interface to an interface that has both"
        )


# --- the worker's half ----------------------------------------------------------------------------------------------


def worker_plan(network: PodNetwork, tunnel: Tunnel, *, peer: IPAddress, present: Present, label: str = "") -> list[Op]:
    """What is still to do for the worker's half; only repairs when it stands already. `label` becomes its alias."""
    check_peer(tunnel, peer)
    link = present.link(WORKER_DEVICE)
    keep = link is not None and _same(link, tunnel, local=tunnel.worker.ip, remote=peer)
    plan: list[Op] = []
    if not keep:
        plan += _remove(link)
        if link is not None and link.vxlan is not None and link.vxlan.vni != tunnel.vni:
            raise NetworkError(
                f"the pod's namespace carries the tunnel {link.vxlan.vni} of another sandbox, {tunnel.vni} would "
                "take it over: stop that sandbox first"
            )
        plan.append(_vxlan(WORKER_DEVICE, tunnel, local=tunnel.worker.ip, remote=peer))
        plan.append(NoLinkLocal(side=Side.POD, device=WORKER_DEVICE))
    plan.append(ChangeLink(side=Side.POD, device=WORKER_DEVICE, up=True, alias=label))
    for device, target in ((WORKER_DEVICE, network.interface), (network.interface, WORKER_DEVICE)):
        plan += _redirect(device, target, present=present, keep=keep)
    return plan


def _vxlan(device: str, tunnel: Tunnel, *, local: IPAddress, remote: IPAddress) -> AddVxlan:
    return AddVxlan(device=device, vni=tunnel.vni, port=tunnel.port, local=local, remote=remote, mtu=tunnel.mtu)


def _same(link: m.Link, tunnel: Tunnel, *, local: IPAddress, remote: IPAddress) -> bool:
    have = link.vxlan
    return have is not None and (have.vni, have.port, have.local, have.remote) == (
        tunnel.vni,
        tunnel.port,
        local,
        remote,
    )


def _remove(link: m.Link | None) -> list[Op]:
    """An older tunnel under our name goes; anything else there is not ours to delete."""
    if link is None:
        return []
    if link.vxlan is None:
        raise NetworkError(f"the namespace already has an interface {link.name} that is not a tunnel of ours")
    return [DeleteLink(side=Side.POD, device=link.name)]


def _redirect(device: str, target: str, *, present: Present, keep: bool) -> list[Op]:
    stands = present.redirects.get(device)
    fresh = device == WORKER_DEVICE and not keep  # its filters went with the old link
    if stands == target and keep:
        return []
    plan: list[Op] = [] if stands is None or fresh else [ClearRedirect(side=Side.POD, device=device)]
    plan.append(AddIngress(side=Side.POD, device=device))
    plan.append(Redirect(side=Side.POD, device=device, target=target))
    return plan


def worker_removal(tunnel: Tunnel, present: Present) -> list[Op]:
    """What removes the worker's half: the redirects into the tunnel first, then the tunnel. Empty when absent."""
    link = present.link(WORKER_DEVICE)
    ours = link is not None and link.vxlan is not None and link.vxlan.vni == tunnel.vni
    plan: list[Op] = []
    for device, target in present.redirects.items():
        if device != WORKER_DEVICE and (target == "" or (ours and target == WORKER_DEVICE)):
            plan.append(ClearRedirect(side=Side.POD, device=device))
            plan.append(DeleteIngress(side=Side.POD, device=device))
    if ours:
        plan.append(DeleteLink(side=Side.POD, device=WORKER_DEVICE))
    return plan


# --- the guest's half -----------------------------------------------------------------------------------------------


def guest_plan(network: PodNetwork, tunnel: Tunnel, *, underlay: Underlay, present: Present) -> list[Op]:
    """What makes the pod's interface in the pod VM; a second run (a forwarder's restart) changes nothing.

    The MTU is clamped to what the VM's own underlay takes: the reference adaptor sends the pod interface's MTU.
    """
    check_peer(tunnel, underlay.address.ip)
    device = m.checked_name(network.interface)
    mtu = inner_mtu(underlay.mtu, tunnel.mtu, version=underlay.address.version)
    link = present.link(device)
    plan: list[Op] = []
    if link is None or not _same(link, tunnel, local=underlay.address.ip, remote=tunnel.worker.ip):
        plan += _remove(link)
        made = _vxlan(device, tunnel, local=underlay.address.ip, remote=tunnel.worker.ip)
        plan.append(replace(made, mtu=mtu, hwaddr=network.hwaddr))
        if all(isinstance(address, IPv4Interface) for address in network.addresses):
            plan.append(NoLinkLocal(side=Side.POD, device=device))
    plan.append(ChangeLink(side=Side.POD, device=device, up=True, mtu=mtu, hwaddr=network.hwaddr))
    plan += [AddAddress(side=Side.POD, device=device, address=address) for address in network.addresses]
    plan += [AddRoute(side=Side.POD, route=route) for route in guest_routes(network.routes, device)]
    plan += [
        AddNeighbour(side=Side.POD, neighbour=replace(neighbour, device=device)) for neighbour in network.neighbours
    ]
    return plan


def guest_routes(routes: Iterable[Route], device: str) -> list[Route]:
    """The pod's routes as the kernel takes them: device routes first, `onlink` where no route reaches a gateway.

    The pod's addresses are added without the kernel's own prefix route, since the list is complete: some plugins
    remove that route (ptp, GKE) and the copy must not bring it back.
    """
    known = list(routes)
    direct = [replace(route, device=device) for route in known if route.gateway is None]
    onward = [replace(route, device=device) for route in known if route.gateway is not None]
    reach = [route for route in direct if route.scope == m.RT_SCOPE_LINK or route.destination.version == 6]
    return direct + [replace(route, onlink=route.onlink or not _reached(route, reach)) for route in onward]


def _reached(route: Route, direct: Iterable[Route]) -> bool:
    gateway = route.gateway
    assert gateway is not None
    if gateway.version == 6 and gateway.is_link_local:
        return True
    return any(gateway in way.destination for way in direct if way.destination.version == gateway.version)


def guest_removal(network: PodNetwork, tunnel: Tunnel, *, present: Present) -> list[Op]:
    """What removes the guest's half; empty when absent or when the interface is not this tunnel's."""
    link = present.link(network.interface)
    if link is None or link.vxlan is None or link.vxlan.vni != tunnel.vni:
        return []
    return [DeleteLink(side=Side.POD, device=link.name)]
