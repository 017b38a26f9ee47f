"""The node's interface goes down and up under a running pod, and what is missing of its tunnel is made again."""

import asyncio
import json
import subprocess

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.shim import Shim

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]


def _underlay() -> str:
    routes = json.loads(world.run("ip", "-json", "route", "show", "default"))
    return str(routes[0]["dev"])


def _flap(device: str) -> None:
    before = world.run("ip", "route", "show", "default").strip()
    world.run("ip", "link", "set", device, "down")
    world.run("ip", "link", "set", device, "up")
    world.run("ip", "route", "replace", *before.split())


def _answers(address: str) -> bool:
    line = ["ip", "netns", "exec", world.CLIENT, "ping", "-c1", "-W1", address]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


async def test_a_lost_tunnel_is_back_after_the_interface_is(node):
    address = f"{world.SUBNET}.10"
    await asyncio.to_thread(world.attach, "pod0", address)
    options = PodOptions(name="pod0", namespace="test", netns=str(world.NETNS / "pod0"))
    pod = await Shim(str(node.paths.hypervisor), Kind.GO).start(options)
    node.stage.groups += await asyncio.to_thread(world.groups_of, f"podvm-pod0-{pod.sandbox_id[:8]}")
    assert await asyncio.to_thread(_answers, address)
    await asyncio.to_thread(world.run, "ip", "-netns", "pod0", "link", "del", "vxlan1")
    assert not await asyncio.to_thread(_answers, address)
    await asyncio.to_thread(_flap, await asyncio.to_thread(_underlay))
    async with asyncio.timeout(15):
        while not await asyncio.to_thread(_answers, address):  # a ping waits for a second
            continue
    assert "looking at the tunnels" in await asyncio.to_thread(node.paths.log("node").read_text)
    await pod.stop()
    await asyncio.to_thread(world.detach, "pod0")
