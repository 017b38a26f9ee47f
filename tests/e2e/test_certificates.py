"""Certificates of a whole node: rotated by the operator's command while pods run, their links cut afterwards."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from caa.testing.demo import world
from caa.testing.demo.daemons import settings
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip", "ss")]


async def _start(node, kind: Kind, name: str, place: int) -> Pod:
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.{place}")
    options = PodOptions(name=name, namespace="test", netns=str(world.NETNS / name))
    pod = await Shim(str(node.paths.hypervisor), kind).start(options)
    node.stage.groups += await asyncio.to_thread(world.groups_of, f"podvm-{name}-{pod.sandbox_id[:8]}")
    return pod


def _certs(node, *words: str) -> str:
    command = [sys.executable, "-m", "caa", "certs", *words]
    environ = {**node.daemons.environ, **settings(node.paths, "local")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    assert "PRIVATE" not in done.stdout + done.stderr
    return done.stdout


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _resumed(node) -> int:
    return node.paths.log("relay").read_text().count("link resumed")


async def test_old_and_new_pods_go_on_after_rotations_cuts_and_the_loss_of_the_store(node):
    pods = {"pod0": await _start(node, Kind.GO, "pod0", 10)}
    assert "CA 2 is made" in await asyncio.to_thread(_certs, node, "rotate", "ca")
    pods["pod1"] = await _start(node, Kind.RS, "pod1", 11)
    containers = {}
    for name, pod in pods.items():
        containers[name] = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    assert "of CA 1, 2" in await asyncio.to_thread(_certs, node, "rotate", "client")
    users = "pod VMs that trust CA 1: 1\npod VMs that trust CA 2: 1; new ones will\n"
    assert (await asyncio.to_thread(_certs, node, "show")).endswith(users)

    await asyncio.to_thread(world.run, "ss", "-K", "dport", "=", "15150")
    await _until(lambda: _resumed(node) == 2)
    for name, pod in pods.items():
        assert (await pod.exec(containers[name], ["/bin/echo", name])).stdout == f"{name}\n".encode()

    await node.daemons.kill("node")
    for path in node.paths.state.glob("node.db*"):
        path.unlink()
    await node.daemons.start_one("node")
    await _until(lambda: "the store is rebuilt from what runs" in node.paths.log("node").read_text())
    assert (await asyncio.to_thread(_certs, node, "show")).endswith(users), "the relay knows who trusts which"
    await asyncio.to_thread(world.run, "ss", "-K", "dport", "=", "15150")
    await _until(lambda: _resumed(node) == 4)
    for name, pod in pods.items():
        assert (await pod.exec(containers[name], ["/bin/echo", name])).stdout == f"{name}\n".encode()
        assert not pod.failed.is_set()
        await pod.stop()
        await asyncio.to_thread(world.detach, name)
