"""The queue behind GetOOMEvent, and the end that every waiting call is told."""

import asyncio
from collections import deque

from caa.testing.agent.answers import error


class OomEvents:
    """One event goes to one caller, in the order of the callers."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._events: deque[str] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def report(self, container: str) -> None:
        """A process of the container was killed for memory."""
        self._events.append(container)
        self._wake()

    def end(self) -> None:
        """The sandbox is gone: every caller, now and later, gets the recorded error."""
        self.ended.set()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def next(self) -> str:
        """The container of the next event."""
        while not self._events and not self.ended.is_set():
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                self._waiting.remove(waiting)
        if self.ended.is_set():
            raise error(13, '""')
        return self._events.popleft()

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
                return
