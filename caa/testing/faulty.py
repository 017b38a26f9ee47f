"""A cloud that misbehaves: a driver in memory with a ledger, and a wrapper that makes any driver's calls go wrong.

    cloud = MemoryCloud()
    driver = Faulty(cloud)
    driver.plan("create", Fault.LOST_ANSWER, times=1)

What is left is what `cloud.ledger` holds: what a cloud would send a bill for, whoever asked for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import TypeVar

from caa.errors import CapacityError, ProviderError, ProviderUnavailable
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

T = TypeVar("T")


class Fault(StrEnum):
    """What becomes of one call."""

    THROTTLED = "throttled"  # refused, nothing done
    CAPACITY = "capacity"  # no room, nothing done
    REFUSED = "refused"  # an error that no retry helps, nothing done
    TIMEOUT = "timeout"  # nothing done, and no answer ever
    LOST_ANSWER = "lost answer"  # done, and an error told
    SILENT = "silent"  # done, and no answer ever
    HALF_MADE = "half made"  # only of create: an instance without an address stays, and an error is told
    BROKEN = "broken"  # an error that no driver may raise


DELETE_FAULTS = (Fault.THROTTLED, Fault.REFUSED, Fault.LOST_ANSWER, Fault.BROKEN)  # the silent ones wait for a time-out


def _error(fault: Fault) -> Exception:
    errors: dict[Fault, Exception] = {
        Fault.THROTTLED: ProviderUnavailable("injected: request limit exceeded"),
        Fault.CAPACITY: CapacityError("injected: no room in this zone"),
        Fault.REFUSED: ProviderError("injected: the cloud says no"),
        Fault.BROKEN: ZeroDivisionError("injected: a mistake in the driver"),
    }
    return errors.get(fault, ProviderUnavailable("injected: the connection closed before the answer came"))


@dataclass(slots=True)
class Entry:
    """One instance and whose it is. One that does not run still costs money."""

    owner: Owner
    instance: Instance
    state: InstanceState = InstanceState.RUNNING


@dataclass(slots=True)
class MemoryCloud:
    """`Provider` in memory. `ledger` survives whatever happens to the node."""

    ledger: dict[InstanceId, Entry] = field(default_factory=dict)
    made: int = 0
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(sized_by_type=False))

    async def check(self) -> Sequence[Finding]:
        return []

    async def instance_types(self) -> Sequence[InstanceType]:
        return []

    async def create(self, request: LaunchRequest) -> Instance:
        """The same name of the same owner is the same instance."""
        await asyncio.sleep(0)
        for entry in self.ledger.values():
            if (entry.owner, entry.instance.name) == (request.owner, request.name):
                return entry.instance
        self.made += 1
        instance = Instance(
            id=InstanceId(f"i-{self.made}"),
            name=request.name,
            addresses=(ip_address("192.0.2.10"),),
            sandbox=request.sandbox,
        )
        self.ledger[instance.id] = Entry(request.owner, instance)
        return instance

    async def delete(self, instance: InstanceId) -> None:
        await asyncio.sleep(0)
        self.ledger.pop(instance, None)

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        await asyncio.sleep(0)
        return [entry.instance for entry in self.ledger.values() if entry.owner == owner]

    async def state(self, instance: InstanceId) -> InstanceState:
        await asyncio.sleep(0)
        return self.ledger[instance].state if instance in self.ledger else InstanceState.ABSENT

    async def console(self, instance: InstanceId) -> bytes:  # noqa: ARG002
        return b""

    async def close(self) -> None: ...


class Faulty:
    """The same driver, whose calls go wrong as planned. Calls are named as the contract's methods."""

    def __init__(self, driver: Provider) -> None:
        self._driver = driver
        self._plans: dict[str, list[Fault]] = {}
        self._half_made: set[InstanceId] = set()
        self.calls: list[str] = []
        self.stuck = asyncio.Event()  # set when a call never answers

    def plan(self, call: str, fault: Fault, *, times: int = 1) -> None:
        """Let the next `times` calls of this name go wrong, after those that are planned already."""
        self._plans.setdefault(call, []).extend([fault] * times)

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def check(self) -> Sequence[Finding]:
        return await self._around("check", self._driver.check)

    async def instance_types(self) -> Sequence[InstanceType]:
        return await self._around("instance_types", self._driver.instance_types)

    async def create(self, request: LaunchRequest) -> Instance:
        if self._plans.get("create", [])[:1] == [Fault.HALF_MADE]:
            self._half_made.add((await self._driver.create(request)).id)
        return await self._around("create", lambda: self._driver.create(request))

    async def delete(self, instance: InstanceId) -> None:
        await self._around("delete", lambda: self._driver.delete(instance))

    async def list_owned(self, owner: Owner) -> Sequence[Instance]:
        found = await self._around("list_owned", lambda: self._driver.list_owned(owner))
        return [replace(one, addresses=()) if one.id in self._half_made else one for one in found]

    async def state(self, instance: InstanceId) -> InstanceState:
        return await self._around("state", lambda: self._driver.state(instance))

    async def console(self, instance: InstanceId) -> bytes:
        return await self._around("console", lambda: self._driver.console(instance))

    async def close(self) -> None:
        await self._around("close", self._driver.close)

    async def _around(self, call: str, effect: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(call)
        plan = self._plans.get(call)
        fault = plan.pop(0) if plan else None
        if fault in (None, Fault.LOST_ANSWER, Fault.SILENT):
            result = await effect()
            if fault is None:
                return result
        if fault in (Fault.TIMEOUT, Fault.SILENT):
            self.stuck.set()
            await asyncio.Event().wait()
        assert fault is not None
        raise _error(fault)
