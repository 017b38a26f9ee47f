"""The stand-in agent in namespaces of its own, a raw ttrpc client, and the replay of recorded conversations."""

import asyncio
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.message import Message

from caa.testing import traces
from caa.testing.agent.images import build_busybox_rootfs
from caa.testing.traces import Event, Frame
from caa.wire.proto import agent, ttrpc

ROOT = Path(__file__).resolve().parents[3]
TRACES = ROOT / "tests/data/traces"
DEFAULT_SOCKET = "/run/kata-containers/agent.sock"
HEADER = struct.Struct(">IIBB")
TIMEOUT = 20.0


@dataclass
class Agent:
    """A running stand-in: its process (the namespace's first) and the socket as seen from here."""

    child: subprocess.Popen[bytes]
    pid: int
    socket: str

    def path(self, inside: str) -> Path:
        """A path of the agent's mount namespace."""
        return Path(f"/proc/{self.pid}/root{inside}")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    build_busybox_rootfs(folder / "busybox")
    (folder / "pause").symlink_to("busybox")
    return folder


StartAgent = Callable[..., Agent]


@pytest.fixture
def start_agent(tmp_path: Path, images: Path) -> Iterator[StartAgent]:
    """Start an agent; `socket` None is the real one's place, which only its own mount namespace sees."""
    running: list[Agent] = []

    def start(*flags: str, socket: str | None = str(tmp_path / "agent.sock")) -> Agent:
        parent = f"/caa-agent-test-{os.getpid()}"
        command = [sys.executable, "-m", "caa.testing.agent", "--images", str(images), "--cgroup-parent", parent]
        command += ["--server-addr", f"unix://{socket or DEFAULT_SOCKET}", *flags]
        script = f"mount -t tmpfs tmpfs /run && exec {shlex.join(command)}"
        namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        child = subprocess.Popen(["unshare", *namespaces, "sh", "-c", script], cwd=ROOT)
        pid = _only_child(child.pid)
        found = Agent(child, pid, socket or f"/proc/{pid}/root{DEFAULT_SOCKET}")
        running.append(found)
        _await(lambda: Path(found.socket).exists(), "the agent's socket")
        return found

    yield start
    for one in running:
        one.child.send_signal(signal.SIGKILL)
        one.child.wait()
        _await(_remove_cgroups, "the end of the containers' cgroups")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    _await(lambda: children.read_text().strip() != "", "the namespace's first process")
    return int(children.read_text().split()[0])


def _await(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + TIMEOUT
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)


def _remove_cgroups() -> bool:
    """A killed namespace dies after its first process; its cgroups stay busy as long."""
    try:
        for top in Path("/sys/fs/cgroup").glob(f"*/caa-agent-test-{os.getpid()}"):
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
    except OSError:
        return False
    return True


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

    def send(self, service: str, method: str, payload: bytes, *, timeout_nano: int = 0) -> asyncio.Future[Answer]:
        envelope = ttrpc.Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano)
        body = envelope.SerializeToString()
        self._writer.write(HEADER.pack(len(body), self._next, 1, 0) + body)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[self._next] = answer
        self._next += 2
        return answer

    def start(self, method: str, request: Message, *, timeout: float = 0) -> asyncio.Future[Answer]:
        payload = request.SerializeToString()
        return self.send("grpc.AgentService", method, payload, timeout_nano=int(timeout * 1e9))

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


Dial = Callable[[Agent], Awaitable[RawClient]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    clients: list[RawClient] = []

    async def connect(agent_: Agent) -> RawClient:
        client = RawClient(*await asyncio.open_unix_connection(agent_.socket))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


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


READS = ("ReadStdout", "ReadStderr")


class Replay:
    """Plays the requests of a recording in order, each after the answers that came before it were given again.

    Calls of `direct` clients were made by the clock: they keep their distances, times `scale`; the sleeps of the
    containers and the deadlines shrink alike. Reads are compared as whole streams: chunks depend on the reader's luck.
    """

    def __init__(
        self, recording: list[Frame | Event], connect: Callable[[], Awaitable[RawClient]], scale: float
    ) -> None:
        self._recording = recording
        self._connect = connect
        self._scale = scale
        self._clients: dict[int, RawClient] = {}
        self._pending: dict[tuple[int, int], tuple[Frame, asyncio.Future[Answer]]] = {}
        self._reading: dict[tuple[str, ...], set[asyncio.Future[Answer]]] = defaultdict(set)
        self._began: float | None = None
        self._zero_ms = 0
        self.played = Played()

    async def run(self) -> Played:
        for entry in self._recording:
            if entry.side not in ("agent", "direct"):
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

    async def _event(self, entry: Event) -> None:
        if entry.name == "close" and entry.side == "direct":
            await self._pace(entry)
            await self._clients[entry.connection].close()
            self._pending = {key: kept for key, kept in self._pending.items() if key[0] != entry.connection}

    async def _request(self, frame: Frame) -> None:
        if frame.side == "direct":
            await self._pace(frame)
        if frame.connection not in self._clients:
            self._clients[frame.connection] = await self._connect()
        payload = _scaled(frame, self._scale)
        self._note_terminal(frame)
        timeout = frame.timeout_nano if self._scale == 1 else min(int(frame.timeout_nano * self._scale), 2_000_000_000)
        client = self._clients[frame.connection]
        answer = client.send(frame.service, frame.method, payload, timeout_nano=timeout)
        self._pending[frame.connection, frame.stream] = (frame, answer)
        if _is_read(frame):
            self._follow(_stream_key(frame), answer)

    async def _answer(self, frame: Frame) -> None:
        request, answer = self._pending.pop((frame.connection, frame.stream))
        if _is_read(request) and frame.code == 0:
            await self._read_as_much(request, frame)
            return
        async with asyncio.timeout(TIMEOUT):
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
        async with asyncio.timeout(TIMEOUT):
            while len(self.played.output[key]) < len(self.played.recorded_output[key]) and not self._loose(key):
                if not self._reading[key]:
                    client = self._clients[request.connection]
                    self._follow(key, client.send(request.service, request.method, request.payload))
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


def _scaled(frame: Frame, scale: float) -> bytes:
    if frame.cut:
        return frame.payload + b"x" * (frame.size - len(frame.payload))
    if frame.method not in ("CreateContainer", "ExecProcess") or scale == 1:
        return frame.payload
    request = frame.message()
    process = request.OCI.Process if isinstance(request, agent.CreateContainerRequest) else request.process
    if len(process.Args) == 3:
        process.Args[2] = re.sub(r"sleep (\d+)", lambda found: f"sleep {int(found[1]) * scale:g}", process.Args[2])
    return request.SerializeToString()


PlayTrace = Callable[..., Awaitable[Played]]


@pytest.fixture
def play(start_agent: StartAgent, dial: Dial) -> PlayTrace:
    """Replay one recording on a fresh agent."""

    async def run(name: str, *, scale: float = 1.0) -> Played:
        running = start_agent()
        recording = traces.read(TRACES / f"{name}.jsonl")
        return await Replay(recording, lambda: dial(running), scale).run()

    return run
