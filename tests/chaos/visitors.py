"""Pods that come and go all the time beside the standing ones; each says one line, which is checked."""

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

from caa.errors import CaaError
from caa.testing.demo import world
from caa.testing.shim.kinds import Kind
from caa.testing.shim.pod import Pod
from tests.chaos.load import start_pod

_FIRST_PLACE = 200  # the last byte of their addresses; standing pods are below


@dataclass
class Visitors:
    """`lanes` pods at a time, both kinds of shim in turn."""

    hypervisor: Path
    lanes: int
    finished: int = 0
    longest_start: float = 0.0
    longest_stop: float = 0.0
    wrong: list[str] = field(default_factory=list)
    _over: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._lane(lane)) for lane in range(self.lanes)]

    async def finish(self) -> None:
        """No new ones; those under way come to their end, as the node is there again."""
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _lane(self, lane: int) -> None:
        for turn in itertools.count(lane):
            if self._over:
                return
            kind = list(Kind)[turn % 2]
            try:
                async with asyncio.timeout(120):
                    await self._visit(f"v{lane}-{turn}", place=_FIRST_PLACE + lane, kind=kind)
                self.finished += 1
            except (CaaError, TimeoutError) as error:
                self.wrong.append(f"visitor ({kind}): {type(error).__name__}: {error}")
                await asyncio.sleep(1)  # what always fails need not fail a thousand times

    async def _visit(self, name: str, *, place: int, kind: Kind) -> None:
        began = time.monotonic()
        try:
            pod = await start_pod(self.hypervisor, name, place=place, kind=kind)
            self.longest_start = max(self.longest_start, time.monotonic() - began)
            try:
                await self._talk(pod)
            finally:
                await self._stop(pod)
        finally:
            with contextlib.suppress(CaaError):
                await asyncio.to_thread(world.detach, name)

    async def _talk(self, pod: Pod) -> None:
        container = await pod.container("hello", ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
        result = await container.result()
        if (result.stdout, result.stderr, result.exit_code) != (b"out\n", b"err\n", 3):
            self.wrong.append(f"visitor ({pod.kind}): {result} {pod.failure}")

    async def _stop(self, pod: Pod) -> None:
        began = time.monotonic()
        await pod.stop()
        self.longest_stop = max(self.longest_stop, time.monotonic() - began)
        self.wrong += [f"visitor ({pod.kind}): StopVM: {error}" for error in pod.stop_errors]
        if pod.failed.is_set():
            self.wrong.append(f"visitor ({pod.kind}) was lost: {pod.failure}")
