"""What goes wrong on Azure alone; test_faults.py has what goes wrong on every cloud."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from caa.errors import InvalidRequest
from tests.fakes.azure.world import OWNER, World, launch, world


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
