"""The agent connection as the shim has it: one for the pod's life, every call timed."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from caa.errors import Unavailable
from caa.testing.shim.kinds import Habits
from caa.wire.client import Client, connect

# Both shims give up dialling after 30 s.
DIAL_BUDGET = 30.0


@dataclass(frozen=True, slots=True)
class Timing:
    """One call: when it began, milliseconds after the pod's start, and how long it took. Long polls are left out."""

    name: str
    began_ms: float
    took_ms: float


class Stopwatch:
    """Collects the timings of one pod."""

    def __init__(self) -> None:
        self.timings: list[Timing] = []
        self._zero = time.perf_counter()

    def note(self, name: str, began: float) -> None:
        """`began` is a reading of `time.perf_counter`."""
        now = time.perf_counter()
        self.timings.append(Timing(name, (began - self._zero) * 1000, (now - began) * 1000))


async def dial(path: str, pause: float) -> Client:
    """Dial until somebody listens; `Unavailable` after 30 s."""
    end = time.monotonic() + DIAL_BUDGET
    while True:
        try:
            return await connect(path)
        except Unavailable:
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(pause)


class AgentLink:
    """Calls on the agent with the deadline and metadata that this shim gives each of them."""

    def __init__(self, client: Client, habits: Habits, *, watch: Stopwatch) -> None:
        self.habits = habits
        self.closed = client.closed
        self._client = client
        self._watch = watch

    async def call(self, method: str, request: Message, *, label: str = "", timeout: float | None = None) -> Message:
        """A call with a deadline (the shim's usual one, if none is given); it shows in the timings."""
        began = time.perf_counter()
        bound = self.habits.call_timeout if timeout is None else timeout
        try:
            return await self._send(f"grpc.AgentService/{method}", request, timeout=bound)
        finally:
            self._watch.note(f"{method} {label}".rstrip(), began)

    async def poll(self, method: str, request: Message) -> Message:
        """A call without a deadline: reads, waits, events."""
        return await self._send(f"grpc.AgentService/{method}", request, timeout=None)

    async def stdin(self, method: str, request: Message) -> Message:
        """WriteStdin and CloseStdin: a deadline of their own, and no metadata from either shim."""
        timeout = self.habits.stdin_timeout
        answer: Message = await self._client.call(f"grpc.AgentService/{method}", request, timeout=timeout)
        return answer

    async def check(self, request: Message) -> Message:
        """Health.Check."""
        return await self._send("grpc.Health/Check", request, timeout=self.habits.check_timeout)

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, name: str, request: Message, *, timeout: float | None) -> Message:
        metadata: Mapping[str, str] = self.habits.metadata
        answer: Message = await self._client.call(name, request, timeout=timeout, metadata=metadata)
        return answer
