"""Polling, shared looks, work that ends whatever happens, and undoing."""

import asyncio
from collections.abc import Mapping

import pytest

from caa.errors import CapacityError, ProviderError, ProviderUnavailable
from caa.provider.waiting import Lookout, all_or_nothing, to_the_end, until
from caa.testing.clock import FakeClock


async def test_until_polls_and_tells_what_did_not_happen() -> None:
    clock = FakeClock(0)
    answers = [None, None, "here"]

    async def look() -> str | None:
        return answers.pop(0) if answers else None

    assert await until(look, clock=clock, limit=10, what="an address", every=2) == "here"
    assert clock.now() == 4
    with pytest.raises(ProviderUnavailable, match="an address: not after 10 s"):
        await until(look, clock=clock, limit=10, what="an address", every=2)


async def test_waiters_of_one_moment_share_one_call() -> None:
    looks: list[frozenset[str]] = []

    async def look(names: frozenset[str]) -> Mapping[str, str]:
        looks.append(names)
        return {name: name.upper() for name in names if name != "nobody"}

    lookout = Lookout(look, clock=FakeClock(), every=1)
    assert await asyncio.gather(*(lookout.see(name) for name in ("a", "b", "nobody"))) == ["A", "B", None]
    assert await lookout.see("a") == "A"
    assert looks == [{"a", "b", "nobody"}, {"a"}]


async def test_a_waiter_that_goes_away_disturbs_nobody() -> None:
    async def look(names: frozenset[str]) -> Mapping[str, int]:
        return dict.fromkeys(names, 1)

    lookout = Lookout(look, clock=FakeClock(), every=1)
    first = asyncio.ensure_future(lookout.see("a"))
    second = asyncio.ensure_future(lookout.see("b"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1


async def test_an_error_of_the_look_reaches_every_waiter() -> None:
    async def look(names: frozenset[str]) -> Mapping[str, int]:
        raise ProviderUnavailable("down")

    lookout = Lookout(look, clock=FakeClock(), every=1)
    found = await asyncio.gather(lookout.see("a"), lookout.see("b"), return_exceptions=True)
    assert [str(one) for one in found] == ["down", "down"]


async def test_work_ends_although_the_caller_was_cancelled() -> None:
    go, done = asyncio.Event(), []

    async def work() -> None:
        await go.wait()
        done.append(1)

    task = asyncio.ensure_future(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


@pytest.mark.parametrize("error", [CapacityError("full"), asyncio.CancelledError()])
async def test_what_fails_is_undone(error: BaseException) -> None:
    undone = []

    async def make() -> str:
        raise error

    async def undo() -> None:
        undone.append(1)

    with pytest.raises(type(error)):
        await all_or_nothing(make(), undo, budget=1)
    assert undone == [1]


async def test_an_undo_that_fails_or_hangs_hides_nothing() -> None:
    async def make() -> str:
        raise CapacityError("full")

    async def fails() -> None:
        raise ProviderError("not now")

    async def hangs() -> None:
        await asyncio.Event().wait()

    for undo in (fails, hangs):
        with pytest.raises(CapacityError, match="full"):
            await all_or_nothing(make(), undo, budget=0.01)


async def test_what_succeeds_is_not_undone() -> None:
    async def make() -> str:
        return "made"

    async def undo() -> None:
        raise AssertionError("undone")

    assert await all_or_nothing(make(), undo, budget=1) == "made"
