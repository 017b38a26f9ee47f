"""Our hops as real processes, each with our other one or a Go end in its place; what starts here ends with its test."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from caa.relay import launch
from caa.wire.certs import ManualCertificates, NodeAuthority
from caa.wire.client import connect
from caa.wire.proto import relay as messages
from podvm import forwarder

SANDBOX = "interop"
INSTANCE = "podvm-interop-0123abcd"
LINKS = "caa.relay.v1.AgentLinks"
OURS = ("relay", "forwarder")
_PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class Pems:
    """What one end is given: the CA it verifies the other by, its certificate, its key."""

    ca: str
    cert: str
    key: str

    def flags(self) -> list[str]:
        """As the Go programs take them."""
        return ["-ca", self.ca, "-cert", self.cert, "-key", self.key]


@dataclass(frozen=True)
class Identities:
    """Both ends of a link, and the name by which the server is known."""

    name: str
    server: Pems
    client: Pems

    def without(self, *, server: Pems | None = None, client: Pems | None = None) -> "Identities":
        """The same with another end."""
        return replace(self, server=server or self.server, client=client or self.client)


def wait_until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited {_PATIENCE:g} s for {what}"
        time.sleep(0.01)


@dataclass
class Running:
    """A process with its output in a file; its input stays open until it is stopped."""

    name: str
    argv: Sequence[str]
    log: Path

    def __post_init__(self) -> None:
        with self.log.open("wb") as file:
            self.child = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=file, stderr=file, cwd="/")

    def text(self) -> str:
        return self.log.read_text()

    def lines(self, count: int) -> list[str]:
        """All lines, once there are at least `count`: what a peer sees and what is logged come in either order."""
        wait_until(lambda: len(self.text().splitlines()) >= count, f"{count} lines of {self.name}")
        return self.text().splitlines()

    def said(self, word: str) -> list[str]:
        """The lines that begin with a word."""
        return [line for line in self.text().splitlines() if line.startswith(word)]

    def ready(self, true: Callable[[], Any]) -> "Running":
        wait_until(lambda: true() or self.child.poll() is not None, self.name)
        assert self.child.poll() is None, self.text()
        return self

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def stop(self) -> None:
        """Ours end without a fault when they are told to."""
        if self.child.poll() is None and self.name in OURS:
            self.child.terminate()
            assert self.child.wait(10) == 0, self.text()
        self.child.communicate(timeout=10)  # ends the input, on which the Go programs end
        assert "crashed" not in self.text(), self.text()


Start = Callable[[str, Sequence[str]], Running]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as running:

        def started(name: str, argv: Sequence[str]) -> Running:
            made = Running(name, argv, folder / f"{name}-{time.monotonic_ns()}.log")
            running.callback(made.stop)
            return made

        yield started


# certificates


@pytest.fixture
def node_made(folder: Path) -> Callable[[str], Identities]:
    """As our node makes them; the argument is the name of its state folder, thus of its CA."""

    def made(state: str) -> Identities:
        authority = NodeAuthority.load_or_create(folder / state)
        identity = authority.server_identity(INSTANCE)
        paths = [folder / f"{state}-server.{kind}" for kind in ("ca", "crt", "key")]
        for path, text in zip(paths, (identity.client_ca, identity.cert, identity.key), strict=True):
            path.write_text(text)
        files = authority.client_files()
        client = Pems(files.ca_file, files.cert_file, files.key_file)
        return Identities(authority.server_name(INSTANCE), Pems(*map(str, paths)), client)

    return made


@pytest.fixture
def of_go(go_programs: Path, folder: Path) -> Callable[..., Path]:
    """The folder where `go/certs` has written."""

    def made(style: str, name: str) -> Path:
        made = folder / style
        made.mkdir()
        subprocess.run([go_programs / "certs", "-folder", made, "-style", style, "-name", name], check=True)
        return made

    return made


@pytest.fixture
def node(node_made: Callable[[str], Identities]) -> Identities:
    """The node's own CA, which is what a node has that was told nothing."""
    return node_made("state")


@pytest.fixture
def manual(of_go: Callable[..., Path], folder: Path) -> Identities:
    """An operator's files; the image has the server's, and the node hands it its CA only."""
    made = of_go("operator", "podvm-server")
    ours = ManualCertificates.load(made / "ca.pem", made / "client.pem", key_file=made / "client.key")
    (folder / "handed.ca").write_text(ours.server_identity(INSTANCE).client_ca)
    files = ours.client_files()
    return Identities(
        ours.server_name(INSTANCE),
        Pems(str(folder / "handed.ca"), str(made / "server.pem"), str(made / "server.key")),
        Pems(files.ca_file, files.cert_file, files.key_file),
    )


@pytest.fixture
def reference(of_go: Callable[..., Path]) -> Identities:
    """The reference's own: its client's certificate is the CA that the forwarder is given."""
    made = {path.name: str(path) for path in of_go("reference", INSTANCE).iterdir()}
    return Identities(
        INSTANCE,
        Pems(made["client.pem"], made["server.pem"], made["server.key"]),
        Pems(made["ca.pem"], made["client.pem"], made["client.key"]),
    )


@pytest.fixture
def identities(request: pytest.FixtureRequest) -> Identities:
    """By name of one of the three fixtures above, with indirect parameters."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


# ends


@pytest.fixture
def go_agent(go_programs: Path, folder: Path, start: Start) -> Running:
    """containerd's server on a unix socket."""
    agent = start("agent", [str(go_programs / "server"), "-socket", str(folder / "agent.sock")])
    return agent.ready(lambda: agent.said("ready"))


@dataclass
class Listening:
    """A forwarder, Go's or ours."""

    process: Running
    port: int


@pytest.fixture
def go_forwarder(go_programs: Path, start: Start) -> Callable[..., Listening]:
    """containerd's server behind Go's TLS."""

    def started(identities: Identities, *flags: str) -> Listening:
        argv = [str(go_programs / "server"), "-listen", "127.0.0.1:0", *identities.server.flags(), *flags]
        server = start("go-forwarder", argv)
        server.ready(lambda: server.said("ready"))
        return Listening(server, int(server.said("ready")[0].rpartition(":")[2]))

    return started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def our_forwarder(go_agent: Running, folder: Path, start: Start) -> Callable[..., Listening]:
    """Ours before the Go agent, in a mount namespace with its own /run, where it makes the sources of bind mounts."""

    def started(identities: Identities, *flags: str) -> Listening:
        port, server = _free_port(), identities.server
        argv = forwarder.command(
            f"-kata-agent-socket={folder / 'agent.sock'}", f"-listen=127.0.0.1:{port}", "-niceness=0",
            f"-ca-cert-file={server.ca}", f"-cert-file={server.cert}", f"-cert-key={server.key}",
            f"-notify-socket={folder / 'notify'}", *flags,
        )  # fmt: skip
        script = 'mount -t tmpfs tmpfs /run && exec "$@"'
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(folder / "notify"))
            notified.settimeout(_PATIENCE)
            process = start("forwarder", ["unshare", "--mount", "--", "sh", "-c", script, "sh", *argv])
            assert notified.recv(100) == b"READY=1"
        (folder / "notify").unlink()
        return Listening(process, port)

    return started


@dataclass
class Relay:
    """Our relay; `socket` is the shim's once a link is open."""

    process: Running
    folder: Path
    socket: Path = field(init=False)

    def __post_init__(self) -> None:
        self.socket = self.folder / "pods" / SANDBOX / "agent.ttrpc"

    def open(self, port: int, identities: Identities, **profile: Any) -> None:
        client = identities.client
        request = messages.OpenRequest(
            sandbox_id=SANDBOX, addresses=["127.0.0.1"], port=port, server_name=identities.name,
            ca_file=client.ca, cert_file=client.cert, key_file=client.key, **profile,
        )  # fmt: skip
        asyncio.run(self._ask("Open", request))

    def shims(self) -> list[tuple[bool, int]]:
        """Each link: whether it is connected, and the shim's connections."""
        answer = asyncio.run(self._ask("List", messages.ListRequest()))
        return [(link.connected, link.shims) for link in answer.links]

    async def _ask(self, method: str, request: Any) -> Any:
        client = await connect(str(self.folder / "run" / "relay.sock"))
        try:
            return await client.call(f"{LINKS}/{method}", request, timeout=_PATIENCE)
        finally:
            await client.close()


@pytest.fixture
def relay(folder: Path, start: Start) -> Relay:
    argv = launch.command(
        hypervisor_socket=str(folder / "hypervisor.sock"), pods_dir=str(folder / "pods"),
        run_dir=str(folder / "run"), state_dir=str(folder / "relay-state"), extra=("--niceness", "0"),
    )  # fmt: skip
    process = start("relay", argv)
    process.ready((folder / "run" / "relay.sock").exists)
    return Relay(process, folder)


# the Go client


@dataclass(frozen=True)
class Player:
    """The Go client: where it goes is in its flags."""

    program: str

    def plays(self, cases: str, *where: str) -> list[str]:
        """The lines it prints, without those of the TLS; it fails by what it complains of."""
        return [line for line in self.lines(cases, *where) if not line.startswith("tls ")]

    def lines(self, cases: str, *where: str) -> list[str]:
        with self.begins(cases, *where) as client:
            said, complaint = client.communicate(timeout=90)
        assert client.returncode == 0, complaint
        return said.splitlines()

    def complains(self, *where: str) -> str:
        """What it says when even a health check does not work."""
        with self.begins("check", *where) as client:
            said, complaint = client.communicate(timeout=90)
        assert client.returncode == 1, said
        return complaint

    def begins(self, cases: str, *where: str) -> "subprocess.Popen[str]":
        argv = [self.program, "-case", cases, *where]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def go_client(go_programs: Path) -> Player:
    return Player(str(go_programs / "client"))


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition."""
    return wait_until
