"""A pod's network as it stands in its namespace, and the tunnel that carries it to the pod VM."""

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from caa.model.ids import SandboxId
from caa.model.instance import IPAddress

IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route; `destination` is 0.0.0.0/0 or ::/0 for a default route. Numbers are the kernel's (rtnetlink)."""

    destination: IPNetwork
    gateway: IPAddress | None = None
    device: str = ""
    source: IPAddress | None = None
    protocol: int = 0
    scope: int = 0
    table: int = 254
    metric: int = 0
    onlink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A neighbour entry that has to be copied; `state` is the kernel's NUD bit set (0x80 = permanent)."""

    address: IPAddress
    lladdr: str
    device: str = ""
    state: int = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNetwork:
    """What a CNI plugin left in the pod's namespace: one interface with everything that hangs on it."""

    interface: str
    hwaddr: str
    mtu: int
    addresses: tuple[IPInterface, ...]
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The tunnel between worker and pod VM. `worker` is the address the pod VM sends to, with its prefix length.

    `mtu` is what fits inside (path MTU minus the tunnel's overhead). `index` is `vni` minus the configured minimum.
    """

    kind: str
    index: int
    vni: int
    port: int
    worker: IPInterface
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Which pod a tunnel is for; the names are "" where they are not known."""

    sandbox: SandboxId
    pod_name: str = ""
    pod_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A worker's half of a pod network as it was found. `peer` is the pod VM's address; `whose` is None for one that
    an earlier version built, which wrote nothing on it."""

    netns: str
    network: PodNetwork
    tunnel: Tunnel
    peer: IPAddress
    whose: Whose | None = None
