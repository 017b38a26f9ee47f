"""One container: its processes, its mounts, its cgroup, and what can be done to it."""

import os
import signal
from contextlib import suppress

from caa.testing.agent.answers import error, no_such_process
from caa.testing.agent.cgroups import Hierarchies, OomWatch
from caa.testing.agent.process import Process, default_stop_signal
from caa.testing.agent.runc import Runc, Started
from caa.testing.agent.storage import Mounts

INIT = ""


class Container:
    """Made by `Sandbox`. The first process is `INIT`; the Go shim calls it by the container's id as well."""

    def __init__(self, name: str, *, cgroup: str, runc: Runc, mounts: Mounts) -> None:
        self.name = name
        self.cgroup = cgroup
        self.runc = runc
        self.mounts = mounts
        self.started = False
        self.paused = False
        self.watch: OomWatch | None = None
        self.init_pid = 0
        self._processes: dict[str, Process] = {}
        self._reserved: set[str] = set()

    def first(self, started: Started) -> None:
        """Take the process that `runc create` made."""
        self.init_pid = started.pid
        self._processes[INIT] = Process(started)

    def process(self, exec_id: str) -> Process:
        """The process, if it was not reaped."""
        found = self._processes.get(self._key(exec_id))
        if found is None:
            raise no_such_process()
        return found

    async def execute(self, exec_id: str, description: dict[str, object]) -> None:
        """Run one more process. A name is taken until its process was reaped."""
        if exec_id in self._processes or exec_id in self._reserved:
            raise error(13, f"exec_id '{exec_id}' already exists")
        self._reserved.add(exec_id)
        try:
            self._processes[exec_id] = Process(await self.runc.execute(self.name, description))
        finally:
            self._reserved.discard(exec_id)

    async def wait(self, exec_id: str) -> int:
        """Wait for an exit and reap. Everybody who waited before gets the code, later callers find nothing."""
        process = self.process(exec_id)
        status = await process.wait()
        key = self._key(exec_id)
        if self._processes.get(key) is process:
            del self._processes[key]
            process.streams.close()
        return status

    def signal(self, exec_id: str, number: int, *, hierarchies: Hierarchies) -> None:
        """Signal one process; without an exec id all of the container, gone or not."""
        if exec_id != INIT:
            self.process(exec_id).signal(number)
            return
        init = self._processes.get(INIT)
        if init is not None:
            number = default_stop_signal(init, number)
            init.signal(number)
        for pid in self.pids(hierarchies):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def pids(self, hierarchies: Hierarchies) -> list[int]:
        """Every process of the cgroup; those outside of our pid namespace show as 0 and are left out."""
        folder = hierarchies.folder("pids", self.cgroup)
        with suppress(OSError):
            if folder is not None:
                return [pid for pid in map(int, (folder / "cgroup.procs").read_text().split()) if pid]
        return []

    async def remove(self, hierarchies: Hierarchies) -> None:
        """Kill what runs and take everything down. Waits for exits, so that those who wait for them get the codes."""
        await self._kill(hierarchies)
        await self.runc.delete(self.name)
        for process in list(self._processes.values()):
            await process.wait()
        if self.watch is not None:
            self.watch.close()
        self.mounts.clear()
        hierarchies.remove(self.cgroup)

    async def _kill(self, hierarchies: Hierarchies) -> None:
        """runc's own forced delete looks for the end of its kill every 100 ms; ours is seen at once."""
        init = self._processes.get(INIT)
        if init is None:
            return
        if self.paused:
            await self.runc.resume(self.name)
        self.signal(INIT, signal.SIGKILL, hierarchies=hierarchies)
        await init.wait()

    def _key(self, exec_id: str) -> str:
        return INIT if exec_id == self.name else exec_id
