"""One process of a container: its exit status, kept until it is reaped, and its streams."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from caa.testing.agent.runc import Started
from caa.testing.agent.streams import Descriptor


class Process:
    """A child of ours by way of runc. Its exit is seen on a pidfd at once; the status stays until somebody asks."""

    def __init__(self, started: Started) -> None:
        self.pid = started.pid
        self.streams = started.streams
        self._exited = asyncio.Event()
        self._status = 0
        self._watch = asyncio.create_task(self._await_exit(), name=f"exit of {self.pid}")

    async def wait(self) -> int:
        """The exit code, 128 + the signal's number for a killed process. Any number of callers."""
        await self._exited.wait()
        return self._status

    def signal(self, number: int) -> None:
        """Send a signal; a process that has exited takes none, which is fine."""
        if not self._exited.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def handles(self, number: int) -> bool:
        """Whether the process catches the signal; the first of a pid namespace ignores what it does not catch."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False

    async def _await_exit(self) -> None:
        exited = Descriptor(os.pidfd_open(self.pid))
        try:
            await exited.readable()
        finally:
            exited.close()
        self._status = _reap(self.pid)
        self._exited.set()


def _reap(pid: int) -> int:
    result = os.waitid(os.P_PID, pid, os.WEXITED)
    assert result is not None  # without WNOHANG there always is one
    return result.si_status if result.si_code == os.CLD_EXITED else result.si_status + 128


def default_stop_signal(process: Process, number: int) -> int:
    """What to send instead of `number`: SIGKILL for a SIGTERM that the process would ignore, as the real agent does."""
    if number == signal.SIGTERM and not process.handles(number):
        return signal.SIGKILL
    return number
