"""The recorded hypervisor conversations of both shims against our service, request for request, faults included.

Once on the node's own socket, once through a real relay, as a shim meets it.
"""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from caa.errors import CapacityError, Code, NetworkError
from caa.model.instance import InstanceType
from caa.relay import launch
from caa.testing import traces
from caa.testing.traces import Event, Frame
from caa.wire.frames import HEADER, FrameType
from caa.wire.proto import hypervisor
from caa.wire.proto.ttrpc import KeyValue, Request, Response

TRACES = Path(__file__).parents[2] / "data" / "traces"
# Made by hand, without a network namespace, which no shim does and we refuse.
HAND_MADE = {"same-id-twice"}
NAMES = sorted(
    path.stem
    for path in TRACES.glob("*.jsonl")
    if path.stem not in HAND_MADE
    and any(isinstance(entry, Frame) and entry.side == "hypervisor" for entry in traces.read(path))
)


def _frame(frame: Frame) -> bytes:
    body = Request(
        service=frame.service,
        method=frame.method,
        payload=frame.payload,
        timeout_nano=frame.timeout_nano,
        metadata=[KeyValue(key=key, value=value) for key, value in frame.metadata],
    ).SerializeToString()
    return HEADER.pack(len(body), frame.stream, FrameType.REQUEST, 0) + body


@dataclass
class Player:
    """Plays the shim: opens, sends, reads and closes as recorded."""

    entrance: Path
    streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=dict)
    early: dict[tuple[int, int], Response] = field(default_factory=dict)
    sent: set[tuple[int, str]] = field(default_factory=set)

    async def play(self, recording: list[Frame | Event]) -> None:
        for entry in recording:
            if entry.side != "hypervisor":
                continue
            if isinstance(entry, Event):
                await self._event(entry)
            elif entry.to_agent:
                self.streams[entry.connection][1].write(_frame(entry))
                self.sent.add((entry.connection, entry.method))
            elif entry.connection in self.streams:  # otherwise the shim had gone, and nobody read this answer
                await self._compare(entry)
        for connection in tuple(self.streams):
            await self._close(connection)

    async def _event(self, event: Event) -> None:
        if event.name == "open":
            self.streams[event.connection] = await asyncio.open_unix_connection(str(self.entrance))
        elif event.name == "close" and event.connection in self.streams:
            await self._close(event.connection)

    async def _close(self, connection: int) -> None:
        _, writer = self.streams.pop(connection)
        writer.close()
        await writer.wait_closed()

    async def _compare(self, recorded: Frame) -> None:
        ours = await self._answer(recorded.connection, recorded.stream)
        if recorded.method == "StopVM":  # ours is success once the stop is durable; both shims ignore the answer
            assert ours.status.code == 0
            return
        if (recorded.connection, "StopVM") in self.sent:  # the recorder answered a start that a stop had overtaken
            assert ours.status.code in (Code.OK, Code.CANCELLED)
            return
        assert (ours.status.code == 0) == (recorded.code == 0), (recorded.method, ours.status)
        if recorded.method == "CreateVM" and not recorded.code:
            path = hypervisor.CreateVMResponse.FromString(ours.payload).agentSocketPath
            theirs = hypervisor.CreateVMResponse.FromString(recorded.payload).agentSocketPath
            assert path.split("/")[-2:] == theirs.split("/")[-2:]
            assert ":" not in path

    async def _answer(self, connection: int, stream: int) -> Response:
        while (connection, stream) not in self.early:
            reader = self.streams[connection][0]
            size, got, _, _ = HEADER.unpack(await asyncio.wait_for(reader.readexactly(HEADER.size), 10))
            self.early[connection, got] = Response.FromString(await reader.readexactly(size))
        return self.early.pop((connection, stream))


@pytest.fixture
def any_namespace(node, monkeypatch):
    """The recorded namespaces exist, and the recorded instance type is one of the cloud's."""

    async def types() -> list[InstanceType]:
        return [InstanceType(name="t3.large", vcpus=2, memory_mib=8192)]

    monkeypatch.setattr(node.cloud, "instance_types", types)
    inspect = node.kernel.inspect

    async def found(netns: str) -> object:
        return await inspect(node.netns)

    monkeypatch.setattr(node.kernel, "inspect", found)


@pytest.fixture(params=["node", "relay"])
def entrance(request, node) -> Iterator[Path]:
    """The socket that the shim dials."""
    if request.param == "node":
        yield Path(node.socket)
        return
    run = node.folder / "run"
    run.mkdir(mode=0o700)
    (run / "node.sock").symlink_to(node.socket)
    hypervisor = run / "hypervisor.sock"
    argv = launch.command(
        hypervisor_socket=str(hypervisor),
        pods_dir=str(node.folder / "relay-pods"),
        run_dir=str(run),
        state_dir=str(node.folder / "relay-state"),
    )
    process = subprocess.Popen(argv)
    end = time.monotonic() + 10
    while not hypervisor.exists() and time.monotonic() < end:
        time.sleep(0.01)
    yield hypervisor
    process.terminate()
    assert process.wait(10) == 0


def _inject(name: str, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the recording's driver had made."""

    async def broken(*_: object, **__: object) -> None:
        raise (NetworkError if name.startswith("createvm") else CapacityError)("injected")

    if name.startswith("createvm-error"):
        monkeypatch.setattr(node.kernel, "inspect", broken)
    elif name.startswith("startvm-error"):
        monkeypatch.setattr(node.cloud, "create", broken)
    elif "run-cancel-during-createvm" in name:
        monkeypatch.setattr(node.kernel, "inspect", _never)
    elif "run-cancel-during-startvm" in name:
        node.cloud.hold = asyncio.Event()


async def _never(netns: str) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_conversation(name, node, entrance, any_namespace, monkeypatch):
    recording = traces.read(TRACES / f"{name}.jsonl")
    _inject(name, node, monkeypatch)
    await Player(entrance).play(recording)
    sent = [frame.method for frame in traces.frames(recording, "hypervisor") if frame.to_agent]
    if "StopVM" in sent or "run-cancel" in name or name.startswith("createvm"):
        async with asyncio.timeout(10):
            while not await node.empty():  # noqa: ASYNC110  # the server learns of a closed connection when it does
                await asyncio.sleep(0.01)
    else:  # a killed shim says nothing: `abandonment` is told by the closed agent connection
        assert len(node.cloud.living) == 1
