"""A recorded conversation of a shim played again: on a living agent, or on a whole node from CreateVM to StopVM.

    played = await Replay(traces.read(path), connect).run()

`connect` makes one more connection for a side of the recording ("agent": to the agent, or to whatever leads there).
"""

import asyncio
import re
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from caa.testing.traces import Event, Frame, Side
from caa.wire.proto import agent, ttrpc

HEADER = struct.Struct(">IIBB")
TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    """What came back: status code, the first line of its text, the payload."""

    code: int
    text: str
    payload: bytes


class RawClient:
    """Frames as they are: deadlines that only travel, calls that are abandoned, connections that drop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._next = 1
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._pump = asyncio.create_task(self._receive())

    def send(self, service: str, method: str, *, payload: bytes, timeout_nano: int = 0) -> asyncio.Future[Answer]:
        envelope = ttrpc.Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano)
        body = envelope.SerializeToString()
        self._writer.write(HEADER.pack(len(body), self._next, 1, 0) + body)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._next] = answer
        self._next += 2
        return answer

    def start(self, method: str, request: Message, *, timeout: float = 0) -> asyncio.Future[Answer]:
        payload = request.SerializeToString()
        return self.send("grpc.AgentService", method, payload=payload, timeout_nano=int(timeout * 1e9))

    async def call(self, method: str, request: Message, *, timeout: float = 0) -> Answer:
        async with asyncio.timeout(TIMEOUT):
            return await self.start(method, request, timeout=timeout)

    async def close(self) -> None:
        self._writer.close()
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)

    async def ended(self) -> None:
        """Wait for the peer to close."""
        async with asyncio.timeout(TIMEOUT):
            await self._pump

    async def _receive(self) -> None:
        try:
            while True:
                length, stream, _, _ = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                response = ttrpc.Response.FromString(await self._reader.readexactly(length))
                text = response.status.message.split("\n")[0]
                self._answers[stream].set_result(Answer(response.status.code, text, response.payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._writer.close()


@dataclass
class Outcome:
    """Of one recorded call: the method, what was recorded and what the stand-in answered (None: nothing)."""

    request: Frame
    recorded: Answer | None
    ours: Answer | None


@dataclass
class Played:
    """A replayed recording: the calls that are no reads, and what the reads gave for each stream of a process."""

    outcomes: list[Outcome] = field(default_factory=list)
    recorded_output: dict[tuple[str, ...], bytes] = field(default_factory=lambda: defaultdict(bytes))
    output: dict[tuple[str, ...], bytes] = field(default_factory=lambda: defaultdict(bytes))
    read_errors: list[Outcome] = field(default_factory=list)
    terminals: set[str] = field(default_factory=set)


Connect = Callable[[Side], Awaitable[RawClient]]
Edit = Callable[[Frame], bytes | None]
READS = ("ReadStdout", "ReadStderr")


class Replay:
    """Plays the requests of a recording in order, each after the answers that came before it were given again.

    Calls of `direct` clients were made by the clock: they keep their distances, times `scale`; the sleeps of the
    containers and the deadlines shrink alike. Reads are compared as whole streams: chunks depend on the reader's luck.
    """

    def __init__(self, recording: list[Frame | Event], connect: Connect, *, scale: float = 1.0) -> None:
        self._recording = recording
        self._connect = connect
        self._scale = scale
        self._sides: frozenset[str] = frozenset({"agent", "direct"})
        self._payload: Callable[[Frame], bytes] = partial(_scaled, scale=scale)
        self._patience = TIMEOUT
        self._clients: dict[int, RawClient] = {}
        self._pending: dict[tuple[int, int], tuple[Frame, asyncio.Future[Answer]]] = {}
        self._reading: dict[tuple[str, ...], set[asyncio.Future[Answer]]] = defaultdict(set)
        self._began: float | None = None
        self._zero_ms = 0
        self.played = Played()

    @classmethod
    def whole(cls, recording: list[Frame | Event], connect: Connect, *, edit: Edit, patience: float) -> "Replay":
        """The calls to the hypervisor too, and every connection as it was opened and closed. `edit` gives the payload
        to send in place of the recorded one, None to leave it; an answer may take `patience` seconds."""
        made = cls(recording, connect)
        made._sides = frozenset({"hypervisor", "agent"})
        made._payload, made._patience = partial(_edited, edit=edit), patience
        return made

    async def run(self) -> Played:
        for entry in self._recording:
            if entry.side not in self._sides:
                continue
            if isinstance(entry, Event):
                await self._event(entry)
            elif entry.to_agent:
                await self._request(entry)
            else:
                await self._answer(entry)
        for frame, answer in self._pending.values():
            if not _is_read(frame):
                ours = answer.result() if answer.done() else None
                self.played.outcomes.append(Outcome(frame, None, ours))
        return self.played

    async def close(self) -> None:
        """Every connection that is open still."""
        for client in self._clients.values():
            await client.close()

    async def _event(self, entry: Event) -> None:
        whole = "hypervisor" in self._sides
        if entry.name == "open" and whole:
            await self._client(entry)
        elif entry.name == "close" and (whole or entry.side == "direct"):
            if not whole:
                await self._pace(entry)
            await self._clients[entry.connection].close()
            self._pending = {key: kept for key, kept in self._pending.items() if key[0] != entry.connection}

    async def _client(self, entry: Frame | Event) -> RawClient:
        if entry.connection not in self._clients:
            self._clients[entry.connection] = await self._connect(entry.side)
        return self._clients[entry.connection]

    async def _request(self, frame: Frame) -> None:
        if frame.side == "direct":
            await self._pace(frame)
        client = await self._client(frame)
        payload = self._payload(frame)
        self._note_terminal(frame)
        timeout = frame.timeout_nano if self._scale == 1 else min(int(frame.timeout_nano * self._scale), 2_000_000_000)
        answer = client.send(frame.service, frame.method, payload=payload, timeout_nano=timeout)
        self._pending[frame.connection, frame.stream] = (frame, answer)
        if _is_read(frame):
            self._follow(_stream_key(frame), answer)

    async def _answer(self, frame: Frame) -> None:
        request, answer = self._pending.pop((frame.connection, frame.stream))
        if _is_read(request) and frame.code == 0:
            await self._read_as_much(request, frame)
            return
        async with asyncio.timeout(self._patience):
            ours = await answer
        text = frame.status[1].split("\n")[0] if frame.status else ""
        recorded = Answer(frame.code, text, frame.payload)
        if _is_read(request):
            self.played.read_errors.append(Outcome(request, recorded, ours))
        else:
            self.played.outcomes.append(Outcome(request, recorded, ours))

    async def _read_as_much(self, request: Frame, answer: Frame) -> None:
        """Wait for as much output as was recorded until here; ask again where our chunks were smaller."""
        key = _stream_key(request)
        message = answer.message()
        assert isinstance(message, agent.ReadStreamResponse)
        self.played.recorded_output[key] += message.data
        async with asyncio.timeout(self._patience):
            while len(self.played.output[key]) < len(self.played.recorded_output[key]) and not self._loose(key):
                if not self._reading[key]:
                    client = self._clients[request.connection]
                    self._follow(key, client.send(request.service, request.method, payload=request.payload))
                await asyncio.wait(self._reading[key], return_when=asyncio.FIRST_COMPLETED)

    def _loose(self, key: tuple[str, ...]) -> bool:
        return key[1] in self.played.terminals

    def _follow(self, key: tuple[str, ...], read: asyncio.Future[Answer]) -> None:
        self._reading[key].add(read)
        read.add_done_callback(lambda done: self._collect(key, done))

    def _collect(self, key: tuple[str, ...], done: asyncio.Future[Answer]) -> None:
        self._reading[key].discard(done)
        if not done.cancelled():
            self.played.output[key] += agent.ReadStreamResponse.FromString(done.result().payload).data

    def _note_terminal(self, frame: Frame) -> None:
        if frame.method == "ExecProcess":
            request = frame.message()
            assert isinstance(request, agent.ExecProcessRequest)
            if request.process.Terminal:
                self.played.terminals.add(request.exec_id)

    async def _pace(self, entry: Frame | Event) -> None:
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began, self._zero_ms = loop.time(), entry.t_ms
        due = self._began + (entry.t_ms - self._zero_ms) / 1000 * self._scale
        await asyncio.sleep(max(0.0, due - loop.time()))


def _is_read(frame: Frame) -> bool:
    return frame.method in READS


def _stream_key(frame: Frame) -> tuple[str, ...]:
    request = frame.message()
    assert isinstance(request, agent.ReadStreamRequest)
    exec_id = "" if request.exec_id == request.container_id else request.exec_id
    return request.container_id, exec_id, frame.method


def _edited(frame: Frame, *, edit: Edit) -> bytes:
    payload = edit(frame)
    return _scaled(frame, scale=1.0) if payload is None else payload


def _scaled(frame: Frame, *, scale: float) -> bytes:
    if frame.cut:
        return frame.payload + b"x" * (frame.size - len(frame.payload))
    if frame.method not in ("CreateContainer", "ExecProcess") or scale == 1:
        return frame.payload
    request = frame.message()
    assert isinstance(request, agent.CreateContainerRequest | agent.ExecProcessRequest)
    process = request.OCI.Process if isinstance(request, agent.CreateContainerRequest) else request.process
    if len(process.Args) == 3:
        process.Args[2] = re.sub(r"sleep (\d+)", lambda found: f"sleep {int(found[1]) * scale:g}", process.Args[2])
    return request.SerializeToString()
