"""One sandbox in memory: its record, its lock, and the one task that works on it. Nothing here decides anything.

The record in memory is never behind the one on disk; it may be ahead by what an act just told. Undoing uses memory,
a new process uses the disk, and both are enough: `reached` is saved before its act.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from caa.errors import CaaError, Cancelled
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.machine import Event, after
from caa.sandbox.ports import StateStore


@dataclass(slots=True, eq=False)
class Life:
    """A sandbox between its CreateVM and the removal of its record.

    `lock` is held for a look at the phase and a write of the record, never during an act. `work` is the start (or the
    clearing of an interrupted one); `teardown` follows a StopVM and is the only one that may cancel `work`.
    """

    record: Sandbox
    changed: Callable[[], None]  # told after each write
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    work: "asyncio.Task[CaaError | None] | None" = None
    teardown: "asyncio.Task[None] | None" = None
    waiting: int = 0  # callers of StartVM
    calls: int = 0  # CreateVMs and StartVMs that named it
    unwritten: bool = False  # a stop that the disk refused
    claimed: bool = False  # a CreateVM was answered to a caller that was still there
    stored: bool = True  # False until `add` has returned

    @property
    def id(self) -> SandboxId:
        return self.record.id

    def idle(self, phase: Phase, calls: int) -> bool:
        """Whether it is still in this phase, and nobody has called or waits since."""
        return self.record.phase is phase and self.calls == calls and not self.waiting

    async def save(self, store: StateStore, record: Sandbox, *, during: Phase) -> None:
        """Write a record from inside `work`; `Cancelled` when a stop has overtaken it."""
        async with self.lock:
            if self.record.phase is not during:
                raise Cancelled(f"a StopVM overtook the start of sandbox {self.id}")
            self.record = record
            await store.put(record)
        self.changed()

    async def mark_stopping(self, store: StateStore) -> None:
        """Make the stop durable. When the disk refuses, the phase holds in memory all the same, and it raises;
        the next one tries again, for success means that it is on the disk."""
        async with self.lock:
            if self.record.phase is not Phase.STOPPING:
                self.record = replace(self.record, phase=after(self.record.phase, Event.STOP))
                self.unwritten = True
            if self.unwritten:
                await store.put(self.record)
                self.unwritten = False

    def bind_log(self) -> None:
        """Say in every log line of the running task which sandbox it is about."""
        structlog.contextvars.bind_contextvars(
            sandbox=self.id,
            pod=f"{self.record.pod.pod_namespace}/{self.record.pod.pod_name}",
            instance=self.record.instance_name,
        )
