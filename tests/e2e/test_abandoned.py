"""Shims that vanish without a word, of both kinds, at each point of a pod's life: nothing of the pod is left."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from caa.testing.demo import world
from caa.testing.shim import requests
from caa.testing.shim.hypervisor_link import HypervisorLink
from caa.testing.shim.kinds import Kind, PodOptions, habits
from caa.testing.shim.link import Stopwatch
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]
KINDS = pytest.mark.parametrize("kind", list(Kind))
SANDBOX = "ab" * 32
NAME = f"podvm-pod0-{SANDBOX[:8]}"


@pytest.fixture
async def pod_network(node) -> AsyncIterator[PodOptions]:
    """A pod's namespace, there until the end of the test."""
    await asyncio.to_thread(world.attach, "pod0", f"{world.SUBNET}.10")
    yield PodOptions(name="pod0", namespace="test", netns=str(world.NETNS / "pod0"), sandbox_id=SANDBOX)
    await asyncio.to_thread(world.detach, "pod0")


async def _with(node, **settings: str) -> None:
    """The node anew, with other settings."""
    node.daemons.environ = {**node.daemons.environ, **settings}
    await node.daemons.kill("node")
    await node.daemons.start_one("node")


async def _vm_is_there(node) -> None:
    groups = await asyncio.to_thread(world.groups_of, NAME)
    assert groups, "the pod VM should be there"
    node.stage.groups += groups


async def _until(holds: Callable[[], bool], pause: float = 0.05) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110
            await asyncio.sleep(pause)


async def _vm_goes() -> None:
    await _until(lambda: not world.groups_of(NAME))


def _said(node, words: str) -> bool:
    return words in node.paths.log("node").read_text()


@KINDS
async def test_a_killed_shim(node, pod_network, kind):
    await _with(node, CLOSED_GRACE="1s")
    pod: Pod = await Shim(str(node.paths.hypervisor), kind).start(pod_network)
    await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    await _vm_is_there(node)
    await asyncio.sleep(1)  # the shim is seen
    await pod.kill()
    await _vm_is_there(node)
    await _vm_goes()
    assert await asyncio.to_thread(_said, node, "its shim closed the agent connection and sent no StopVM")


@KINDS
async def test_a_shim_that_never_opens_the_agent_socket(node, pod_network, kind):
    await _with(node, UNOPENED_GRACE="1s")
    link = HypervisorLink(str(node.paths.hypervisor), habits(kind), watch=Stopwatch())
    await link.create(requests.create_vm(pod_network, SANDBOX, habits=habits(kind)))
    await link.start(SANDBOX)
    await _vm_is_there(node)
    await link.close()
    await _vm_goes()
    assert await asyncio.to_thread(_said, node, "no shim has opened its agent socket")


@KINDS
async def test_a_created_sandbox_that_is_never_started(node, pod_network, kind):
    await _with(node, UNSTARTED_GRACE="500ms")
    link = HypervisorLink(str(node.paths.hypervisor), habits(kind), watch=Stopwatch())
    await link.create(requests.create_vm(pod_network, SANDBOX, habits=habits(kind)))
    await link.close()
    await _until(lambda: _said(node, "sandbox removed"))


@KINDS
@pytest.mark.parametrize("moment", ["create the pod VM", "reach the agent"])
async def test_a_start_that_is_cancelled(node, pod_network, kind, moment):
    """The default grace periods: it is undone at once."""
    starting = asyncio.create_task(Shim(str(node.paths.hypervisor), kind).start(pod_network))
    line = '"step": "own"' if moment == "create the pod VM" else '"step": "connect"'
    await _until(lambda: _said(node, line), pause=0.002)
    starting.cancel()
    await asyncio.wait({starting})
    await _vm_goes()


@KINDS
async def test_a_create_that_is_cancelled(node, pod_network, kind):
    """It waits in the relay, for the node is away; only runtime-rs says a word."""
    await node.daemons.kill("node")
    starting = asyncio.create_task(Shim(str(node.paths.hypervisor), kind).start(pod_network))
    await asyncio.sleep(0.3)
    starting.cancel()
    await asyncio.wait({starting})
    await node.daemons.start_one("node")
    link = HypervisorLink(str(node.paths.hypervisor), habits(kind), watch=Stopwatch())
    await link.stop("ff" * 32)  # answered by the node: it has come up
    await link.close()
    assert not await asyncio.to_thread(_said, node, "sandbox running")


@KINDS
@pytest.mark.parametrize("held", [0.2, 0.8], ids=["short", "longer than a StopVM waits"])
async def test_a_create_that_is_cancelled_while_the_node_has_it(node, pod_network, kind, held):
    """The node does not run for a moment, then finds CreateVM, perhaps StopVM, and a closed connection all at once."""
    process = node.daemons.running["node"]
    process.send_signal(signal.SIGSTOP)
    try:
        starting = asyncio.create_task(Shim(str(node.paths.hypervisor), kind).start(pod_network))
        await asyncio.sleep(0.1)
        starting.cancel()
        await asyncio.sleep(held)
    finally:
        process.send_signal(signal.SIGCONT)
    await asyncio.wait({starting})
    link = HypervisorLink(str(node.paths.hypervisor), habits(kind), watch=Stopwatch())
    await link.stop("ff" * 32)
    await link.close()
    assert not await asyncio.to_thread(_said, node, "sandbox running")


@KINDS
async def test_a_shim_that_is_killed_while_the_node_is_away(node, pod_network, kind):
    await _with(node, UNOPENED_GRACE="1s")
    pod = await Shim(str(node.paths.hypervisor), kind).start(pod_network)
    await _vm_is_there(node)
    await node.daemons.kill("node")
    await pod.kill()
    await node.daemons.start_one("node")
    await _vm_goes()
