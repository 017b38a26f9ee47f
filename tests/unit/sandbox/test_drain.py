"""The end of a node that is told to end: what runs may finish, nothing begins, what does not finish is undone."""

import asyncio
from typing import Any

import pytest

from caa.errors import Cancelled, ProviderError
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)
LONG = 30.0


async def starting(bench: Any, call: str = "provider.create") -> "asyncio.Task[None]":
    bench.faults.gate(call)
    await bench.service.create(ONE, bench.pod())
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered(call)
    return start


async def test_a_running_start_finishes_and_is_answered(bench: Any) -> None:
    start = await starting(bench)
    draining = asyncio.create_task(bench.service.drain(LONG))
    await asyncio.sleep(0)
    bench.faults.gates["provider.create"].set()
    await draining
    await start
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_start_that_comes_is_left_for_the_next_process(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.drain(LONG)
    start = asyncio.create_task(bench.service.start(ONE))
    for _ in range(20):  # more turns than a whole start takes here
        await asyncio.sleep(0)
    assert not start.done()
    bench.service.closing()
    start.cancel()
    await asyncio.wait({start})
    assert bench.store.rows[ONE].phase is Phase.CREATED
    await bench.restart()
    await bench.service.start(ONE)
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_one_that_joins_a_running_start_is_answered(bench: Any) -> None:
    first = await starting(bench)
    draining = asyncio.create_task(bench.service.drain(LONG))
    await asyncio.sleep(0)
    second = asyncio.create_task(bench.service.start(ONE))
    await asyncio.sleep(0)
    bench.faults.gates["provider.create"].set()
    await asyncio.gather(first, second, draining)


async def test_its_caller_may_still_go(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.drain(LONG)
    start = asyncio.create_task(bench.service.start(ONE))
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait({start})
    await bench.service.settled()
    assert bench.store.rows == {}


async def test_a_stop_is_taken_and_finished(bench: Any) -> None:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    draining = asyncio.create_task(bench.service.drain(LONG))
    await bench.service.stop(ONE)
    await draining
    await bench.service.stop(TWO)
    await bench.service.settled()
    assert bench.left_over() == {}
    assert bench.store.rows == {}


@pytest.mark.parametrize("call", ["ledger.own", "provider.create", "network.connect", "links.open"])
async def test_a_start_that_does_not_finish_is_undone_and_may_come_again(bench: Any, call: str) -> None:
    start = await starting(bench, call)
    await bench.service.drain(0)
    assert not start.done()
    bench.service.closing()
    await bench.service.undo_starts(LONG)
    with pytest.raises(Cancelled):  # nobody reads it: the connection is closed by now
        await start
    assert bench.left_over() == {}
    assert bench.store.rows[ONE].phase is Phase.CREATED
    bench.faults.gates.clear()
    await bench.restart()
    await bench.service.start(ONE)
    assert len(bench.provider.living) == 1


async def test_an_undoing_that_does_not_end_keeps_its_record(bench: Any) -> None:
    start = await starting(bench, "links.open")
    bench.faults.before["provider.delete"] = ProviderError("throttled")
    await bench.service.drain(0)
    bench.service.closing()
    await bench.service.undo_starts(0.01)
    await bench.service.close()
    await asyncio.wait({start})
    assert start.exception() is not None
    record = bench.store.rows[ONE]
    assert (record.phase, record.instance) == (Phase.STARTING, "i-1")


async def test_with_nothing_to_do_it_is_over_at_once(bench: Any) -> None:
    async with asyncio.timeout(1):
        await bench.service.drain(LONG)
        bench.service.closing()
        await bench.service.undo_starts(LONG)
