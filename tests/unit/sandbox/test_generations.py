"""Which generation of the node's CA a pod VM was made under is known before it is made, and for its whole life."""

import asyncio
from typing import Any

import pytest

from caa.errors import CaaError, ProviderError
from caa.model.ids import SandboxId

ONE = SandboxId("a" * 64)


async def test_the_record_has_it_before_the_pod_vm_is_made_and_after_a_rotation(bench: Any) -> None:
    bench.ca = "1"
    await bench.service.create(ONE, bench.pod())
    assert bench.store.rows[ONE].ca == "", "nothing trusts a CA yet"
    bench.faults.before["provider.create"] = ProviderError("busy")
    bench.faults.times["provider.create"] = 1
    with pytest.raises(CaaError):
        await bench.service.start(ONE)
    assert bench.store.rows[ONE].ca == "", "a start that was undone holds no CA"
    gate = bench.faults.gate("provider.create")
    await bench.service.create(ONE, bench.pod())
    bench.ca = "2"
    starting = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered("provider.create")
    assert bench.store.rows[ONE].ca == "2"
    bench.ca = "3"
    gate.set()
    await starting
    assert bench.links.opened[ONE].ca == "2"
    await bench.restart()
    bench.links.opened.clear()
    await bench.service.reopen_link(ONE)
    assert bench.links.opened[ONE].ca == "2"
