"""Undoing the steps of a start, last one first: once, or again and again until nothing is left."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from caa.model.sandbox import Sandbox
from caa.sandbox.steps import Step, position

log = structlog.get_logger(__name__)

DOWN_LIMIT = 600.0  # seconds for one act; the slowest known delete, a cloud's that waits for disks, takes minutes
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

Sleep = Callable[[float], Awaitable[None]]


async def undo(steps: Sequence[Step], record: Sandbox) -> list[str]:
    """Undo what the record says was begun; returns one sentence per act that failed, empty when nothing is left.

    A failure does not keep the others from being undone, for a pod VM costs money while the relay is away. Only the
    first step (what says that the VM is ours) waits for all the others, or nobody would look for the rest.
    """
    failures: list[str] = []
    begun = list(steps[: position(steps, record.reached)])
    for step in reversed(begun):
        if failures and step is begun[0]:
            break
        problem = await _down(step, record)
        if problem:
            failures.append(problem)
    return failures


async def _down(step: Step, record: Sandbox) -> str:
    log.debug("undoing begins", step=step.name)
    try:
        async with asyncio.timeout(DOWN_LIMIT):
            await step.down(record)
    except TimeoutError:
        return f"{step.name}: not undone within {DOWN_LIMIT:.0f} s"
    except Exception as error:  # whatever a seam raises, the other steps must be undone and this one tried again
        return f"{step.name}: {type(error).__name__}: {error}"
    return ""


async def until_done(attempt: Callable[[], Awaitable[list[str]]], sleep: Sleep) -> None:
    """Call `attempt` until it names no failure, with pauses of 1, 2, 4 ... 60 s."""
    pause = _FIRST_PAUSE
    while failures := await attempt():
        log.warning("the sandbox is not cleared yet, trying again", failures=failures, pause_s=pause)
        await sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
