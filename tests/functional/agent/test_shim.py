"""The stand-in shims over a real agent: the recorded order of calls, their deadlines, and the ends of a pod."""

import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caa.errors import Code
from caa.testing import traces
from caa.testing.shim import Kind, PodOptions, Shim, hypervisor_link, link
from caa.testing.traces import Frame
from caa.wire.proto import hypervisor, ttrpc
from caa.wire.server import Call, Server
from caa.wire.status import RpcError

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "/bin/busybox")]

TRACES = Path(__file__).resolve().parents[3] / "tests/data/traces"
POD = PodOptions(name="web", netns="/run/netns/web")
SHOUT = ["/bin/sh", "-c", "echo hello; echo oops >&2; sleep 1000"]


class Tap:
    """A proxy before the agent that writes down each request's envelope, and can lose the agent."""

    def __init__(self, target: str) -> None:
        self.requests: list[ttrpc.Request] = []
        self.connections = 0
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            self._writers.append(writer)
            return  # the agent's socket is gone: an idle connection nobody answers
        self._writers += [writer, back]
        for pump in (self._requests(reader, back), self._answers(there, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)

    def drop(self) -> None:
        for writer in self._writers:
            writer.close()

    async def close(self) -> None:
        self.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                header = await reader.readexactly(10)
                body = await reader.readexactly(struct.unpack(">I", header[:4])[0])
                self.requests.append(ttrpc.Request.FromString(body))
                writer.write(header + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@dataclass
class Worker:
    """A hypervisor service whose pod VM is the stand-in agent behind a tap."""

    path: str
    agent: str
    tap: Tap
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    fail: str = ""
    hold: str = ""
    held: asyncio.Event = field(default_factory=asyncio.Event)

    def methods(self) -> list[str]:
        return [call.method for call in self.calls]

    async def create(self, request: Any, call: Call) -> hypervisor.CreateVMResponse:
        await self._note(call)
        assert request.networkNamespacePath == POD.netns
        return hypervisor.CreateVMResponse(agentSocketPath=str(Path(self.path).with_name("tap.sock")))

    async def start(self, _: Any, call: Call) -> hypervisor.StartVMResponse:
        await self._note(call)
        return hypervisor.StartVMResponse()

    async def stop(self, _: Any, call: Call) -> hypervisor.StopVMResponse:
        await self._note(call)
        return hypervisor.StopVMResponse()

    async def _note(self, call: Call) -> None:
        self.calls.append(call)
        if call.method == self.hold:
            self.held.set()
            await asyncio.Event().wait()
        if call.method == self.fail:
            raise RpcError(Code.UNKNOWN, "lab cloud error")


@pytest.fixture
async def worker(
    start_agent: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    running = start_agent()
    tap = Tap(running.socket)
    front = await asyncio.start_unix_server(tap.serve, str(tmp_path / "tap.sock"))
    found = Worker(str(tmp_path / "hypervisor.sock"), running.socket, tap)
    service = {"CreateVM": found.create, "StartVM": found.start, "StopVM": found.stop}
    server = Server({"hypervisor.Hypervisor": service})
    await server.listen(found.path)

    async def counted(path: str) -> Any:
        found.connections += 1
        return await link.connect(path)

    monkeypatch.setattr(hypervisor_link, "connect", counted)
    yield found
    await server.close()
    front.close()
    await tap.close()


async def live(worker: Worker, kind: Kind) -> Any:
    pod = await Shim(worker.path, kind).start(POD)
    container = await pod.container("c1", SHOUT)
    assert await container.output(b"hello\n") == b"hello\n"
    result = await pod.exec(container, ["/bin/sh", "-c", "echo E1; echo E2 >&2; exit 7"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"E1\n", b"E2\n", 7)
    assert (await pod.stats(container)).cgroup_stats.memory_stats.usage.usage > 0
    return pod


def recorded_life(name: str) -> list[Frame]:
    """The recorded requests of a life as `live` leads it: one exec, no update, and no reads or checks, which race."""
    frames = [frame for frame in traces.frames(traces.read(TRACES / f"{name}.jsonl"), "agent") if frame.to_agent]
    dropped = {"ReadStdout", "ReadStderr", "UpdateContainer"}
    kept = [frame for frame in frames if frame.method not in dropped and (frame.method != "Check" or frame.t_ms < 500)]
    second = [frame for frame in kept if frame.method == "ExecProcess"][1]
    again = kept.index(second)
    # The second exec with all that belongs to it (its wait, and runtime-rs' late signal).
    length = 3 if kept[again + 2].method == "SignalProcess" else 2
    return kept[:again] + kept[again + length :]


@pytest.mark.parametrize(("kind", "name"), [(Kind.GO, "normal"), (Kind.RS, "normal-rs")])
async def test_calls_come_in_the_recorded_order(worker: Worker, kind: Kind, name: str) -> None:
    pod = await live(worker, kind)
    await pod.stop()
    dropped = {"ReadStdout", "ReadStderr"}
    ours = [request for request in worker.tap.requests if request.method not in dropped]
    recorded = recorded_life(name)
    assert [one.method for one in ours] == [frame.method for frame in recorded]
    limits = {frame.method: (-(-frame.timeout_nano // 10**9), frame.metadata) for frame in recorded}
    for one in ours:
        metadata = tuple((pair.key, pair.value) for pair in one.metadata)
        assert (-(-one.timeout_nano // 10**9), metadata) == limits[one.method], one.method


async def test_go_dials_for_each_hypervisor_call(worker: Worker) -> None:
    pod = await Shim(worker.path, Kind.GO).start(POD)
    await pod.stop()
    assert worker.methods() == ["CreateVM", "StartVM", "StopVM"]
    assert worker.connections == 3
    assert worker.tap.connections == 1
    assert [bool(call.metadata) for call in worker.calls] == [True, False, True]
    assert [call.deadline is not None for call in worker.calls] == [False, True, False]


async def test_runtime_rs_keeps_one_connection_and_stops_three_times(worker: Worker) -> None:
    pod = await Shim(worker.path, Kind.RS).start(POD)
    await pod.stop()
    assert worker.methods() == ["CreateVM", "StartVM", "StopVM", "StopVM", "StopVM"]
    assert worker.connections == 1
    assert worker.tap.connections == 2
    assert not any(call.metadata for call in worker.calls)
    assert [call.deadline is not None for call in worker.calls] == [False, True, True, True, True]


@pytest.mark.parametrize(("kind", "stops"), [(Kind.GO, 0), (Kind.RS, 1)])
async def test_a_failed_create(worker: Worker, kind: Kind, stops: int) -> None:
    worker.fail = "CreateVM"
    with pytest.raises(RpcError, match="lab cloud error"):
        await Shim(worker.path, kind).start(POD)
    assert worker.methods() == ["CreateVM"] + ["StopVM"] * stops


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_failed_start_sends_one_stop(worker: Worker, kind: Kind) -> None:
    worker.fail = "StartVM"
    with pytest.raises(RpcError, match="lab cloud error"):
        await Shim(worker.path, kind).start(POD)
    assert worker.methods() == ["CreateVM", "StartVM", "StopVM"]


@pytest.mark.parametrize(("kind", "stops"), [(Kind.GO, 0), (Kind.RS, 1)])
async def test_a_cancelled_start(worker: Worker, kind: Kind, stops: int) -> None:
    worker.hold = "StartVM"
    start = asyncio.create_task(Shim(worker.path, kind).start(POD))
    await worker.held.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert worker.methods() == ["CreateVM", "StartVM"] + ["StopVM"] * stops


@pytest.mark.parametrize(("kind", "stops"), [(Kind.GO, 1), (Kind.RS, 3)])
async def test_a_lost_agent_connection_ends_the_pod(worker: Worker, kind: Kind, stops: int) -> None:
    pod = await Shim(worker.path, kind).start(POD)
    container = await pod.container("c1", SHOUT)
    worker.tap.drop()
    async with asyncio.timeout(10):
        await pod.failed.wait()
        assert await container.wait() == 255
    assert "lost" in pod.failure
    await pod.stop()
    await pod.ended.wait()
    assert worker.methods().count("StopVM") == stops


async def test_a_killed_shim_tells_nobody(worker: Worker) -> None:
    pod = await Shim(worker.path, Kind.GO).start(POD)
    await pod.kill()
    assert worker.methods() == ["CreateVM", "StartVM"]


@pytest.mark.parametrize("kind", list(Kind))
async def test_stdin_terminal_files_and_exit(worker: Worker, kind: Kind) -> None:
    pod = await Shim(worker.path, kind).start(POD)
    container = await pod.container("c1", SHOUT)
    blob = b"x" * 200_000
    assert (await pod.exec(container, ["/bin/wc", "-c"], stdin=blob)).stdout == b"200000\n"
    shell = await pod.begin_exec(container, ["/bin/sh", "-c", "read x; stty size; exit 5"], tty=True)
    await shell.resize(33, 77)
    await shell.write(b"go\n")
    result = await shell.result()
    assert b"33 77" in result.stdout
    assert result.exit_code == 5
    path = await pod.copy_file("greeting", b"good day")
    assert path.startswith("/run/kata-containers/")
    short = await pod.container("c2", ["/bin/sh", "-c", "exit 3"])
    assert await short.wait() == 3
    assert await pod.stop_container(container) == 137
    await pod.stop()
    names = [timing.name for timing in pod.timings]
    assert names[:2] == ["CreateVM", "StartVM"]
    assert names[-1] == "StopVM"
    assert all(timing.took_ms >= 0 and timing.began_ms >= 0 for timing in pod.timings)


@pytest.mark.parametrize("stdin", ["pipe", "null"])
async def test_a_command_in_a_kept_pod(worker: Worker, stdin: str) -> None:
    pod = await Shim(worker.path, Kind.GO).start(POD)
    container = await pod.container("c1", SHOUT)
    command = ["-m", "caa.testing.shim", "exec", worker.agent, container.container, "--"]
    source = asyncio.subprocess.PIPE if stdin == "pipe" else asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, "/bin/sh", "-c", "cat; echo oops >&2; exit 5"),
        stdin=source,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await child.communicate(b"given\n" if stdin == "pipe" else None)
    assert (stdout, stderr) == (b"given\n" if stdin == "pipe" else b"", b"oops\n")
    assert child.returncode == 5
    await pod.stop()
