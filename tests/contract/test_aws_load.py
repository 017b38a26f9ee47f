"""Two hundred pods start and stop at once against an EC2 that counts: no more calls than allowed, nobody starves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.provider.contract import Provider
from tests.fakes.aws.world import OWNER, World, launch, world
from tests.fakes.faults import Fault

PODS = 200
SPEED = 10.0  # the driver's seconds in one of the wall's
PER_SECOND = 10.0  # calls in one of the driver's seconds, so 100 in one of the wall's
ALLOWED = 130.0  # what the fake allows in one of the wall's seconds


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.speed = SPEED
        made.waits = type(made.waits)(read_timeout=20.0)
        yield made


def driver(aws: World, per_second: float = PER_SECOND) -> Provider:
    return aws.make(CLOUD_CALLS_PER_SECOND=f"{per_second:g}", CLOUD_CREATES_AT_ONCE="20")


def order_of(aws: World, names: list[str]) -> list[int]:
    """The places in `names` in the order in which EC2 was asked for them."""
    asked = [one.request.form for one in aws.wire.journal if one.call == "RunInstances"]
    return [names.index(form["TagSpecification.1.Tag.1.Value"]) for form in asked]


async def test_two_hundred_at_once(aws: World) -> None:
    one = driver(aws)
    names = [f"podvm-web-{number:08x}" for number in range(PODS)]
    aws.ec2.faults.calls_per_second = ALLOWED
    aws.ec2.delays.pending = 0.2
    made = await asyncio.gather(*(one.create(launch(name)) for name in names))
    assert len({instance.id for instance in made}) == PODS
    assert len({instance.addresses[0] for instance in made}) == PODS
    assert aws.ec2.ledger.made["instance"] == PODS
    assert aws.wire.calls(fault=Fault.THROTTLED) == []
    assert aws.wire.busiest_second() <= ALLOWED  # 100 and the first 10, with what the machine bunches up
    late = [place - index for index, place in enumerate(order_of(aws, names))]
    assert max(map(abs, late)) <= 40, "somebody was overtaken by more than the creates that run at once"
    looks = aws.wire.calls().count("DescribeInstances")
    assert looks < PODS, f"{looks} looks for {PODS} pods: they are to share them"

    await asyncio.gather(*(one.delete(instance.id) for instance in made))
    assert aws.wire.calls(fault=Fault.THROTTLED) == []
    assert list(await one.list_owned(OWNER)) == []
    await one.close()


async def test_two_nodes_that_ask_for_more_than_the_account_has(aws: World) -> None:
    """The account's limit is below what both are set to: throttled, they wait, and all of them start."""
    aws.ec2.faults.calls_per_second = 60
    aws.ec2.faults.retry_after = 1
    nodes = [driver(aws), driver(aws)]
    names = [[f"podvm-{node}-{number:08x}" for number in range(30)] for node in "ab"]
    made = await asyncio.gather(
        *(node.create(launch(name)) for node, mine in zip(nodes, names, strict=True) for name in mine)
    )
    assert aws.wire.calls(fault=Fault.THROTTLED)
    assert aws.ec2.ledger.made["instance"] == len(made) == 60
    aws.ec2.faults.calls_per_second = 0
    await asyncio.gather(*(nodes[0].delete(instance.id) for instance in made))
    for node in nodes:
        await node.close()
