"""Every call of a driver's life x every fault: an empty ledger or a found orphan, and a message with the remedy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from caa.errors import (
    CapacityError,
    CredentialsError,
    InvalidRequest,
    Misconfigured,
    ProviderError,
    ProviderUnavailable,
    QuotaError,
    Throttled,
)
from caa.provider.contract import Provider
from tests.fakes.azure.world import OWNER, World, launch, plain, world
from tests.fakes.faults import ALWAYS, Fault
from tests.fakes.golden import assert_golden

MAKING = (
    "VirtualMachines.CreateOrUpdate", "VirtualMachines.Get", "NetworkInterfaces.List", "PublicIPAddresses.List",
    "ResourceSkus.List", "GalleryImages.Get", "Disks.Get", "Disks.Update",
)  # fmt: skip
ENDING = (
    "VirtualMachines.Delete", "VirtualMachines.Get", "NetworkInterfaces.List", "PublicIPAddresses.List", "Disks.List",
)  # fmt: skip
SETTINGS = {"USE_PUBLIC_IP": "true"}
FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)
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


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = type(made.waits)(read_timeout=0.3)
        yield made


async def outcome(driver: Provider, azure: World) -> str:
    """Create a pod VM with everything; what became of it."""
    volume = azure.azure.estate.make_disk("data")
    try:
        made = await driver.create(launch(volumes=(volume,)))
    except ProviderError as error:
        return str(error)
    assert made.addresses
    return "made"


@pytest.mark.parametrize("call", MAKING)
async def test_a_fault_once_while_making(azure: World, call: str) -> None:
    """What may be repeated is; whatever the outcome, the sweep leaves nothing."""
    for fault in Fault:
        one = azure.make(**SETTINGS)
        azure.azure.faults.plan(call, fault)
        told = await outcome(one, azure)
        assert told == "made" or fault in FINAL, (fault, told)
        assert await azure.swept(one) == [] or told == "made", (fault, told)
        await one.close()


@pytest.mark.parametrize("call", ENDING)
async def test_a_fault_once_while_ending(azure: World, call: str) -> None:
    one = azure.make(**SETTINGS)
    for fault in Fault:
        made = await one.create(launch())
        azure.azure.faults.plan(call, fault)
        with suppress(*((ProviderError,) if fault in FINAL else ())):
            await one.delete(made.id)
        await azure.swept(one)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_that_stays_names_its_remedy(azure: World, fault: Fault) -> None:
    """The golden file holds what an operator reads; remove it to write it anew."""
    lines = []
    for call in ("GalleryImages.Get", "VirtualMachines.CreateOrUpdate"):
        one = azure.make(**SETTINGS)
        azure.azure.faults.plan(call, fault, times=ALWAYS)
        told = await outcome(one, azure)
        # Of the answer to a PUT only the headers are needed.
        assert told != "made" or (fault is Fault.MALFORMED and call == "VirtualMachines.CreateOrUpdate")
        lines.append(f"{call}\n    {plain(told, azure)}\n")
        assert await azure.swept(one) == [] or told == "made"  # what a lost answer made went with the undo
        await one.close()
    assert_golden(f"azure-messages-{fault.replace(' ', '-')}.txt", "".join(lines))


@pytest.mark.parametrize("fault", list(Fault))
async def test_each_fault_is_an_error_of_its_own_type(azure: World, fault: Fault) -> None:
    one = azure.make()
    call = "GalleryImages.Get" if fault is Fault.MALFORMED else "VirtualMachines.CreateOrUpdate"
    azure.azure.faults.plan(call, fault, times=ALWAYS)
    with pytest.raises(KINDS[fault]) as caught:
        await one.create(launch())
    assert caught.value.retryable is KINDS[fault].retryable
    await azure.swept(one)
    await one.close()


async def test_a_lost_answer_is_the_same_vm(azure: World) -> None:
    one = azure.make()
    azure.azure.faults.plan("VirtualMachines.CreateOrUpdate", Fault.LOST_ANSWER, times=2)
    made = await one.create(launch())
    assert azure.azure.ledger.made["vm"] == 1
    assert [listed.id for listed in await one.list_owned(OWNER)] == [made.id]
    await one.delete(made.id)
    await one.close()


async def test_a_crash_after_the_call_finds_the_vm(azure: World) -> None:
    """providers.md A1: a restart while CreateInstance runs left a pod VM that nothing knew about."""
    first = azure.make()
    azure.azure.delays.power = 0.4
    creating = asyncio.ensure_future(first.create(launch()))
    await asyncio.to_thread(azure.azure.began.wait)
    again = azure.make()  # another process: other user data, the first one is never heard of again
    made = await again.create(launch(user_data=b"#cloud-config\n# another key\n"))
    assert (await creating).id == made.id
    assert azure.azure.ledger.made["vm"] == 1
    await again.delete(made.id)
    await first.close()
    await again.close()


async def test_a_vm_of_somebody_else_is_neither_taken_nor_removed(azure: World) -> None:
    one = azure.make()
    theirs = await one.create(launch(owner=type(OWNER)(cluster="another", node="n1")))
    with pytest.raises(InvalidRequest, match="not of this sandbox"):
        await one.create(launch())
    assert azure.azure.ledger.alive("vm")
    await one.delete(theirs.id)
    await one.close()


async def test_throttling_obeys_retry_after(azure: World) -> None:
    one = azure.make()
    azure.azure.faults.retry_after = 20  # 0.4 s of the driver's clock
    azure.azure.faults.plan("VirtualMachines.CreateOrUpdate", Fault.THROTTLED)
    made = await one.create(launch())
    puts = [noted.at for noted in azure.wire.journal if noted.call == "VirtualMachines.CreateOrUpdate"]
    assert puts[1] - puts[0] >= 0.4
    await one.delete(made.id)
    await one.close()


async def test_no_room_moves_on_in_order_and_is_remembered(azure: World) -> None:
    """The refusal comes from the long-running operation, after the VM was made half-way."""
    one = azure.make(AZURE_ZONE="1", FALLBACK_ZONES="2,3", FALLBACK_TYPES="Standard_DC4as_v5")
    azure.azure.faults.full = {("Standard_DC2as_v5", "")}
    made = await one.create(launch())
    assert made.instance_type == "Standard_DC4as_v5"
    before = len(azure.wire.calls())
    again = await one.create(launch("podvm-web-99999999"))
    assert again.instance_type == "Standard_DC4as_v5"
    assert azure.wire.calls()[before:].count("VirtualMachines.CreateOrUpdate") == 1
    for each in (made, again):
        await one.delete(each.id)
    await one.close()


async def test_no_room_anywhere_names_every_place_and_leaves_nothing(azure: World) -> None:
    one = azure.make(AZURE_ZONE="1", FALLBACK_ZONES="2")
    azure.azure.faults.full = {("", "")}
    with pytest.raises(CapacityError) as caught:
        await one.create(launch())
    assert str(caught.value).count("ZonalAllocationFailed") == 2
    assert "Standard_DC2as_v5 in 2" in str(caught.value)
    assert not azure.azure.ledger
    await one.close()


async def test_spot_first_then_on_demand(azure: World) -> None:
    one = azure.make(PURCHASE_OPTIONS="spot,on-demand")
    azure.azure.faults.plan("VirtualMachines.CreateOrUpdate", Fault.CAPACITY)
    made = await one.create(launch())
    bodies = [noted.request.body for noted in azure.wire.journal if noted.call == "VirtualMachines.CreateOrUpdate"]
    assert [b'"Spot"' in body for body in bodies] == [True, False]
    await one.delete(made.id)
    await one.close()


@pytest.mark.parametrize(
    "key", ["AZURE_SUBSCRIPTION_ID", "AZURE_REGION", "AZURE_RESOURCE_GROUP", "AZURE_SUBNET_ID", "AZURE_IMAGE_ID"]
)
async def test_a_missing_setting_is_named(azure: World, key: str) -> None:
    one = azure.make(**{key: ""})
    with pytest.raises(Misconfigured, match=key):
        await one.create(launch())
    await one.close()
