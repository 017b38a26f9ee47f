"""The control plane dies at any instruction: before and after every single act and every write of a record, in a start,
in a stop, and once more in the clearing up that follows. Nothing is left, and the start that comes again succeeds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from caa.errors import CaaError, ProviderUnavailable
from caa.model.ids import SandboxId
from caa.model.instance import Owner
from caa.model.sandbox import Phase
from caa.sandbox.boot import Recovery

ONE = SandboxId("a" * 64)
OWNER = Owner(cluster="c1", node="n1")
EFFECT = pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])


@asynccontextmanager
async def stuck_at(
    bench: Any, number: int, *, effect: bool, losing: Collection[str] = ()
) -> AsyncIterator[asyncio.Event]:
    """The call with this number never returns; it takes effect if `effect`. The event tells that it is there.

    Calls named in `losing` lose their first answer after they have taken effect.
    """
    to_lose = set(losing)
    reached, count = asyncio.Event(), 0

    async def around(call: str, act: Callable[[], Any]) -> Any:
        nonlocal count
        bench.faults.calls.append(call)
        mine, count = count, count + 1
        await asyncio.sleep(0)
        if mine == number and not effect:
            reached.set()
            await asyncio.Event().wait()
        result = act()
        if mine == number:
            reached.set()
            await asyncio.Event().wait()
        if call in to_lose:
            to_lose.discard(call)
            raise ProviderUnavailable(f"the answer of {call} was lost")
        return result

    bench.faults.around = around
    try:
        yield reached
    finally:
        del bench.faults.around


async def killed(bench: Any, reached: asyncio.Event, *working: "asyncio.Task[Any]") -> bool:
    """Wait until the call is reached, or all is over; then the process dies. Whether the call was reached."""
    waiting = asyncio.create_task(reached.wait())
    settled = asyncio.gather(bench.service.settled(), *working, return_exceptions=True)
    await asyncio.wait({waiting, settled}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    died = reached.is_set()
    await bench.service.close()
    for one in working:
        one.cancel()
    for one in await settled:
        assert isinstance(one, CaaError | asyncio.CancelledError | str | None), one
    return died


async def reborn(bench: Any, *, settle: bool = True) -> None:
    await bench.restart()
    recovery = Recovery(
        service=bench.service, links=bench.links, provider=bench.provider, owner=OWNER, boot_id=bench.boot_id
    )
    await recovery.at_once()
    if settle:
        await recovery.running()
        async with asyncio.timeout(10):
            await bench.service.settled()


async def start_killed_at(bench: Any, number: int, *, effect: bool) -> bool:
    await bench.service.create(ONE, bench.pod())
    async with stuck_at(bench, number, effect=effect) as reached:
        return await killed(bench, reached, asyncio.create_task(bench.service.start(ONE)))


async def stop_killed_at(bench: Any, number: int, *, effect: bool) -> bool:
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    async with stuck_at(bench, number, effect=effect) as reached:
        return await killed(bench, reached, asyncio.create_task(bench.service.stop(ONE)))


async def clearing_killed_at(bench: Any, number: int, *, effect: bool) -> bool:
    async with stuck_at(bench, number, effect=effect) as reached:
        await reborn(bench, settle=False)
        return await killed(bench, reached)


async def ends_clean(bench: Any, where: str) -> None:
    await bench.service.stop(ONE)
    await bench.service.settled()
    assert bench.left_over() == {}, where
    assert bench.store.rows == {}, where
    await bench.service.close()


@EFFECT
async def test_in_a_start(new_bench: Any, effect: bool) -> None:
    number, died = 0, True
    while died:
        bench = new_bench()
        died = await start_killed_at(bench, number, effect=effect)
        where = f"{number}: {bench.faults.calls[-1]}"
        begun = bench.store.rows[ONE].phase is not Phase.CREATED
        await reborn(bench)
        running = bench.store.rows[ONE].phase is Phase.RUNNING
        assert running or bench.left_over() == {}, where
        assert not running or begun, where
        await bench.service.start(ONE)  # the relay kept the shim's call
        assert bench.store.rows[ONE].phase is Phase.RUNNING, where
        assert len(bench.provider.living) == 1, where
        await ends_clean(bench, where)
        number += 1
    assert number > 12, "every act and every record of a start was a place to die"


@EFFECT
async def test_in_a_stop(new_bench: Any, effect: bool) -> None:
    number, died = 0, True
    while died:
        bench = new_bench()
        died = await stop_killed_at(bench, number, effect=effect)
        where = f"{number}: {bench.faults.calls[-1]}"
        durable = bench.store.rows.get(ONE) is None or bench.store.rows[ONE].phase is Phase.STOPPING
        await reborn(bench)
        assert durable == (bench.store.rows == {}), where
        assert durable == (bench.left_over() == {}), where
        await ends_clean(bench, where)  # the relay's file of a stop that was not durable
        number += 1
    assert number > 5, "every act and every record of a stop was a place to die"


@pytest.mark.parametrize("again", [False, True], ids=["before", "after"])
@EFFECT
@pytest.mark.parametrize("act", [start_killed_at, stop_killed_at])
async def test_and_again_in_the_clearing(new_bench: Any, act: Any, effect: bool, again: bool) -> None:
    first, died = 0, True
    while died:
        second, died_again = 0, True
        while died_again:
            bench = new_bench()
            died = await act(bench, first, effect=effect)
            died_again = await clearing_killed_at(bench, second, effect=again)
            await reborn(bench)
            where = f"{first}, then {second}"
            record = bench.store.rows.get(ONE)
            assert bench.left_over() == {} or record.phase is Phase.RUNNING, where
            if record is not None:
                await bench.service.start(ONE)
                assert len(bench.provider.living) == 1, where
            await ends_clean(bench, where)
            second += 1
        first += 1
    assert first > 5


LOST_IN_START = [("ledger.own",), ("provider.create",), ("ledger.note",), ("network.connect",), ("links.open",)]
LOST_IN_BOTH = [("provider.create", "provider.delete"), ("links.open", "links.close", "provider.delete")]


@EFFECT
@pytest.mark.parametrize("losing", [*LOST_IN_START, *LOST_IN_BOTH], ids=",".join)
async def test_in_a_start_whose_answers_are_lost(new_bench: Any, losing: tuple[str, ...], effect: bool) -> None:
    """The failed start is being undone, and the node dies in the middle of that too."""
    number, died = 0, True
    while died:
        bench = new_bench()
        await bench.service.create(ONE, bench.pod())
        async with stuck_at(bench, number, effect=effect, losing=losing) as reached:
            died = await killed(bench, reached, asyncio.create_task(bench.service.start(ONE)))
        await reborn(bench)
        assert bench.left_over() == {}, number
        await bench.service.create(ONE, bench.pod())
        await bench.service.start(ONE)
        assert len(bench.provider.living) == 1, number
        await ends_clean(bench, str(number))
        number += 1
    assert number > 5


@EFFECT
@pytest.mark.parametrize("call", ["links.close", "network.disconnect", "provider.delete", "ledger.release"])
async def test_in_a_stop_whose_answers_are_lost(new_bench: Any, call: str, effect: bool) -> None:
    number, died = 0, True
    while died:
        bench = new_bench()
        await bench.service.create(ONE, bench.pod())
        await bench.service.start(ONE)
        async with stuck_at(bench, number, effect=effect, losing=[call]) as reached:
            died = await killed(bench, reached, asyncio.create_task(bench.service.stop(ONE)))
        await reborn(bench)
        await ends_clean(bench, f"{call}, {number}")
        number += 1
    assert number > 5


@EFFECT
async def test_in_a_create(new_bench: Any, effect: bool) -> None:
    number, died = 0, True
    while died:
        bench = new_bench()
        async with stuck_at(bench, number, effect=effect) as reached:
            died = await killed(bench, reached, asyncio.create_task(bench.service.create(ONE, bench.pod())))
        await reborn(bench)
        await bench.service.create(ONE, bench.pod())  # the relay kept the shim's call
        await bench.service.start(ONE)
        assert len(bench.provider.living) == 1
        await ends_clean(bench, str(number))
        number += 1
    assert number > 3
