"""Calls side by side: the first error ends the others, and is raised as it is."""

import asyncio

import pytest

from caa.errors import Throttled
from providers.azure.together import all_of, first_of


async def test_results_come_in_order() -> None:
    async def one(number: int) -> int:
        for _ in range(3 - number):
            await asyncio.sleep(0)
        return number

    assert await all_of(one(number) for number in range(3)) == [0, 1, 2]
    assert await all_of([]) == []
    assert await first_of(one(1), one(0)) == 1


async def test_an_error_ends_the_others() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def refused() -> None:
        raise Throttled("TooManyRequests")

    with pytest.raises(Throttled, match="TooManyRequests"):
        await all_of([slow(), refused(), slow()])
    assert ended == [True, True]
    with pytest.raises(Throttled):
        await first_of(slow(), refused())
