"""Clocks for tests: one whose time passes when everybody sleeps, and one that runs faster."""

import asyncio
import heapq
import time

_IDLE_ROUNDS = 50  # passes of the loop in which everybody else may come to rest before time jumps


class FakeClock:
    """`caa.provider.clock.Clock` whose time jumps to whoever wakes up first."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self._sleepers: list[tuple[float, int]] = []
        self._count = 0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        mine = (self.time + seconds, self._count)
        heapq.heappush(self._sleepers, mine)
        try:
            idle = 0
            while self._sleepers[0] != mine or idle < _IDLE_ROUNDS:
                await asyncio.sleep(0)
                idle = idle + 1 if self._sleepers[0] == mine else 0
            self.time = max(self.time, mine[0])
        finally:
            self._sleepers.remove(mine)
            heapq.heapify(self._sleepers)


class ScaledClock:
    """`caa.provider.clock.Clock` that runs `speed` times as fast as the real one, for drivers over real sockets."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def now(self) -> float:
        return time.monotonic() * self._speed

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)
