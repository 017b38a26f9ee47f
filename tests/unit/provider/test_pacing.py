"""One budget of calls: the rate holds, who comes first goes first, Retry-After stops everybody."""

import asyncio
from itertools import pairwise

import pytest

from caa.errors import InvalidRequest, ProviderUnavailable, Throttled
from caa.provider.pacing import Pacing, Rate
from caa.testing.clock import FakeClock

RATE = Rate(per_second=10, burst=5, creates=2)


async def test_a_burst_then_the_rate() -> None:
    clock = FakeClock(0)
    pacing = Pacing(RATE, clock)
    times = []

    async def one() -> None:
        await pacing.turn()
        times.append(round(clock.now(), 3))

    await asyncio.gather(*(one() for _ in range(15)))
    assert times[:5] == [0.0] * 5
    assert times[5:] == [round(0.1 * n, 3) for n in range(1, 11)]


async def test_who_comes_first_goes_first() -> None:
    clock = FakeClock(0)
    pacing = Pacing(Rate(per_second=1, burst=1, creates=1), clock)
    order = []

    async def one(number: int) -> None:
        await pacing.turn()
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))


async def test_retry_after_holds_everybody_and_the_rate_holds_after_it() -> None:
    clock = FakeClock(0)
    pacing = Pacing(RATE, clock)
    times = []

    async def one() -> None:
        await pacing.turn()
        times.append(round(clock.now(), 3))

    waiting = [asyncio.ensure_future(one()) for _ in range(8)]
    await asyncio.sleep(0)
    pacing.hold(30)
    waiting += [asyncio.ensure_future(one()) for _ in range(4)]
    await asyncio.gather(*waiting)
    late = [time for time in times if time > 0]
    assert min(late) >= 30
    assert all(later - earlier >= 0.099 for earlier, later in pairwise(late))


async def test_a_throttled_call_comes_again_when_the_cloud_said() -> None:
    clock = FakeClock(0)
    pacing = Pacing(RATE, clock)
    answers = [Throttled("slow", retry_after=7), Throttled("slow", retry_after=9), None]
    times = []

    async def attempt() -> str:
        times.append(round(clock.now()))
        if (error := answers.pop(0)) is not None:
            raise error
        return "done"

    assert await pacing.call(attempt) == "done"
    assert times == [0, 7, 16]


async def test_the_last_try_tells() -> None:
    clock = FakeClock(0)
    count = 0

    async def attempt() -> None:
        nonlocal count
        count += 1
        raise ProviderUnavailable("no answer")

    with pytest.raises(ProviderUnavailable, match="no answer"):
        await Pacing(RATE, clock).call(attempt, tries=3)
    assert count == 3
    assert clock.now() == 1.5  # 0.5 + 1


async def test_other_errors_are_not_repeated() -> None:
    count = 0

    async def attempt() -> None:
        nonlocal count
        count += 1
        raise InvalidRequest("never")

    with pytest.raises(InvalidRequest):
        await Pacing(RATE, FakeClock()).call(attempt)
    assert count == 1


async def test_creates_at_once_are_bounded() -> None:
    pacing = Pacing(RATE, FakeClock())
    running = most = 0

    async def create() -> None:
        nonlocal running, most
        async with pacing.creating():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(create() for _ in range(10)))
    assert most == 2


@pytest.mark.parametrize(("error", "count"), [(ProviderUnavailable("lost"), 1), (Throttled("slow"), 5)])
async def test_what_may_not_be_repeated_is_repeated_only_when_nothing_was_done(error: Exception, count: int) -> None:
    tried = []

    async def attempt() -> None:
        tried.append(1)
        raise error

    with pytest.raises(ProviderUnavailable):
        await Pacing(RATE, FakeClock()).call(attempt, repeatable=False)
    assert len(tried) == count


async def test_throttled_it_goes_at_half_the_pace_and_finds_back() -> None:
    """Others may use up the same account: who goes on at full pace is refused again and again."""
    clock = FakeClock(0)
    pacing = Pacing(Rate(per_second=10, burst=1, creates=1), clock)
    refusals = [Throttled("slow down", retry_after=5), Throttled("slow down", retry_after=5)]
    times = []

    async def call() -> None:
        times.append(round(clock.now(), 3))
        if refusals:
            raise refusals.pop()

    for _ in range(40):
        await pacing.call(call)
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(times)]
    assert gaps[2] == 0.4  # after two refusals
    assert gaps[2:] == sorted(gaps[2:], reverse=True)
    assert gaps[-1] == 0.1


async def test_what_was_under_way_at_a_refusal_says_nothing_of_the_new_pace() -> None:
    """Neither its answers, which would undo the slower pace at once, nor its refusals, which tell the same."""
    clock = FakeClock(0)
    pacing = Pacing(Rate(per_second=10, burst=20, creates=1), clock)
    refusals = [Throttled("slow down", retry_after=5)] * 3
    all_sent = asyncio.Event()

    async def under_way() -> None:
        await all_sent.wait()
        if refusals:
            raise refusals.pop()

    calls = [asyncio.ensure_future(pacing.call(under_way, tries=1)) for _ in range(10)]
    await asyncio.sleep(0)
    all_sent.set()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert len([one for one in told if one is not None]) == 3
    await pacing.turn()
    first = clock.now()
    await pacing.turn()
    assert round(clock.now() - first, 3) == 0.2


async def test_the_last_try_that_is_throttled_holds_the_others_too() -> None:
    clock = FakeClock(0)
    pacing = Pacing(RATE, clock)

    async def refused() -> None:
        raise Throttled("slow down", retry_after=7)

    with pytest.raises(Throttled):
        await pacing.call(refused, tries=1)
    await pacing.turn()
    assert clock.now() == 7
