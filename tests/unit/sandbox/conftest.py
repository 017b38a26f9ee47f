"""Fakes of everything the heart touches: a cloud with a ledger of living instances, a network, a relay, a clock."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from caa.errors import CaaError, ProviderError, StateError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import (
    Capabilities,
    Finding,
    InitdataDigest,
    Instance,
    InstanceState,
    InstanceType,
    IPAddress,
    LaunchRequest,
    Owner,
)
from caa.model.network import PodNetwork, Standing, Tunnel, Whose
from caa.model.sandbox import PodSpec, Sandbox
from caa.sandbox.ports import Boot, LinkRequest, LinkState, World
from caa.sandbox.service import Limits, SandboxService
from caa.sandbox.steps import Connect, Launch, Link, Note, Own, Step

OWNER = Owner(cluster="c1", node="n1")
DIGEST = InitdataDigest(algorithm="sha256", value=bytes(range(32)))
NETWORK = PodNetwork(interface="eth0", hwaddr="0a:00:00:00:00:01", mtu=1500, addresses=(ip_interface("10.1.0.5/24"),))


class Crash(BaseException):
    """The process dies here: nothing may catch it."""


@dataclass
class Faults:
    """What goes wrong, by the name of the seam's call ("provider.create"); `after` lets the effect happen first."""

    before: dict[str, BaseException] = field(default_factory=dict)
    after: dict[str, BaseException] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)  # how often; without an entry for ever
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    reached: dict[str, asyncio.Event] = field(default_factory=dict)

    def gate(self, call: str) -> asyncio.Event:
        """Hold every `call` until the event is set; `entered(call)` tells that one waits."""
        self.gates[call] = asyncio.Event()
        self.reached[call] = asyncio.Event()
        return self.gates[call]

    async def entered(self, call: str) -> None:
        await self.reached[call].wait()

    async def around(self, call: str, effect: Callable[[], Any]) -> Any:
        self.calls.append(call)
        await asyncio.sleep(0)
        if call in self.gates:
            self.reached[call].set()
            await self.gates[call].wait()
        self._raise(self.before, call)
        result = effect()
        self._raise(self.after, call)
        return result

    def _raise(self, table: dict[str, BaseException], call: str) -> None:
        if call not in table:
            return
        if call in self.times:
            self.times[call] -= 1
            if self.times[call] < 0:
                return
        raise table[call]


@dataclass
class FakeProvider:
    """A cloud. `living` is the ledger: what it would send a bill for."""

    faults: Faults
    sized: bool = False
    volumes: bool = False
    living: dict[InstanceId, Instance] = field(default_factory=dict)
    requests: list[LaunchRequest] = field(default_factory=list)
    types: tuple[InstanceType, ...] = (
        InstanceType(name="small", vcpus=2, memory_mib=4096),
        InstanceType(name="large", vcpus=8, memory_mib=32768),
    )
    made: int = 0
    states: dict[InstanceId, InstanceState] = field(default_factory=dict)  # what it tells instead of the truth

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(sized_by_type=self.sized, volumes=self.volumes)

    async def check(self) -> Sequence[Finding]:
        return []

    async def instance_types(self) -> Sequence[InstanceType]:
        return self.types

    async def create(self, request: LaunchRequest) -> Instance:
        def effect() -> Instance:
            self.requests.append(request)
            for one in self.living.values():
                if one.name == request.name:
                    return one
            self.made += 1
            instance = Instance(
                id=InstanceId(f"i-{self.made}"),
                name=request.name,
                addresses=(ip_address("192.0.2.10"),),
                sandbox=request.sandbox,
            )
            self.living[instance.id] = instance
            return instance

        made: Instance = await self.faults.around("provider.create", effect)
        return made

    async def delete(self, instance: InstanceId) -> None:
        await self.faults.around("provider.delete", lambda: self.living.pop(instance, None))

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        assert owner == OWNER
        found: list[Instance] = await self.faults.around("provider.list_owned", lambda: list(self.living.values()))
        return found

    async def state(self, instance: InstanceId) -> InstanceState:
        def effect() -> InstanceState:
            known = InstanceState.RUNNING if instance in self.living else InstanceState.ABSENT
            return self.states.get(instance, known)

        told: InstanceState = await self.faults.around("provider.state", effect)
        return told

    async def console(self, instance: InstanceId) -> bytes:
        return b""

    async def close(self) -> None: ...


@dataclass
class FakeNetwork:
    """Worker halves of pod networks, by namespace."""

    faults: Faults
    connected: dict[str, Tunnel] = field(default_factory=dict)
    stands: dict[str, Standing] = field(default_factory=dict)

    async def inspect(self, netns: str) -> PodNetwork:
        found: PodNetwork = await self.faults.around("network.inspect", lambda: NETWORK)
        return found

    async def worker_tunnel(self, index: int, network: PodNetwork) -> Tunnel:
        return Tunnel(
            kind="vxlan",
            index=index,
            vni=555000 + index,
            port=4789,
            worker=ip_interface("192.0.2.1/24"),
            mtu=network.mtu - 50,
        )

    async def connect(self, netns: str, *, network: PodNetwork, tunnel: Tunnel, peer: IPAddress, whose: Whose) -> None:
        def effect() -> None:
            self.connected[netns] = tunnel
            self.stands[netns] = Standing(netns=netns, network=network, tunnel=tunnel, peer=peer, whose=whose)

        await self.faults.around("network.connect", effect)

    async def standing(self) -> Sequence[Standing]:
        there = [one for netns, one in self.stands.items() if netns in self.connected]
        found: list[Standing] = await self.faults.around("network.standing", lambda: there)
        return found

    async def disconnect(self, netns: str, tunnel: Tunnel) -> None:
        await self.faults.around("network.disconnect", lambda: self.connected.pop(netns, None))


@dataclass
class FakeLinks:
    """The relay's agent links."""

    faults: Faults
    opened: dict[SandboxId, LinkRequest] = field(default_factory=dict)
    reasons: dict[SandboxId, str] = field(default_factory=dict)  # with which links were closed
    dark: set[SandboxId] = field(default_factory=set)  # links that are down

    def socket_path(self, sandbox: SandboxId) -> str:
        return f"/pods/{sandbox}/agent.ttrpc"

    async def open(self, link: LinkRequest, deadline: float | None) -> None:
        await self.faults.around("links.open", lambda: self.opened.update({link.sandbox: link}))

    async def close(self, sandbox: SandboxId, why: str = "") -> None:
        def effect() -> None:
            if self.opened.pop(sandbox, None) is not None:
                self.reasons[sandbox] = why

        await self.faults.around("links.close", effect)

    async def list(self) -> Sequence[LinkState]:
        return [
            LinkState(sandbox=one, connected=one not in self.dark, shims=1, ca=link.ca)
            for one, link in self.opened.items()
        ]


@dataclass
class FakeBootData:
    faults: Faults

    async def validate(self, pod: PodSpec) -> None:
        await self.faults.around("boot_data.validate", lambda: None)

    async def render(self, sandbox: Sandbox) -> Boot:
        assert sandbox.network is not None
        assert sandbox.tunnel is not None
        boot: Boot = await self.faults.around(
            "boot_data.render", lambda: Boot(user_data=b"#cloud-config\n", initdata=DIGEST)
        )
        return boot


@dataclass
class FakeLedger:
    faults: Faults
    owned: dict[SandboxId, InstanceId | None] = field(default_factory=dict)

    async def own(self, sandbox: Sandbox) -> None:
        await self.faults.around("ledger.own", lambda: self.owned.update({sandbox.id: None}))

    async def note(self, sandbox: Sandbox) -> None:
        await self.faults.around("ledger.note", lambda: self.owned.update({sandbox.id: sandbox.instance}))

    async def release(self, sandbox: Sandbox) -> None:
        await self.faults.around("ledger.release", lambda: self.owned.pop(sandbox.id, None))


@dataclass
class MemoryStore:
    """`StateStore` in memory; `rows` survives a crash of the service."""

    faults: Faults
    rows: dict[SandboxId, Sandbox] = field(default_factory=dict)
    index: int = 0

    async def all(self) -> Sequence[Sandbox]:
        return list(self.rows.values())

    async def get(self, sandbox: SandboxId) -> Sandbox | None:
        return self.rows.get(sandbox)

    async def add(self, record: Sandbox) -> None:
        if record.id in self.rows:
            raise StateError("already there")
        await self.faults.around("store.add", lambda: self.rows.update({record.id: record}))

    async def put(self, record: Sandbox) -> None:
        if record.id not in self.rows:
            raise StateError("not there")
        await self.faults.around("store.put", lambda: self.rows.update({record.id: record}))

    async def remove(self, sandbox: SandboxId) -> None:
        await self.faults.around("store.remove", lambda: self.rows.pop(sandbox, None))

    async def next_tunnel_index(self) -> int:
        self.index += 1
        return self.index - 1

    async def use_tunnel_index(self, index: int) -> None:
        self.index = max(self.index, index + 1)


@dataclass
class FakeClock:
    """Time passes only by sleeping."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Bench:
    """One node's world. `restart` makes a new service on the same store, as a new process would."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.provider = FakeProvider(self.faults)
        self.network = FakeNetwork(self.faults)
        self.links = FakeLinks(self.faults)
        self.boot_data = FakeBootData(self.faults)
        self.ledger = FakeLedger(self.faults)
        self.store = MemoryStore(self.faults)
        self.clock = FakeClock()
        self.boot_id = "boot-1"
        self.owner = OWNER
        self.ca = ""
        self.service = self._new_service()

    def steps(self) -> list[Step]:
        return [
            Own(self.ledger),
            Launch(self.provider, self.boot_data, self.owner),
            Note(self.ledger),
            Connect(self.network),
            Link(self.links),
        ]

    def _new_service(self) -> SandboxService:
        world = World(
            store=self.store,
            network=self.network,
            links=self.links,
            boot_data=self.boot_data,
            owner=self.owner,
            current_ca=lambda: self.ca,
        )
        return SandboxService(world, self.steps(), clock=self.clock, boot_id=self.boot_id, limits=Limits())

    async def restart(self) -> SandboxService:
        await self.service.close()
        self.service = self._new_service()
        await self.service.load()
        return self.service

    def left_over(self) -> dict[str, Any]:
        """Everything that still exists anywhere."""
        everything = {
            "instances": self.provider.living,
            "network": self.network.connected,
            "links": self.links.opened,
            "peerpods": self.ledger.owned,
        }
        return {name: dict(what) for name, what in everything.items() if what}

    def pod(self, name: str = "web", **changes: Any) -> PodSpec:
        return replace(PodSpec(pod_name=name, pod_namespace="default", netns=f"/run/netns/{name}"), **changes)


@pytest.fixture
async def bench() -> Any:
    made = Bench()
    yield made
    await made.service.close()


@pytest.fixture
def crash() -> type[Crash]:
    return Crash


@pytest.fixture
def provider_error() -> CaaError:
    return ProviderError("the cloud says no")


Act = Callable[[], Awaitable[None]]


@pytest.fixture
def new_bench() -> type[Bench]:
    return Bench
