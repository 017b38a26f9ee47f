"""A node on real sockets: real store, user data, certificates, links, ttrpc; cloud, kernel and relay are stand-ins."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from ipaddress import ip_address, ip_interface
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from caa.errors import InvalidInput
from caa.model.ids import InstanceId
from caa.model.instance import (
    Capabilities,
    Finding,
    Instance,
    InstanceState,
    InstanceType,
    IPAddress,
    LaunchRequest,
    Owner,
)
from caa.model.network import PodNetwork, Standing, Tunnel, Whose
from caa.node.boot_data import GuestSettings, UserData
from caa.node.hypervisor_api import HypervisorApi, announce_on
from caa.node.ledger import NullLedger
from caa.node.links import LinkTls, RelayLinks
from caa.node.podvminfo_api import PodVMInfoApi
from caa.node.stops import StopFiles
from caa.node.system import SystemClock
from caa.sandbox.ports import World
from caa.sandbox.service import Limits, SandboxService
from caa.sandbox.steps import Connect, Launch, Link, Note, Own
from caa.sandbox.store import SqliteStore, open_store
from caa.userdata.budget import Budget
from caa.wire.certs import NodeAuthority
from caa.wire.client import Client, connect
from caa.wire.proto import google_empty, relay
from caa.wire.server import Server

OWNER = Owner(cluster="c", node="n")


@dataclass
class Cloud:
    """A catalogue of two types and a ledger of living instances. `hold` keeps `create` from returning."""

    living: dict[InstanceId, LaunchRequest] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(user_data_limit=65536)

    async def check(self) -> Sequence[Finding]:
        return []

    async def instance_types(self) -> Sequence[InstanceType]:
        return [
            InstanceType(name="small", vcpus=2, memory_mib=4096),
            InstanceType(name="big", vcpus=8, memory_mib=16384),
        ]

    async def create(self, request: LaunchRequest) -> Instance:
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        instance = InstanceId("i-" + request.name)
        self.living[instance] = request
        return Instance(id=instance, name=request.name, addresses=(ip_address("127.0.0.1"),), sandbox=request.sandbox)

    async def delete(self, instance: InstanceId) -> None:
        self.living.pop(instance, None)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        return [
            Instance(id=one, name=request.name, addresses=(), sandbox=request.sandbox)
            for one, request in self.living.items()
        ]

    async def state(self, instance: InstanceId) -> InstanceState:
        return InstanceState.RUNNING if instance in self.living else InstanceState.ABSENT

    async def console(self, instance: InstanceId) -> bytes:
        return b""

    async def close(self) -> None: ...


@dataclass
class Kernel:
    """Network namespaces that exist are files that exist."""

    connected: set[str] = field(default_factory=set)

    async def inspect(self, netns: str) -> PodNetwork:
        if not await asyncio.to_thread(Path(netns).exists):
            raise InvalidInput(f"networkNamespacePath {netns} does not exist")
        address = ip_interface("10.0.0.7/24")
        return PodNetwork(interface="eth0", hwaddr="0a:00:00:00:00:07", mtu=1500, addresses=(address,))

    async def worker_tunnel(self, index: int, network: PodNetwork) -> Tunnel:
        worker = ip_interface("192.0.2.1/24")
        return Tunnel(kind="vxlan", index=index, vni=555000 + index, port=4789, worker=worker, mtu=1450)

    async def connect(self, netns: str, *, network: PodNetwork, tunnel: Tunnel, peer: IPAddress, whose: Whose) -> None:
        self.connected.add(netns)

    async def standing(self) -> Sequence[Standing]:
        return []

    async def disconnect(self, netns: str, tunnel: Tunnel) -> None:
        self.connected.discard(netns)


@dataclass
class Relay:
    """The relay's service: what it was asked to open. `error` refuses every Open."""

    links: dict[str, relay.OpenRequest] = field(default_factory=dict)
    timeouts: list[float | None] = field(default_factory=list)
    error: Exception | None = None
    reasons: list[str] = field(default_factory=list)  # of each Close

    async def open(self, request: relay.OpenRequest, call: Any) -> google_empty.Empty:
        self.timeouts.append(call.remaining())
        if self.error is not None:
            raise self.error
        self.links[request.sandbox_id] = request
        return google_empty.Empty()

    async def close(self, request: relay.CloseRequest, call: Any) -> google_empty.Empty:
        self.links.pop(request.sandbox_id, None)
        self.reasons.append(request.reason)
        return google_empty.Empty()

    async def list(self, request: relay.ListRequest, call: Any) -> relay.ListResponse:
        return relay.ListResponse(links=[relay.Link(sandbox_id=one, connected=True, shims=2) for one in self.links])

    def server(self) -> Server:
        return Server({"caa.relay.v1.AgentLinks": {"Open": self.open, "Close": self.close, "List": self.list}})


@dataclass
class Node:
    """A running node and a client on its socket."""

    folder: Path
    cloud: Cloud
    kernel: Kernel
    relay: Relay
    relay_server: Server
    links: RelayLinks
    store: SqliteStore
    service: SandboxService
    server: Server
    stops: StopFiles
    log: StringIO
    client: Client

    @property
    def netns(self) -> str:
        return str(self.folder / "netns")

    @property
    def socket(self) -> str:
        return str(self.folder / "node.sock")

    def record_stop(self, sandbox: str) -> Path:
        """As the relay does."""
        path = self.folder / "state" / "stops" / sandbox
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path

    async def empty(self) -> bool:
        """Whether nothing of any sandbox is left, once everything has come to rest."""
        async with asyncio.timeout(20):
            await self.service.settled()
        left = (
            self.cloud.living,
            self.kernel.connected,
            self.relay.links,
            self.service.records(),
            await self.store.all(),
        )
        return not any(left)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has at most 107 bytes."""
    with TemporaryDirectory(prefix="caa") as made:
        yield Path(made)


@pytest.fixture
async def node(folder: Path) -> AsyncIterator[Node]:
    (folder / "netns").touch()
    cloud, kernel, far = Cloud(), Kernel(), Relay()
    relay_server = far.server()
    await relay_server.listen(str(folder / "relay.sock"))
    authority = NodeAuthority.load_or_create(folder / "state")
    tls = LinkTls(port=15150, certificates=authority, min_version="VersionTLS12")
    links = RelayLinks(folder / "relay.sock", folder / "pods", tls=tls, dial_limit=60)
    boot_data = UserData(authority, Budget(65536), settings=GuestSettings())
    store = await open_store(folder / "state" / "node.db")
    world = World(store=store, network=kernel, links=links, boot_data=boot_data, owner=OWNER)
    ledger = NullLedger()
    steps = [Own(ledger), Launch(cloud, boot_data, OWNER), Note(ledger), Connect(kernel), Link(links)]
    service = SandboxService(world, steps, clock=SystemClock(), boot_id="b", limits=Limits())
    stops, log = StopFiles(folder / "state"), StringIO()
    hypervisor = HypervisorApi(service, stops, announce=announce_on(log))
    server = Server({**hypervisor.handlers(), **PodVMInfoApi(service).handlers()})
    await server.listen(str(folder / "node.sock"))
    client = await connect(str(folder / "node.sock"))
    yield Node(folder, cloud, kernel, far, relay_server, links, store, service, server, stops, log, client)
    await client.close()
    service.closing()
    await server.close()
    await service.close()
    await links.disconnect()
    await relay_server.close()
    await store.close()
