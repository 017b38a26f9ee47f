"""How fast this node asks its cloud: one budget of calls for all its pods, Retry-After obeyed, creates bounded."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from caa.errors import ProviderUnavailable, Throttled
from caa.provider.clock import Clock

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0  # seconds between tries where the cloud says nothing
# Others may use up the same account: throttled, we go at half the pace, and find back with each call that is answered.
# What was under way when another one was refused was sent at the pace of before, and says nothing of the new one.
_SLOWER, _SLOWEST, _FASTER = 2.0, 16.0, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `burst` calls at once and `per_second` in the long run; at most `creates` instances made at a time."""

    per_second: float
    burst: int
    creates: int


class Pacing:
    """The budget of one cloud. Who comes first is served first, so nobody starves."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._usual = self._pause = 1 / rate.per_second
        self._ahead = (rate.burst - 1) * self._pause
        self._clock = clock
        self._next = clock.now() - self._ahead
        self._held_until = self._next
        self._creates = asyncio.Semaphore(rate.creates)

    def creating(self) -> AbstractAsyncContextManager[None]:
        """Hold one of the places for creates."""
        return self._creates

    async def turn(self) -> None:
        """Return when the next call may be sent."""
        while True:
            now = self._clock.now()
            slot = max(self._next, now - self._ahead)
            self._next = slot + self._pause
            if slot > now:
                await self._clock.sleep(slot - now)
            if slot >= self._held_until:
                return

    def hold(self, seconds: float) -> None:
        """Nobody calls for so long: the cloud said so. Who already waits gets a later turn."""
        until = self._clock.now() + seconds
        self._held_until = max(self._held_until, until)
        self._next = max(self._next, until)

    async def call(self, attempt: Callable[[], Awaitable[T]], *, tries: int = 5, repeatable: bool = True) -> T:
        """Run `attempt` in turn, again after `ProviderUnavailable` up to `tries` times in all.

        Reads, deletes and creates with an idempotency token are `repeatable`; what is not is only sent again after
        `Throttled`, when nothing was done.
        """
        pause = _FIRST_PAUSE
        for left in reversed(range(tries)):
            await self.turn()
            held = self._held_until
            try:
                answer = await attempt()
            except Throttled as error:
                if held == self._held_until:
                    self._pause = min(self._pause * _SLOWER, self._usual * _SLOWEST)
                self.hold(error.retry_after or pause)
                if not left:
                    raise
            except ProviderUnavailable:
                if not left or not repeatable:
                    raise
                await self._clock.sleep(pause)
            else:
                if held == self._held_until:
                    self._pause = max(self._pause * _FASTER, self._usual)
                return answer
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise ValueError("tries has to be 1 or more")
