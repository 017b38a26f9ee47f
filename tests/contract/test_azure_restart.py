"""Operations of Azure's outlive the node that began them: killed in the middle, its successor goes on."""

import asyncio
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import CapacityError
from tests.fakes.azure.world import OWNER, World, launch, world
from tests.fakes.node import killed


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def wait_until_noted(azure: World, event: threading.Event) -> None:
    """Until Azure has begun and the node has noted that."""
    assert event.wait(60)
    end = time.monotonic() + 30
    while not noted(azure):
        assert time.monotonic() < end, "the continuation was never saved"
        time.sleep(0.01)


def noted(azure: World) -> list[Path]:
    """The files with the operations' continuations."""
    return list(azure.folder.glob("catalogue/azure-operations/*.token"))


async def test_a_start_goes_on_in_the_next_node(azure: World) -> None:
    azure.azure.delays.power = 30
    await killed(azure, "create", lambda: wait_until_noted(azure, azure.azure.began))
    [file] = noted(azure)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "the operation's URL is signed"
    azure.azure.delays.power = 0
    one = azure.make()
    made = await one.create(launch())
    assert azure.ledger.made["vm"] == 1
    assert noted(azure) == []
    await one.delete(made.id)
    await one.close()


async def test_a_start_that_failed_meanwhile_is_told_by_its_operation(azure: World) -> None:
    """The instance view says that it failed, and not why: the saved continuation knows, so the next place is tried."""
    settings = {"AZURE_ZONE": "1", "FALLBACK_ZONES": "2"}
    azure.azure.delays.power = 30
    azure.faults.full = {("", "1")}
    await killed(azure, "create", lambda: wait_until_noted(azure, azure.azure.began), **settings)
    [vm] = azure.azure.estate.vms.values()
    vm.mute = True
    one = azure.make(**settings)
    starting = asyncio.ensure_future(one.create(launch()))
    await asyncio.sleep(0.3)
    azure.azure.delays.power = 0
    azure.azure.estate.hurry(vm)
    made = await starting
    assert azure.puts()[-1]["zones"] == ["2"]
    assert len(azure.ledger.alive("vm")) == 1
    await one.delete(made.id)
    azure.faults.full = {("", "")}
    with pytest.raises(CapacityError, match="ZonalAllocationFailed"):
        await one.create(launch())
    await one.close()


async def test_a_deletion_is_waited_for_by_the_next_node(azure: World) -> None:
    """No second DELETE is sent."""
    one = azure.make()
    made = await one.create(launch())
    azure.azure.delays.ending = 600
    await killed(azure, "delete", lambda: wait_until_noted(azure, azure.azure.ending))
    ending = asyncio.ensure_future(one.delete(made.id))
    await asyncio.sleep(0.3)
    assert not ending.done(), "it is waited for"
    azure.azure.estate.hurry(azure.azure.estate.vms[made.name])
    await ending
    assert not azure.ledger
    assert azure.wire.calls().count("VirtualMachines.Delete") == 1
    assert noted(azure) == []
    assert await one.list_owned(OWNER) == []
    await one.close()
