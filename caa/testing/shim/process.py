"""A process in a container as the shim sees it: two read loops, stdin, the exit."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

from caa.errors import CaaError
from caa.testing.shim.kinds import ContainerOptions, ExecResult
from caa.testing.shim.link import AgentLink
from caa.wire.proto import agent

# What the runtime reports when it cannot know: the connection is gone, or somebody else reaped.
UNKNOWN_EXIT = 255


class Process:
    """A container's first process or an exec. `stdout` and `stderr` grow as chunks arrive."""

    def __init__(self, link: AgentLink, container: str, *, exec_id: str, options: ContainerOptions) -> None:
        self.container = container
        self.options = options
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.exit_code: int | None = None
        self.listener: Callable[[bytes, bool], None] | None = None  # gets each chunk, and whether it is stderr
        self._link = link
        self._exec_id = exec_id
        self._grown = asyncio.Event()
        self._end: asyncio.Task[int] | None = None

    def follow(self) -> None:
        """Begin to read, and wait for the exit once both streams have ended: the shims' order."""
        self._end = asyncio.create_task(self._follow(), name=f"process {self._exec_id or self.container}")

    async def wait(self) -> int:
        """The exit code, 255 when it got lost."""
        assert self._end is not None, "follow() begins it"
        return await asyncio.shield(self._end)

    async def result(self) -> ExecResult:
        """Everything, after the exit."""
        code = await self.wait()
        return ExecResult(bytes(self.stdout), bytes(self.stderr), code)

    async def output(self, text: bytes, timeout: float = 10.0) -> bytes:
        """Wait until stdout holds `text`; returns all of stdout. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            while text not in self.stdout:
                self._grown.clear()
                await self._grown.wait()
        return bytes(self.stdout)

    async def write(self, data: bytes) -> None:
        """Write to stdin in the shim's chunks."""
        size = self._link.habits.read_size
        for offset in range(0, len(data), size):
            await self._link.stdin("WriteStdin", self._stdin(data[offset : offset + size]))

    async def close_stdin(self) -> None:
        if self._link.habits.closes_stdin:
            request = agent.CloseStdinRequest(container_id=self.container, exec_id=self._exec_id)
            await self._link.stdin("CloseStdin", request)
        else:
            await self._link.stdin("WriteStdin", self._stdin(b""))

    async def resize(self, rows: int, columns: int) -> None:
        request = agent.TtyWinResizeRequest(
            container_id=self.container, exec_id=self._exec_id, row=rows, column=columns
        )
        await self._link.call("TtyWinResize", request)

    async def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal this process; of a container's first process, all of the container."""
        exec_id = "" if self._exec_id == self.container else self._exec_id
        request = agent.SignalProcessRequest(container_id=self.container, exec_id=exec_id, signal=number)
        await self._link.call("SignalProcess", request)

    async def reap(self) -> int:
        """WaitProcess itself."""
        request = agent.WaitProcessRequest(container_id=self.container, exec_id=self._exec_id)
        answer = await self._link.poll("WaitProcess", request)
        assert isinstance(answer, agent.WaitProcessResponse)
        return answer.status

    def cancel(self) -> None:
        if self._end is not None:
            self._end.cancel()

    async def _follow(self) -> int:
        reads = [self._read("ReadStdout", self.stdout)]
        if not self.options.tty:
            reads.append(self._read("ReadStderr", self.stderr))
        await asyncio.gather(*reads)
        try:
            self.exit_code = await self.reap()
        except CaaError:
            self.exit_code = UNKNOWN_EXIT
        if self._link.habits.signals_after_exec and self._exec_id not in ("", self.container):
            with suppress(CaaError):
                await self.signal(signal.SIGKILL)
        self._grown.set()
        return self.exit_code

    async def _read(self, method: str, sink: bytearray) -> None:
        request = agent.ReadStreamRequest(
            container_id=self.container, exec_id=self._exec_id, len=self._link.habits.read_size
        )
        while True:
            try:
                answer = await self._link.poll(method, request)
            except CaaError:
                return  # a hung-up terminal, a reaped process, a lost connection: the shims take each as the end
            assert isinstance(answer, agent.ReadStreamResponse)
            if not answer.data:
                return
            sink += answer.data
            if self.listener is not None:
                self.listener(answer.data, sink is self.stderr)
            self._grown.set()

    def _stdin(self, data: bytes) -> agent.WriteStreamRequest:
        return agent.WriteStreamRequest(container_id=self.container, exec_id=self._exec_id, data=data)
