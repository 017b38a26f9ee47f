"""What goes wrong on Azure alone; test_faults.py has what goes wrong on every cloud."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import InvalidRequest, ProviderError
from caa.model.instance import InstanceState, Severity
from tests.fakes.azure.world import OWNER, World, launch, world
from tests.fakes.faults import ALWAYS, Fault

SWEEPING = (
    "VirtualMachines.List", "NetworkInterfaces.List", "NetworkInterfaces.Delete", "PublicIPAddresses.List",
    "PublicIPAddresses.Delete", "Disks.List", "Disks.Delete", "Operations.Get", "NetworkOperations.Get",
)  # fmt: skip
FINAL = (Fault.UNAUTHORISED, Fault.CAPACITY, Fault.QUOTA)


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.waits = type(made.waits)(read_timeout=0.3)
        yield made


async def test_a_vm_of_somebody_else_is_neither_taken_nor_removed(azure: World) -> None:
    one = azure.make()
    theirs = await one.create(launch(owner=type(OWNER)(cluster="another", node="n1")))
    with pytest.raises(InvalidRequest, match="not of this sandbox"):
        await one.create(launch())
    assert azure.azure.ledger.alive("vm")
    await one.delete(theirs.id)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", SWEEPING)
async def test_a_fault_once_while_sweeping_what_a_broken_put_left(azure: World, call: str, fault: Fault) -> None:
    """Interface, address and disk without a VM: found and removed, at the latest by the next sweep."""
    one = azure.make(USE_PUBLIC_IP="1")
    made = await one.create(launch())
    await one.delete(made.id)
    azure.azure.estate.half_make("podvm-web-0a1b2c3d", azure.puts()[0])
    azure.faults.plan(call, fault)
    try:
        for found in await one.list_owned(OWNER):
            await one.delete(found.id)
    except ProviderError:
        assert fault in FINAL
    assert call in azure.wire.calls(fault=fault), "the planned call was never met"
    await azure.swept(one)
    await one.close()


@pytest.mark.parametrize("fault", list(Fault))
async def test_an_operation_that_cannot_be_asked_about_is_waited_for(azure: World, fault: Fault) -> None:
    """The deletion's own end is never asked for while the VM says how it stands."""
    azure.azure.delays.ending = 0.1
    one = azure.make()
    made = await one.create(launch())
    azure.faults.plan("Operations.Get", fault, times=ALWAYS)
    await one.delete(made.id)
    azure.nothing_left()
    await one.close()


@pytest.mark.parametrize("call", ["VirtualMachines.InstanceView", "VirtualMachines.Console"])
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_once_while_looking(azure: World, call: str, fault: Fault) -> None:
    one = azure.make()
    made = await one.create(launch())
    azure.faults.plan(call, fault)
    try:
        told: object = await (one.state if "View" in call else one.console)(made.id)
    except ProviderError:
        assert fault in FINAL
    else:
        assert told is InstanceState.RUNNING or b"Linux" in bytes(told)  # type: ignore[call-overload]
    assert call in azure.wire.calls(fault=fault)
    await one.delete(made.id)
    await one.close()


@pytest.mark.parametrize("call", ["Permissions.List", "Usages.List", "Subnets.Get", "NetworkSecurityGroups.Get"])
@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.UNAUTHORISED, Fault.MALFORMED])
async def test_a_fault_once_while_checking_is_repeated_or_told(azure: World, call: str, fault: Fault) -> None:
    one = azure.make()
    azure.faults.plan(call, fault)
    told = [found for found in await one.check() if found.severity is not Severity.OK]
    assert call in azure.wire.calls(fault=fault)
    assert bool(told) == (fault in FINAL)
    assert all(found.remedy for found in told)
    await one.close()


async def test_a_vm_that_a_listing_does_not_show_yet_is_not_taken_for_gone(azure: World) -> None:
    """Many are looked at by one listing, which lags behind; only Azure's 404 for the VM itself says that it is gone."""
    azure.faults.visible_after, azure.azure.delays.ending = 60.0, 0.5
    one = azure.make()
    made = await asyncio.gather(*(one.create(launch(f"podvm-web-{number:08d}")) for number in range(5)))
    await asyncio.gather(*(one.delete(each.id) for each in made))
    azure.nothing_left()
    await one.close()


async def test_what_a_living_vm_has_is_nothing_that_was_left(azure: World) -> None:
    """The listing of interfaces is newer than that of VMs: a sweep would go for a living pod's interface."""
    one = azure.make()
    made = await one.create(launch())
    azure.faults.visible_after = 60.0
    azure.azure.estate.born = dict.fromkeys(azure.azure.estate.born, 0.0)
    assert await one.list_owned(OWNER) == [made]
    azure.faults.visible_after = 0.0
    await one.delete(made.id)
    await one.close()


async def test_a_vm_whose_guest_agent_never_reports_is_no_failure(azure: World) -> None:
    """Azure calls it failed after a while; it runs, and a pod may be in it. A retried start takes it as it is."""
    one = azure.make()
    made = await one.create(launch())
    azure.azure.estate.vms[made.name].unheard = True
    assert await one.state(made.id) is InstanceState.RUNNING
    again = azure.make()
    assert await again.create(launch()) == made
    azure.azure.halt(made.name)
    assert await one.state(made.id) is InstanceState.STOPPED
    assert azure.ledger.made["vm"] == 1
    await one.delete(made.id)
    await one.close()
    await again.close()
