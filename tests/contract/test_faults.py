"""Every call of a driver's life x every fault, for each cloud: nothing left behind, or an orphan that the sweep finds.

A cloud says its part in tests/fakes/CLOUD/table.py. What a person reads then is in tests/data/golden/CLOUD-messages-*.
"""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from caa.errors import (
    CapacityError,
    ConfigError,
    CredentialsError,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)
from caa.model.instance import Severity
from caa.provider.capacity import Place
from caa.provider.contract import InstanceState, Provider
from tests.fakes.aws.table import TABLE as AWS
from tests.fakes.azure.table import TABLE as AZURE
from tests.fakes.fault_table import FaultTable
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.gcp.table import TABLE as GCP
from tests.fakes.golden import assert_golden
from tests.fakes.node import killed
from tests.fakes.world import OWNER, World, launch

TABLES = (AWS, AZURE, GCP)
KINDS = {
    Fault.THROTTLED: Throttled,
    Fault.UNAUTHORISED: CredentialsError,
    Fault.CAPACITY: CapacityError,
    Fault.QUOTA: QuotaError,
    Fault.TIMEOUT: ProviderUnavailable,
    Fault.LOST_ANSWER: ProviderUnavailable,
    Fault.MALFORMED: ProviderUnavailable,
    Fault.RESET: ProviderUnavailable,
}
FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)  # the others are tried again
# A remedy names a setting, the page with the rights, or whom to ask for more.
REMEDY = re.compile(r"; .*([A-Z]+_[A-Z_]+|docs/providers/|\bask )")

each_cloud = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.cloud)
each_fault = pytest.mark.parametrize("fault", list(Fault))


def rows(kind: str) -> list[object]:
    """Every call of `making` or `ending`, of every cloud."""
    return [pytest.param(table, call, id=f"{table.cloud}-{call}") for table in TABLES for call in getattr(table, kind)]


@pytest.fixture
async def world(table: FaultTable, tmp_path: Path) -> AsyncIterator[World]:
    async with table.world(tmp_path) as made:
        made.waits = replace(made.waits, **table.hurried)
        table.prepare(made)
        yield made


def tried(table: FaultTable, world: World) -> list[Place]:
    """Where the cloud was asked for a pod VM, in order."""
    return [table.places(world).tried(noted) for noted in world.wire.journal if noted.call == table.make]


async def outcome(driver: Provider, table: FaultTable, world: World) -> str:
    """Create a pod VM with everything; what became of it."""
    try:
        made = await driver.create(launch(volumes=(table.volume(world),)))
    except ProviderError as error:
        told = str(error)
    else:
        assert made.addresses
        return "made"
    assert REMEDY.search(told), told
    return told


@each_fault
@pytest.mark.parametrize(("table", "call"), rows("making"))
async def test_a_fault_once_while_making(table: FaultTable, call: str, fault: Fault, world: World) -> None:
    """What may be repeated is; whatever the outcome, the sweep leaves nothing."""
    one = world.make(**table.everything)
    world.faults.plan(call, fault)
    told = await outcome(one, table, world)
    assert call in world.wire.calls(fault=fault), "the planned call was never met"
    not_repeated = call in table.once and fault is not Fault.THROTTLED
    assert told == "made" or fault in FINAL or not_repeated, told
    assert await world.swept(one) == [] or told == "made", told
    await one.close()


@each_fault
@pytest.mark.parametrize(("table", "call"), rows("ending"))
async def test_a_fault_once_while_ending(table: FaultTable, call: str, fault: Fault, world: World) -> None:
    one = world.make(**table.everything)
    made = await one.create(launch())
    world.faults.plan(call, fault)
    with suppress(*((ProviderError,) if fault in FINAL else ())):
        await one.delete(made.id)
    assert call in world.wire.calls(fault=fault), "the planned call was never met"
    await world.swept(one)
    await one.close()


@each_fault
@each_cloud
async def test_a_fault_that_stays_names_its_remedy(table: FaultTable, fault: Fault, world: World) -> None:
    """The golden file holds what an operator reads; remove it to write it anew."""
    lines = []
    for call in table.staying:
        one = world.make(**table.everything, CAA_CATALOGUE_DIR=str(world.folder / call))
        world.faults.plan(call, fault, times=ALWAYS)
        told = await outcome(one, table, world)
        assert call in world.wire.calls(fault=fault), "the planned call was never met"
        assert told != "made" or (fault is Fault.MALFORMED and call in table.unread)
        lines.append(f"{call}\n    {world.plain(told)}\n")
        left = await world.swept(one)
        # What a lost answer of the cloud made is removed at once, or found by its tags.
        assert not left or told == "made" or fault in (Fault.LOST_ANSWER, Fault.MALFORMED)
        await one.close()
    assert_golden(f"{table.cloud}-messages-{fault.replace(' ', '-')}.txt", "".join(lines))


@each_fault
@each_cloud
async def test_each_fault_is_an_error_of_its_own_type(table: FaultTable, fault: Fault, world: World) -> None:
    one = world.make()
    unread = fault is Fault.MALFORMED and table.make in table.unread
    world.faults.plan(table.staying[0] if unread else table.make, fault, times=ALWAYS)
    with pytest.raises(KINDS[fault]) as caught:
        await one.create(launch())
    assert caught.value.retryable is KINDS[fault].retryable
    await world.swept(one)
    await one.close()


@each_cloud
async def test_a_lost_answer_is_the_same_instance(table: FaultTable, world: World) -> None:
    """providers.md 6.1: with a random token a repeated create makes a second pod VM."""
    one = world.make()
    world.faults.plan(table.make, Fault.LOST_ANSWER, times=2)
    made = await one.create(launch())
    assert world.ledger.made[table.kind] == 1
    assert [listed.id for listed in await one.list_owned(OWNER)] == [made.id]
    await one.delete(made.id)
    await one.close()


@each_cloud
async def test_a_crash_after_the_call_finds_the_instance(table: FaultTable, world: World) -> None:
    """providers.md A1: a restart while CreateInstance runs left a pod VM that nothing knew about."""
    world.speed = 5.0  # the next one waits longer than the pod VM takes
    table.slow(world, 2.0)
    await killed(world, "create", table.began(world).wait)
    again = world.make()  # another process: other user data, the first one is never heard of again
    made = await again.create(launch(user_data=b"#cloud-config\n# another key\n"))
    assert made.addresses
    assert [listed.id for listed in await again.list_owned(OWNER)] == [made.id]
    assert world.ledger.made[table.kind] == 1
    await again.delete(made.id)
    await again.close()


@each_cloud
async def test_throttling_obeys_retry_after(table: FaultTable, world: World) -> None:
    one = world.make()
    world.faults.retry_after = 20  # 0.4 s of the driver's clock
    world.faults.plan(table.make, Fault.THROTTLED)
    made = await one.create(launch())
    first, second = (noted.at for noted in world.wire.journal if noted.call == table.make)
    assert second - first >= 0.4
    await one.delete(made.id)
    await one.close()


@each_cloud
async def test_no_room_moves_on_and_is_remembered(table: FaultTable, world: World) -> None:
    places = table.places(world)
    one = world.make(**places.settings)
    world.faults.full = {(places.types[0], "")}
    made = await one.create(launch())
    assert made.instance_type == places.types[1]
    before = len(world.wire.calls())
    again = await one.create(launch("podvm-web-99999999"))
    assert again.instance_type == places.types[1]
    assert world.wire.calls()[before:].count(table.make) == 1
    for each in (made, again):
        await one.delete(each.id)
    await one.close()


@each_cloud
async def test_spot_first_then_on_demand(table: FaultTable, world: World) -> None:
    one = world.make(PURCHASE_OPTIONS="spot,on-demand")
    world.faults.plan(table.make, Fault.CAPACITY)
    made = await one.create(launch())
    assert [place.spot for place in tried(table, world)] == [True, False]
    await one.delete(made.id)
    await one.close()


@each_cloud
async def test_every_place_is_tried_in_order_and_named_and_nothing_is_left(table: FaultTable, world: World) -> None:
    """All types in a zone, then the next zone, then the other way to buy."""
    places = table.places(world)
    one = world.make(**places.settings, PURCHASE_OPTIONS="spot,on-demand")
    world.faults.full = {("", "")}
    with pytest.raises(CapacityError) as caught:
        await one.create(launch())
    order = [
        Place(instance_type=kind, zone=zone, spot=spot)
        for spot in (True, False)
        for zone in places.zones
        for kind in places.types
    ]
    assert tried(table, world) == order
    assert [place for place in order if f"{place}: {places.code}" not in str(caught.value)] == []
    world.nothing_left()
    await one.close()


@each_fault
@each_cloud
async def test_what_cannot_be_read_is_an_error_and_never_an_end(table: FaultTable, fault: Fault, world: World) -> None:
    """An empty list would tell the sweep that nothing is left, ABSENT the node that the pod VM is gone."""
    one = world.make()
    made = await one.create(launch())
    world.faults.plan("*", fault, times=ALWAYS)
    for read in (one.state(made.id), one.list_owned(OWNER), one.console(made.id)):
        with pytest.raises(KINDS[fault], match=REMEDY):
            await read
    world.calm()
    assert await one.state(made.id) is InstanceState.RUNNING
    await one.delete(made.id)
    await one.close()


async def findings(table: FaultTable, world: World, number: int) -> dict[str, Severity]:
    """The check of a new node: subject -> the worst that is said of it."""
    one = world.make(**table.everything, CAA_CATALOGUE_DIR=str(world.folder / f"node-{number}"))
    found = await one.check()
    await one.close()
    assert all(finding.remedy for finding in found if finding.severity is not Severity.OK)
    world.nothing_left()
    worst_last = sorted(found, key=lambda one: list(Severity).index(one.severity))
    return {finding.subject: finding.severity for finding in worst_last}


@each_fault
@each_cloud
async def test_a_check_that_is_not_answered_is_a_finding(table: FaultTable, fault: Fault, world: World) -> None:
    """The check never raises: whatever the cloud does, `caa doctor` has something to print, and calls nothing well."""
    well = await findings(table, world, 0)
    assert set(well.values()) == {Severity.OK}
    asked = set(world.wire.calls())
    world.faults.plan("*", fault, times=ALWAYS)
    first = await findings(table, world, 1)
    assert list(first.values()) == [Severity.ERROR], "without an answer to the first question no other is asked"
    world.calm()
    for call in asked - table.proof:
        world.faults.plan(call, fault, times=ALWAYS)
    told = await findings(table, world, 2)
    assert set(well) <= set(told)
    allowed = set(first)
    if fault in (Fault.CAPACITY, Fault.QUOTA):
        allowed |= {"rights"}  # a dry run that is refused for another reason proves the right
    assert {subject for subject, severity in told.items() if severity is Severity.OK} <= allowed


@pytest.mark.parametrize(
    ("table", "key"), [pytest.param(table, key, id=key) for table in TABLES for key in table.missing]
)
async def test_a_missing_setting_is_named(table: FaultTable, key: str, world: World) -> None:
    async def launched() -> None:
        one = world.make(**{**table.unset, key: ""})
        try:
            await one.create(launch())
        finally:
            await one.close()

    with pytest.raises((ConfigError, Misconfigured), match=key):
        await launched()
