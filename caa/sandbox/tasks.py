"""The tasks of the sandbox service: work that must not end with its caller, known until it has ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from caa.errors import CaaError

log = structlog.get_logger(__name__)


class Tasks:
    """Tasks with one owner. A failure that is none of ours is a mistake and told in the log."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settled(self) -> None:
        """Wait until none runs, those included that others begin."""
        while self._running:
            await asyncio.wait(set(self._running))

    async def end(self) -> None:
        """Cancel all and wait for their end."""
        while tasks := set(self._running):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), CaaError):
            log.error("a task of the sandbox service failed", exc_info=task.exception())
