"""One start from its first step to RUNNING, or back to where nothing is left of it."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace

import structlog

from caa.errors import CaaError, Code, DeadlineExceeded, StepFailed
from caa.model.sandbox import Phase, Sandbox
from caa.sandbox.life import Life
from caa.sandbox.machine import Event, after
from caa.sandbox.ports import World
from caa.sandbox.steps import Step
from caa.sandbox.undo import Sleep, undo, until_done

log = structlog.get_logger(__name__)

_PREPARE = "prepare the pod network"
_UNDO_MARGIN = 2.0  # seconds kept back from the shim's deadline for the undoing of a start that takes too long
_ANSWER_MARGIN = 0.2  # seconds before the deadline at which the reason is told, whether all is undone or not


def bounded(deadline: float | None, *, now: float, limit: float) -> float:
    """When a start has to end: a little before the caller's deadline, and not later than `limit` seconds from now."""
    latest = now + limit
    if deadline is None:
        return latest
    return min(latest, deadline - min(_UNDO_MARGIN, max(deadline - now, 0) / 10))


def answer_by(deadline: float, *, now: float) -> float:
    """When the caller has to have its answer, so that it reads our reason and does not just give up."""
    return deadline - min(_ANSWER_MARGIN, max(deadline - now, 0) / 20)


def begun(record: Sandbox) -> Sandbox:
    """The record of a start that begins; raises `IllegalTransition`.

    A new token each time: with that of an undone start a cloud would answer with the instance that was deleted.
    """
    return replace(record, phase=after(record.phase, Event.START), token=secrets.token_hex(16), error="")


def cleared(record: Sandbox, event: Event) -> Sandbox:
    """The record when everything of its start is undone. The tunnel goes: an index is never used twice."""
    phase = after(record.phase, event)
    return replace(record, phase=phase, reached="", instance=None, addresses=(), tunnel=None, ca="", volumes=())


async def run(life: Life, world: World, *, steps: Sequence[Step], deadline: float) -> CaaError | None:
    """Take every step, saving the record before each; returns the failure after it was undone.

    The phase stays STARTING when the undoing failed: who looks at it next has to go on. When cancelled it undoes
    nothing, that is the canceller's.
    """
    life.bind_log()
    act, remedy = _PREPARE, "check the pod's network namespace"
    try:
        async with asyncio.timeout_at(deadline):
            await life.save(world.store, await _prepared(life.record, world), during=Phase.STARTING)
            for step in steps:
                act, remedy = step.act, step.remedy
                await life.save(world.store, replace(life.record, reached=step.name), during=Phase.STARTING)
                await _take(life, step, deadline=deadline)
            running = replace(life.record, phase=after(life.record.phase, Event.STARTED))
            await life.save(world.store, running, during=Phase.STARTING)
    except Exception as error:  # any failure, foreign or ours, has to be undone and told
        failure = failed(act, error, remedy=remedy)
        log.error("the start failed, undoing it", error=str(failure), reached=life.record.reached)
        await _undone(life, world, steps=steps, failure=failure)
        return failure
    log.info("sandbox running")
    return None


async def _take(life: Life, step: Step, *, deadline: float) -> None:
    """One act; what it told is kept in memory at once, whatever phase a StopVM has set meanwhile."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    log.debug("step begins", step=step.name)
    record = await step.up(life.record, deadline)
    life.record = replace(record, phase=life.record.phase)
    log.info("step done", step=step.name, ms=round((loop.time() - began) * 1000, 1))


async def _prepared(record: Sandbox, world: World) -> Sandbox:
    """What the user data will say about the network, and what the later steps will build. Makes nothing."""
    network = record.network or await world.network.inspect(record.pod.netns)
    index = await world.store.next_tunnel_index()
    tunnel = await world.network.worker_tunnel(index, network)
    return replace(
        record,
        network=network,
        tunnel=tunnel,
        owner=world.owner,
        provider=world.provider,
        ca=world.current_ca(),
    )


async def _undone(life: Life, world: World, *, steps: Sequence[Step], failure: CaaError) -> None:
    life.record = replace(life.record, error=str(failure))
    failures = await undo(steps, life.record)
    if failures:
        log.warning("the failed start is not undone yet", failures=failures)
        return
    try:
        await life.save(world.store, cleared(life.record, Event.FAILED), during=Phase.STARTING)
    except CaaError as error:  # a stop overtook us, or the disk refuses: both are gone on with elsewhere
        log.warning("the failed start was undone, its record was not written", error=str(error))


def failed(act: str, error: Exception, *, remedy: str) -> CaaError:
    """The error that reaches the shim: step, cause and remedy, with the cause's code."""
    cause = error
    if isinstance(error, TimeoutError):
        cause = DeadlineExceeded("the deadline of StartVM passed")
    code = cause.code if isinstance(cause, CaaError) else Code.INTERNAL
    text = str(cause) if isinstance(cause, CaaError) else f"{type(cause).__name__}: {cause}"
    if isinstance(cause, CaaError) and cause.remedy:
        remedy = cause.remedy
    failure = StepFailed(
        f"could not {act}: {text} ({remedy})", code=code, retryable=isinstance(cause, CaaError) and cause.retryable
    )
    failure.__cause__ = cause
    return failure


async def clear_interrupted(life: Life, world: World, *, steps: Sequence[Step], sleep: Sleep) -> CaaError | None:
    """Undo a start of an earlier process, as often as it takes; the sandbox is then as after CreateVM."""
    life.bind_log()
    await until_done(lambda: undo(steps, life.record), sleep)
    await life.save(world.store, cleared(life.record, Event.INTERRUPTED), during=Phase.STARTING)
    log.info("an interrupted start is undone")
    return None
