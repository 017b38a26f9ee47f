"""Real processes for the data path: certificates, an agent that echoes, the forwarder, the relay, a shim."""

import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podvm import forwarder
from tests.fakes.datapath.authority import Authority, Certificates
from tests.fakes.datapath.calls import Shim
from tests.fakes.datapath.peers import EchoAgent, Heir, SessionClient, StandInNode
from tests.fakes.datapath.processes import Guest, Opening, Process, Relay, free_port, listens, wait_until
from tests.fakes.datapath.proxy import CuttingProxy


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    return Certificates(Authority(folder, "ca"), Authority(folder, "other"))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short name: a socket's path holds 107 bytes."""
    path = Path(f"/tmp/dp-{os.getpid()}-{random.randrange(1 << 32):x}")
    path.mkdir(mode=0o755)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def start_relay(folder: Path) -> Iterator[Callable[..., Relay]]:
    relays: list[Relay] = []

    def start(*extra: str) -> Relay:
        relays.append(Relay(folder, extra))
        return relays[-1]

    yield start
    for relay in relays:
        if relay.process.child.poll() is None:
            relay.process.stop()
        assert "crashed" not in relay.process.text(), relay.process.text()


@pytest.fixture
def relay(start_relay: Callable[..., Relay]) -> Relay:
    return start_relay()


@pytest.fixture
def agent(folder: Path) -> Iterator[EchoAgent]:
    agent = EchoAgent(folder / "agent.sock")
    yield agent
    agent.stop()


@pytest.fixture
def start_guest(folder: Path, certificates: Certificates) -> Iterator[Callable[..., Guest]]:
    """Starts a forwarder in front of an agent; further arguments are its flags."""
    guests: list[Guest] = []

    def start(
        agent: Path,
        *flags: str,
        host: str = "127.0.0.1",
        port: int = 0,
        server: tuple[Path, Path] | None = None,
    ) -> Guest:
        port = port or free_port(socket.AF_INET6 if ":" in host else socket.AF_INET)
        cert, key = server or certificates.server
        tls = ["-ca-cert-file", str(certificates.ca.file), "-cert-file", str(cert), "-cert-key", str(key)]
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        argv = forwarder.command("-kata-agent-socket", str(agent), "-listen", listen, "-niceness", "0", *tls, *flags)
        process = Process(argv, folder / f"forwarder-{len(guests)}.log")
        opening = Opening(port, certificates.ca.file, certificates.client, addresses=(host,))
        guests.append(Guest(process, port, opening))
        wait_until(lambda: listens(port, host) or process.child.poll() is not None, "the forwarder")
        return guests[-1]

    yield start
    for guest in guests:
        if guest.process.child.poll() is None:
            guest.process.stop()
        assert "crashed" not in guest.process.text(), guest.process.text()


@pytest.fixture
def guest(start_guest: Callable[..., Guest], agent: EchoAgent) -> Guest:
    return start_guest(agent.path)


@pytest.fixture
def shim() -> Iterator[Callable[[Path], Shim]]:
    """Connects to a socket."""
    shims: list[Shim] = []

    def connect(path: Path) -> Shim:
        shims.append(Shim(path))
        return shims[-1]

    yield connect
    for one in shims:
        one.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition."""
    return wait_until


@pytest.fixture
def launch_process(folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts any process; ends it after the test."""
    processes: list[Process] = []

    def start(argv: list[str]) -> Process:
        processes.append(Process(argv, folder / f"process-{len(processes)}.log"))
        return processes[-1]

    yield start
    for process in processes:
        if process.child.poll() is None:
            process.stop()


@pytest.fixture
def make_agent(folder: Path) -> Iterator[Callable[..., EchoAgent]]:
    """Agents beside the usual one."""
    agents: list[EchoAgent] = []

    def make(name: str, *, fragments: bool = False, seed: int = 0) -> EchoAgent:
        agents.append(EchoAgent(folder / name, seed=seed, fragments=fragments))
        return agents[-1]

    yield make
    for one in agents:
        one.stop()


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., CuttingProxy]]:
    """Starts a proxy in front of a port."""
    proxies: list[CuttingProxy] = []

    def start(dest: int, chance: random.Random | None = None) -> CuttingProxy:
        proxies.append(CuttingProxy(dest, chance))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.stop()


@pytest.fixture
def session_client(guest: Guest, certificates: Certificates) -> Iterator[Callable[..., SessionClient]]:
    clients: list[SessionClient] = []

    def connect(client: tuple[Path, Path], identity: bytes = b"", secret: bytes = b"") -> SessionClient:
        named = identity or os.urandom(16), secret or os.urandom(32)
        clients.append(SessionClient(guest.port, certificates.ca.file, client, *named))
        return clients[-1]

    yield connect
    for one in clients:
        one.sock.close()


@pytest.fixture
def launch_node() -> Iterator[Callable[[Relay], StandInNode]]:
    """Puts a stand-in for the node beside a relay."""
    nodes: list[StandInNode] = []

    def start(relay: Relay) -> StandInNode:
        nodes.append(StandInNode(relay.run / "node.sock"))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


@pytest.fixture
def heir() -> Iterator[Callable[[Relay], Heir]]:
    """A successor in the hands of the test."""
    heirs: list[Heir] = []

    def make(relay: Relay) -> Heir:
        heirs.append(Heir(relay))
        return heirs[-1]

    yield make
    for one in heirs:
        one.sock.close()
