"""A driver exchanged while its calls are under way: each ends where it began, and the old driver is closed last."""

import asyncio
from typing import Any

import pytest

from caa.errors import ProviderError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Capabilities, InstanceState, LaunchRequest, Owner
from caa.node.exchange import Exchangeable
from caa.testing.faulty import Fault, Faulty, MemoryCloud

OWNER = Owner(cluster="c", node="n")
REQUEST = LaunchRequest(name="vm", sandbox=SandboxId("s"), owner=OWNER, token="t", user_data=b"")


class Closable(MemoryCloud):
    """Tells when it was closed; `hold` keeps its calls from returning."""

    def __init__(self) -> None:
        super().__init__(capabilities=Capabilities(name_limit=7))
        self.hold = asyncio.Event()
        self.entered = asyncio.Event()
        self.closed = 0
        self.refuses = False

    async def create(self, request: LaunchRequest) -> Any:
        self.entered.set()
        await self.hold.wait()
        return await super().create(request)

    async def close(self) -> None:
        self.closed += 1
        if self.refuses:
            raise ProviderError("busy")


async def test_a_call_under_way_ends_where_it_began() -> None:
    old, new = Closable(), Closable()
    driver = Exchangeable.of(old)
    creating = asyncio.create_task(driver.create(REQUEST))
    await old.entered.wait()
    driver.exchange(new)
    new.hold.set()
    await driver.create(REQUEST)
    assert (len(old.ledger), len(new.ledger), old.closed) == (0, 1, 0)
    old.hold.set()
    await creating
    await driver.close()
    assert (len(old.ledger), old.closed, new.closed) == (1, 1, 1)


async def test_an_idle_one_is_closed_at_once() -> None:
    old, new = Closable(), Closable()
    driver = Exchangeable.of(old)
    driver.exchange(new)
    await driver.close()
    assert (old.closed, new.closed) == (1, 1)


async def test_a_call_that_fails_counts_too() -> None:
    old = Closable()
    faulty = Faulty(old)
    faulty.plan("delete", Fault.REFUSED)
    driver = Exchangeable.of(faulty)
    with pytest.raises(ProviderError):
        await driver.delete(InstanceId("x"))
    driver.exchange(Closable())
    await driver.close()
    assert old.closed == 1


async def test_one_that_does_not_close_is_no_error() -> None:
    old = Closable()
    old.refuses = True
    driver = Exchangeable.of(old)
    driver.exchange(Closable())
    await driver.close()
    assert old.closed == 1


async def test_every_call_is_passed_on() -> None:
    cloud = Closable()
    cloud.hold.set()
    driver = Exchangeable.of(cloud)
    instance = await driver.create(REQUEST)
    assert driver.capabilities.name_limit == 7
    assert list(await driver.list_owned(OWNER)) == [instance]
    assert await driver.state(instance.id) is InstanceState.RUNNING
    assert (await driver.check(), await driver.instance_types(), await driver.console(instance.id)) == ([], [], b"")
    await driver.delete(instance.id)
    assert cloud.ledger == {}
