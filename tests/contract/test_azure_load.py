"""Two hundred pods start and stop at once against an Azure that counts: no more calls than allowed, nobody starves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.provider.contract import Provider
from tests.fakes.azure.world import OWNER, World, launch, world
from tests.fakes.faults import Fault

PODS = 200
SPEED = 10.0  # the driver's seconds in one of the wall's
PER_SECOND = 30.0  # calls in one of the driver's seconds, so 300 in one of the wall's
ALLOWED = 390.0  # what the fake allows in one of the wall's seconds


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.speed = SPEED
        made.waits = type(made.waits)(read_timeout=20.0)
        yield made


def driver(azure: World, per_second: float = PER_SECOND) -> Provider:
    return azure.make(CLOUD_CALLS_PER_SECOND=f"{per_second:g}", CLOUD_CREATES_AT_ONCE="50")


async def test_two_hundred_at_once(azure: World) -> None:
    one = driver(azure)
    names = [f"podvm-web-{number:08d}" for number in range(PODS)]
    azure.faults.calls_per_second = ALLOWED
    azure.azure.delays.nic = azure.azure.delays.power = azure.azure.delays.ending = 0.1
    made = await asyncio.gather(*(one.create(launch(name)) for name in names))
    assert len({instance.id for instance in made}) == PODS
    assert len({instance.addresses[0] for instance in made}) == PODS
    assert azure.ledger.made["vm"] == PODS
    asked = [names.index(body["properties"]["osProfile"]["computerName"]) for body in azure.puts()]
    late = [place - index for index, place in enumerate(asked)]
    assert max(map(abs, late)) <= 60, "somebody was overtaken by more than the creates that run at once"
    looks = azure.wire.calls().count("VirtualMachines.List") + azure.wire.calls().count("VirtualMachines.Get")
    assert looks < PODS, f"{looks} looks for {PODS} pods: they are to share them"

    await asyncio.gather(*(one.delete(instance.id) for instance in made))
    assert azure.wire.calls(fault=Fault.THROTTLED) == []
    assert azure.wire.busiest_second() <= ALLOWED  # 300 and the first 30, with what the machine bunches up
    assert list(await one.list_owned(OWNER)) == []
    await one.close()


async def test_two_nodes_that_ask_for_more_than_the_subscription_has(azure: World) -> None:
    """The subscription's limit is below what both are set to: throttled, they wait, and all of them start."""
    azure.faults.calls_per_second, azure.faults.retry_after = 60, 1
    nodes = [driver(azure), driver(azure)]
    names = [[f"podvm-{node}-{number:08d}" for number in range(20)] for node in "ab"]
    made = await asyncio.gather(
        *(node.create(launch(name)) for node, mine in zip(nodes, names, strict=True) for name in mine)
    )
    assert azure.wire.calls(fault=Fault.THROTTLED)
    assert azure.ledger.made["vm"] == len(made) == 40
    azure.faults.calls_per_second = 0
    await asyncio.gather(*(nodes[0].delete(instance.id) for instance in made))
    for node in nodes:
        await node.close()
