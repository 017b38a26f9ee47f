"""Two hundred pods start and stop at once against a cloud that counts: no more calls than allowed, nobody starves."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from caa.provider.contract import Provider
from tests.fakes.aws.table import LOAD as AWS
from tests.fakes.azure.table import LOAD as AZURE
from tests.fakes.faults import Fault
from tests.fakes.gcp.table import LOAD as GCP
from tests.fakes.load_table import LoadTable
from tests.fakes.world import OWNER, World, launch

PODS = 200

each_cloud = pytest.mark.parametrize("load", [AWS, AZURE, GCP], ids=lambda load: load.table.cloud)


@pytest.fixture
async def world(load: LoadTable, tmp_path: Path) -> AsyncIterator[World]:
    async with load.table.world(tmp_path) as made:
        made.speed = load.speed
        made.waits = replace(made.waits, read_timeout=20.0, **load.waits)
        yield made


def driver(load: LoadTable, world: World) -> Provider:
    return world.make(CLOUD_CALLS_PER_SECOND=f"{load.per_second:g}", CLOUD_CREATES_AT_ONCE=str(load.creates))


def busiest(world: World, seconds: float) -> float:
    """The most calls a second over any window of this length."""
    times = sorted(one.at for one in world.wire.journal if one.call)
    return max(sum(begin <= at < begin + seconds for at in times) for begin in times) / seconds


@each_cloud
async def test_two_hundred_at_once(load: LoadTable, world: World) -> None:
    one = driver(load, world)
    names = [f"podvm-web-{number:08x}" for number in range(PODS)]
    world.faults.calls_per_second = load.allowed
    load.prepare(world)
    made = await asyncio.gather(*(one.create(launch(name)) for name in names))
    assert len({instance.id for instance in made}) == len({instance.addresses[0] for instance in made}) == PODS
    assert world.ledger.made[load.table.kind] == world.wire.calls().count(load.table.make) == PODS
    late = [abs(names.index(name) - index) for index, name in enumerate(load.asked(world))]
    # Pods that look together go together, and on a busy machine one look may overtake another.
    assert median(late) <= PODS // 20, "they are not served in the order in which they came"
    assert max(late) <= PODS // 2, "somebody was overtaken by half of those that came later"
    looks = sum(world.wire.calls().count(call) for call in load.looks)
    assert looks <= load.most_looks * PODS, f"{looks} looks for {PODS} pods: they are to share them"

    await asyncio.gather(*(one.delete(instance.id) for instance in made))
    assert world.wire.calls(fault=Fault.THROTTLED) == []
    assert busiest(world, load.window) <= load.allowed
    assert list(await one.list_owned(OWNER)) == []
    await one.close()


@each_cloud
async def test_two_nodes_that_ask_for_more_than_the_account_has(load: LoadTable, world: World) -> None:
    """The account's limit is below what both are set to: throttled, they wait, and all of them start."""
    world.faults.calls_per_second, world.faults.retry_after = 60.0, load.speed / 4  # 0.25 s of the wall's
    world.faults.plan("*", Fault.THROTTLED, times=10)  # as they begin there is nothing left, however slow they are
    nodes = [driver(load, world), driver(load, world)]
    names = [[f"podvm-{node}-{number:08x}" for number in range(20)] for node in "ab"]
    made = await asyncio.gather(
        *(node.create(launch(name)) for node, mine in zip(nodes, names, strict=True) for name in mine)
    )
    assert len(world.wire.calls(fault=Fault.THROTTLED)) >= 10
    assert world.ledger.made[load.table.kind] == len(made) == 40
    world.faults.calls_per_second = 0
    await asyncio.gather(*(nodes[0].delete(instance.id) for instance in made))
    for node in nodes:
        await node.close()
