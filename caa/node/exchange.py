"""A driver that may be exchanged for another one while its calls are under way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from caa.errors import CaaError
from caa.model.ids import InstanceId
from caa.provider.contract import (
    Capabilities,
    Finding,
    Instance,
    InstanceState,
    InstanceType,
    LaunchRequest,
    Owner,
    Provider,
)

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Used:
    """A driver and how many calls of it are under way; `retired` once no new one comes."""

    driver: Provider
    calls: int = 0
    retired: bool = False


@dataclass(slots=True, eq=False)
class Exchangeable:
    """`Provider` that passes every call to the driver of the moment. A call that is under way ends where it began; a
    driver that was exchanged is closed after its last one."""

    _current: _Used
    _closing: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    def of(cls, driver: Provider) -> "Exchangeable":
        return cls(_Used(driver))

    def exchange(self, driver: Provider) -> None:
        """From now on calls go to `driver`."""
        before, self._current = self._current, _Used(driver)
        before.retired = True
        self._close_unused(before)

    @property
    def capabilities(self) -> Capabilities:
        return self._current.driver.capabilities

    async def check(self) -> Sequence[Finding]:
        async with self._used() as driver:
            return await driver.check()

    async def instance_types(self) -> Sequence[InstanceType]:
        async with self._used() as driver:
            return await driver.instance_types()

    async def create(self, request: LaunchRequest) -> Instance:
        async with self._used() as driver:
            return await driver.create(request)

    async def delete(self, instance: InstanceId) -> None:
        async with self._used() as driver:
            await driver.delete(instance)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        async with self._used() as driver:
            return await driver.list_owned(owner)

    async def state(self, instance: InstanceId) -> InstanceState:
        async with self._used() as driver:
            return await driver.state(instance)

    async def console(self, instance: InstanceId) -> bytes:
        async with self._used() as driver:
            return await driver.console(instance)

    async def close(self) -> None:
        """Close the driver of the moment, and wait for those that are being closed."""
        await self._current.driver.close()
        if self._closing:
            await asyncio.wait(set(self._closing))

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[Provider]:
        used = self._current
        used.calls += 1
        try:
            yield used.driver
        finally:
            used.calls -= 1
            self._close_unused(used)

    def _close_unused(self, used: _Used) -> None:
        if used.retired and not used.calls:
            task = asyncio.get_running_loop().create_task(_closed(used.driver))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _closed(driver: Provider) -> None:
    try:
        await driver.close()
    except CaaError as error:
        log.warning("a driver that was exchanged did not close", error=str(error))
