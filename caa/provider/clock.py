"""The time as drivers see it, injected so that no unit test sleeps, and the real one."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only go forward (`now`), seconds since the epoch (`wall`), and pauses."""

    def now(self) -> float: ...

    def wall(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """`Clock` of production."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
