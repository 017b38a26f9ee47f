"""The sandbox service: what CreateVM, StartVM and StopVM mean, for all sandboxes of this node.

Nothing is global: each sandbox has its own lock and its own task, and they know nothing of each other. Work that
must not end with its caller (a stop, the undoing of a start) runs in tasks of the service.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from caa.errors import CaaError, Cancelled, DeadlineExceeded, NotFound, Unavailable
from caa.model.ids import InstanceId, SandboxId
from caa.model.network import PodNetwork
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.sandbox import starting
from caa.sandbox.life import Life
from caa.sandbox.machine import Event, after
from caa.sandbox.ports import Clock, World
from caa.sandbox.steps import Connect, Link, Step
from caa.sandbox.tasks import Tasks
from caa.sandbox.undo import undo, until_done
from caa.sandbox.whose import instance_of_pod, unique_name

log = structlog.get_logger(__name__)

_EARLIER_LIFE = 60.0  # seconds that CreateVM waits for an earlier pod VM of the same id to be gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`start` bounds a StartVM that carries a longer deadline or none (runtime-rs: 10 000 s), in seconds.
    `name` is the provider's longest instance name."""

    start: float = 600.0  # the Go shim's own bound, `reference/kata.md` 6.1
    name: int = 63


class SandboxService:
    """All sandboxes of this node. `load` first; `close` leaves the records as they are."""

    def __init__(self, world: World, steps: Sequence[Step], *, clock: Clock, boot_id: str, limits: Limits) -> None:
        self._world = world
        self._steps = steps
        self._clock = clock
        self._boot_id = boot_id
        self.limits = limits
        self._lives: dict[SandboxId, Life] = {}
        self._tasks = Tasks()
        self._creating: dict[SandboxId, set[asyncio.Task[Any]]] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._draining = False

    async def load(self) -> Sequence[Sandbox]:
        """Read the store; the sandboxes are known from here on."""
        for record in await self._world.store.all():
            self._lives[record.id] = Life(record, changed=self._notify)
        return self.records()

    def records(self) -> Sequence[Sandbox]:
        """Every sandbox as it stands."""
        return [life.record for life in self._lives.values()]

    # CreateVM

    async def create(self, sandbox: SandboxId, pod: PodSpec, *, deadline: float | None = None) -> str:
        """Make a sandbox known and answer where its agent will be found. Nothing is made in the world.

        The same id with the same pod again answers the same path. With another pod it is a new life of the id: what
        the earlier one had made is removed first. Raises `InvalidInput`, `InitdataError`, `NetworkError`,
        `Unavailable` when the earlier life does not end in time.
        """
        path = self._world.links.socket_path(sandbox)
        if not self._same(sandbox, pod):
            await self._detached(self._create(sandbox, pod, deadline=deadline), sandbox)
        if sandbox in self._lives:
            self._lives[sandbox].claimed = True
            self._lives[sandbox].calls += 1
        return path

    def _same(self, sandbox: SandboxId, pod: PodSpec) -> bool:
        life = self._lives.get(sandbox)
        living = (Phase.CREATED, Phase.STARTING, Phase.RUNNING)
        return life is not None and life.stored and life.record.phase in living and life.record.pod == pod

    async def _create(self, sandbox: SandboxId, pod: PodSpec, *, deadline: float | None) -> None:
        network = await self._looked_at(pod, deadline)
        while not self._same(sandbox, pod):
            life = self._lives.get(sandbox)
            if life is None:
                return await self._add(self._new_record(sandbox, pod, network=network))
            async with life.lock:
                if self._lives.get(sandbox) is life and life.record.phase in (Phase.CREATED, Phase.FAILED):
                    fresh = self._new_record(sandbox, pod, network=network)
                    life.record = replace(fresh, phase=after(life.record.phase, Event.CREATE))
                    return await self._world.store.put(life.record)
            if self._lives.get(sandbox) is life:
                await self._end_earlier(life, deadline)
        return None

    async def _looked_at(self, pod: PodSpec, deadline: float | None) -> PodNetwork:
        """Refuse now what could not work at StartVM."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._world.boot_data.validate(pod)
                return await self._world.network.inspect(pod.netns)
        except TimeoutError:
            raise DeadlineExceeded("the deadline of CreateVM passed while the pod's network was inspected") from None

    async def _add(self, record: Sandbox) -> None:
        life = Life(record, changed=self._notify, stored=False)
        self._lives[record.id] = life
        async with life.lock:
            try:
                await self._world.store.add(record)
            except BaseException:  # written or not, nobody knows: remove it
                life.record = replace(record, phase=after(record.phase, Event.STOP))
                life.teardown = self._tasks.spawn(self._teardown(life))
                raise
            life.stored = True
        log.info("sandbox created", sandbox=record.id, instance=record.instance_name)
        self._notify()

    async def _end_earlier(self, life: Life, deadline: float | None) -> None:
        log.warning("the sandbox id comes again: its earlier life has to end first", sandbox=life.id)
        await self._begin_stop(life)
        assert life.teardown is not None
        now = asyncio.get_running_loop().time()
        bound = min(deadline if deadline is not None else now + _EARLIER_LIFE, now + _EARLIER_LIFE)
        await asyncio.wait({life.teardown}, timeout=max(bound - now, 0))
        if not life.teardown.done():
            raise Unavailable(f"the earlier pod VM of sandbox {life.id} is still being removed; try again later")

    def _new_record(self, sandbox: SandboxId, pod: PodSpec, *, network: PodNetwork) -> Sandbox:
        return Sandbox(
            id=sandbox,
            pod=pod,
            phase=Phase.CREATED,
            instance_name=unique_name(sandbox, pod.pod_name, records=self.records(), limit=self.limits.name),
            token=secrets.token_hex(16),
            boot_id=self._boot_id,
            created_at=self._clock.wall(),
            network=network,
        )

    # StartVM

    async def start(self, sandbox: SandboxId, deadline: float | None = None) -> None:
        """Run the steps of a start. A second call joins the first; a running sandbox is success.

        When the call is cancelled and no other waits, what was begun is undone at once. Raises `StepFailed` naming
        step, cause and remedy after the undoing, `NotFound`, `IllegalTransition`, `Cancelled` when a stop came,
        `DeadlineExceeded`.
        """
        life = self._lives.get(sandbox)
        if life is None:
            raise NotFound(f"StartVM: sandbox {sandbox} is not known; CreateVM comes first")
        bound = starting.bounded(deadline, now=asyncio.get_running_loop().time(), limit=self.limits.start)
        life.waiting += 1
        life.calls += 1
        try:
            await self._start(life, deadline=deadline, bound=bound)
        except asyncio.CancelledError:
            if life.waiting == 1 and not self._closing:
                log.warning("the caller of StartVM is gone: undoing the start", sandbox=sandbox)
                self._tasks.spawn(self._begin_stop(life))
            raise
        finally:
            life.waiting -= 1

    async def _start(self, life: Life, *, deadline: float | None, bound: float) -> None:
        while life.record.phase is not Phase.RUNNING:
            if self._draining and (life.work is None or life.work.done()):
                await asyncio.Event().wait()  # until the connection closes: the relay asks the next process
            async with life.lock:
                if life.work is None or life.work.done():
                    record = starting.begun(life.record)
                    await self._world.store.put(record)
                    life.record = record
                    self._work(life, starting.run(life, self._world, steps=self._steps, deadline=bound))
                work = life.work
            assert work is not None
            await self._join(life, work, deadline=deadline)

    async def _join(self, life: Life, work: "asyncio.Task[CaaError | None]", *, deadline: float | None) -> None:
        now = asyncio.get_running_loop().time()
        timeout = None if deadline is None else max(starting.answer_by(deadline, now=now) - now, 0)
        await asyncio.wait({work}, timeout=timeout)
        if not work.done():
            raise DeadlineExceeded(
                life.record.error or f"the deadline of StartVM passed (at step {life.record.reached})"
            )
        if work.cancelled():
            raise Cancelled(f"a StopVM overtook the start of sandbox {life.id}")
        failure = work.result()
        if failure is not None:
            raise failure

    def _work(self, life: Life, work: Coroutine[Any, Any, CaaError | None]) -> None:
        life.work = self._tasks.spawn(work)
        life.work.add_done_callback(lambda _: self._worked(life))

    def _worked(self, life: Life) -> None:
        """A start that failed and could not be undone in one go becomes a stop, which tries for ever."""
        if life.record.phase is Phase.STARTING and not self._closing:
            self._tasks.spawn(self._begin_stop(life))

    # StopVM

    async def stop(self, sandbox: SandboxId) -> None:
        """Return when the stop is durable; the work goes on in a task of ours. An unknown id is success.

        A CreateVM under way is cancelled: runtime-rs sends StopVM then, and nothing more (`reference/kata.md` 6.11).
        """
        creating = set(self._creating.get(sandbox, ()))
        for task in creating:
            task.cancel()
        if creating:
            await asyncio.wait(creating)
        life = self._lives.get(sandbox)
        if life is not None:
            await asyncio.shield(self._tasks.spawn(self._begin_stop(life)))

    async def _begin_stop(self, life: Life) -> None:
        try:
            if self._lives.get(life.id) is life:
                await life.mark_stopping(self._world.store)
        finally:  # a full disk must not keep a pod VM alive
            if life.teardown is None and self._lives.get(life.id) is life:
                life.teardown = self._tasks.spawn(self._teardown(life))
                log.info("sandbox stopping", sandbox=life.id)

    async def _teardown(self, life: Life) -> None:
        life.bind_log()
        if life.work is not None and not life.work.done():
            life.work.cancel()
            await asyncio.wait({life.work})
        await until_done(lambda: self._cleared(life), self._clock.sleep)
        del self._lives[life.id]
        self._notify()
        log.info("sandbox removed")

    async def _cleared(self, life: Life) -> list[str]:
        failures = await undo(self._steps, life.record)
        if failures:
            return failures
        try:
            await self._world.store.remove(life.id)
        except Exception as error:  # whatever it is, a teardown that dies leaves a sandbox nobody ends
            return [f"store: {type(error).__name__}: {error}"]
        return []

    # what a restart left behind; `caa.sandbox.boot` decides

    def clear_interrupted(self, sandbox: SandboxId) -> None:
        """Undo a start that an earlier process had begun; a StartVM that comes (again) waits for it."""
        life = self._lives[sandbox]
        self._work(life, starting.clear_interrupted(life, self._world, steps=self._steps, sleep=self._clock.sleep))

    async def reopen_link(self, sandbox: SandboxId) -> None:
        """Ask the relay for the agent link of a running sandbox; raises what `AgentLinks.open` raises."""
        life = self._lives.get(sandbox)
        if life is not None and life.record.phase is Phase.RUNNING:
            now = asyncio.get_running_loop().time()
            await Link(self._world.links).up(life.record, now + self.limits.start)

    async def repair_network(self, sandbox: SandboxId) -> None:
        """Build what is missing of a running sandbox's tunnel; raises what `PodNetworking.connect` raises."""
        life = self._lives.get(sandbox)
        if life is not None and life.record.phase is Phase.RUNNING and life.record.tunnel is not None:
            await Connect(self._world.network).up(life.record, None)

    async def adopt(self, record: Sandbox) -> bool:
        """Take over a running sandbox of which the store knows nothing; False for one that is known. `StateError`."""
        if record.id in self._lives:
            return False
        record = replace(record, owner=self._world.owner, provider=self._world.provider)
        life = self._lives[record.id] = Life(record, changed=self._notify)
        async with life.lock:
            try:
                if record.tunnel is not None:
                    await self._world.store.use_tunnel_index(record.tunnel.index)
                await self._world.store.add(record)
            except BaseException:
                del self._lives[record.id]
                raise
        self._notify()
        return True

    async def forget_instance(self, sandbox: SandboxId) -> None:
        """Stop a sandbox whose pod VM is out of reach for good; the VM itself is left alone. `StateError`."""
        life = self._lives[sandbox]
        life.record = replace(life.record, instance=None)
        await self.stop(sandbox)

    def calls(self, sandbox: SandboxId) -> int:
        """How many CreateVMs and StartVMs have named the sandbox in this process."""
        life = self._lives.get(sandbox)
        return life.calls if life is not None else 0

    async def give_up(self, sandbox: SandboxId, phase: Phase, *, calls: int, why: str) -> bool:
        """Stop a sandbox of our own accord, if it is still in `phase` and no call has named it since `calls`. The
        record keeps `why`, and the relay says it when it ends the link."""
        life = self._lives.get(sandbox)
        if life is None or sandbox in self._creating or not life.idle(phase, calls):
            return False
        life.record = replace(life.record, error=why)
        await self.stop(sandbox)
        return True

    # PodVMInfo

    async def wait_instance(self, pod: str, namespace: str, *, wait: bool, deadline: float | None) -> InstanceId:
        """The instance of a pod, never an empty id. Without `wait` a pod that has none is `NotFound`; with it, it is
        waited for until the deadline, which raises `DeadlineExceeded`."""
        try:
            async with asyncio.timeout_at(deadline):
                while (found := instance_of_pod(pod, namespace, records=self.records())) is None:
                    if not wait:
                        raise NotFound(f"pod {namespace}/{pod} has no pod VM on this node")
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise DeadlineExceeded(f"pod {namespace}/{pod} got no pod VM before the deadline") from None

    # tasks

    async def settled(self) -> None:
        """Wait until no task of the service runs: for tests, and for a drain."""
        await self._tasks.settled()

    async def drain(self, grace: float) -> None:
        """Begin no start any more and let everything under way finish, for `grace` seconds at most.

        A StartVM that comes now is left without an answer: the relay sends it to the next process.
        """
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._tasks.settled()

    async def undo_starts(self, grace: float) -> None:
        """After `closing`: undo the starts that run, so that the next process finds them as after CreateVM.

        What cannot be undone in `grace` seconds keeps its record, and the next process goes on with it.
        """
        works = [life for life in self._lives.values() if life.work is not None and not life.work.done()]
        undoing = [self._tasks.spawn(self._interrupt(life)) for life in works]
        if undoing:
            await asyncio.wait(undoing, timeout=grace)

    async def _interrupt(self, life: Life) -> None:
        assert life.work is not None
        life.work.cancel()
        await asyncio.wait({life.work})
        if life.record.phase is Phase.STARTING:
            await starting.clear_interrupted(life, self._world, steps=self._steps, sleep=self._clock.sleep)

    def closing(self) -> None:
        """From now on a caller that goes does not mean that its sandbox is given up: it is we who hang up."""
        self._closing = True

    async def close(self) -> None:
        """End the service's tasks. Records stay as they are: the next process carries on or cleans up."""
        self.closing()
        await self._tasks.end()

    async def _detached(self, work: Coroutine[Any, Any, None], sandbox: SandboxId) -> None:
        """Run `work` to its end even when the caller goes; then, if nobody else wants the sandbox, stop it."""
        task = self._tasks.spawn(work)
        self._creating.setdefault(sandbox, set()).add(task)
        task.add_done_callback(lambda _: self._created(sandbox, task))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: self._abandoned(sandbox))
            raise
        if task.cancelled():
            raise Cancelled(f"a StopVM overtook the CreateVM of sandbox {sandbox}")
        await task

    def _created(self, sandbox: SandboxId, task: "asyncio.Task[Any]") -> None:
        self._creating[sandbox].discard(task)
        if not self._creating[sandbox]:
            del self._creating[sandbox]

    def _abandoned(self, sandbox: SandboxId) -> None:
        life = self._lives.get(sandbox)
        wanted = sandbox in self._creating or (life is not None and life.claimed)
        if not self._closing and not wanted:
            self._tasks.spawn(self.stop(sandbox))

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
