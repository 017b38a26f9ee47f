"""Tunnels are found again by looking: whole, with whose they are, and nothing else is taken for one of ours."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from caa.model.ids import SandboxId
from caa.model.network import PodNetwork, Standing, Tunnel, Whose
from caa.net.worker import VxlanNetworking

pytestmark = pytest.mark.root

PEER = ip_address("192.168.77.2")
WHOSE = Whose(sandbox=SandboxId("ab" * 32), pod_name="web", pod_namespace="default")


@pytest.fixture
def places(world, tmp_path) -> list[Path]:
    """Two folders of namespaces, as a runtime keeps them, with the pod in both, a stranger, and what is none."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "pod").symlink_to(world.pod.path)
    (folders[0] / "client").symlink_to(world.client.path)
    (folders[0] / "host").symlink_to(world.worker.path)
    (folders[0] / "file").touch()
    (folders[0] / "gone").symlink_to("/proc/none/ns/net")
    return [*folders, tmp_path / "absent"]


def built(world, **more) -> tuple[PodNetwork, Tunnel]:
    async def act():
        networking = VxlanNetworking(**more)
        network = await networking.inspect(world.pod.path)
        tunnel = await networking.worker_tunnel(7, network)
        await networking.connect(world.pod.path, network=network, tunnel=tunnel, peer=PEER, whose=WHOSE)
        await networking.close()
        return network, tunnel

    return world.worker.run_async(act)


def found(world, places, **more) -> list[Standing]:
    async def act():
        networking = VxlanNetworking(folders=places, **more)
        standing = await networking.standing()
        await networking.close()
        return list(standing)

    return world.worker.run_async(act)


def test_it_is_found_whole(world, places):
    network, tunnel = built(world)
    (one,) = found(world, places)
    assert one == Standing(netns=str(places[0] / "pod"), network=network, tunnel=tunnel, peer=PEER, whose=WHOSE)


def test_what_was_found_can_be_removed(world, places):
    built(world)
    (one,) = found(world, places)

    async def act():
        networking = VxlanNetworking()
        await networking.disconnect(one.netns, one.tunnel)
        await networking.close()

    world.worker.run_async(act)
    assert found(world, places) == []
    assert "vxlan1" not in world.pod.run("ip", "link")
    assert "ingress" not in world.pod.run("tc", "qdisc")


def test_one_without_a_label_is_found_too(world, places):
    built(world)
    world.pod.run("ip", "link", "set", "vxlan1", "alias", "")
    (one,) = found(world, places)
    assert (one.whose, one.peer) == (None, PEER)
    built(world)  # the repair at a start writes it
    assert found(world, places)[0].whose == WHOSE


@pytest.mark.parametrize("more", [{"vxlan_port": 4790}, {"vxlan_min_id": 600000}])
def test_tunnels_of_another_adaptor_are_not_ours(world, places, more):
    built(world)
    assert found(world, places, **more) == []


def test_an_address_that_the_host_has_lost(world, places):
    built(world)
    world.worker.run("ip", "addr", "del", "192.168.77.1/24", "dev", "eth0")
    (one,) = found(world, places)
    assert str(one.tunnel.worker) == "192.168.77.1/32"


def test_nothing_stands(world, places):
    assert found(world, places) == []
