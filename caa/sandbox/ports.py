"""The seams of the heart: what it asks of the world. Implementations are chosen in `caa.node.parts` alone.

Every `remove`, `close`, `disconnect` and `delete` succeeds when its object is absent.
Deadlines are points of the running event loop's clock (`loop.time()`), None means without bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from caa.model.ids import SandboxId
from caa.model.instance import InitdataDigest, IPAddress, Owner
from caa.model.network import PodNetwork, Standing, Tunnel, Whose
from caa.model.sandbox import PodSpec, Sandbox
from caa.model.volume import Volume


class StateStore(Protocol):
    """Sandboxes that outlive the process. Each call is durable when it returns; raises `StateError`."""

    async def all(self) -> Sequence[Sandbox]: ...

    async def get(self, sandbox: SandboxId) -> Sandbox | None: ...

    async def add(self, record: Sandbox) -> None:
        """Insert; `StateError` when the id is already there."""

    async def put(self, record: Sandbox) -> None:
        """Replace; `StateError` when the id is not there (a removed sandbox never comes back)."""

    async def remove(self, sandbox: SandboxId) -> None: ...

    async def next_tunnel_index(self) -> int:
        """A number that was never given out before, from 0 up, across restarts."""

    async def use_tunnel_index(self, index: int) -> None:
        """`index` is in use, whoever gave it out: only larger ones are given out from now on."""


class PodNetworking(Protocol):
    """The worker's half of a pod's network. Raises `NetworkError` or `InvalidInput`."""

    async def inspect(self, netns: str) -> PodNetwork:
        """Read the pod's namespace (a path); `InvalidInput` when it is not a network namespace or has no address."""

    async def worker_tunnel(self, index: int, network: PodNetwork) -> Tunnel:
        """The tunnel to build: kind, VXLAN id, port, worker address and MTU. Builds nothing."""

    async def connect(self, netns: str, *, network: PodNetwork, tunnel: Tunnel, peer: IPAddress, whose: Whose) -> None:
        """Build the worker's half towards the pod VM `peer` and write on it whose it is. Twice is once."""

    async def disconnect(self, netns: str, tunnel: Tunnel) -> None:
        """Undo `connect`; the namespace may be long gone."""

    async def standing(self) -> Sequence[Standing]:
        """What `connect` has built and `disconnect` has not removed, found by looking, without any record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRequest:
    """An agent link to open: where the forwarder is, who it has to be, which generation of our CA it trusts, and the
    disks of which the guest is told when a container mounts them."""

    sandbox: SandboxId
    addresses: tuple[IPAddress, ...]
    server_name: str
    ca: str = ""
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """An agent link as the relay has it. `connected` means TLS is up; one that is not is being dialled, is cut and may
    come back, or is lost for good. `shims` counts the shim's connections.

    `ca` is the generation of our CA that it dials with, "" when that is not known.
    """

    sandbox: SandboxId
    connected: bool
    shims: int
    ca: str = ""


class AgentLinks(Protocol):
    """What the control plane asks of the relay. Raises `Unavailable` or `DeadlineExceeded`."""

    def socket_path(self, sandbox: SandboxId) -> str:
        """Where the shim will find the agent; holds no ':'."""

    async def open(self, link: LinkRequest, deadline: float | None) -> None:
        """Dial the pod VM until TLS is up, then listen at `socket_path`. Twice is once."""

    async def close(self, sandbox: SandboxId, why: str = "") -> None:
        """End the link, which the shim takes as the death of its pod; `why` is for the relay's log."""

    async def list(self) -> Sequence[LinkState]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """The rendered user data: one document for the cloud, never kept; and the digest of the initdata in it."""

    user_data: bytes = field(repr=False)
    initdata: InitdataDigest | None = None


class BootData(Protocol):
    """Renders what travels to the VM; a fresh server key each time, nothing kept on disk."""

    async def validate(self, pod: PodSpec) -> None:
        """Refuse at CreateVM what cannot work at StartVM: raises `InitdataError`, naming the annotation."""

    async def render(self, sandbox: Sandbox) -> Boot:
        """Raises `UserDataTooLarge` before any cloud call. Needs `network` and `tunnel` of the record."""


class VolumeSource(Protocol):
    """Who knows which disks of the cloud a pod's containers mount: the CSI driver's side of the node."""

    async def of(self, sandbox: SandboxId, pod: PodSpec) -> Sequence[Volume]:
        """The volumes of this pod and of no other, in the order in which they shall be attached. What comes is checked
        once more. Raises `CaaError`s: a pod must not start without a disk that it needs."""


class Ledger(Protocol):
    """PeerPod objects in Kubernetes: `own` before the cloud is asked, `note` the instance, `release` at the end."""

    async def own(self, sandbox: Sandbox) -> None: ...

    async def note(self, sandbox: Sandbox) -> None: ...

    async def release(self, sandbox: Sandbox) -> None: ...


class PodState(StrEnum):
    """What Kubernetes says about the pod of a sandbox."""

    RUNS = "running"  # it still uses this sandbox
    ENDED = "ended"  # it is gone, has ended, or uses another sandbox
    UNKNOWN = "unknown"  # it cannot be asked, or cannot tell


class PodWitness(Protocol):
    """Kubernetes as a witness, asked only about sandboxes that nobody seems to attend to."""

    async def state(self, sandbox: Sandbox) -> PodState:
        """Never raises: what cannot be asked is UNKNOWN. Asked every few seconds, so an answer from memory is best."""


class Clock(Protocol):
    """Wall time and pauses, injected so that no unit test sleeps."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the sandbox service itself needs; the driver and the ledger are known to the steps alone, `provider` is
    the driver's name."""

    store: StateStore
    network: PodNetworking
    links: AgentLinks
    boot_data: BootData
    owner: Owner
    provider: str = ""
    current_ca: Callable[[], str] = field(default=lambda: "")  # the generation of the node's CA for the next pod VM
