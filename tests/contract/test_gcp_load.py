"""Two hundred pods at once against a Google Cloud that counts calls."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.faults import Fault
from tests.fakes.gcp.world import World, launch, world

PODS = 200
PER_SECOND = 2  # of the driver's clock: 100 of the world's
ALLOWED = 150  # what the project has, in the world's clock


@pytest.fixture
async def gcp(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = replace(
            made.waits, read_timeout=20.0, long_poll=20.0, running=3000, address=3000, gone=9000, undo=3000
        )
        yield made


def busiest(gcp: World, seconds: float) -> float:
    """The most calls a second, over any window of this length: a busy machine bunches up what it was sent."""
    times = sorted(one.at for one in gcp.wire.journal if one.call)
    return max(sum(begin <= at < begin + seconds for at in times) for begin in times) / seconds


async def test_two_hundred_at_once_keep_the_rate_and_all_start(gcp: World) -> None:
    gcp.google.faults.calls_per_second = ALLOWED
    gcp.cloud.page = 60
    one = gcp.make(CLOUD_CALLS_PER_SECOND=str(PER_SECOND))
    names = [f"podvm-web-{number:08x}" for number in range(PODS)]
    made = await asyncio.gather(*(one.create(launch(name)) for name in names))
    assert len({instance.id for instance in made}) == len({instance.addresses[0] for instance in made}) == PODS
    calls = gcp.wire.calls()
    assert calls.count("instances.insert") == PODS
    assert calls.count("instances.aggregatedList") <= 2 * PODS, "one look before the insert, one after it, shared"
    asked = [names.index(body["name"]) for body in gcp.cloud.inserts]
    late = [abs(place - index) for index, place in enumerate(asked)]
    assert max(late) <= 40, "somebody was overtaken by more than the creates that run at once"
    await asyncio.gather(*(one.delete(instance.id) for instance in made))
    assert gcp.wire.calls(fault=Fault.THROTTLED) == []
    assert busiest(gcp, 3.0) <= ALLOWED
    await one.close()


async def test_two_nodes_that_ask_for_more_than_the_project_has(gcp: World) -> None:
    """The project's limit is below what both are set to: throttled, they wait, and all of them start."""
    gcp.google.faults.calls_per_second, gcp.google.faults.retry_after = 60, 20
    nodes = [gcp.make(CLOUD_CALLS_PER_SECOND=str(PER_SECOND)) for _ in "ab"]
    names = [[f"podvm-{node}-{number:08x}" for number in range(30)] for node in "ab"]
    made = await asyncio.gather(
        *(node.create(launch(name)) for node, mine in zip(nodes, names, strict=True) for name in mine)
    )
    assert gcp.wire.calls(fault=Fault.THROTTLED)
    assert gcp.cloud.ledger.made["instance"] == len(made) == 60
    gcp.google.faults.calls_per_second = 0
    await asyncio.gather(*(nodes[0].delete(instance.id) for instance in made))
    for node in nodes:
        await node.close()
