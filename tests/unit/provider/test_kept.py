"""What is asked once and believed for a while: together, not for ever, and never an error."""

import asyncio

import pytest

from caa.errors import ProviderUnavailable
from caa.provider.kept import KEPT, Kept
from caa.testing.clock import FakeClock


class Cloud:
    """Counts who asks; `broken` answers nobody."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    async def ask(self, name: str) -> int:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.broken:
            raise ProviderUnavailable("no answer")
        return len(self.asked)


async def test_who_asks_at_once_asks_together_and_the_answer_is_kept() -> None:
    cloud, clock = Cloud(), FakeClock()
    kept = Kept(cloud.ask, clock)
    assert await asyncio.gather(*(kept.get("a") for _ in range(9))) == [1] * 9
    assert await kept.get("b") == 2
    clock.time += KEPT
    assert await kept.get("a") == 1
    clock.time += 1
    assert await kept.get("a") == 3
    assert cloud.asked == ["a", "b", "a"]


async def test_an_error_is_told_to_all_and_not_kept() -> None:
    cloud, clock = Cloud(), FakeClock()
    kept = Kept(cloud.ask, clock)
    cloud.broken = True
    told = await asyncio.gather(*(kept.get("a") for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [ProviderUnavailable] * 3
    cloud.broken = False
    assert await kept.get("a") == 2


async def test_who_is_cancelled_takes_the_answer_from_nobody() -> None:
    cloud = Cloud()
    kept = Kept(cloud.ask, FakeClock())
    first = asyncio.ensure_future(kept.get("a"))
    await asyncio.sleep(0)
    other = asyncio.ensure_future(kept.get("a"))
    first.cancel()
    assert await other == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_nobody_names_any_more_is_forgotten() -> None:
    cloud, clock = Cloud(), FakeClock()
    kept = Kept(cloud.ask, clock)
    for number in range(20):
        await kept.get(f"image-{number}")
        clock.time += KEPT / 2
    assert len(kept._known) <= 3
