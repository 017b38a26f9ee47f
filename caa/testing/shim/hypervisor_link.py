"""The hypervisor service as the shims call it: a fresh connection a call, or one for all of them."""

import time

from google.protobuf.message import Message

from caa.errors import CaaError
from caa.testing.shim.kinds import Habits
from caa.testing.shim.link import Stopwatch
from caa.wire.client import Client, connect
from caa.wire.proto import hypervisor


class HypervisorLink:
    """CreateVM, StartVM, StopVM."""

    def __init__(self, path: str, habits: Habits, *, watch: Stopwatch) -> None:
        self._path = path
        self._habits = habits
        self._watch = watch
        self._shared: Client | None = None

    async def create(self, request: hypervisor.CreateVMRequest) -> str:
        """CreateVM, which has no deadline; returns the path of the agent socket."""
        answer = await self._call("CreateVM", request, timeout=None)
        assert isinstance(answer, hypervisor.CreateVMResponse)
        return answer.agentSocketPath

    async def start(self, sandbox: str) -> None:
        await self._call("StartVM", hypervisor.StartVMRequest(id=sandbox), timeout=self._habits.start_timeout)

    async def stop(self, sandbox: str, times: int = 1) -> list[CaaError]:
        """StopVM, `times` in a row. The shims ignore errors, and so do we, but they are returned."""
        errors = []
        for _ in range(times):
            try:
                await self._call("StopVM", hypervisor.StopVMRequest(id=sandbox), timeout=self._habits.stop_timeout)
            except CaaError as error:
                errors.append(error)
        return errors

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()

    async def _call(self, method: str, request: Message, *, timeout: float | None) -> Message:
        began = time.perf_counter()
        # The Go shim's StartVM alone runs on a context without metadata.
        metadata = {} if method == "StartVM" else self._habits.metadata
        client = await self._client()
        try:
            answer: Message = await client.call(
                f"hypervisor.Hypervisor/{method}", request, timeout=timeout, metadata=metadata
            )
            return answer
        finally:
            self._watch.note(method, began)
            if client is not self._shared:
                await client.close()

    async def _client(self) -> Client:
        if not self._habits.one_hypervisor_connection:
            return await connect(self._path)
        if self._shared is None:
            self._shared = await connect(self._path)
        return self._shared
