"""Operations on a network, pure: what is to be done and what undoes it. Nothing here acts.

Devices are named, not numbered. `Side.HOST` is the namespace the tunnel's packets leave from (the worker's, or the
pod VM's own), `Side.POD` the pod's. `undo()` is None where removing the link removes the thing as well.
Each `str(op)` completes the sentence "the kernel refused to ...".
"""

from dataclasses import dataclass
from enum import StrEnum

from caa.model.instance import IPAddress
from caa.model.network import IPInterface, Neighbour, Route


class Side(StrEnum):
    """Which of the two namespaces an operation is for."""

    HOST = "host"
    POD = "pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVxlan:
    """A VXLAN device whose UDP socket is on the host side and whose link appears on the pod side.

    One kernel call makes it there under its final name, so a crash leaves nothing behind in the host's namespace.
    """

    device: str
    vni: int
    port: int
    local: IPAddress
    remote: IPAddress
    mtu: int
    hwaddr: str = ""

    def undo(self) -> "DeleteLink":
        return DeleteLink(side=Side.POD, device=self.device)

    def __str__(self) -> str:
        ends = f"{self.local} to {self.remote} port {self.port}"
        return f"make the tunnel {self.device} (VXLAN id {self.vni}, {ends}, MTU {self.mtu})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLink:
    """Delete a link; absent is done."""

    side: Side
    device: str

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"delete the link {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLink:
    """Change a link: up or down, MTU, hardware address, alias. None and "" leave as it is."""

    side: Side
    device: str
    up: bool | None = None
    mtu: int | None = None
    hwaddr: str = ""
    alias: str = ""

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        wanted = [] if self.up is None else ["up" if self.up else "down"]
        wanted += [f"MTU {self.mtu}"] if self.mtu is not None else []
        wanted += [self.hwaddr] if self.hwaddr else []
        return f"set the link {self.device} {', '.join(wanted)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLinkLocal:
    """No automatic IPv6 link-local address, so that a link which only carries others' packets sends none itself."""

    side: Side
    device: str

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"switch off automatic IPv6 addresses on {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    """An address without duplicate detection and without the route that the kernel would add for its network."""

    side: Side
    device: str
    address: IPInterface

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"add the address {self.address} to {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute:
    """A route through `route.device`; one to the same destination with the same metric is replaced."""

    side: Side
    route: Route

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        via = f" via {self.route.gateway}" if self.route.gateway else ""
        onlink = " onlink" if self.route.onlink else ""
        return f"add the route {self.route.destination}{via} dev {self.route.device}{onlink} table {self.route.table}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNeighbour:
    """A neighbour entry on `neighbour.device`; an older one is replaced."""

    side: Side
    neighbour: Neighbour

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"add the neighbour {self.neighbour.address} lladdr {self.neighbour.lladdr} dev {self.neighbour.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddIngress:
    """The ingress queueing discipline, where filters of incoming packets hang; there already is done."""

    side: Side
    device: str

    def undo(self) -> "DeleteIngress":
        return DeleteIngress(side=self.side, device=self.device)

    def __str__(self) -> str:
        return f"add the ingress qdisc to {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteIngress:
    """Remove the ingress discipline unless somebody else's filters (or a `clsact`) stand there; absent is done."""

    side: Side
    device: str

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"delete the ingress qdisc of {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Every packet that comes in on `device` goes out of `target`, before anything else sees it."""

    side: Side
    device: str
    target: str

    def undo(self) -> "ClearRedirect":
        return ClearRedirect(side=self.side, device=self.device)

    def __str__(self) -> str:
        return f"redirect {self.device} to {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearRedirect:
    """Remove our redirect from `device`; absent is done."""

    side: Side
    device: str

    def undo(self) -> None:
        return None

    def __str__(self) -> str:
        return f"remove the redirect of {self.device}"


Op = (
    AddVxlan
    | DeleteLink
    | ChangeLink
    | NoLinkLocal
    | AddAddress
    | AddRoute
    | AddNeighbour
    | AddIngress
    | DeleteIngress
    | Redirect
    | ClearRedirect
)
