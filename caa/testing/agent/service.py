"""Which method is served by what: the two services as tables, and what every call passes through first."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from google.protobuf.message import Message

from caa.testing.agent import files, guest, stats
from caa.testing.agent.answers import error
from caa.testing.agent.policy import Policy
from caa.testing.agent.sandbox import Sandbox
from caa.testing.agent.streams import Reader, Streams
from caa.wire.proto import agent, google_empty, health
from caa.wire.server import Call, Handler

Answer = Callable[[Any], Awaitable[Message]]

# Not served, answered UNIMPLEMENTED: they would change the machine below, or nobody sends them to a pod VM.
NOT_SERVED = """
    UpdateInterface UpdateRoutes AddARPNeighbors GetIPTables SetIPTables MemHotplugByProbe SetGuestDateTime AddSwap
    AddSwapPath ResizeVolume UpdateEphemeralMounts MemAgentMemcgSet MemAgentCompactSet GetDiagnosticData
"""
# Served without the sandbox's lock: they still answer when a second StartContainer holds it for ever.
UNLOCKED = frozenset({"CopyFile", "GetGuestDetails", "SetPolicy", "GetMetrics"})
# The server answers a passed deadline in its own words; the agent's word has to be earlier, on a busy machine too.
BEFORE_DEADLINE = 0.05


class Service:
    """The agent's methods. One method a call; what they share is in `Sandbox`."""

    def __init__(self, sandbox: Sandbox, policy: Policy) -> None:
        self._sandbox = sandbox
        self._policy = policy
        self._stuck = asyncio.Event()
        self._background: set[asyncio.Task[Message]] = set()

    def services(self) -> Mapping[str, Mapping[str, Handler]]:
        """The tables for `caa.wire.server.Server`."""
        checks: dict[str, Answer] = {"Check": self._check, "Version": self._version}
        return {
            "grpc.Health": {name: self._guarded(answer) for name, answer in checks.items()},
            "grpc.AgentService": {name: self._guarded(answer) for name, answer in self._methods().items()},
        }

    def _methods(self) -> dict[str, Answer]:
        return {**self._lifecycle(), **self._streams(), **self._guest()}

    def _lifecycle(self) -> dict[str, Answer]:
        return {
            "CreateSandbox": self._create_sandbox,
            "DestroySandbox": self._destroy_sandbox,
            "CreateContainer": self._undisturbed(self._sandbox.create_container),
            "StartContainer": self._undisturbed(self._start_container),
            "ExecProcess": self._undisturbed(self._sandbox.execute),
            "RemoveContainer": self._undisturbed(lambda request: self._sandbox.remove(request.container_id)),
            "UpdateContainer": self._undisturbed(self._sandbox.update),
            "PauseContainer": self._undisturbed(self._pause),
            "ResumeContainer": self._undisturbed(self._resume),
            "SignalProcess": self._signal_process,
            "WaitProcess": self._wait_process,
            "StatsContainer": self._stats_container,
            "GetOOMEvent": self._oom_event,
        }

    def _streams(self) -> dict[str, Answer]:
        return {
            "WriteStdin": self._write_stdin,
            "CloseStdin": self._close_stdin,
            "ReadStdout": self._read_stdout,
            "ReadStderr": self._read_stderr,
            "TtyWinResize": self._resize,
        }

    def _guest(self) -> dict[str, Answer]:
        return {
            "GetGuestDetails": _later(guest.details),
            "GetMetrics": _later(lambda _: guest.metrics()),
            "GetVolumeStats": _later(guest.volume),
            "ListInterfaces": lambda _: guest.interfaces(),
            "ListRoutes": lambda _: guest.routes(),
            "CopyFile": self._copy_file,
            "SetPolicy": self._set_policy,
            "ReseedRandomDev": _nothing,
            "OnlineCPUMem": _nothing,
            "RemoveStaleVirtiofsShareMounts": _nothing,
        }

    # what every call passes

    def _guarded(self, answer: Answer) -> Handler:
        async def handle(request: Message, call: Call) -> Message:
            self._policy.check(request.DESCRIPTOR.name)
            remaining = call.remaining()
            bound = max(remaining * 0.9, remaining - BEFORE_DEADLINE) if remaining is not None else None
            try:
                async with asyncio.timeout(bound):
                    await self._lock(call)
                    return await answer(request)
            except TimeoutError:
                raise error(4, "timeout") from None

        return handle

    async def _lock(self, call: Call) -> None:
        locked = call.service == "grpc.AgentService" and call.method not in UNLOCKED
        if self._stuck.is_set() and locked:
            await asyncio.Event().wait()

    def _undisturbed(self, act: Callable[[Any], Coroutine[Any, Any, None]]) -> Answer:
        """Acts go on to their end when the caller leaves: half a container helps nobody."""

        async def run(request: Message) -> Message:
            await act(request)
            return google_empty.Empty()

        async def answer(request: Message) -> Message:
            task = asyncio.create_task(run(request))
            self._background.add(task)
            task.add_done_callback(self._forget)
            return await asyncio.shield(task)

        return answer

    def _forget(self, task: asyncio.Task[Message]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # read it: the caller may have left

    # life

    async def _check(self, _: health.CheckRequest) -> health.HealthCheckResponse:
        return health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING)

    async def _version(self, _: health.CheckRequest) -> health.VersionCheckResponse:
        return health.VersionCheckResponse(grpc_version=guest.API_VERSION, agent_version=guest.VERSION)

    async def _create_sandbox(self, request: agent.CreateSandboxRequest) -> google_empty.Empty:
        self._sandbox.create(request)
        return google_empty.Empty()

    async def _destroy_sandbox(self, _: agent.DestroySandboxRequest) -> google_empty.Empty:
        await self._sandbox.destroy()
        # The answer first, then the end of GetOOMEvent, then the agent's own: the recorded order.
        asyncio.get_running_loop().call_later(0.005, self._sandbox.oom.end)
        return google_empty.Empty()

    async def _start_container(self, request: agent.StartContainerRequest) -> None:
        container = self._sandbox.container(request.container_id)
        if container.started:
            self._stuck.set()
            await asyncio.Event().wait()
        container.started = True
        await container.runc.start(container.name)

    async def _pause(self, request: agent.PauseContainerRequest) -> None:
        container = self._sandbox.container(request.container_id)
        await container.runc.pause(container.name)
        container.paused = True

    async def _resume(self, request: agent.ResumeContainerRequest) -> None:
        container = self._sandbox.container(request.container_id)
        await container.runc.resume(container.name)
        container.paused = False

    async def _signal_process(self, request: agent.SignalProcessRequest) -> google_empty.Empty:
        container = self._sandbox.container(request.container_id)
        container.signal(request.exec_id, request.signal, hierarchies=self._sandbox.hierarchies)
        return google_empty.Empty()

    async def _wait_process(self, request: agent.WaitProcessRequest) -> agent.WaitProcessResponse:
        container = self._sandbox.container_of_process(request.container_id)
        return agent.WaitProcessResponse(status=await container.wait(request.exec_id))

    async def _stats_container(self, request: agent.StatsContainerRequest) -> agent.StatsContainerResponse:
        container = self._sandbox.container(request.container_id)
        return stats.container(self._sandbox.hierarchies, container.cgroup)

    async def _oom_event(self, _: agent.GetOOMEventRequest) -> agent.OOMEvent:
        return agent.OOMEvent(container_id=await self._sandbox.oom.next())

    # streams

    def _of(self, request: Any) -> Streams:
        container = self._sandbox.container_of_process(request.container_id)
        return container.process(request.exec_id).streams

    async def _write_stdin(self, request: agent.WriteStreamRequest) -> agent.WriteStreamResponse:
        streams = self._of(request)
        if not request.data:
            # runtime-rs has no CloseStdin: it writes nothing, and the process sees the end of its input.
            streams.close_stdin()
            return agent.WriteStreamResponse()
        return agent.WriteStreamResponse(len=await streams.stdin.write(request.data))

    async def _close_stdin(self, request: agent.CloseStdinRequest) -> google_empty.Empty:
        self._of(request).close_stdin()
        return google_empty.Empty()

    async def _read_stdout(self, request: agent.ReadStreamRequest) -> agent.ReadStreamResponse:
        return await _read(self._of(request).stdout, request)

    async def _read_stderr(self, request: agent.ReadStreamRequest) -> agent.ReadStreamResponse:
        return await _read(self._of(request).stderr, request)

    async def _resize(self, request: agent.TtyWinResizeRequest) -> google_empty.Empty:
        self._of(request).resize(request.row, request.column)
        return google_empty.Empty()

    # guest

    async def _copy_file(self, request: agent.CopyFileRequest) -> google_empty.Empty:
        files.copy(request, self._sandbox.base)
        return google_empty.Empty()

    async def _set_policy(self, request: agent.SetPolicyRequest) -> google_empty.Empty:
        self._policy.replace(request.policy)
        return google_empty.Empty()


async def _read(reader: Reader | None, request: agent.ReadStreamRequest) -> agent.ReadStreamResponse:
    if reader is None:
        raise error(13, "no stderr")
    return agent.ReadStreamResponse(data=await reader.read(request.len))


def _later(answer: Callable[[Any], Message]) -> Answer:
    async def run(request: Message) -> Message:
        return answer(request)

    return run


async def _nothing(_: Message) -> Message:
    return google_empty.Empty()
