"""The stand-in agent in namespaces of its own, a raw ttrpc client, and the replay of recorded conversations."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caa.testing import traces
from caa.testing.agent.images import build_busybox_rootfs
from caa.testing.replay import Played, RawClient, Replay

ROOT = Path(__file__).resolve().parents[3]
TRACES = ROOT / "tests/data/traces"
DEFAULT_SOCKET = "/run/kata-containers/agent.sock"
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


PlayTrace = Callable[..., Awaitable[Played]]


@pytest.fixture
def play(start_agent: StartAgent, dial: Dial) -> PlayTrace:
    """Replay one recording on a fresh agent."""

    async def run(name: str, *, scale: float = 1.0) -> Played:
        running = start_agent()
        recording = traces.read(TRACES / f"{name}.jsonl")
        return await Replay(recording, lambda _side: dial(running), scale=scale).run()

    return run
