"""A VM boots while the node dies or libvirtd restarts: the pod comes up all the same, or goes without a trace."""

import asyncio
from typing import Any

import pytest

from caa.testing.shim.kinds import Kind
from caa.testing.shim.pod import Pod

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.needs("runc", "nft", "ip", "busybox", "libvirtd", "qemu-system-x86_64", "dnsmasq"),
]


async def _works(pod: Pod) -> None:
    container = await pod.container("c", ["/bin/echo", "up"])
    assert (await container.result()).stdout == b"up\n"


async def _stops(pod: Pod) -> None:
    await pod.stop()
    assert not pod.stop_errors


@pytest.mark.parametrize(("kind", "moment"), [(Kind.GO, "no address yet"), (Kind.RS, "the agent is waited for")])
async def test_the_node_is_killed_in_mid_boot(worker: Any, kind: Kind, moment: str) -> None:
    """The next one undoes what was begun and makes the VM anew; the call that waited in the relay is answered."""
    await worker.restart(LOG_LEVEL="debug")
    starting = asyncio.create_task(worker.start(kind))
    first = await worker.vm_runs()
    if moment == "the agent is waited for":
        await worker.said('"step": "link", "event": "step begins"')
    await worker.daemons.kill("node")
    assert not starting.done()
    assert list(worker.host.domains().values()) == [first], "the VM boots on while the node is away"
    await worker.daemons.start_one("node")
    pod = await starting
    second = await worker.vm_runs()
    assert second != first
    await _works(pod)
    await _stops(pod)
    await worker.said("an interrupted start is undone")


async def test_a_stop_comes_while_the_node_is_away_in_mid_boot(worker: Any) -> None:
    """A kubelet that gave up: runtime-rs sends StopVM, and nothing more. The VM goes as soon as the node is back."""
    starting = asyncio.create_task(worker.start(Kind.RS))
    await worker.vm_runs()
    await worker.daemons.kill("node")
    starting.cancel()
    await asyncio.wait({starting})
    await worker.daemons.start_one("node")
    await worker.said("sandbox removed")


async def test_libvirtd_is_restarted_in_mid_boot_and_away_at_the_stop(worker: Any) -> None:
    starting = asyncio.create_task(worker.start(Kind.RS))
    first = await worker.vm_runs()
    await asyncio.to_thread(worker.host.daemon.restart)
    pod = await starting
    assert await worker.vm_runs() == first
    await _works(pod)
    await asyncio.to_thread(worker.host.daemon.stop)
    await _stops(pod)
    await worker.said("libvirt does not do it now, trying again")
    await asyncio.to_thread(worker.host.daemon.start)
