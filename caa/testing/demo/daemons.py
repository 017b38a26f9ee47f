"""The two node processes, started as an operator starts them: settings in the environment, logs in files."""

import asyncio
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from caa.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Paths:
    """Where everything of one demo lies; the names are short because a unix socket's path may have 107 bytes."""

    top: Path

    @property
    def run(self) -> Path:
        return self.top / "r"

    @property
    def pods(self) -> Path:
        return self.run / "pods"

    @property
    def state(self) -> Path:
        return self.top / "state"

    @property
    def vms(self) -> Path:
        return self.top / "vms"

    @property
    def hypervisor(self) -> Path:
        return self.run / "hypervisor.sock"

    def log(self, name: str) -> Path:
        return self.top / f"{name}.log"

    def end_of_log(self, name: str) -> str:
        return self.log(name).read_text()[-2000:]


def settings(paths: Paths, provider: str) -> dict[str, str]:
    """What the ConfigMap would hold."""
    return {
        "CLOUD_PROVIDER": provider,
        "REMOTE_HYPERVISOR_ENDPOINT": str(paths.hypervisor),
        "PODS_DIR": str(paths.pods),
        "CAA_RUN_DIR": str(paths.run),
        "CAA_STATE_DIR": str(paths.state),
        "LOCAL_STATE_DIR": str(paths.vms),
        "NODE_NAME": "demo-node",
        "CAA_CLUSTER_ID": "demo",
        "SUCCESSOR_WAIT": "0",
        "LOG_FORMAT": "json",
    }


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@dataclass
class Daemons:
    """The relay and the node as child processes."""

    paths: Paths
    provider: str
    environ: Mapping[str, str]
    running: dict[str, Process] = field(default_factory=dict)

    async def start(self) -> None:
        """Start both; `Unavailable` with the end of a log when one does not come up within 20 s."""
        for name in ("relay", "node"):
            await self.start_one(name)
        for name in ("relay", "node"):
            await self.serves(name)

    async def start_one(self, name: str, **more: str) -> None:
        """Start one of them; `more` are further settings."""
        with self.paths.log(name).open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "caa",
                name,
                env={**self.environ, **settings(self.paths, self.provider), **more},
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo alone
            )

    async def serves(self, name: str) -> None:
        """Wait until somebody answers at its socket; the file of one that was killed may still be there."""
        await self._wait_for(self._socket(name), name)

    def _socket(self, name: str) -> Path:
        return self.paths.hypervisor if name == "relay" else self.paths.run / "node.sock"

    async def _wait_for(self, path: Path, name: str) -> None:
        end = time.monotonic() + 20
        while not await asyncio.to_thread(_answers, path):
            if self.running[name].returncode is not None or time.monotonic() > end:
                raise Unavailable(f"caa {name} did not start: {self.paths.end_of_log(name)}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """SIGTERM, node first; SIGKILL after 15 s. Daemons that are gone already are fine."""
        for name in ("node", "relay", "old relay"):
            process = self.running.pop(name, None)
            if process is not None and process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await self._reap(process)

    async def replace_relay(self) -> float:
        """Start another relay, which takes over; returns the seconds until the one before it has ended by itself."""
        began, old = time.monotonic(), self.running.pop("relay")
        await self.start_one("relay")
        try:
            status = await asyncio.wait_for(old.wait(), 20)
        except TimeoutError:
            self.running["old relay"] = old
            raise Unavailable(f"the relay was not replaced: {self.paths.end_of_log('relay')}") from None
        if status or self.running["relay"].returncode is not None:
            raise Unavailable(f"the relay was not replaced: {self.paths.end_of_log('relay')}")
        return time.monotonic() - began

    async def replace_both(self) -> float:
        """As a DaemonSet with a surge does: the new ones start beside the old ones, which are told to end then."""
        old = self.running.pop("node")
        await self.start_one("node", TAKEOVER_WAIT="30s")
        seconds = await self.replace_relay()
        if old.returncode is None:
            old.send_signal(signal.SIGTERM)
        await self._reap(old)
        return seconds

    async def kill(self, name: str) -> None:
        """SIGKILL to one of them, as a crash would; `start_one` brings it back."""
        process = self.running.pop(name)
        process.kill()
        await process.wait()

    async def unharmed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; `Unavailable` as soon as a daemon ends that nobody here told to. Calls to it wait.

        `work` runs in the caller's task: a cancellation reaches it as if this were not here.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                result = await work
                watch.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return result

    async def _watch(self) -> None:
        while True:
            for name, process in self.running.items():
                if process.returncode is not None:
                    raise Unavailable(f"caa {name} ended in mid-run ({process.returncode}): see its log")
            await asyncio.sleep(0.2)

    async def _reap(self, process: Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()
