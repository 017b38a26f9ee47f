"""StopVM at any moment, again and again, whoever fails or goes: it is durable, and nothing is left at its end."""

import asyncio
from typing import Any

import pytest

from caa.errors import (
    Cancelled,
    ProviderError,
    StateError,
)
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)
START_CALLS = [
    "boot_data.render",
    "ledger.own",
    "provider.create",
    "ledger.note",
    "network.connect",
    "links.open",
]


async def started(bench: Any, sandbox: SandboxId = ONE, pod: str = "web") -> None:
    await bench.service.create(sandbox, bench.pod(pod))
    await bench.service.start(sandbox)


async def settle(bench: Any) -> None:
    async with asyncio.timeout(10):
        await bench.service.settled()


@pytest.mark.parametrize("call", START_CALLS)
async def test_stop_while_start_is_pending(bench: Any, call: str) -> None:
    bench.faults.gate(call)
    await bench.service.create(ONE, bench.pod())
    start = asyncio.create_task(bench.service.start(ONE))
    await bench.faults.entered(call)
    await bench.service.stop(ONE)
    assert bench.store.rows[ONE].phase is Phase.STOPPING
    with pytest.raises(Cancelled, match="StopVM"):
        await start
    await settle(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_stop_of_the_unknown_is_success(bench: Any) -> None:
    await bench.service.stop(ONE)
    assert bench.faults.calls == []


async def test_three_stops_are_one(bench: Any) -> None:
    await started(bench)
    await asyncio.gather(*(bench.service.stop(ONE) for _ in range(3)))
    await settle(bench)
    await bench.service.stop(ONE)
    assert bench.faults.calls.count("provider.delete") == 1
    assert bench.left_over() == {}


async def test_stop_answers_before_the_work_is_done(bench: Any) -> None:
    await started(bench)
    gate = bench.faults.gate("provider.delete")
    await bench.service.stop(ONE)
    assert bench.store.rows[ONE].phase is Phase.STOPPING
    assert len(bench.provider.living) == 1
    gate.set()
    await settle(bench)
    assert bench.left_over() == {}


async def test_a_stop_that_the_disk_refused_is_no_success_until_it_is_written(bench: Any) -> None:
    await started(bench)
    gate = bench.faults.gate("provider.delete")
    bench.faults.before["store.put"], bench.faults.times["store.put"] = StateError("no room"), 1
    with pytest.raises(StateError, match="no room"):
        await bench.service.stop(ONE)
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    await bench.service.stop(ONE)
    assert bench.store.rows[ONE].phase is Phase.STOPPING
    gate.set()
    await settle(bench)


async def test_a_stop_whose_caller_goes_is_carried_out(bench: Any) -> None:
    await started(bench)
    gate = bench.faults.gate("store.put")
    stop = asyncio.create_task(bench.service.stop(ONE))
    await bench.faults.entered("store.put")
    stop.cancel()
    await asyncio.wait({stop})
    gate.set()
    await settle(bench)
    assert bench.left_over() == {}


@pytest.mark.parametrize(
    "call", ["links.close", "network.disconnect", "provider.delete", "ledger.release", "store.remove", "store.put"]
)
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
async def test_every_failure_of_a_stop_is_tried_again(bench: Any, call: str, lost: bool) -> None:
    await started(bench)
    (bench.faults.after if lost else bench.faults.before)[call] = StateError("not now")
    bench.faults.times[call] = 3
    if call == "store.put":  # a full disk is told to the caller, and keeps no pod VM alive
        with pytest.raises(StateError):
            await bench.service.stop(ONE)
    else:
        await bench.service.stop(ONE)
    await settle(bench)
    assert bench.left_over() == {}
    assert bench.store.rows == {}


async def test_a_relay_that_is_away_does_not_keep_the_pod_vm(bench: Any) -> None:
    await started(bench)
    gate = bench.faults.gate("links.close")
    bench.faults.before["links.close"] = ProviderError("away")
    bench.faults.times["links.close"] = 1
    gate.set()
    await bench.service.stop(ONE)
    await settle(bench)
    calls = bench.faults.calls
    assert calls.index("provider.delete") < len(calls) - 1 - calls[::-1].index("links.close")
    assert calls.index("ledger.release") > calls.index("provider.delete")
