"""Every fault of a driver x every call, at the start and at the stop: the ledger is empty at the end, and the start's
caller was told why. Other owners' instances are never touched."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from caa.errors import Code, ProviderError, StepFailed
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Capabilities, Instance, Owner, Sizing
from caa.sandbox.boot import Recovery
from caa.sandbox.orphans import Rules, Sweep
from caa.sandbox.service import Limits, SandboxService
from caa.testing.faulty import DELETE_FAULTS, Entry, Fault, Faulty, MemoryCloud

ONE = SandboxId("a" * 64)
OWNER = Owner(cluster="c1", node="n1")
OTHERS = [Owner(cluster="c1", node="n2"), Owner(cluster="c2", node="n1"), Owner(cluster="", node="")]
SOME = 3  # times that a fault comes


@dataclass
class Site:
    """A bench whose cloud misbehaves."""

    bench: Any
    cloud: MemoryCloud
    driver: Faulty

    @property
    def service(self) -> SandboxService:
        service: SandboxService = self.bench.service
        return service

    def limit_starts(self, seconds: float) -> None:
        self.service.limits = Limits(start=seconds)

    async def begun(self) -> None:
        await self.service.create(ONE, self.bench.pod())

    async def ended(self) -> None:
        """StopVM, and everything that follows."""
        await self.service.stop(ONE)
        async with asyncio.timeout(10):
            await self.service.settled()
        assert self.cloud.ledger == {}
        assert (self.bench.network.connected, self.bench.links.opened, self.bench.ledger.owned) == ({}, {}, {})
        assert self.bench.store.rows == {}

    async def reborn(self) -> None:
        """The node dies and comes back."""
        await self.bench.restart()
        recovery = Recovery(
            service=self.service, links=self.bench.links, provider=self.driver, owner=OWNER, boot_id=self.bench.boot_id
        )
        await recovery.at_once()
        await recovery.running()
        async with asyncio.timeout(10):
            await self.service.settled()


@pytest.fixture
async def site(bench: Any) -> Site:
    cloud = MemoryCloud()
    driver = Faulty(cloud)
    bench.provider = driver
    await bench.restart()
    return Site(bench, cloud, driver)


@pytest.mark.parametrize("fault", list(Fault))
async def test_create(site: Site, fault: Fault) -> None:
    site.limit_starts(0.2 if fault in (Fault.TIMEOUT, Fault.SILENT) else 60)
    site.driver.plan("create", fault)
    await site.begun()
    with pytest.raises(StepFailed, match="could not create the pod VM") as failure:
        await site.service.start(ONE)
    assert site.cloud.ledger == {}, "a failed start is undone before its caller hears of it"
    codes = {
        Fault.CAPACITY: Code.RESOURCE_EXHAUSTED,
        Fault.REFUSED: Code.INTERNAL,
        Fault.BROKEN: Code.INTERNAL,
        Fault.TIMEOUT: Code.DEADLINE_EXCEEDED,
        Fault.SILENT: Code.DEADLINE_EXCEEDED,
    }
    assert failure.value.code is codes.get(fault, Code.UNAVAILABLE)
    await site.ended()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HALF_MADE])
async def test_instance_types(site: Site, fault: Fault) -> None:
    """Where there is a catalogue, a start asks for it first: nothing is made yet."""
    site.limit_starts(0.2 if fault in (Fault.TIMEOUT, Fault.SILENT) else 60)
    site.cloud.capabilities = Capabilities(sized_by_type=True)
    site.driver.plan("instance_types", fault)
    await site.service.create(ONE, site.bench.pod(sizing=Sizing(vcpus=2)))
    with pytest.raises(StepFailed, match="could not create the pod VM"):
        await site.service.start(ONE)
    assert site.cloud.made == 0
    await site.ended()


@pytest.mark.parametrize("later", DELETE_FAULTS)
@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.HALF_MADE])
async def test_create_and_then_its_undoing(site: Site, fault: Fault, later: Fault) -> None:
    """The instance is there, its id is not known, and neither the list nor the delete works for a while."""
    site.driver.plan("create", fault)
    site.driver.plan("list_owned", later, times=SOME)
    site.driver.plan("delete", later, times=SOME)
    await site.begun()
    with pytest.raises(StepFailed):
        await site.service.start(ONE)
    await site.ended()


@pytest.mark.parametrize("fault", DELETE_FAULTS)
async def test_delete(site: Site, fault: Fault) -> None:
    await site.begun()
    await site.service.start(ONE)
    site.driver.plan("delete", fault, times=SOME)
    await site.ended()


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SILENT])
async def test_a_delete_that_never_answers_is_asked_again(
    site: Site, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caa.sandbox.undo.DOWN_LIMIT", 0.05)
    await site.begun()
    await site.service.start(ONE)
    site.driver.plan("delete", fault, times=SOME)
    await site.ended()
    assert site.driver.calls.count("delete") == SOME + 1


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SILENT, Fault.LOST_ANSWER, Fault.HALF_MADE])
async def test_the_node_dies_while_create_has_no_answer(site: Site, fault: Fault) -> None:
    site.driver.plan("create", fault)
    await site.begun()
    start = asyncio.create_task(site.service.start(ONE))
    if fault in (Fault.TIMEOUT, Fault.SILENT):
        await site.driver.stuck.wait()
    else:
        site.driver.plan("list_owned", Fault.TIMEOUT)
        await site.driver.stuck.wait()  # in the middle of the undoing
    await site.reborn()
    assert start.exception() is not None
    assert site.cloud.ledger == {}
    await site.service.start(ONE)
    assert len(site.cloud.ledger) == 1, "never a second one"
    await site.ended()


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.LOST_ANSWER])
async def test_a_node_that_bears_another_name_since(site: Site, fault: Fault) -> None:
    """The tags that an instance was made with are in its record: it is found by them, and nobody else's is."""
    site.driver.plan("create", fault)
    if fault is Fault.LOST_ANSWER:
        site.driver.plan("list_owned", Fault.TIMEOUT)  # so that it dies in the middle of the undoing
    await site.begun()
    start = asyncio.create_task(site.service.start(ONE))
    await site.driver.stuck.wait()
    site.bench.owner = Owner(cluster="c1", node="renamed")
    await site.reborn()
    assert start.exception() is not None
    assert site.cloud.ledger == {}
    await site.service.start(ONE)
    assert [one.owner.node for one in site.cloud.ledger.values()] == ["renamed"]
    await site.ended()


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SILENT])
async def test_the_node_dies_while_delete_has_no_answer(site: Site, fault: Fault) -> None:
    await site.begun()
    await site.service.start(ONE)
    site.driver.plan("delete", fault)
    await site.service.stop(ONE)
    await site.driver.stuck.wait()
    await site.reborn()
    assert site.cloud.ledger == {}
    assert site.bench.store.rows == {}


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SILENT])
async def test_the_caller_goes_while_create_has_no_answer(site: Site, fault: Fault) -> None:
    site.driver.plan("create", fault)
    await site.begun()
    start = asyncio.create_task(site.service.start(ONE))
    await site.driver.stuck.wait()
    start.cancel()
    await asyncio.wait({start})
    async with asyncio.timeout(10):
        await site.service.settled()
    assert site.cloud.ledger == {}
    assert site.bench.store.rows == {}


@pytest.mark.parametrize("fault", [*DELETE_FAULTS, Fault.CAPACITY])
async def test_the_list_at_the_start_costs_no_pod_its_life(site: Site, fault: Fault) -> None:
    await site.begun()
    await site.service.start(ONE)
    site.bench.links.opened.clear()
    site.driver.plan("list_owned", fault)
    await site.reborn()
    assert len(site.cloud.ledger) == 1
    await site.ended()


@pytest.mark.parametrize("fault", [*DELETE_FAULTS, Fault.CAPACITY])
async def test_a_sweep(site: Site, fault: Fault) -> None:
    """An orphan stays no longer than the faults do."""
    site.cloud.ledger[InstanceId("x")] = Entry(OWNER, Instance(id=InstanceId("x"), name="x", addresses=()))
    site.driver.plan("list_owned", fault)
    site.driver.plan("delete", fault)
    sweep = Sweep(
        provider=site.driver, store=site.bench.store, owner=OWNER, clock=site.bench.clock, rules=Rules(grace=0)
    )
    for _ in range(3):
        with suppress(ProviderError, ZeroDivisionError):  # the daemon logs them and comes again
            await sweep.once()
    assert site.cloud.ledger == {}


async def test_others_are_never_touched(site: Site) -> None:
    """Not even when their instances are old, half made, or bear the names and the sandbox ids of ours."""
    theirs = {}
    await site.begun()
    (record,) = site.service.records()
    for number, owner in enumerate(OTHERS):
        instance = Instance(id=InstanceId(f"x-{number}"), name=record.instance_name, addresses=(), sandbox=ONE)
        theirs[instance.id] = Entry(owner, instance)
    site.cloud.ledger.update(theirs)
    orphan = Instance(id=InstanceId("x-9"), name="ours", addresses=(), created_at=1.0)
    site.cloud.ledger[orphan.id] = Entry(OWNER, orphan)
    sweep = Sweep(
        provider=site.driver, store=site.bench.store, owner=OWNER, clock=site.bench.clock, rules=Rules(grace=0)
    )
    assert (await sweep.once()).removed == 1
    site.driver.plan("create", Fault.LOST_ANSWER)
    with pytest.raises(StepFailed):
        await site.service.start(ONE)
    assert site.cloud.ledger == theirs
    site.bench.boot_id = "boot-2"
    await site.reborn()
    assert site.cloud.ledger == theirs
