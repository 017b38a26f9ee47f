"""Domains in states that a delete rarely meets, on libvirt's own test driver; calls that block, in their threads."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

import providers.libvirt
from caa.config.load import load
from caa.model.ids import InstanceId
from caa.model.instance import InstanceState
from caa.provider.contract import Provider
from caa.testing.libvirt_calls import Calls
from providers.libvirt.connection import Connection
from providers.libvirt.translate import NAMESPACE

UUID = "9d2bb2d1-26ba-4b4e-ae1f-2a1dd9a85e0e"
NAME = "podvm-web-0a1b2c3d"
DOMAIN = """
<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
  <name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><os><type>hvm</type></os>
  <metadata><caa:podvm xmlns:caa='{namespace}' cluster='functional' node='worker-1' sandbox='s' pool='default-pool'
    size='1x64' created='1.0' addresses=''/></metadata>
  <test:runstate>{state}</test:runstate>
</domain>
"""
NODE = "<node>{domain}<pool type='dir'><name>default-pool</name><target><path>/pool</path></target></pool></node>"
STATES = {
    libvirt.VIR_DOMAIN_RUNNING: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: InstanceState.STOPPED,
    libvirt.VIR_DOMAIN_SHUTOFF: InstanceState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: InstanceState.STOPPED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: InstanceState.RUNNING,
}


@pytest.fixture
def host(tmp_path: Path) -> Callable[[int], str]:
    """The URI of a pretended host with our pod VM in a state."""

    def make(state: int) -> str:
        file = tmp_path / "node.xml"
        file.write_text(NODE.format(domain=DOMAIN.format(name=NAME, uuid=UUID, namespace=NAMESPACE, state=state)))
        return f"test://{file}"

    return make


def driver_at(uri: str, calls: Calls, **environ: str) -> Provider:
    values = load(providers.libvirt.SETTINGS, {"LIBVIRT_POOL": "default-pool", **environ})
    return providers.libvirt.provider(values, Connection(uri, opener=calls.open))


@pytest.mark.parametrize("state", STATES)
async def test_defect_a_pod_vm_that_is_shutting_down_or_asleep_stays(host: Any, state: int) -> None:
    """The reference destroys what runs or is paused: the others' disks stay in use (providers.md 5.2)."""
    calls = Calls()
    driver = driver_at(host(state), calls)
    found = await driver.state(InstanceId(UUID))
    assert found is STATES[state]
    begin = len(calls.names)
    await driver.delete(InstanceId(UUID))
    assert await driver.state(InstanceId(UUID)) is InstanceState.ABSENT
    destroyed = "virDomain.destroy" in calls.names[begin:]
    assert destroyed == (state != libvirt.VIR_DOMAIN_SHUTOFF)
    await driver.close()


async def test_calls_that_block_leave_the_loop_free_and_are_bounded(host: Any) -> None:
    """LIBVIRT_CALLS of them at a time; the event loop goes on."""
    release, lock = threading.Event(), threading.Lock()
    inside = most = 0
    entered = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def slow(*_arguments: object) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        loop.call_soon_threadsafe(entered.release)
        assert release.wait(20)
        with lock:
            inside -= 1
        return []

    driver = driver_at(host(libvirt.VIR_DOMAIN_RUNNING), Calls({"virConnect.listAllDomains": slow}), LIBVIRT_CALLS="3")
    owner: Any = None
    asking = [asyncio.create_task(driver.list_owned(owner)) for _ in range(10)]
    for _ in range(3):
        await entered.acquire()
    assert not any(one.done() for one in asking), "and we are here: the loop is free"
    release.set()
    assert await asyncio.gather(*asking) == [[]] * 10
    assert most == 3
    await driver.close()
