"""Links under a tunnel that go and come back: the tunnel carries on, or is made again."""

import asyncio
from ipaddress import ip_address

import pytest

from caa.model.ids import SandboxId
from caa.model.network import PodNetwork, Tunnel, Whose
from caa.net.worker import VxlanNetworking
from podvm import network as guest_network

pytestmark = pytest.mark.root

WHOSE = Whose(sandbox=SandboxId("ab" * 32), pod_name="web", pod_namespace="default")
PEER = ip_address("192.168.77.2")


def connect(world) -> tuple[PodNetwork, Tunnel]:
    async def act():
        networking = VxlanNetworking()
        network = await networking.inspect(world.pod.path)
        tunnel = await networking.worker_tunnel(0, network)
        await networking.connect(world.pod.path, network=network, tunnel=tunnel, peer=PEER, whose=WHOSE)
        await networking.close()
        return network, tunnel

    return world.worker.run_async(act)


def guest(world, network: PodNetwork, tunnel: Tunnel) -> None:
    world.vm.inside(lambda: guest_network.setup(world.guest.path, network, tunnel=tunnel))


@pytest.fixture
def tunnelled(world):
    """A world with a tunnel that carries traffic."""
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")
    return world, network, tunnel


@pytest.mark.parametrize(("box", "device"), [("worker", "eth0"), ("vm", "ens1")])
def test_a_link_that_goes_down_and_up_needs_no_help(tunnelled, box: str, device: str) -> None:
    world, _, _ = tunnelled
    side = getattr(world, box)
    for _ in range(3):
        side.ip(f"link set {device} down\n")
        assert "0 received" in world.client.run("ping", "-c1", "-W1", "10.88.0.10", check=False)
        side.ip(f"link set {device} up\n")
        assert world.client.pings("10.88.0.10")
    assert world.guest.pings("10.88.0.20")


def test_an_underlay_that_is_taken_away_and_made_again_needs_no_help(tunnelled) -> None:
    """As when a driver is loaded anew, or a cloud's NIC is detached and attached."""
    world, _, _ = tunnelled
    world.worker.ip("link del eth0\n")
    assert "0 received" in world.client.run("ping", "-c1", "-W1", "10.88.0.10", check=False)
    world.worker.ip(
        f"""link add eth0 type veth peer name ens1 netns {world.vm.process.pid}
        link set eth0 up
        addr add 192.168.77.1/24 dev eth0
        """
    )
    world.vm.ip("link set ens1 up\naddr add 192.168.77.2/24 dev ens1\n")
    assert world.client.pings("10.88.0.10")
    assert world.guest.pings("10.88.0.20")


@pytest.mark.parametrize("what", ["link del vxlan1", "link set vxlan1 down"])
def test_the_workers_half_is_made_again(tunnelled, what: str) -> None:
    world, _, _ = tunnelled
    world.pod.ip(f"{what}\n")
    assert "0 received" in world.client.run("ping", "-c1", "-W1", "10.88.0.10", check=False)
    connect(world)
    assert world.client.pings("10.88.0.10")


@pytest.mark.parametrize("what", ["link del eth0", "link set eth0 down"])
def test_the_guests_half_is_made_again_by_a_restarted_forwarder(tunnelled, what: str) -> None:
    world, network, tunnel = tunnelled
    before = world.guest.run("ip", "-d", "addr", "show", "eth0")
    world.guest.ip(f"{what}\n")
    assert "0 received" in world.client.run("ping", "-c1", "-W1", "10.88.0.10", check=False)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")
    assert world.guest.pings("10.88.0.20")
    for line in ("inet 10.88.0.10/24", "inet6 fd88::10/64", "vxlan id 555000"):
        assert line in before
        assert line in world.guest.run("ip", "-d", "addr", "show", "eth0")


def test_the_guests_half_follows_another_address_of_the_vm(tunnelled) -> None:
    """A lease that changed: the guest's half sends from the new address, the worker's is told by the next connect."""
    world, network, tunnel = tunnelled
    world.vm.ip("addr flush dev ens1 scope global\naddr add 192.168.77.3/24 dev ens1\n")
    guest(world, network, tunnel)
    assert "local 192.168.77.3" in world.guest.run("ip", "-d", "link", "show", "eth0")


def test_the_node_hears_when_its_interface_comes_back_and_of_nothing_else(tunnelled) -> None:
    world, _, _ = tunnelled
    heard: list[str] = []

    async def listen() -> None:
        networking = VxlanNetworking()
        task = asyncio.create_task(collect(networking))
        await asyncio.sleep(0.2)
        world.pod.ip("link del vxlan1\n")
        for lines in (
            "link add other type veth peer name another\nlink set other up\nlink del other\n",
            "link set eth0 promisc on\nlink set eth0 promisc off\n",
        ):
            world.worker.ip(lines)
        await asyncio.sleep(0.2)
        assert not heard
        world.worker.ip("link set eth0 down\n")
        await asyncio.sleep(0.2)
        assert not heard
        world.worker.ip("link set eth0 up\n")
        await asyncio.sleep(0.2)
        assert heard == ["eth0"]
        world.worker.ip("link del eth0\n")
        world.worker.ip("link add eth0 type veth peer name ens1\nlink set eth0 up\n")
        await asyncio.sleep(0.2)
        assert heard == ["eth0", "eth0"]
        task.cancel()
        await networking.close()

    async def collect(networking: VxlanNetworking) -> None:
        async for name in networking.flaps():
            heard.append(name)

    world.worker.run_async(listen)
