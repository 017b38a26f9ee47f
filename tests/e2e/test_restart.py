"""The control plane dies at its worst moments: pods do not notice, calls wait for it, stops are not lost."""

import asyncio
import signal
import time
from asyncio.subprocess import Process

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.shim import Shim
from caa.wire.proto import podvminfo

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]
STEPS = ("own", "launch", "note", "connect", "link")
KINDS = pytest.mark.parametrize("kind", list(Kind))


async def _start(node, kind: Kind, name: str = "pod0") -> Pod:
    await asyncio.to_thread(world.attach, name, f"{world.SUBNET}.10")
    options = PodOptions(name=name, namespace="test", netns=str(world.NETNS / name))
    pod = await Shim(str(node.paths.hypervisor), kind).start(options)
    node.stage.groups += await asyncio.to_thread(world.groups_of, f"podvm-{name}-{pod.sandbox_id[:8]}")
    return pod


@KINDS
async def test_a_running_pod_does_not_notice_that_the_node_is_killed(node, kind):
    pod = await _start(node, kind)
    container = await pod.container("c", ["/bin/sh", "-c", "while read x; do echo got $x; done"])
    await node.daemons.kill("node")
    result = await pod.exec(container, ["/bin/echo", "alive"])
    assert (result.stdout, result.exit_code) == (b"alive\n", 0)
    await node.daemons.start_one("node")
    client = await node.client()
    request = podvminfo.GetInfoRequest(PodName="pod0", PodNamespace="test", Wait=True)
    info = await client.call("podvminfo.PodVMInfo/GetInfo", request, timeout=20)
    await client.close()
    assert f"podvm-pod0-{pod.sandbox_id[:8]}" == info.VMID
    assert not pod.failed.is_set()
    await pod.stop()
    world.detach("pod0")


@KINDS
async def test_a_stop_while_the_node_is_away_is_answered_at_once_and_acted_on_later(node, kind):
    pod = await _start(node, kind)
    await node.daemons.kill("node")
    began = time.monotonic()
    await pod.stop()
    stopped = next(one for one in pod.timings if one.name == "StopVM")
    assert not pod.stop_errors
    assert stopped.took_ms < 900, f"{time.monotonic() - began:.1f} s"
    world.detach("pod0")
    assert await _groups(pod), "the pod VM should still be there"
    await node.daemons.start_one("node")


async def _groups(pod: Pod) -> object:
    return await asyncio.to_thread(world.groups_of, f"podvm-pod0-{pod.sandbox_id[:8]}")


@KINDS
async def test_a_start_that_comes_while_the_node_is_away_waits_for_it(node, kind):
    await node.daemons.kill("node")
    starting = asyncio.create_task(_start(node, kind))
    await asyncio.sleep(0.5)
    assert not starting.done()
    await node.daemons.start_one("node")
    pod = await starting
    await pod.stop()
    world.detach("pod0")


async def _killed_at(node, line: str) -> None:
    """SIGKILL to the node as soon as its log has `line`; then the next one starts."""
    log = node.paths.log("node")
    async with asyncio.timeout(20):
        while line not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await node.daemons.kill("node")
    await node.daemons.start_one("node")


@pytest.fixture
async def talkative(node):
    """A node that logs the beginning of each step."""
    node.daemons.environ = {**node.daemons.environ, "LOG_LEVEL": "debug"}
    await node.daemons.kill("node")
    await node.daemons.start_one("node")
    return node


@pytest.mark.parametrize(
    "line", ["create a sandbox", *(f'"step": "{step}", ' for step in STEPS), '"step": "link", "ms"']
)
async def test_a_node_killed_in_the_middle_of_a_start(talkative, line):
    """What was begun is undone by the next process; the call that waits in the relay then gets its answer: the pod."""
    node = talkative
    starting = asyncio.create_task(_start(node, Kind.GO))
    await _killed_at(node, line)
    pod = await starting
    container = await pod.container("c", ["/bin/echo", "up"])
    assert (await container.result()).stdout == b"up\n"
    await pod.stop()
    assert not pod.stop_errors
    world.detach("pod0")


@pytest.mark.parametrize("step", ["", *STEPS])
async def test_a_node_killed_in_the_middle_of_a_stop(talkative, step):
    """The shim gets its answer within its second, the next process finishes the stop."""
    node = talkative
    pod = await _start(node, Kind.RS)
    stopping = asyncio.create_task(pod.stop())
    await _killed_at(node, f'"step": "{step}", "event": "undoing begins"' if step else "sandbox stopping")
    await stopping
    assert not pod.stop_errors
    world.detach("pod0")


async def _ended(node) -> None:
    """SIGTERM, as the kubelet sends it, and the process's end."""
    process = node.daemons.running.pop("node")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize("grace", ["20s", "0s"], ids=["finished", "taken anew"])
async def test_a_node_that_is_told_to_end_in_the_middle_of_a_start(node, grace):
    """With time to drain it finishes the start; without, the next process has it."""
    node.daemons.environ = {**node.daemons.environ, "DRAIN_GRACE": grace}
    await node.daemons.kill("node")
    await node.daemons.start_one("node")
    starting = asyncio.create_task(_start(node, Kind.GO))
    log = node.paths.log("node")
    async with asyncio.timeout(20):
        while '"step": "own"' not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await _ended(node)
    if grace != "0s":
        pod = await starting
    await node.daemons.start_one("node")
    pod = await starting
    assert (await asyncio.to_thread(log.read_text)).count("sandbox running") == 1
    await pod.stop()
    world.detach("pod0")


@KINDS
async def test_a_roll_out_that_starts_the_new_node_first(node, kind):
    """The new one waits for the old one's store; a pod that runs and pods that start in between notice nothing."""
    pod = await _start(node, kind)
    container = await pod.container("c", ["/bin/sh", "-c", "while :; do sleep 1; done"])
    old = node.daemons.running["node"]
    try:
        other = await _rolled_out(node, old, kind=kind)
    finally:
        if old.returncode is None:
            old.kill()
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    for one in (pod, other):
        await one.stop()
        assert not one.stop_errors
    for name in ("pod0", "pod1"):
        await asyncio.to_thread(world.detach, name)


async def _rolled_out(node, old: Process, *, kind: Kind) -> Pod:
    """Returns the pod whose start was under way when the old node was told to end."""
    node.daemons.environ = {**node.daemons.environ, "TAKEOVER_WAIT": "1m"}
    await node.daemons.start_one("node")
    log = node.paths.log("node")
    async with asyncio.timeout(20):
        while "waiting for the other caa node" not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.to_thread(world.attach, "pod1", f"{world.SUBNET}.11")
    options = PodOptions(name="pod1", namespace="test", netns=str(world.NETNS / "pod1"))
    starting = asyncio.create_task(Shim(str(node.paths.hypervisor), kind).start(options))
    await asyncio.sleep(0.05)
    old.send_signal(signal.SIGTERM)
    pod = await starting
    assert await asyncio.wait_for(old.wait(), 20) == 0
    return pod
