"""A pod VM that dies under a pod, and one that is only cut off: the first pod fails within 30 s, the second lives."""

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from caa.testing.demo import world
from caa.testing.shim.kinds import Kind, PodOptions
from caa.testing.shim.pod import Pod
from caa.testing.shim.process import Process
from caa.testing.shim.shim import Shim

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "nft", "ip")]
KINDS = pytest.mark.parametrize("kind", list(Kind))
SANDBOX = "cd" * 32
NAME = f"podvm-pod0-{SANDBOX[:8]}"
LIMIT = 30.0  # seconds from the death of a pod VM to the end of its pod
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


@pytest.fixture(autouse=True)
def no_pod_vm_outlives_its_test() -> Iterator[None]:
    """Also when the test has failed: they all bear one name."""
    yield
    for pid in _pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def pod_network(node) -> AsyncIterator[PodOptions]:
    """A pod's namespace, there until the end of the test."""
    await asyncio.to_thread(world.attach, "pod0", f"{world.SUBNET}.10")
    yield PodOptions(name="pod0", namespace="test", netns=str(world.NETNS / "pod0"), sandbox_id=SANDBOX)
    await asyncio.to_thread(world.detach, "pod0")


async def _streaming(node, pod_network: PodOptions, kind: Kind) -> tuple[Pod, Process]:
    """A pod whose container writes numbered lines, of which some have come."""
    pod = await Shim(str(node.paths.hypervisor), kind).start(pod_network)
    node.stage.groups += await asyncio.to_thread(world.groups_of, NAME)
    container = await pod.container("c", ["/bin/sh", "-c", COUNT])
    await container.output(b"\n10\n")
    return pod, container


def _pids() -> set[int]:
    """The processes of our pod VM, by its cgroups."""
    folders = [Path(folder) for group in world.groups_of(NAME) for folder, _, _ in os.walk(group)]
    return {int(pid) for folder in folders for pid in (folder / "cgroup.procs").read_text().split()}


def _first(pid: int) -> bool:
    """Whether it is the first process of the pod VM: of its PID namespace, one below ours (proc_pid_status(5))."""
    numbers = re.search(rb"NSpid:(.*)", _of(pid, "status"))
    return numbers is not None and numbers[1].split()[1:] == [b"1"]


def _of(pid: int, file: str) -> bytes:
    """A file of /proc; b"" for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def _killed() -> None:
    """The pod VM dies as a whole: the kernel lets none of its processes outlive the first one by an instruction."""
    (first,) = (pid for pid in _pids() if _first(pid))
    os.kill(first, signal.SIGKILL)


def _agent_killed() -> None:
    (agent,) = (pid for pid in _pids() if b"caa.testing.agent" in _of(pid, "cmdline") and not _first(pid))
    os.kill(agent, signal.SIGKILL)


def _plugged(how: str) -> None:
    """Switch the pod VM's cable "up" or "down", at the node's end: in between it hears nothing and says nothing."""
    cables = [one["ifname"] for one in json.loads(world.run("ip", "-json", "link")) if one["ifname"].startswith("caal")]
    assert len(cables) == 1
    world.run("ip", "link", "set", cables[0], how)


def _deleted(node) -> None:
    """What an administrator does: the machine stops, and the cloud forgets it."""
    _killed()
    shutil.rmtree(node.paths.vms / "vms" / NAME)


def _crashed_in_the_dark(node) -> None:
    """The last packets, which would end the connection, never come."""
    _plugged("down")
    _killed()


def _crashed(node) -> None:
    _killed()


async def _said(node, words: str, who: str = "node") -> None:
    async with asyncio.timeout(LIMIT):
        while words not in await asyncio.to_thread(node.paths.log(who).read_text):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _fails(pod: Pod) -> float:
    """Seconds until the shim has given its pod up and StopVM was answered."""
    began = time.monotonic()
    await asyncio.wait_for(pod.failed.wait(), LIMIT)
    took = time.monotonic() - began
    await asyncio.wait_for(pod.ended.wait(), 5)
    assert not pod.stop_errors
    return took


@KINDS
@pytest.mark.parametrize(
    ("dies", "reason"),
    [
        (_crashed, "does not run any more"),
        (_crashed_in_the_dark, "does not run any more"),
        (_deleted, f"the cloud has no {NAME}"),
    ],
)
async def test_a_pod_vm_that_dies(node, pod_network, kind, dies, reason):
    """The fixture sees that no instance, network, record or socket is left."""
    pod, _ = await _streaming(node, pod_network, kind)
    await asyncio.to_thread(dies, node)
    assert await _fails(pod) < LIMIT
    await _said(node, reason)
    await _said(node, reason, who="relay")


@KINDS
async def test_an_agent_that_dies_in_a_living_pod_vm(node, pod_network, kind):
    """The forwarder says so, and nobody waits."""
    pod, _ = await _streaming(node, pod_network, kind)
    await asyncio.to_thread(_agent_killed)
    assert await _fails(pod) < 2
    await _said(node, "its agent is gone", who="relay")


@KINDS
async def test_a_pod_vm_that_dies_while_the_node_is_away(node, pod_network, kind):
    pod, _ = await _streaming(node, pod_network, kind)
    await node.daemons.kill("node")
    await asyncio.to_thread(_killed)
    await asyncio.sleep(1)
    assert not pod.failed.is_set()
    await node.daemons.start_one("node")
    await _fails(pod)
    await _said(node, "does not run any more")


@KINDS
async def test_a_pod_vm_that_is_cut_off_lives_also_when_the_node_is_restarted(node, pod_network, kind):
    pod, container = await _streaming(node, pod_network, kind)
    await asyncio.to_thread(_plugged, "down")
    await _said(node, '"act": "state"')
    await node.daemons.kill("node")
    await node.daemons.start_one("node")
    async with asyncio.timeout(LIMIT):  # the new one asks too
        while (await asyncio.to_thread(node.paths.log("node").read_text)).count('"act": "state"') < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await asyncio.to_thread(_plugged, "up")
    before = len(container.stdout)
    async with asyncio.timeout(LIMIT):
        while len(container.stdout) < before + 2000:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not pod.failed.is_set()
    lines = [int(line) for line in re.findall(rb"(\d+)\n", bytes(container.stdout))]
    assert lines == list(range(1, len(lines) + 1))
    await _said(node, "the link to a pod VM is not down any more")
    assert (await pod.exec(container, ["/bin/echo", "alive"])).stdout == b"alive\n"
    await pod.stop()
    assert not pod.stop_errors
