"""The whole pod network: worker half, guest half, traffic through both."""

import socket
import threading
import time
from ipaddress import ip_address

import pytest

from caa.model.network import PodNetwork, Tunnel
from caa.net.worker import VxlanNetworking
from podvm import network as guest_network

pytestmark = pytest.mark.root

PEER4 = ip_address("192.168.77.2")
PEER6 = ip_address("fd77::2")


def connect(world, *, peer=PEER4, host_interface="", index=0) -> tuple[PodNetwork, Tunnel]:
    async def act():
        networking = VxlanNetworking(host_interface=host_interface)
        network = await networking.inspect(world.pod.path)
        tunnel = await networking.worker_tunnel(index, network)
        await networking.connect(world.pod.path, network=network, tunnel=tunnel, peer=peer)
        await networking.close()
        return network, tunnel

    return world.worker.run_async(act)


def disconnect(world, tunnel: Tunnel, path: str = "") -> None:
    async def act():
        networking = VxlanNetworking()
        await networking.disconnect(path or world.pod.path, tunnel)
        await networking.close()

    world.worker.run_async(act)


def guest(world, network: PodNetwork, tunnel: Tunnel) -> None:
    world.vm.inside(lambda: guest_network.setup(world.guest.path, network, tunnel))


def test_ping_both_families_and_mtu(world):
    network, tunnel = connect(world)
    guest(world, network, tunnel)
    assert world.client.pings("10.88.0.10")
    assert world.client.pings("fd88::10")
    assert world.guest.pings("10.88.0.20")
    assert world.guest.pings("fd88::1")
    assert tunnel.mtu == 1450
    assert world.guest.pings("10.88.0.20", "-Mdo", f"-s{1450 - 28}")
    assert not world.guest.pings("10.88.0.20", "-Mdo", f"-s{1450 - 27}")
    assert world.client.pings("10.88.0.10", "-Mdo", f"-s{1450 - 28}")
