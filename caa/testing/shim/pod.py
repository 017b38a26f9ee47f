"""A running pod as the shim drives it: its containers, its health, its end."""

import asyncio
import contextlib
import secrets
import signal
import uuid
from collections.abc import Coroutine, Sequence

from caa.errors import CaaError
from caa.testing.shim import requests
from caa.testing.shim.hypervisor_link import HypervisorLink
from caa.testing.shim.kinds import ContainerOptions, ExecResult, Habits, Kind, PodOptions
from caa.testing.shim.link import AgentLink, Stopwatch, Timing
from caa.testing.shim.process import Process
from caa.wire.client import Client
from caa.wire.proto import agent, health

# A container that does not end by its signal is killed; the kubelet's default grace period is 30 s, tests wait less.
GRACE = 10.0


class Pod:
    """Made by `Shim.start`. `failed` is set when the pod ended by itself: `failure` then says why. `ended` is set at
    every end, after StopVM was answered.

    A pod fails as with the real shims: on the first Check that fails and when the agent connection is lost. Then StopVM
    is sent and every container shows exit code 255.
    """

    def __init__(self, kind: Kind, options: PodOptions, *, hypervisor: HypervisorLink, watch: Stopwatch) -> None:
        self.kind = kind
        self.options = options
        self.sandbox_id = options.sandbox_id or secrets.token_hex(32)
        self.failed = asyncio.Event()
        self.ended = asyncio.Event()
        self.failure = ""
        self.oom_killed: list[str] = []
        self.stop_errors: list[CaaError] = []
        self._hypervisor = hypervisor
        self._watch = watch
        self._containers: dict[str, Process] = {}
        self._burials: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._pause_end: asyncio.Task[int] | None = None
        self._ending = False
        self.ready = False
        self._opened: list[AgentLink] = []
        self._idle: Client | None = None

    @property
    def timings(self) -> list[Timing]:
        """Every call with an end, in the order in which they ended, for a waterfall."""
        return self._watch.timings

    @property
    def link(self) -> AgentLink:
        """The agent connection, for calls that have no method here."""
        return self._opened[0]

    async def begin(self, link: AgentLink, idle: Client | None) -> None:
        """Everything between the dial of the agent socket and a Ready sandbox, in the recorded order."""
        self._opened.append(link)
        self._idle = idle
        habits = link.habits
        if habits.checks_first:
            await link.check(health.CheckRequest())
        if self.options.policy:
            policy = agent.SetPolicyRequest(policy=self.options.policy)
            await link.call("SetPolicy", policy, timeout=habits.sandbox_timeout)
        request = requests.create_sandbox(self.options, self.sandbox_id)
        await link.call("CreateSandbox", request, timeout=habits.sandbox_timeout)
        details = agent.GuestDetailsRequest(mem_block_size=True, mem_hotplug_probe=True)
        await link.call("GetGuestDetails", details)
        if habits.listens_early:
            await self._watch_with(self._listen_oom())
        await self._begin_pause(habits)
        if not habits.listens_early:
            await self._watch_with(self._listen_oom())
        self._pause_end = asyncio.create_task(self._pause().reap(), name="exit of the pause container")
        await self._watch_with(self._monitor())
        await self._watch_with(self._mourn())
        self.ready = True

    async def container(
        self, name: str, args: Sequence[str], *, image: str = "", env: Sequence[str] = (), tty: bool = False
    ) -> Process:
        """Run one more container; its output is collected, `wait()` gives its exit code."""
        given = ContainerOptions(name=name, args=tuple(args), tty=tty)
        options = ContainerOptions(
            name=name, args=given.args, image=image or given.image, env=tuple(env) or given.env, tty=tty
        )
        return await self.run(options)

    async def run(self, options: ContainerOptions) -> Process:
        """The same with everything that can be said about a container."""
        habits = self.link.habits
        name = secrets.token_hex(32)
        files = await self._etc_files(name)
        given = ContainerOptions(
            **{field: getattr(options, field) for field in options.__slots__ if field != "mounts"},
            mounts={**files, **options.mounts},
        )
        request = requests.container(given, name, pod=self.options, sandbox=self.sandbox_id, habits=habits)
        await self.link.call("CreateContainer", request, label=options.name)
        await self.link.call("StartContainer", agent.StartContainerRequest(container_id=name), label=options.name)
        process = self._process(name, options)
        process.follow()
        self._containers[name] = process
        self._burials[name] = asyncio.create_task(self._clean_up(process))
        return process

    async def exec(
        self, container: Process, args: Sequence[str], *, stdin: bytes | None = None, tty: bool = False
    ) -> ExecResult:
        """Run a process to its end. `stdin` is written and closed; None leaves it open and untouched."""
        process = await self.begin_exec(container, args, tty=tty)
        if stdin is not None:
            await process.write(stdin)
            await process.close_stdin()
        return await process.result()

    async def begin_exec(self, container: Process, args: Sequence[str], *, tty: bool = False) -> Process:
        """Start a process and return with it running, for tests that talk to it."""
        exec_id = str(uuid.uuid4()) if self.kind is Kind.GO else secrets.token_hex(32)
        env = (*container.options.env, "TERM=xterm") if tty else container.options.env
        options = ContainerOptions(name="exec", args=tuple(args), env=env, tty=tty)
        request = requests.execute(container.container, exec_id=exec_id, options=options)
        await self.link.call("ExecProcess", request, label=args[0])
        process = Process(self.link, container.container, exec_id=exec_id, options=options)
        process.follow()
        return process

    async def copy_file(self, path: str, data: bytes) -> str:
        """Copy a file into the guest; a plain name goes where the shims put files. Returns the path in the guest."""
        target = path if path.startswith("/") else f"{requests.SHARED}/{self.sandbox_id}-{path}"
        for request in requests.copy_file(target, data, habits=self.link.habits):
            await self.link.call("CopyFile", request)
        return target

    async def stats(self, container: Process) -> agent.StatsContainerResponse:
        """The container's figures."""
        request = agent.StatsContainerRequest(container_id=container.container)
        answer = await self.link.call("StatsContainer", request)
        assert isinstance(answer, agent.StatsContainerResponse)
        return answer

    async def stop_container(self, container: Process) -> int:
        """End one container: SIGTERM, SIGKILL after the grace period, then everything of it removed."""
        if container.exit_code is None:
            await container.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE):
                code = await container.wait()
        except TimeoutError:
            await container.signal(signal.SIGKILL)
            code = await container.wait()
        await self._burials[container.container]
        return code

    async def stop(self) -> None:
        """End the pod in the recorded order: containers, pause, DestroySandbox, StopVM. Twice is once."""
        if self._ending:
            return
        self._ending = True
        try:
            for container in list(self._containers.values()):
                await self.stop_container(container)
            await self._end_pause()
            if self.link.habits.destroys_sandbox:
                await self.link.call("DestroySandbox", agent.DestroySandboxRequest())
        finally:
            await self._finish(self.link.habits.stops)

    async def abandon(self) -> None:
        """After a failed start: one StopVM, every connection closed."""
        self._ending = True
        await self._finish(1)

    async def kill(self) -> None:
        """What SIGKILL to the shim does: every connection closes, nobody is told anything."""
        self._ending = True
        await self._finish(0)

    # the parts of a start

    async def _begin_pause(self, habits: Habits) -> None:
        name = self.sandbox_id
        path = f"{requests.SHARED}/{name}-{secrets.token_hex(8)}-resolv.conf"
        for chunk in requests.copy_file(path, self.options.resolv_conf.encode(), habits=habits):
            await self.link.call("CopyFile", chunk)
        request = requests.pause(self.options, name, habits=habits, files={"/etc/resolv.conf": path})
        await self.link.call("CreateContainer", request, label="pause")
        await self.link.call("StartContainer", agent.StartContainerRequest(container_id=name), label="pause")

    async def _watch_with(self, watch: Coroutine[None, None, None]) -> None:
        """Begin to watch and let it send its call, so that calls leave in the recorded order."""
        self._tasks.append(asyncio.create_task(watch))
        await asyncio.sleep(0)

    async def _etc_files(self, name: str) -> dict[str, str]:
        texts = {
            "hostname": f"{self.options.name}\n",
            "hosts": f"127.0.0.1 localhost\n127.0.0.1 {self.options.name}\n",
            "resolv.conf": self.options.resolv_conf,
        }
        files = {}
        for file, text in texts.items():
            path = f"{requests.SHARED}/{name}-{secrets.token_hex(8)}-{file}"
            files[f"/etc/{file}"] = await self.copy_file(path, text.encode())
        return files

    def _process(self, name: str, options: ContainerOptions) -> Process:
        exec_id = name if self.link.habits.names_first_process else ""
        return Process(self.link, name, exec_id=exec_id, options=options)

    def _pause(self) -> Process:
        return self._process(self.sandbox_id, ContainerOptions(name="pause", args=()))

    # the parts of a life

    async def _listen_oom(self) -> None:
        with contextlib.suppress(CaaError):
            while True:
                event = await self.link.poll("GetOOMEvent", agent.GetOOMEventRequest())
                assert isinstance(event, agent.OOMEvent)
                self.oom_killed.append(event.container_id)

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(self.link.habits.check_every)
            try:
                await self.link.check(health.CheckRequest())
            except CaaError as error:
                await self._fail(f"Check: {error}")
                return

    async def _mourn(self) -> None:
        """The end of the pause container, and a lost connection ends its WaitProcess, is the end of the pod."""
        assert self._pause_end is not None
        try:
            code = await asyncio.shield(self._pause_end)
        except CaaError as error:
            await self._fail(f"the agent connection was lost: {error}")
        else:
            await self._fail(f"the pause container ended with {code}")

    async def _fail(self, reason: str) -> None:
        if self._ending:
            return
        self._ending = True
        self.failure = reason
        self.failed.set()
        await self._finish(self.link.habits.stops)

    # the parts of an end

    async def _clean_up(self, container: Process) -> None:
        """When a container has ended, for whatever reason, the shim removes it from the guest at once."""
        await container.wait()
        with contextlib.suppress(CaaError):
            await self._bury(container)
        self._containers.pop(container.container, None)

    async def _bury(self, process: Process) -> None:
        habits = self.link.habits
        kill = agent.SignalProcessRequest(container_id=process.container, signal=signal.SIGKILL)
        await self.link.call("SignalProcess", kill)
        if habits.waits_twice:
            with contextlib.suppress(CaaError):
                await process.reap()
        request = agent.RemoveContainerRequest(container_id=process.container, timeout=habits.remove_timeout)
        await self.link.call("RemoveContainer", request, label=process.options.name)
        if habits.forgets_mounts:
            await self.link.call("RemoveStaleVirtiofsShareMounts", agent.RemoveStaleVirtiofsShareMountsRequest())

    async def _end_pause(self) -> None:
        pause = self._pause()
        kill = agent.SignalProcessRequest(container_id=self.sandbox_id, signal=signal.SIGKILL)
        await self.link.call("SignalProcess", kill)
        if self._pause_end is not None:
            await self._pause_end
        await self._bury(pause)

    async def _finish(self, stops: int) -> None:
        current = asyncio.current_task()
        self.stop_errors = await self._hypervisor.stop(self.sandbox_id, stops)
        for link in self._opened:
            await link.close()
        if self._idle is not None:
            await self._idle.close()
        await self._hypervisor.close()
        tasks = [*self._tasks, *self._burials.values(), *([self._pause_end] if self._pause_end else [])]
        waiting = [task for task in tasks if task is not current]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self.ended.set()
